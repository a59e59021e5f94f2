"""What the service does, without HTTP: publish, watch, pull, push, record, drain."""

from __future__ import annotations

import asyncio
import errno
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, AsyncExitStack, contextmanager
from dataclasses import dataclass

from streamlift.config import AuthConfig, IceConfig
from streamlift.errors import (
    ConfigError,
    IceRestart,
    NoSource,
    NothingPublished,
    NotReady,
    Overloaded,
    ShuttingDown,
    StreamliftError,
    UnknownStream,
    UnsupportedOffer,
)
from streamlift.frames import Codec
from streamlift.media.incoming.whip_publisher import WhipPublisher
from streamlift.media.outgoing.whep_viewer import WhepViewer
from streamlift.media.remote.pull import PullPublisher, PullState, Source
from streamlift.media.rtc.sdp import Role, read_fragment, read_offer
from streamlift.routing import Comparison, Cursor, EventKind, StreamState, View
from streamlift.service.callers import Caller, Guesses
from streamlift.service.downloads import Downloads
from streamlift.service.files import FileJob, FileJobs, Wanted
from streamlift.service.followers import Followers
from streamlift.service.grants import Grant, Grants
from streamlift.service.outputs import Output, Outputs, Push, Recorder, run_output
from streamlift.service.parts import Parts
from streamlift.service.pulls import Pulls, run_pull
from streamlift.service.pushes import PushOrder
from streamlift.service.sessions import Session, Sessions, run_publisher, run_viewer
from streamlift.service.snapshots import Snapshots
from streamlift.tasks import supervise

__all__ = ["Answered", "Compare", "Service"]

logger = logging.getLogger(__name__)

_START_S = 5.0
"""How long a pulled stream may take to get its place; that needs no network."""
_LOOK_AGAIN_S = 1.0
_NO_DESCRIPTOR = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


@dataclass(frozen=True, slots=True)
class Answered:
    """What a peer gets for its offer. `ice` holds the servers that it may use."""

    session: Session
    sdp: str
    ice: IceConfig


@dataclass(frozen=True, slots=True)
class Compare:
    """Another backend that a viewer wants to see, and by what right."""

    backend: str
    grant: Grant


