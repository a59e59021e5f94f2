"""The target size in a lane: changed in place, at a keyframe, without a picture lost; or let be."""

from __future__ import annotations

import threading
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
from tests.clips import TICKS, decode, picture
from tests.engine.frames import H264, SMALL, VP8, frame, options

from streamlift.clock import MonotonicClock
from streamlift.codec import open_encoder
from streamlift.codec.decoder import picture_of
from streamlift.codec.resample import Resampler
from streamlift.engine import EngineBackend
from streamlift.engine.capacity import SLOT_PPS, Need
from streamlift.engine.encode import EncodeThread, Picture
from streamlift.errors import UpscaleError
from streamlift.frames import (
    Codec,
    Colour,
    EncodedFrame,
    Rendition,
    Size,
    StageTimes,
    Target,
    Unencoded,
)

HALF_MORE = Target(scale=1.5)
WIDE = Target(size=Size(320, 180))
LARGE = SMALL.times(2)


class Encoding:
    """An encode thread that is fed pictures of a x2 model, one after the other."""

    def __init__(self, *renditions: Rendition, own: Target | None = None) -> None:
        self.frames: list[EncodedFrame] = []
        self.error: object = None
        self._arrived = threading.Condition()
        self._number = 0
        self.thread = EncodeThread(
            "test",
            renditions=frozenset(renditions or {H264}),
            preset="ultrafast",
            fps=25,
            depth=4,
            clock=MonotonicClock(),
            own=own,
            skip=lambda: None,
            deliver=self._deliver,
            done=self._done,
        )

    def want(self, target: Target | None, *renditions: Rendition) -> None:
        wanted = {replace(one, target=target) for one in renditions or (H264,)}
        self.thread.set_renditions(frozenset(wanted))

    def encode(
        self, count: int, *, renditions: int = 1, shaped: Target | None = None
    ) -> list[EncodedFrame]:
        before = len(self.frames)
        for _ in range(count):
            size = LARGE if shaped is None else shaped.output(SMALL)
            now_s = MonotonicClock().now_s()
            one = Picture(
                picture(size, self._number), self._number * TICKS, Colour(), 0.0, now_s, now_s,
                StageTimes(), SMALL, shaped,
            )  # fmt: skip
            self._number += 1
            wanted = len(self.frames) + renditions
            assert self.thread.offer(one)
            with self._arrived:
                assert self._arrived.wait_for(partial(self._over, wanted), 10)
        return self.frames[before:]

    def _over(self, wanted: int) -> bool:
        return len(self.frames) >= wanted or self.error is not None

    def _deliver(self, one: EncodedFrame | Unencoded) -> None:
        assert isinstance(one, EncodedFrame)
        with self._arrived:
            self.frames.append(one)
            self._arrived.notify_all()

    def _done(self, error: object) -> None:
        with self._arrived:
            self.error = error
            self._arrived.notify_all()


def shown(frames: list[EncodedFrame]) -> list[tuple[Size, bool, Target | None]]:
    return [(one.size, one.keyframe, one.rendition.target) for one in frames]


def test_the_next_picture_is_a_keyframe_in_the_new_size() -> None:
    encoding = Encoding()
    encoding.encode(2)
    encoding.want(HALF_MORE)
    encoding.encode(2)
    encoding.want(None)
    encoding.encode(2)
    encoding.thread.finish()
    small = Size(192, 192)
    assert shown(encoding.frames) == [
        (LARGE, True, None),
        (LARGE, False, None),
        (small, True, HALF_MORE),
        (small, False, HALF_MORE),
        (LARGE, True, None),
        (LARGE, False, None),
    ]
    decoded = decode([one.data for one in encoding.frames], Codec.H264)
    assert [(p.width, p.height) for p in decoded] == [
        (one.size.width, one.size.height) for one in encoding.frames
    ]


def test_every_rendition_changes_with_the_same_picture() -> None:
    encoding = Encoding(H264, VP8)
    encoding.encode(2, renditions=2)
    encoding.want(WIDE, H264, VP8)
    changed = encoding.encode(1, renditions=2)
    encoding.thread.finish()
    assert {one.rendition.codec for one in changed} == {Codec.H264, Codec.VP8}
    assert set(shown(changed)) == {(Size(320, 180), True, WIDE)}


def test_a_target_that_is_the_size_already_costs_no_keyframe() -> None:
    encoding = Encoding(H264, VP8)
    encoding.encode(2, renditions=2)
    encoding.want(Target(scale=2), H264, VP8)
    same = encoding.encode(2, renditions=2)
    encoding.thread.finish()
    assert set(shown(same)) == {(LARGE, False, Target(scale=2))}


def test_a_keyframe_that_was_asked_for_is_not_lost_in_such_a_change() -> None:
    encoding = Encoding()
    encoding.encode(2)
    encoding.want(Target(scale=2))
    encoding.thread.request_keyframe()
    (first, second) = encoding.encode(2)
    encoding.thread.finish()
    assert (first.keyframe, second.keyframe) == (True, False)


