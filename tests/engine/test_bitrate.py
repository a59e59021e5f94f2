"""The bit rate of a running stream: changed without a keyframe where the encoder can."""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable

import pytest
from tests.clips import TICKS, coded_clip, picture
from tests.peers import publishing, watching
from tests.serving import Served, until

from streamlift.clock import MonotonicClock
from streamlift.codec import is_keyframe
from streamlift.config import BackendConfig, Config
from streamlift.engine.encode import EncodeThread, Picture
from streamlift.frames import Codec, Colour, EncodedFrame, Rendition, Size, StageTimes, Unencoded

SIZE = Size(256, 256)


class Encoding:
    """An encode thread that is fed stamped pictures and waited for."""

    def __init__(self, *renditions: Rendition) -> None:
        self.frames: list[EncodedFrame] = []
        self._arrived = threading.Condition()
        self._number = 0
        self._clock = MonotonicClock()
        self.thread = EncodeThread(
            "test",
            renditions=frozenset(renditions),
            preset="ultrafast",
            fps=25,
            depth=4,
            skip=lambda: None,
            clock=self._clock,
            deliver=self._deliver,
            done=lambda _: None,
        )

    def _deliver(self, frame: EncodedFrame | Unencoded) -> None:
        assert isinstance(frame, EncodedFrame)
        with self._arrived:
            self.frames.append(frame)
            self._arrived.notify_all()

    def encode(self, count: int, renditions: int = 1) -> list[EncodedFrame]:
        """The frames of the next `count` pictures."""
        before = len(self.frames)
        for _ in range(count):
            planes = picture(SIZE, self._number)
            pts = self._number * TICKS
            self._number += 1
            wanted = len(self.frames) + renditions
            now_s = self._clock.now_s()
            assert self.thread.offer(
                Picture(planes, pts, Colour(), 0.0, now_s, now_s, StageTimes(), SIZE)
            )
            with self._arrived:
                assert self._arrived.wait_for(lambda n=wanted: len(self.frames) >= n, 10)  # type: ignore[misc]
        return self.frames[before:]

    def set(self, *renditions: Rendition) -> None:
        self.thread.set_renditions(frozenset(renditions))


def h264(bitrate_bps: int, profile: str = "High") -> Rendition:
    return Rendition(Codec.H264, bitrate_bps, profile)


def keyframes(frames: list[EncodedFrame]) -> int:
    return sum(frame.keyframe for frame in frames)


def rate_bps(frames: list[EncodedFrame]) -> float:
    return sum(len(frame.data) for frame in frames) * 8 * 25 / len(frames)


@pytest.fixture
def encoding() -> Encoding:
    return Encoding(h264(3_000_000))


def test_lower_and_back_again_needs_no_keyframe(encoding: Encoding) -> None:
    first = encoding.encode(25)
    encoding.set(h264(500_000))
    lower = encoding.encode(50)
    encoding.set(h264(3_000_000))
    again = encoding.encode(25)
    encoding.thread.finish()
    assert keyframes(first) == 1
    assert keyframes(lower) == keyframes(again) == 0
    assert rate_bps(lower[25:]) < 0.8 * rate_bps(first)
    assert {frame.rendition.bitrate_bps for frame in lower} == {500_000}


def test_above_the_opening_rate_a_new_encoder_begins_with_a_keyframe(encoding: Encoding) -> None:
    encoding.encode(5)
    encoding.set(h264(6_000_000))
    higher = encoding.encode(5)
    encoding.thread.finish()
    assert [frame.keyframe for frame in higher] == [True] + [False] * 4


def test_another_profile_is_another_encoder(encoding: Encoding) -> None:
    encoding.encode(3)
    encoding.set(h264(500_000, "Baseline"))
    other = encoding.encode(3)
    encoding.thread.finish()
    assert keyframes(other) == 1


def test_a_second_rendition_beside_the_first_disturbs_it_not(encoding: Encoding) -> None:
    encoding.encode(5)
    encoding.set(h264(3_000_000), h264(800_000))
    both = encoding.encode(5, renditions=2)
    encoding.thread.finish()
    high = [frame for frame in both if frame.rendition.bitrate_bps == 3_000_000]
    low = [frame for frame in both if frame.rendition.bitrate_bps == 800_000]
    assert keyframes(high) == 0
    assert [frame.keyframe for frame in low] == [True] + [False] * 4


def test_vp8_cannot_change_and_is_opened_anew() -> None:
    encoding = Encoding(Rendition(Codec.VP8, 2_000_000, ""))
    encoding.encode(3)
    encoding.set(Rendition(Codec.VP8, 500_000, ""))
    assert keyframes(encoding.encode(3)) == 1
    encoding.thread.finish()


@pytest.mark.peer
async def test_a_patch_changes_the_rate_of_a_running_stream_without_a_keyframe(
    serve: Callable[..., Awaitable[Served]],
) -> None:
    plain = Config(backends=(BackendConfig("bicubic", "bicubic"),), default_backend="bicubic")
    served = await serve(plain)
    async with publishing(served.whip(), coded_clip(gop=25)):
        await until(
            lambda: any(s.state == "live" for s in served.parts.router.streams()), "the stream"
        )
        async with watching(served.whep()) as viewer, served.http() as http:
            await viewer.wait_units(25)
            body = {"bitrate_bps": 400_000}
            response = await http.patch("/api/v1/streams/live", json=body)
            assert response.status_code == 200
            renditions = response.json()["output"]["renditions"]
            assert [r["bitrate_bps"] for r in renditions] == [400_000]
            before = len(viewer.units)
            await viewer.wait_more(60, timeout_s=20)
    keys = [is_keyframe(Codec.H264, unit) for _, unit in viewer.units]
    assert sum(keys) == 1
    late = [len(unit) for _, unit in viewer.units[before + 30 :]]
    assert sum(late) / len(late) * 8 * 25 < 800_000
