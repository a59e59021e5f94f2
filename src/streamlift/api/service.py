"""What the HTTP handlers work on; `app` fills it when the service starts."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from fastapi import Request

from streamlift.clock import Clock
from streamlift.config import Config
from streamlift.media import AudioRelays, Packetizer, Sessions
from streamlift.media.outputs import Outputs
from streamlift.media.pulls import Pulls
from streamlift.metrics import Metrics
from streamlift.routing import EventLog, Router

__all__ = ["Service", "service_of"]


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


async def service_of(request: Request) -> Service:
    """FastAPI dependency: the running service. Async, or each request would take a thread."""
    service = request.app.state.service
    assert isinstance(service, Service)
    return service
