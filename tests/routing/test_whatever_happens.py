"""Random lives of a stream: whatever happens, viewers can decode, and it ends clean."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.routing.fakes import FakePublisher, Knobs, frame, stream_frames
from tests.routing.stage import BASIC, Seen, Stage
from tests.routing.virtual_time import ended, in_virtual_time, settle

from streamlift.errors import UpscaleError
from streamlift.frames import BackendState, Codec, Size
from streamlift.routing.settings import View
from streamlift.routing.states import StreamState
from streamlift.routing.transition import SwitchMode

NAMES = ("ai", "other", "bicubic")
KNOBS = (
    Knobs(),
    Knobs(delay_s=0.1, first=1, step=8, lag=4),
    Knobs(first=25, step=8, lag=4),
    Knobs(opening_s=0.7),
    Knobs(fail_at=20, error=UpscaleError("toy")),
    Knobs(hang_at=30),
    Knobs(lose_every=4),
)
ACTIONS = st.one_of(
    st.tuples(st.just("run"), st.floats(0.01, 2.0)),
    st.tuples(st.just("switch"), st.sampled_from(NAMES)),
    st.tuples(st.just("mode"), st.sampled_from(SwitchMode)),
    st.tuples(st.just("knobs"), st.tuples(st.sampled_from(NAMES[:2]), st.sampled_from(KNOBS))),
    st.tuples(st.just("ready"), st.tuples(st.sampled_from(NAMES[:2]), st.booleans())),
    st.tuples(st.just("size"), st.sampled_from([Size(16, 16), Size(32, 16)])),
    st.tuples(st.just("publisher"), st.booleans()),
    st.tuples(st.just("watch"), st.sampled_from([View.UPSCALED, View.SOURCE])),
    st.tuples(st.just("vp8"), st.just(0)),
    st.tuples(st.just("leave"), st.integers(0, 5)),
    st.tuples(st.just("keyframe"), st.just(0)),
)


class Life:
    """A stream under a random script."""

    def __init__(self) -> None:
        self.stage = Stage(NAMES, BASIC, lambda size, _: frame(0, size=size))
        self.size = Size(16, 16)
        self.viewers: list[Seen] = []
        self.everyone: list[Seen] = []
        self.mode = SwitchMode.LOW_LATENCY
        self.publishing: list[asyncio.Task[None]] = []
        self.publisher: FakePublisher | None = None
        self.pts = 0

    async def act(self, what: str, how: object) -> None:
        stream, stage = self.stage.stream, self.stage
        match what, how:
            case "run", float(seconds):
                await self.run(seconds)
            case "switch", str(name):
                stream.switch(name, mode=self.mode)
            case "mode", SwitchMode() as mode:
                self.mode = mode
            case "knobs", (str(name), Knobs() as knobs):
                stage.backends[name].knobs = knobs
            case "ready", (str(name), bool(ready)):
                state = BackendState.READY if ready else BackendState.LOADING
                stage.backends[name].state = state
            case "size", Size() as size:
                self.size = size
            case "publisher", bool(comes):
                self.publish() if comes else self.leave()
            case "watch", View() as view:
                self.watch(Seen(stream.watch(view)))
            case "vp8", _:
                self.watch(Seen(stream.watch(codec=Codec.VP8)))
            case "leave", int(index) if index < len(self.viewers):
                self.viewers.pop(index).cursor.close()
            case "keyframe", _:
                stream.request_keyframe()

    def watch(self, seen: Seen) -> None:
        self.viewers.append(seen)
        self.everyone.append(seen)

    def publish(self) -> None:
        self.publisher = FakePublisher()
        self.publishing.append(asyncio.ensure_future(self.stage.stream.publish(self.publisher)))

    def leave(self) -> None:
        if self.publisher is not None:
            self.publisher.end()
            self.publisher = None

    async def recover(self) -> None:
        """All backends work again, a publisher is there, and ten seconds pass."""
        for backend in self.stage.backends.values():
            backend.knobs, backend.state = Knobs(), BackendState.READY
        if self.publisher is None:
            self.publish()
        await self.run(10.0)

    async def run(self, seconds: float) -> None:
        if self.publisher is None:
            await asyncio.sleep(seconds)
            return
        count = max(1, int(seconds * 25))
        await stream_frames(
            self.publisher,
            self.stage.clock,
            count,
            first_pts=self.pts,
            size=self.size,
            keyframe_every=25,
        )
        self.pts += count * 3600
        await asyncio.sleep(0.04)  # the last frame's time: the next comes when its pts says


@pytest.mark.long
@settings(max_examples=12, deadline=None)
@given(st.lists(ACTIONS, min_size=3, max_size=30))
@in_virtual_time
async def test_viewers_can_decode_and_everything_is_closed_at_the_end(
    script: list[tuple[str, object]],
) -> None:
    life = Life()
    stream = life.stage.stream
    owner = asyncio.ensure_future(stream.run())
    await settle()
    life.watch(Seen(stream.watch()))
    life.publish()
    for what, how in script:
        await life.act(what, how)
    await life.recover()
    assert stream.snapshot().state in (StreamState.LIVE, StreamState.SWITCHING)
    for seen in life.viewers:
        assert life.stage.clock.now_s() - seen.times_s[-1] < 0.2
    await stream.close("test over")
    await ended(owner)
    for task in life.publishing:
        await ended(asyncio.wait([task]))
        assert task.exception() is None
    for seen in life.everyone:
        await ended(seen.task)
        seen.assert_decodable()
    assert stream.snapshot().state is StreamState.CLOSED
    assert [b.used for b in life.stage.backends.values()] == [0, 0, 0]
    assert len(asyncio.all_tasks()) == 1


@pytest.mark.long
@settings(max_examples=10, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(NAMES), st.floats(0.01, 3.0)), max_size=12))
@example([("ai", 2.0), ("other", 0.0625)])
@in_virtual_time
async def test_switches_between_equal_backends_lose_and_repeat_nothing(
    script: list[tuple[str, float]],
) -> None:
    life = Life()
    owner = asyncio.ensure_future(life.stage.stream.run())
    await settle()
    seen = Seen(life.stage.stream.watch())
    life.publish()
    await life.run(1.0)
    for name, seconds in script:
        life.stage.stream.switch(name)
        await life.run(seconds)
    await life.run(3.0)
    assert seen.pts == [n * 3600 for n in range(len(seen.pts))]
    seen.assert_decodable()
    assert max(seen.gaps(), default=0.0) < 0.12
    if script:
        assert seen.sources[-1] == script[-1][0]
    await life.stage.stream.close("test over")
    await ended(owner)
    await ended(seen.task)
