"""The table of named streams."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from streamlift.clock import Clock
from streamlift.errors import NoCapacity, NotReady, ShuttingDown, StreamTaken, UnknownStream
from streamlift.frames import BackendInfo, BackendState, Codec
from streamlift.metrics import Metrics
from streamlift.routing.backends import BackendTable
from streamlift.routing.broadcast import Cursor
from streamlift.routing.comparison import Comparison
from streamlift.routing.events import EventKind, EventLog
from streamlift.routing.policy import Policy, choose
from streamlift.routing.ports import Publisher
from streamlift.routing.settings import StreamSettings, View
from streamlift.routing.status import StreamSnapshot
from streamlift.routing.stream import Slate, Stream
from streamlift.routing.transition import SwitchMode
from streamlift.tasks import supervise

__all__ = ["Router"]

WATCH_S = 0.5


class Router:
    """Opens a stream at its first publisher and forgets it when it ends.

    `tasks` is the application's TaskGroup; each stream is one supervised task in it, so that no
    stream can end the group. `policy` is the one that new streams start with: `fixed` means
    `default_backend`.
    `slate` makes the still picture for viewers of a stream whose publisher is gone.
    """

    def __init__(
        self,
        table: BackendTable,
        default_backend: str,
        *,
        clock: Clock,
        metrics: Metrics,
        tasks: asyncio.TaskGroup,
        settings: StreamSettings,
        policy: Policy = Policy.FIXED,
        events: EventLog | None = None,
        slate: Slate | None = None,
    ) -> None:
        self.table = table
        self._default_backend = default_backend
        self._clock = clock
        self._metrics = metrics
        self._tasks = tasks
        self._settings = settings
        self._policy = policy
        self._slate = slate
        self._watcher: asyncio.Task[None] | None = None
        self.events = events or EventLog()
        self._streams: dict[str, Stream] = {}
        self._owners: dict[str, asyncio.Task[None]] = {}
        self._closing = False

    def backends(self) -> tuple[BackendInfo, ...]:
        """All backends as they are now; one that failed repeatedly is `quarantined`."""
        return self.table.infos()

    def streams(self) -> tuple[StreamSnapshot, ...]:
        """All open streams, by name."""
        return tuple(stream.snapshot() for _, stream in sorted(self._streams.items()))

    def stream(self, name: str) -> Stream:
        """Raises UnknownStream."""
        try:
            return self._streams[name]
        except KeyError:
            raise UnknownStream(
                f"no stream named {name!r}; publish to it first",
                found=name,
                expected=sorted(self._streams),
            ) from None

    def admit(self, name: str) -> None:
        """Check, before a publisher's offer is answered, that it would be taken.

        Raises StreamTaken, NoCapacity or NotReady.
        """
        stream = self._streams.get(name)
        if stream is not None and stream.publisher is not None:
            if not stream.settings.takeover:
                raise StreamTaken(f"stream {name} already has a publisher", found=name)
            return  # takes over the slot, too
        if self._policy is Policy.FIXED:
            try:
                self.table.must_be_free(self._default_backend)
            except NotReady:
                if self.table.fallback is None:
                    raise
                self.table.must_be_free(self.table.fallback)  # until the other is ready
        elif choose(self._policy, self.table.as_free(), None) is None:
            raise NoCapacity("no backend is ready with a free slot; retry later")

    async def publish(self, name: str, publisher: Publisher, *, lasting: bool = False) -> None:
        """Run until this publisher is done; call it in the publisher session's own task.

        A `lasting` one keeps the stream open for as long as it stays, pictures or none. Raises
        StreamTaken, NoCapacity, NotReady, or whatever the publisher's iteration raises.
        """
        stream = self._streams.get(name)
        while stream is not None and stream.ending:
            await asyncio.wait([self._owners[name]])  # a few seconds; then the name is free
            stream = self._streams.get(name)
        if self._closing:
            raise ShuttingDown("the service is shutting down; publish elsewhere or later")
        if stream is None:
            stream = self._open(name)
        await stream.publish(publisher, lasting=lasting)

    def watch(
        self,
        name: str,
        view: View = View.UPSCALED,
        codec: Codec | None = None,
        *,
        thin: bool = False,
    ) -> Cursor:
        """A viewer's cursor. Raises UnknownStream."""
        return self.stream(name).watch(view, codec, thin=thin)

    @asynccontextmanager
    async def compare(self, name: str, backend: str) -> AsyncIterator[Comparison]:
        """Hold another backend's picture of a stream against its own, while in the block.

        Raises UnknownStream, UnknownBackend, NotReady or NoCapacity.
        """
        comparisons = self.stream(name).comparisons
        comparison = await comparisons.join(backend)
        try:
            yield comparison
        finally:
            comparisons.leave(comparison)

    async def switch(
        self,
        name: str,
        backend: str | None = None,
        *,
        policy: Policy | None = None,
        mode: SwitchMode | None = None,
    ) -> StreamSnapshot:
        """Move a stream to a backend, or let a policy choose it; give exactly one of the two.

        Returns at once, usually in state `switching`; the events tell how it went. Raises
        UnknownStream, UnknownBackend, NotReady or NoCapacity.
        """
        stream = self.stream(name)
        if policy is not None and policy is not Policy.FIXED:
            stream.set_policy(policy, mode=mode)
        else:
            target = backend or stream.backend
            if target != stream.backend:
                self.table.must_be_free(target, name)
            stream.switch(target, mode=mode)
        return stream.snapshot()

    async def close(self, name: str, reason: str = "closed by request") -> None:
        """End a stream, its publisher and its viewers. Raises UnknownStream."""
        stream = self.stream(name)
        await stream.close(reason)
        await asyncio.wait([self._owners[name]])

    async def aclose(self) -> None:
        """Drain and end all streams; for shutting down."""
        self._closing = True
        if self._watcher is not None:
            self._watcher.cancel()
        owners = list(self._owners.values())
        for stream in list(self._streams.values()):
            await stream.close("service is shutting down")
        if owners:
            await asyncio.wait(owners)
        self.events.close()

    def _open(self, name: str) -> Stream:
        stream = Stream(
            name,
            self.table,
            self._default_backend,
            clock=self._clock,
            metrics=self._metrics,
            settings=self._settings,
            events=self.events,
            policy=self._policy,
            slate=self._slate,
        )
        self._streams[name] = stream
        if self._watcher is None:
            self._watcher = self._tasks.create_task(self._watch_backends())
        self._owners[name] = self._tasks.create_task(self._own(stream))
        return stream

    async def _own(self, stream: Stream) -> None:
        try:
            await supervise(f"stream {stream.name}", stream.run())
        finally:
            del self._streams[stream.name], self._owners[stream.name]

    async def _watch_backends(self) -> None:
        while True:
            self.table.watch(self._tell_backend)
            await asyncio.sleep(WATCH_S)

    def _tell_backend(self, before: BackendState, info: BackendInfo) -> None:
        self.events.add(
            EventKind.BACKEND_STATE,
            before=before,
            after=info.state,
            reason=f"{info.name}: {info.reason}",
        )
