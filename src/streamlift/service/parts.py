"""The running parts that every life in the service works with; `app` puts them together."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from streamlift.clock import Clock
from streamlift.config import Config, IceConfig
from streamlift.media.outgoing.packetizer import Packetizer
from streamlift.media.rtc.audio import AudioFeed, AudioRelays
from streamlift.media.rtc.turn import ice_servers
from streamlift.metrics import Metrics
from streamlift.routing import EventLog, Router

__all__ = ["Parts"]


@dataclass(slots=True, kw_only=True)
class Parts:
    """`tasks` owns the task of every session, pull and output; its children never raise."""

    config: Config
    clock: Clock
    metrics: Metrics
    router: Router
    events: EventLog
    packetizer: Packetizer
    tasks: asyncio.TaskGroup
    audio: AudioRelays = field(default_factory=AudioRelays)
    unix_s: Callable[[], float] = time.time
    """Wall time, for what other machines must agree on: the expiry of TURN credentials."""

    def ice_now(self) -> IceConfig:
        """The ICE settings with TURN credentials that are valid from now on."""
        ice = self.config.ice
        return dataclasses.replace(ice, servers=ice_servers(ice, self.unix_s()))

    def has_sound(self, stream: str) -> bool:
        """Whether the stream has Opus at this moment. Raises UnknownStream."""
        publisher = self.router.stream(stream).publisher
        return publisher is not None and publisher.audio is not None

    @contextmanager
    def listening(self, stream: str) -> Iterator[AudioFeed]:
        """A viewer's place at the stream's sound, from now on."""
        with self.audio.use(stream) as relay, relay.listen() as sound:
            yield sound
