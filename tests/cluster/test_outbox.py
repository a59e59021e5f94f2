"""What waits for a slow anchor is bounded: coded frames go, up to the next keyframe."""

from __future__ import annotations

from dataclasses import replace

import pytest

pytest.importorskip("grpc", reason="needs the extra cluster")

from tests.engine.frames import H264, SMALL, VP8

from streamlift.clock import ManualClock
from streamlift.cluster.serving_lane import OUT_AGE_S, OUT_BYTES, Outbox
from streamlift.cluster.wire import worker_pb2 as pb
from streamlift.frames import EncodedFrame, Rendition


def coded(pts: int, *, key: bool = False, size: int = 1000, of: Rendition = H264) -> EncodedFrame:
    return EncodedFrame(pts, SMALL, of, key, bytes(size), 0.0)


def is_full(out: Outbox) -> bool:
    return out.full_since_s is not None


async def rest(out: Outbox) -> list[pb.FromLane]:
    out.close(pb.FromLane(ended=pb.Ended()))
    found = []
    while (data := await out.get()) is not None:
        found.append(pb.FromLane.FromString(data))
    return found


async def test_what_is_taken_in_time_passes_in_order() -> None:
    out = Outbox(ManualClock())
    assert all(out.push(coded(n, key=n == 0), 0.0) for n in range(3))
    out.tell(pb.FromLane(need_source=pb.NeedSource(reason="x")))
    kinds = [message.WhichOneof("kind") for message in await rest(out)]
    assert kinds == ["encoded"] * 3 + ["need_source", "ended"]
    assert out.dropped == 0


async def test_above_a_megabyte_all_coded_frames_go_until_a_keyframe_comes() -> None:
    out = Outbox(ManualClock())
    out.tell(pb.FromLane(returned=pb.Returned(upscaled=1)))
    large = OUT_BYTES // 4
    pushed = [out.push(coded(n, key=n == 0, size=large), 0.0) for n in range(7)]
    # The fifth finds it full and asks for a keyframe; what follows is dropped without asking again.
    assert pushed == [True, True, True, True, False, True, True]
    assert out.dropped == 7
    assert is_full(out)
    assert out.push(coded(7, key=True), 0.0)
    assert not is_full(out)
    assert out.push(coded(8), 0.0)
    pts = [m.encoded.pts for m in await rest(out) if m.HasField("encoded")]
    assert pts == [7, 8]


async def test_what_has_waited_for_half_a_second_is_too_old() -> None:
    clock = ManualClock()
    out = Outbox(clock)
    assert out.push(coded(0, key=True), 0.0)
    clock.advance(OUT_AGE_S + 0.1)
    assert not out.push(coded(1), 0.0)
    assert [m.WhichOneof("kind") for m in await rest(out)] == ["ended"]


def overflowing(of: Rendition) -> tuple[ManualClock, Outbox]:
    """Two renditions wait for half a second; a frame of one of them finds it full."""
    clock = ManualClock()
    out = Outbox(clock)
    assert out.push(coded(0, key=True), 0.0)
    assert out.push(coded(0, key=True, of=VP8), 0.0)
    clock.advance(OUT_AGE_S + 0.1)
    assert not out.push(coded(1, of=of), 0.0)
    assert is_full(out)
    return clock, out


@pytest.mark.parametrize("of", [H264, VP8])
async def test_no_rendition_goes_on_without_the_frames_that_were_dropped(of: Rendition) -> None:
    _, out = overflowing(of)
    for rendition in (H264, VP8):
        assert out.push(coded(2, of=rendition), 0.0)
    for rendition in (H264, VP8):
        assert out.push(coded(3, key=True, of=rendition), 0.0)
        assert out.push(coded(4, of=rendition), 0.0)
    told = [m.encoded for m in await rest(out) if m.HasField("encoded")]
    assert [(one.pts, one.rendition.codec) for one in told] == [
        (pts, of.codec) for of in (H264, VP8) for pts in (3, 4)
    ]
    assert out.dropped == 5


async def test_a_rendition_that_nobody_wants_any_more_does_not_keep_it_full() -> None:
    _, out = overflowing(H264)
    out.want(frozenset({H264, VP8}))
    assert is_full(out), "its keyframe is still to come"
    assert out.push(coded(2, key=True, of=VP8), 0.0)
    assert not is_full(out), "the link takes what there is"
    _, out = overflowing(H264)
    out.want(frozenset())
    assert not is_full(out)
    assert out.push(coded(3), 0.0)
    assert [m.WhichOneof("kind") for m in await rest(out)] == ["ended"], "never without a keyframe"


async def test_what_was_on_its_way_when_its_last_viewer_left_does_not_make_it_full() -> None:
    clock = ManualClock()
    out = Outbox(clock)
    assert out.push(coded(0, key=True), 0.0)
    clock.advance(OUT_AGE_S + 0.1)
    out.want(frozenset())
    assert not out.push(coded(1), 0.0)
    assert not is_full(out)


async def test_another_bit_rate_goes_on_from_a_keyframe_only() -> None:
    _, out = overflowing(H264)
    slower = replace(H264, bitrate_bps=500_000)
    assert out.push(coded(2, of=slower), 0.0)
    assert is_full(out)
    assert out.push(coded(3, key=True, of=slower), 0.0)
    assert not is_full(out)
    assert [m.encoded.pts for m in await rest(out) if m.HasField("encoded")] == [3]
