"""A lane: frames in, access units of every rendition out, in order, whatever the model does."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from tests.clips import TICKS, decode
from tests.engine.frames import H264, SMALL, VP8, frame, options
from tests.waiting import until

from streamlift.clock import Clock, ManualClock, MonotonicClock
from streamlift.codec import open_encoder
from streamlift.codec.decoder import picture_of
from streamlift.engine.capacity import SLOT_PPS, Capacity, Share, need_pps
from streamlift.engine.engine import Engine
from streamlift.engine.inbox import CATCH_UP_S, MAX_QUEUED
from streamlift.engine.lane import EngineLane
from streamlift.errors import OutOfMemory, UpscaleError
from streamlift.frames import (
    Codec,
    EncodedFrame,
    Frame,
    Planes,
    Rendition,
    Size,
    Stabilise,
    Unencoded,
)
from streamlift.stamp import read_stamp
from streamlift.upscalers import Upscaler, UpscalerSpec
from streamlift.upscalers.bicubic import Bicubic
from streamlift.upscalers.toy import Toy, ToyKnobs

PRIMED = ToyKnobs(first=1, step=8, lag=4)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(100.0)


async def test_every_frame_comes_out_in_order_with_its_own_time(clock: Clock) -> None:
    async with _lane(Bicubic(), clock) as lane:
        out = await _through(lane, 10)
    assert [e.pts for e in out] == [n * TICKS for n in range(10)]
    assert {(e.size, e.rendition) for e in out} == {(SMALL.times(2), H264)}
    assert [e.keyframe for e in out] == [True] + 9 * [False]
    assert {e.stages.decode_s for e in out} == {0.001}


async def test_every_picture_is_the_one_its_pts_says(clock: Clock) -> None:
    async with _lane(Toy(PRIMED), clock) as lane:
        out = await _through(lane, 30)
    pictures = decode([e.data for e in out], Codec.H264)
    stamps = [read_stamp(picture_of(p).y, scale=2) for p in pictures]
    assert [s.number if s else None for s in stamps] == [e.pts // TICKS for e in out]


@pytest.mark.parametrize("knobs", [PRIMED, ToyKnobs(first=25, step=8, lag=4), ToyKnobs()])
@pytest.mark.parametrize("count", [1, 12, 33])
async def test_finishing_delivers_all_that_is_owed_then_ends(
    clock: Clock, knobs: ToyKnobs, count: int
) -> None:
    async with _lane(Toy(knobs), clock) as lane:
        out = await _through(lane, count)
        assert len(out) == count
        assert not lane.offer(frame(99))
        assert lane.dropped == {}


async def test_a_lane_that_got_nothing_finishes_too(clock: Clock) -> None:
    async with _lane(Bicubic(), clock) as lane:
        assert await _through(lane, 0) == []


async def test_a_keyframe_request_makes_exactly_one_keyframe(clock: Clock) -> None:
    async with _lane(Bicubic(), clock) as lane:
        frames = _encoded(lane)
        keys = []
        for number in range(8):
            if number in (3, 4):
                lane.request_keyframe()
                lane.request_keyframe()
            lane.offer(frame(number))
            keys.append((await anext(frames)).keyframe)
    assert keys == [True, False, False, True, True, False, False, False]


async def test_a_lane_on_trial_encodes_nothing_before_the_next_frame_offered(
    clock: Clock, encoders: Encoders
) -> None:
    async with _lane(Toy(PRIMED), clock) as lane:
        lane.set_renditions(frozenset())
        for number in range(12):
            lane.offer(frame(number))
        await until(lambda: not lane._inbox, "the model to take them")
        assert encoders.opened == []
        lane.set_renditions(frozenset({H264}))
        for number in range(12, 20):
            lane.offer(frame(number))
        lane.finish()
        out = [one async for one in lane]
    assert [one.pts // TICKS for one in out] == list(range(20))
    assert [isinstance(one, Unencoded) for one in out] == 12 * [True] + 8 * [False]
    keys = [one.pts // TICKS for one in out if isinstance(one, EncodedFrame) and one.keyframe]
    assert keys == [12]


async def test_a_second_rendition_is_encoded_while_it_is_wanted(
    clock: Clock, encoders: Encoders
) -> None:
    async with _lane(Bicubic(), clock) as lane:
        frames = _encoded(lane)
        seen = []
        for number in range(6):
            wanted = frozenset({H264, VP8}) if 2 <= number < 4 else frozenset({H264})
            lane.set_renditions(wanted)
            lane.offer(frame(number))
            got = [await anext(frames) for _ in wanted]
            seen.append({(e.rendition.codec, e.keyframe) for e in got})
        assert encoders.opened == [H264, VP8], "one encoder each, opened once"
        assert encoders.closed == [VP8]
    h264, vp8 = Codec.H264, Codec.VP8
    assert seen[0] == {(h264, True)}
    assert seen[1] == seen[4] == seen[5] == {(h264, False)}
    assert seen[2] == {(h264, False), (vp8, True)}


async def test_frames_that_waited_too_long_are_dropped_and_counted(clock: ManualClock) -> None:
    async with _lane(Bicubic(), clock) as lane:
        clock.advance(1.0)
        for number in range(3):
            lane.offer(frame(number, arrived_s=100.0))
        lane.offer(frame(3, arrived_s=101.0))
        lane.finish()
        assert [e.pts // TICKS async for e in lane] == [3]
        assert lane.dropped == {"stale": 3}


async def test_what_a_failed_lane_owed_may_be_older_until_it_is_worked_off(
    clock: ManualClock,
) -> None:
    async with _lane(Bicubic(), clock, backlog_age_s=1.5) as lane:
        clock.advance(1.0)
        for number in range(3):
            lane.offer(frame(number, arrived_s=100.0))
        lane.offer(frame(3, arrived_s=clock.now_s()))
        frames = aiter(lane)
        assert [(await anext(frames)).pts // TICKS for _ in range(4)] == [0, 1, 2, 3]
        await until(lambda: not lane._inbox.catching_up(clock.now_s()), "it to have caught up")
        lane.offer(frame(4, arrived_s=clock.now_s() - 0.6))
        assert lane.dropped == {"stale": 1}


async def test_a_lane_that_cannot_catch_up_is_in_time_again_all_the_same(
    clock: ManualClock,
) -> None:
    async with _lane(Bicubic(), clock, backlog_age_s=1.5) as lane:
        clock.advance(CATCH_UP_S)
        lane.offer(frame(0, arrived_s=clock.now_s() - 1.0))
        assert lane.dropped == {"stale": 1}


async def test_a_stream_that_wants_more_than_its_share_is_left_out_evenly(clock: Clock) -> None:
    capacity = Capacity(2 * need_pps(SMALL, 25.0))
    capacity.take(need_pps(SMALL, 25.0))
    share = capacity.take(need_pps(SMALL, 25.0))
    engine = Engine("idle", clock)  # takes nothing: the queue shows what was let in
    async with _lane(Bicubic(), clock, engine=engine, share=share) as lane:
        hundred_fps = (frame(number, arrived_s=100.0 + number / 100) for number in range(300))
        taken = [frame.pts // TICKS for frame in hundred_fps if lane.offer(frame)]
        unmeasured = [number for number in taken if number <= 100]
        assert unmeasured == list(range(101))[: len(unmeasured)]
        gaps = {b - a for a, b in pairwise(taken[len(unmeasured) + 1 :])}
        assert gaps <= {4, 5}
        assert lane.dropped["over_share"] == 300 - len(taken)


async def test_frames_left_out_of_too_large_a_share_do_not_make_it_spend_less(
    clock: Clock,
) -> None:
    capacity = Capacity(2 * need_pps(SMALL, 25.0))
    capacity.take(need_pps(SMALL, 25.0))
    share = capacity.take(need_pps(SMALL, 25.0))
    async with _lane(Bicubic(), clock, share=share) as lane:
        lane.offer(frame(0))
        share.ask(need_pps(SMALL, 100.0))
        for number in range(1, 9):
            lane.offer(frame(number))
        await until(lambda: not lane._inbox, "the model to take them")
        lane._chain.set_rung = _never  # type: ignore[method-assign]
        lane._take_steps()
        assert lane.dropped == {"over_share": 6}
        assert lane._drops_seen == 0


async def test_it_counts_what_comes_out_of_the_model(clock: Clock) -> None:
    async with _lane(Toy(PRIMED), clock) as lane:
        await _through(lane, 20)
        assert lane.upscaled == 20


async def test_a_parked_session_is_resumed_by_the_next_frame(clock: Clock) -> None:
    toy = Toy(PRIMED)
    async with _lane(toy, clock) as lane:
        for number in range(12):
            lane.offer(frame(number))
        lane.park()
        await until(lambda: toy.parked == 1, "the session to be parked after its frames")
        lane.park()
        for number in range(12, 20):
            lane.offer(frame(number))
        lane.finish()
        assert [e.pts // TICKS async for e in lane] == list(range(20))
        assert toy.resumed == toy.parked


async def test_a_parked_streams_part_of_the_backend_is_free_until_it_is_back(
    clock: Clock,
) -> None:
    capacity = Capacity(SLOT_PPS)
    async with _lane(Toy(), clock, share=capacity.take(SLOT_PPS)) as lane:
        lane.offer(frame(0))
        lane.park()
        assert capacity.used_pps == 0
        lane.offer(frame(1))
        assert capacity.used_pps == need_pps(SMALL, 25.0)


async def test_a_parked_session_pays_what_it_owes(clock: Clock) -> None:
    toy = Toy(PRIMED)
    async with _lane(toy, clock) as lane:
        for number in range(12):
            lane.offer(frame(number))
        lane.park()
        await until(lambda: toy.parked == 1, "the session to be parked")
        lane.finish()
        assert len([e async for e in lane]) == 12


async def test_at_a_scene_cut_an_upscaler_that_says_so_starts_anew_after_paying(
    clock: Clock,
) -> None:
    toy = Toy(replace(PRIMED, restart_on_cut=True))
    async with _lane(toy, clock) as lane:
        for number in range(20):
            lane.offer(_lit(number, 60 if number < 6 else 180))
        lane.finish()
        assert [e.pts // TICKS async for e in lane] == list(range(20))
    assert toy.opened == 2


@pytest.mark.parametrize("side", [64, 78, 126])
async def test_no_picture_of_dots_passes_for_a_fault_of_the_model(clock: Clock, side: int) -> None:
    """Bright dots on black, wherever samples of input and output may lie."""
    async with _lane(Bicubic(), clock) as lane:
        for number in range(8):
            luma = np.zeros((side, side), np.uint8)
            luma[number % 4 :: 4, number // 2 :: 4] = 235
            grey = np.full((side // 2, side // 2), 128, np.uint8)
            dots = replace(frame(number), size=Size(side, side), planes=Planes(luma, grey, grey))
            lane.offer(dots)
        lane.finish()
        assert len([e async for e in lane]) == 8


async def test_other_upscalers_go_on_through_a_scene_cut(clock: Clock) -> None:
    toy = Toy(PRIMED)
    async with _lane(toy, clock) as lane:
        for number in range(20):
            lane.offer(_lit(number, 60 if number < 6 else 180))
        lane.finish()
        assert len([e async for e in lane]) == 20
    assert toy.opened == 1


async def test_no_more_than_the_bound_wait_and_the_oldest_go_first(clock: Clock) -> None:
    toy = Toy(ToyKnobs(hang_at=0, hang_s=60))
    async with _lane(toy, clock) as lane:
        lane.offer(frame(0))
        await until(lambda: not lane._inbox, "the model to be busy")
        for number in range(1, MAX_QUEUED + 6):
            lane.offer(frame(number))
        assert lane.dropped == {"stale": 5}
        toy.released.set()
        lane.finish()
        shown = [e.pts // TICKS async for e in lane]
    assert shown[:2] == [0, 6]


async def test_pictures_the_encoder_has_no_time_for_are_counted(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = _SlowEncoder()
    monkeypatch.setattr("streamlift.engine.encode.open_encoder", lambda *_, **__: slow)
    async with _lane(Bicubic(), clock) as lane:
        for number in range(30):
            lane.offer(frame(number))
            await until(lambda: not lane._inbox, "the model to take it")
        await until(lambda: sum(lane.dropped.values()) >= 10, "drops to be counted")
        slow.go.set()
        lane.finish()
        shown = [e async for e in lane]
        assert set(lane.dropped) == {"encode_busy"}
        assert len(shown) + lane.dropped["encode_busy"] == 30


async def test_pictures_that_waited_too_long_for_the_encoder_are_counted(
    clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = _SlowEncoder()
    monkeypatch.setattr("streamlift.engine.encode.open_encoder", lambda *_, **__: slow)
    async with _lane(Bicubic(), clock) as lane:
        for number in range(6):
            lane.offer(frame(number))
        await until(lambda: slow.busy.is_set() and not lane._inbox, "all to be taken")
        # The engine does a job when the last frame taken is upscaled, and waits for the encoder.
        await asyncio.wrap_future(lane._engine.run(lambda: None))
        clock.advance(0.6)
        slow.go.set()
        lane.finish()
        assert [e.pts // TICKS async for e in lane] == [0]
        assert lane.dropped == {"encode_busy": 5}


@pytest.mark.parametrize(
    ("knobs", "kind", "message"),
    [
        (ToyKnobs(fail_at=3), UpscaleError, "frame 3"),
        (ToyKnobs(oom_at=3), OutOfMemory, "memory"),
        (ToyKnobs(wrong_shape_at=3), UpscaleError, "128x128, expected 256x256"),
        (ToyKnobs(black_at=3), UpscaleError, "black"),
    ],
)
async def test_a_failing_model_ends_the_iteration_with_its_error(
    clock: Clock, knobs: ToyKnobs, kind: type[UpscaleError], message: str
) -> None:
    async with _lane(Toy(knobs), clock) as lane:
        with pytest.raises(kind, match=message):
            await _through(lane, 10)
        assert not lane.offer(frame(20))


async def test_whatever_a_model_raises_comes_as_an_upscale_error(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    async with _lane(_Broken(), clock) as lane:
        with pytest.raises(UpscaleError, match=r"broken failed.*no idea"):
            await _through(lane, 2)
    assert "KeyError" in caplog.text


async def test_a_failing_lane_does_not_touch_its_neighbour(clock: Clock) -> None:
    engine = Engine("test", clock)
    engine.start()
    async with (
        _lane(Toy(ToyKnobs(fail_at=2)), clock, engine=engine) as bad,
        _lane(Bicubic(), clock, engine=engine) as good,
    ):
        for number in range(6):
            bad.offer(frame(number))
            good.offer(frame(number))
        good.finish()
        assert len([e async for e in good]) == 6
        with pytest.raises(UpscaleError):
            [e async for e in bad]
    assert engine.stop()


async def test_a_pause_in_the_input_pays_out_what_is_owed(clock: ManualClock) -> None:
    async with _lane(Toy(ToyKnobs(first=8, step=8)), clock) as lane:
        frames = aiter(lane)
        for number in range(3):
            lane.offer(frame(number, arrived_s=100.0 + number * 0.04))
        await until(lambda: not lane._inbox, "the model to take them")
        clock.advance(0.7)
        lane.offer(frame(20, arrived_s=100.7))
        shown = [(await anext(frames)).pts // TICKS for _ in range(3)]
        lane.finish()
        shown += [e.pts // TICKS async for e in frames]
    assert shown == [0, 1, 2, 20]


async def test_a_change_of_size_starts_anew_with_a_keyframe(clock: Clock) -> None:
    async with _lane(Toy(PRIMED), clock) as lane:
        for number in range(20):
            lane.offer(frame(number, size=SMALL if number < 11 else Size(192, 160)))
        lane.finish()
        out = [e async for e in _encoded(lane)]
    assert [e.pts // TICKS for e in out] == list(range(20))
    assert [e.size for e in out] == 11 * [Size(256, 256)] + 9 * [Size(384, 320)]
    assert [n for n, e in enumerate(out) if e.keyframe] == [0, 11]


async def test_closing_never_waits_for_a_hung_model_and_frees_its_slot_once(clock: Clock) -> None:
    toy = Toy(ToyKnobs(hang_at=0, hang_s=60))
    closed: list[int] = []
    async with _lane(toy, clock, on_close=lambda _: closed.append(1)) as lane:
        lane.offer(frame(0))
        async with asyncio.timeout(20):
            await lane.aclose()
        assert [e async for e in lane] == []
        toy.released.set()
    assert closed == [1]


@pytest.mark.parametrize("way", ["finish", "close"])
async def test_the_encode_thread_and_its_encoders_end_with_the_lane(
    clock: Clock, way: str, encoders: Encoders
) -> None:
    async with _lane(Bicubic(), clock) as lane:
        lane.offer(frame(0))
        await anext(aiter(lane))
        if way == "finish":
            lane.finish()
            [e async for e in lane]
        else:
            await lane.aclose()
        await until(lambda: "encode-test" not in _threads(), "the encode thread to end")
        assert encoders.closed == encoders.opened == [H264]


async def test_a_replayed_frame_that_was_shown_already_is_not_shown_again(clock: Clock) -> None:
    async with _lane(Bicubic(), clock) as lane:
        for number in (0, 1, 2, 1, 2, 3):
            lane.offer(frame(number))
        lane.finish()
        assert [e.pts // TICKS async for e in lane] == [0, 1, 2, 3]


async def test_the_stabiliser_keeps_the_count(clock: Clock) -> None:
    async with _lane(Toy(PRIMED), clock, stabilise=Stabilise.LITE) as lane:
        assert len(await _through(lane, 20)) == 20


# ---- fakes ----


@dataclass
class Encoders:
    """The renditions of all encoders that were opened and closed, in order."""

    opened: list[Rendition] = field(default_factory=list)
    closed: list[Rendition] = field(default_factory=list)


@pytest.fixture
def encoders(monkeypatch: pytest.MonkeyPatch) -> Encoders:
    """Real encoders, with a note of each."""
    noted = Encoders()

    def open_noted(rendition: Rendition, *args: Any, **kwargs: Any) -> Any:
        encoder = open_encoder(rendition, *args, **kwargs)
        noted.opened.append(rendition)
        close = encoder.close

        def close_noted() -> None:
            noted.closed.append(rendition)
            close()

        encoder.close = close_noted  # type: ignore[method-assign]
        return encoder

    monkeypatch.setattr("streamlift.engine.encode.open_encoder", open_noted)
    return noted


class _SlowEncoder:
    """Waits at its first picture until it may go on."""

    def __init__(self) -> None:
        self.busy = threading.Event()
        self.go = threading.Event()

    def encode(self, planes: Planes, pts: int, *, keyframe: bool) -> tuple[bytes, bool]:
        self.busy.set()
        self.go.wait(20)
        return b"data", False

    def close(self) -> None:
        return


class _Broken:
    """An upscaler whose model raises what no one expects."""

    spec = UpscalerSpec(name="broken", scale=2)

    def session_bytes(self, size: Size) -> int:
        return 0

    def open(self, size: Size, *, seed: int = 0) -> Any:
        return self

    wanted = 1

    def push(self, lr: Planes) -> Iterator[Planes]:
        raise KeyError("no idea")

    def finish(self) -> Iterator[Planes]:
        yield from ()


@asynccontextmanager
async def _lane(
    upscaler: Upscaler,
    clock: Clock,
    *,
    engine: Engine | None = None,
    stabilise: Stabilise = Stabilise.OFF,
    on_close: Any = lambda _: None,
    share: Share | None = None,
    backlog_age_s: float | None = None,
) -> AsyncIterator[EngineLane]:
    own = engine or Engine("test", clock)
    if engine is None:
        own.start()
    lane = EngineLane(
        own,
        upscaler,
        "cpu",
        options(),
        preset="ultrafast",
        max_age_s=0.5,
        clock=clock,
        stabilise=stabilise,
        share=share or Capacity(SLOT_PPS).take(need_pps(SMALL, 25.0)),
        on_close=on_close,
        backlog_age_s=backlog_age_s,
    )
    try:
        yield lane
    finally:
        await lane.aclose()
        if engine is None:
            assert own.stop()


def _lit(number: int, level: int) -> Frame:
    """Frame `number`, evenly grey."""
    luma = np.full((SMALL.height, SMALL.width), level, np.uint8)
    half = np.full((SMALL.height // 2, SMALL.width // 2), 128, np.uint8)
    return replace(frame(number), planes=Planes(luma, half, half))


def _never(rung: object) -> None:
    raise AssertionError(f"the lane stepped to {rung}")


async def _through(lane: EngineLane, count: int) -> list[EncodedFrame]:
    """Offer frames no faster than they are taken, finish, and collect all that comes."""
    for number in range(count):
        lane.offer(frame(number))
        await until(lambda: not lane._inbox or lane._ended, "the model to take it")
    lane.finish()
    return [encoded async for encoded in _encoded(lane)]


async def _encoded(lane: EngineLane) -> AsyncIterator[EncodedFrame]:
    """What a lane delivers that is asked for at least one rendition throughout."""
    async for one in lane:
        assert isinstance(one, EncodedFrame)
        yield one


def _threads() -> set[str]:
    return {thread.name for thread in threading.enumerate()}


async def test_a_lane_that_ends_gets_its_turn_beside_one_that_is_always_behind() -> None:
    clock = MonotonicClock()
    engine = Engine("test", clock)
    engine.attach(_Behind(clock))
    engine.start()
    async with asyncio.timeout(5), _lane(Bicubic(), clock, engine=engine) as lane:
        lane.finish()
        assert [e async for e in lane] == []
    assert engine.stop()


class _Behind:
    """Work that never ends, always a tenth of a second late."""

    guest = False

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    @property
    def waiting_since_s(self) -> float:
        return self._clock.now_s() - 0.1

    @property
    def due_s(self) -> float:
        return self.waiting_since_s

    @property
    def flight(self) -> None:
        return None

    def step(self) -> None:
        threading.Event().wait(0.001)
