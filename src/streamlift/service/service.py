"""What the HTTP handlers work on; `app` fills it when the service starts."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from streamlift.clock import Clock
from streamlift.config import Config
from streamlift.media.outgoing.packetizer import Packetizer
from streamlift.media.rtc.audio import AudioRelays
from streamlift.metrics import Metrics
from streamlift.routing import EventLog, Router
from streamlift.service.outputs import Outputs
from streamlift.service.pulls import Pulls
from streamlift.service.sessions import Sessions

__all__ = ["Service"]


@dataclass(slots=True)
class Service:
    """The running parts. `tasks` owns every session's task; its children never raise."""

    config: Config
    clock: Clock
    metrics: Metrics
    router: Router
    sessions: Sessions
    packetizer: Packetizer
    tasks: asyncio.TaskGroup
    events: EventLog
    pulls: Pulls
    outputs: Outputs
    audio: AudioRelays = field(default_factory=AudioRelays)
    unix_s: Callable[[], float] = time.time
    """Wall time, for what other machines must agree on: the expiry of TURN credentials."""
    draining: bool = False

    def drain(self) -> None:
        """Take nothing new, and let those who follow the events go; streams end later."""
        self.draining = True
        self.events.close()
