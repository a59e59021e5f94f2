"""What the router is told about every stream; `app` fills it from the configuration."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from streamlift.frames import Rendition, Stabilise

__all__ = ["Idle", "StreamSettings", "View"]


class Idle(StrEnum):
    """What a stream without viewers does."""

    RUN = "run"
    PAUSE = "pause"


class View(StrEnum):
    """What a viewer sees: the upscaled picture, or the publisher's own in step with it."""

    UPSCALED = "upscaled"
    SOURCE = "source"


@dataclass(frozen=True, slots=True)
class StreamSettings:
    """One stream's settings. `rendition` is the one that is always encoded.

    `stabilise`: None leaves it to the backend.
    `takeover`: a second publisher replaces the first one instead of being refused.
    `waiting_s`: how long a stream without publisher, or with a silent one, keeps its viewers.
    `idle_after_s`: how long a stream without viewers goes on before `idle` takes effect.
    `max_age_s`: how long a picture may wait in all queues together once it is due.
    `parked_s`: how long a paused one then keeps its slot on the backend, for a viewer to come back.
    """

    rendition: Rendition
    stabilise: Stabilise | None = None
    idle: Idle = Idle.RUN
    idle_after_s: float = 5.0
    parked_s: float = 10.0
    takeover: bool = True
    waiting_s: float = 60.0
    drain_s: float = 2.0
    max_age_s: float = 0.5