@dataclass(slots=True, kw_only=True)
class Service(Parts):
    """The parts, the tables of what lives here, and what can be asked of them."""

    sessions: Sessions
    pulls: Pulls
    outputs: Outputs
    snapshots: Snapshots
    grants: Grants
    guesses: Guesses
    followers: Followers
    downloads: Downloads
    files: FileJobs
    draining: bool = False
    no_new_workers: Callable[[], str] = str
    """What is in the way of new workers; empty when nothing is, or nobody looks for any."""

    async def publish(self, stream: str, sdp: str, caller: Caller) -> Answered:
        """Answer a publisher's offer; its session then runs by itself.

        Raises ShuttingDown, NotReady, MediaError, StreamTaken, NoCapacity, TooMany or Overloaded.
        """
        self._must_take_more()
        with _telling_of_refusals(Role.PUBLISH, stream):
            offer = read_offer(sdp, Role.PUBLISH)
        self.router.admit(stream)
        ice = self.ice_now()
        with (
            self.sessions.answering(Role.PUBLISH, stream, caller),
            _telling_of_refusals(Role.PUBLISH, stream),
            _descriptors(),
        ):
            publisher = WhipPublisher(
                stream,
                ice,
                ingest=self.config.ingest,
                clock=self.clock,
                metrics=self.metrics,
            )
            answer = await publisher.answer(offer)
        session = self.sessions.open(Role.PUBLISH, stream, publisher, caller, offer.ice_ufrag)
        self.metrics.count("sessions_total", role="publisher", result="answered")
        life = run_publisher(self, self.sessions, session, publisher)
        self._live(f"publisher of stream {stream}", life)
        return Answered(session, answer, ice)

    async def watch(
        self,
        stream: str,
        sdp: str,
        caller: Caller,
        view: View = View.UPSCALED,
        compare: Compare | None = None,
    ) -> Answered:
        """Answer a viewer's offer; its session then runs by itself.

        Raises ShuttingDown, MediaError, NothingPublished, NoSource, TooMany or Overloaded; to
        `compare` also UnknownBackend, NotReady or NoCapacity.
        """
        self._must_take_more()
        with _telling_of_refusals(Role.VIEW, stream):
            offer = read_offer(sdp, Role.VIEW)
        codecs = self._codecs_of(stream, view)
        ice = self.ice_now()
        async with AsyncExitStack() as held:
            with (
                self.sessions.answering(Role.VIEW, stream, caller),
                _telling_of_refusals(Role.VIEW, stream),
                _descriptors(),
            ):
                compared = None
                if compare is not None:
                    place = self.router.compare(stream, compare.backend)
                    compared = await held.enter_async_context(place)
                viewer = WhepViewer(
                    stream,
                    ice,
                    self.packetizer,
                    clock=self.clock,
                    metrics=self.metrics,
                    why_over=lambda: _why_over(compared),
                )
                answer = await viewer.answer(offer, codecs, sound=self.has_sound(stream))
            session = self.sessions.open(Role.VIEW, stream, viewer, caller, offer.ice_ufrag)
            session.also = None if compare is None else compare.grant
            holding = held.pop_all()
        self.metrics.count("sessions_total", role="viewer", result="answered")

        def open_frames(slow: bool) -> AbstractContextManager[Cursor]:
            if compared is not None:
                return compared.watch(viewer.codec, thin=slow)
            if view is View.SOURCE:
                return self.router.watch(stream, view)  # as the publisher sends it, for every link
            return self.router.watch(stream, view, viewer.codec, thin=slow)

        life = _within(holding, run_viewer(self, self.sessions, session, viewer, open_frames))
        self._live(f"viewer of stream {stream}", life)
        return Answered(session, answer, ice)

    def publishes(self, stream: str) -> bool:
        """Whether somebody publishes this stream here now."""
        try:
            return self.router.stream(stream).publisher is not None
        except UnknownStream:
            return False

    async def trickle(self, session: Session, fragment_sdp: str) -> None:
        """Add the ICE candidates of a fragment (RFC 8840).

        Raises MediaError; IceRestart when it is of another ICE session: this one goes on.
        """
        fragment = read_fragment(fragment_sdp)
        if fragment.ice_ufrag is not None and fragment.ice_ufrag != session.ice_ufrag:
            raise IceRestart(
                "the session goes on as it is; to reconnect, delete it and post a new offer",
                found="another ice-ufrag",
                expected="the offer's ice-ufrag, or none",
            )
        await session.peer.add_candidates(fragment.candidates)

    async def end(self, session: Session, reason: str) -> None:
        """End a session; its name is free at once."""
        await session.peer.aclose(reason)
        self.sessions.remove(session)

    async def pull(self, stream: str, source: Source) -> PullPublisher:
        """Fetch a stream from a source of `pulls`, until the stream or the source ends for good.

        Raises ShuttingDown, NotReady, StreamTaken, NoCapacity or Overloaded.
        """
        self._must_take_more()
        self.router.admit(stream)
        pull = self.pulls.add(stream, source)
        self._live(f"source of stream {stream}", run_pull(self, self.pulls, pull))
        async with asyncio.timeout(_START_S):
            await pull.seated.wait()
        if pull.status.state is PullState.FAILED:
            raise NotReady(f"stream {stream} cannot be pulled: {pull.status.reason}")
        return pull

    def push(self, stream: str, order: PushOrder) -> Output:
        """Send a stream somewhere else too, until the output or the stream ends.

        Raises ShuttingDown, UnknownStream, ConfigError when that is not allowed, or Overloaded.
        """
        self._must_take_more()
        self.router.stream(stream)
        return self._start(
            self.outputs.push(stream, order, ice=self.ice_now(), metrics=self.metrics)
        )

    def record(self, stream: str) -> Output:
        """Record a stream until the output or the stream ends; only where `outputs.saves`.

        Raises ShuttingDown, UnknownStream or Overloaded.
        """
        self._must_take_more()
        self.router.stream(stream)
        return self._start(self.outputs.record(stream))

    async def fetch_weights(self, backend: str) -> None:
        """Begin to fetch what a backend lacks. Raises ShuttingDown, or as `Downloads.start`."""
        self._must_take_more()
        await self.downloads.start(backend)

    async def take_file(
        self, name: str, wanted: Wanted, chunks: AsyncIterator[bytes], length: int | None
    ) -> FileJob:
        """Take an uploaded file. Raises ShuttingDown, or as `FileJobs.take`."""
        self._must_take_more()
        return await self.files.take(name, wanted, chunks, length)

    async def attend_outputs(self) -> None:
        """Start the configured pushes and recordings of every stream that comes; never ends."""
        with self.events.subscribe() as events:
            async for event in events:
                if event.kind is EventKind.STREAM_STATE and event.after == StreamState.LIVE:
                    try:
                        self._start_configured(event.stream)
                    except StreamliftError as error:  # this stream has its fill; others have not
                        logger.warning(
                            "stream %s: an output was not started: %s", event.stream, error
                        )
                        self.events.add(EventKind.FAULT, stream=event.stream, reason=str(error))

    async def attend_grants(self) -> None:
        """End the sessions of tokens that have expired or were taken back; never ends itself."""
        while True:
            await asyncio.sleep(_LOOK_AGAIN_S)
            for session in self.sessions:
                if not all(map(self.grants.holds, session.grants)):
                    await self.end(session, "its token has ended")

    def take_tokens(self, auth: AuthConfig) -> None:
        """Use these tokens from now on; sessions of those that are gone end within seconds.

        Raises ConfigError when a door would be opened or shut: what a page elsewhere may do, and
        where the service may be reached from, was decided at the start.
        """
        if auth.complete != self.config.auth.complete:
            raise ConfigError(
                "doors with and without tokens cannot change while the service runs; restart it",
                found=auth.complete,
                expected=self.config.auth.complete,
            )
        self.grants.replace(auth)

    def drain(self) -> None:
        """Take nothing new, and let those who follow the events go; streams end later."""
        self.draining = True
        self.events.close()

    def _must_take_more(self) -> None:
        if self.draining:
            raise ShuttingDown("the service is shutting down; publish elsewhere or later")

    def _codecs_of(self, stream: str, view: View) -> tuple[Codec, ...]:
        """The codecs this view can be sent in, preferred first."""
        try:
            snapshot = self.router.stream(stream).snapshot()
        except UnknownStream as error:
            raise NothingPublished(
                f"nobody publishes to stream {stream!r} now; try again when somebody does",
                found=error.expected,
                expected=stream,
            ) from error
        if view is View.SOURCE:
            if snapshot.publisher is None or snapshot.publisher.codec is None:
                raise NoSource(
                    f"stream {stream!r} has no publisher now whose pictures could be relayed"
                )
            return (snapshot.publisher.codec,)
        default = Codec(self.config.encode.codec)
        return (default, *(codec for codec in Codec if codec is not default))

    def _start_configured(self, stream: str) -> None:
        running = [output.work for output in self.outputs.of(stream) if not output.over]
        pushed = {work.address for work in running if isinstance(work, Push)}
        outputs = self.config.outputs
        orders = [PushOrder.of_url(p.url, p.token) for p in outputs.push if p.stream == stream]
        orders += [PushOrder("v4l2", c.device) for c in outputs.cameras if c.stream == stream]
        for order in orders:
            if (order.address, order.token) not in pushed:
                self.push(stream, order)
        if self.outputs.saves and not any(isinstance(work, Recorder) for work in running):
            self.record(stream)

    def _start(self, output: Output) -> Output:
        output.task = self._live(
            f"output of stream {output.stream}", run_output(self, self.outputs, output)
        )
        return output

    def _live(self, name: str, life: Awaitable[None]) -> asyncio.Task[None]:
        return self.tasks.create_task(supervise(name, life))


def _why_over(compared: Comparison | None) -> str:
    """Why a viewer gets no more frames."""
    reason = None if compared is None else compared.reason
    return reason or "stream ended"


async def _within(holding: AsyncExitStack, life: Awaitable[None]) -> None:
    """A life that needs what is held."""
    async with holding:
        await life


@contextmanager
def _telling_of_refusals(role: Role, stream: str) -> Iterator[None]:
    """One line in the log for each offer refused: who runs the peer often sees only "422"."""
    try:
        yield
    except UnsupportedOffer as error:
        logger.warning(
            "stream %s: an offer to %s was refused: %s; offered %.500r, would be taken %.200r",
            stream,
            role,
            error,
            error.found,
            error.expected,
        )
        raise


@contextmanager
def _descriptors() -> Iterator[None]:
    """Around what opens sockets: a machine that has none left is full, not broken."""
    try:
        yield
    except OSError as error:
        if error.errno not in _NO_DESCRIPTOR:
            raise
        raise Overloaded("the machine has no socket left for this session; retry later") from error