def test_the_backends_own_target_holds_where_a_stream_has_none() -> None:
    encoding = Encoding(own=HALF_MORE)
    encoding.encode(1)
    encoding.want(WIDE)
    encoding.encode(1)
    encoding.want(None)
    encoding.encode(1)
    encoding.thread.finish()
    assert [one.size for one in encoding.frames] == [Size(192, 192), Size(320, 180), Size(192, 192)]


def test_a_square_lies_in_the_middle_of_black_bars() -> None:
    encoding = Encoding()
    encoding.want(WIDE)
    (one,) = encoding.encode(1)
    encoding.thread.finish()
    (seen,) = decode([one.data], Codec.H264)
    y = picture_of(seen).y
    assert np.all(y[:, :66] < 24)
    assert np.all(y[:, -66:] < 24)
    assert y[40:140, 80:240].mean() > 60


def test_a_size_that_cannot_be_coded_is_let_be_and_the_one_before_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    opened: list[Size] = []

    def open_one(rendition: Rendition, size: Size, *rest: Any, **more: Any) -> Any:
        opened.append(size)
        if size == Size(320, 180):
            raise UpscaleError("no such encoder here")
        return open_encoder(rendition, size, *rest, **more)

    monkeypatch.setattr("streamlift.engine.encode.open_encoder", open_one)
    encoding = Encoding()
    encoding.encode(2)
    encoding.want(WIDE)
    let_be = encoding.encode(3)
    assert shown(let_be) == [(LARGE, True, None), (LARGE, False, None), (LARGE, False, None)]
    assert opened == [LARGE, Size(320, 180), LARGE], "it is tried once"
    encoding.want(HALF_MORE)
    assert shown(encoding.encode(1)) == [(Size(192, 192), True, HALF_MORE)]
    encoding.want(WIDE)
    assert shown(encoding.encode(1)) == [(Size(192, 192), True, HALF_MORE)], "tried again"
    encoding.thread.finish()
    assert encoding.error is None


def test_the_very_first_picture_falls_back_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    def laid_out(*arguments: Any) -> Any:
        raise MemoryError("no room")

    monkeypatch.setattr(Resampler, "laid_out", laid_out)
    encoding = Encoding(replace(H264, target=WIDE))
    assert shown(encoding.encode(1)) == [(LARGE, True, None)]
    encoding.thread.finish()


def test_pictures_that_have_been_brought_to_a_size_on_the_device_keep_it() -> None:
    encoding = Encoding()
    encoding.encode(1)
    encoding.want(HALF_MORE)
    seen = encoding.encode(1)  # was on its way when the target changed
    seen += encoding.encode(1, shaped=HALF_MORE)
    encoding.want(WIDE)
    seen += encoding.encode(1, shaped=HALF_MORE)
    seen += encoding.encode(1, shaped=WIDE)
    encoding.want(None)
    seen += encoding.encode(1, shaped=WIDE)
    seen += encoding.encode(1)
    encoding.thread.finish()
    assert [one.rendition.target for one in seen] == [
        HALF_MORE, HALF_MORE, HALF_MORE, WIDE, WIDE, None,
    ]  # fmt: skip
    assert [one.keyframe for one in seen] == [True, False, False, True, False, True]


async def test_a_backends_lane_gives_the_scale_it_was_configured_with_and_counts_it() -> None:
    backend = EngineBackend(
        "b", "bicubic", slots=4, settings={}, preset="ultrafast", max_age_s=5.0,
        clock=MonotonicClock(), scale=4.0,
    )  # fmt: skip
    await backend.start()
    try:
        lane = await backend.open_lane(SMALL, options())
        large = await backend.open_lane(SMALL, options(replace(H264, target=HALF_MORE)))
        for one, size in ((lane, SMALL.times(4)), (large, Size(192, 192))):
            one.offer(frame(0, arrived_s=MonotonicClock().now_s()))
            got = await anext(aiter(one))
            assert isinstance(got, EncodedFrame)
            assert got.size == size
        await lane.aclose()
        await large.aclose()
    finally:
        await backend.aclose()


def test_what_a_stream_needs_counts_what_is_encoded_where_the_processor_does_both() -> None:
    size = Size(512, 512)
    need = Need(2, codes=True)
    assert need.pps(size, 25) == SLOT_PPS
    need.wanted = Target(scale=2)
    assert need.pps(size, 25) == SLOT_PPS
    need.wanted = Target(scale=4)
    assert 2 * SLOT_PPS < need.pps(size, 25) < 4 * SLOT_PPS
    need.wanted = Target(scale=1)
    assert 0.5 * SLOT_PPS < need.pps(size, 25) < SLOT_PPS
    apart = Need(2, own=Target(scale=4))
    assert apart.pps(size, 25) == SLOT_PPS
