"""Media that no decoder likes: counted drops, no traceback, no harm to the stream beside it."""

from __future__ import annotations

import dataclasses
import random
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.clips import coded_clip, decode
from tests.peers import PacketViewer, publishing, watching
from tests.serving import Served, until

from streamlift.clock import ManualClock
from streamlift.codec.decoder import CodedPicture, DecodeThread
from streamlift.frames import Codec, CodedVideo, Frame, Size

START_CODE = b"\x00\x00\x00\x01"
TINY = Size(128, 128)


@pytest.mark.peer
@pytest.mark.parametrize("kind", ["flipped", "cut", "noise", "headers"])
async def test_damaged_h264_is_dropped_and_the_next_keyframe_heals_it(
    service: Served, kind: str
) -> None:
    chance = random.Random(kind)

    def damage(number: int, unit: bytes) -> bytes:
        return _DAMAGE[kind](unit, chance) if 10 <= number < 25 else unit

    async with (
        _healthy_stream_beside(service),
        publishing(service.whip(), coded_clip(gop=10), change=damage) as publisher,
    ):
        await service.live()
        async with watching(service.whep()) as seen:
            await until(lambda: len(publisher.sent) > 25, "the damage to be over")
            await seen.wait_more(20)
    pictures = decode([data for _, data in seen.units], Codec.H264)
    assert len(pictures) == len(seen.units), "what viewers get is never damaged"


@pytest.mark.peer
@pytest.mark.parametrize("size", [Size(32, 32), Size(1344, 64), Size(2048, 1024)])
async def test_a_size_out_of_range_is_counted_and_never_reaches_a_backend(
    service: Served, size: Size
) -> None:
    clip = coded_clip(size, 3, stamped=False)
    async with (
        _healthy_stream_beside(service),
        publishing(service.whip("odd"), clip) as publisher,
    ):
        await until(lambda: len(publisher.sent) >= 5, "a few pictures to be sent")
        session = next(s for s in service.parts.sessions if s.stream == "odd")
        await until(lambda: _dropped(session.peer) >= 1, "a drop to be counted")
        assert session.peer.state == "live"
        frames = (await service.stream("odd"))["frames"]
        assert frames["upscaled"] == frames["decoded"] == 0
        assert set(frames["dropped"]) <= {"unsupported_size", "decode_error", "no_keyframe"}


@pytest.mark.peer
async def test_a_publisher_that_sends_no_media_is_ended_with_a_reason(
    service: Served,
) -> None:
    config = service.parts.config
    ingest = dataclasses.replace(config.ingest, first_media_s=0.5)
    service.parts.config = dataclasses.replace(config, ingest=ingest)
    async with publishing(service.whip(), coded_clip(), change=lambda *_: b""):
        session = next(iter(service.parts.sessions))
        await until(lambda: len(service.parts.sessions) == 0, "the silent one to be ended")
    assert "no media" in str(session.peer.reason)  # type: ignore[attr-defined]
    assert service.state() is None


@pytest.mark.peer
async def test_viewers_are_told_that_nothing_of_a_publisher_can_be_decoded(
    service: Served,
) -> None:
    """It never had one picture; the waiting card says why, and so does the API."""
    config = service.parts.config
    ingest = dataclasses.replace(config.ingest, no_picture_s=0.5)
    service.parts.config = dataclasses.replace(config, ingest=ingest)
    chance = random.Random(9)
    broken = True

    def damage(_: int, unit: bytes) -> bytes:
        return _noise(unit, chance) if broken else unit

    why = "no picture could be decoded for 0.5 s"
    async with publishing(service.whip(), coded_clip(gop=10), change=damage):
        await until(lambda: service.state() == "waiting", "the stream to wait")
        assert (await service.stream())["reason"] == why
        async with watching(service.whep()) as seen:
            await seen.wait_units(2)
            (slate, *_) = decode([data for _, data in seen.units], Codec.H264)
            assert (slate.width, slate.height) == (1024, 1024)
            session = next(s for s in service.parts.sessions if s.role == "publish")
            assert session.peer.state == "live"
            broken = False
            await service.live()
            await seen.wait_more(10)
        assert (await service.stream())["publisher"]["size"] == [256, 256]


@pytest.mark.peer
async def test_rubbish_does_not_take_a_stream_over(service: Served) -> None:
    config = service.parts.config
    ingest = dataclasses.replace(config.ingest, no_picture_s=0.5)
    service.parts.config = dataclasses.replace(config, ingest=ingest)
    chance = random.Random(9)
    rubbish = publishing(service.whip(), coded_clip(), change=lambda _, unit: _noise(unit, chance))
    async with publishing(service.whip(), coded_clip()):
        await service.live()
        (first,) = service.parts.sessions
        async with rubbish:
            second = next(s for s in service.parts.sessions if s is not first)
            await until(lambda: len(service.parts.sessions) == 1, "the second to be ended")
            assert second.peer.reason == "no picture could be decoded for 0.5 s"  # type: ignore[attr-defined]
            assert first.peer.state == "live"
            assert service.state() == "live"


@pytest.mark.peer
async def test_a_change_of_size_in_mid_stream_is_shown(service: Served) -> None:
    small, large = coded_clip(Size(192, 160), 10), coded_clip(Size(256, 256), 10)

    def grow(number: int, unit: bytes) -> bytes:
        return unit if number < 20 else large.units[number % 10]

    async with publishing(service.whip(), small, change=grow):
        await service.live()
        async with watching(service.whep()) as seen:
            await until(lambda: _size(service) == Size(512, 512), "the new size to be shown")
            await seen.wait_more(5)
    sizes = [(p.width, p.height) for p in decode([d for _, d in seen.units], Codec.H264)]
    assert sizes[-1] == (512, 512)


# ---- the decode thread alone, where many more kinds of damage can be tried ----


mutations = st.lists(
    st.tuples(
        st.integers(0, 5),  # which picture
        st.sampled_from(["flip", "cut", "insert", "drop"]),
        st.floats(0, 1, exclude_max=True),  # where in it
        st.binary(min_size=1, max_size=24),
    ),
    min_size=1,
    max_size=8,
)


@settings(max_examples=60, deadline=None)
@given(mutations)
def test_no_damage_ends_the_decode_thread_and_a_keyframe_heals_all(
    changes: list[tuple[int, str, float, bytes]],
) -> None:
    clip = coded_clip(TINY, 6)
    units = [bytearray(unit) for unit in clip.units]
    for index, how, where, extra in changes:
        _mutate(units[index], how, where, extra)
    healing = [bytearray(unit) for unit in clip.units]
    frames, refused = _decode_all([*units, *healing])
    assert set(refused) <= {"decode_error", "unsupported_size"}
    last = [frame for frame in frames if frame.pts >= len(units)]
    assert [frame.pts for frame in last] == list(range(len(units), len(units) + len(healing)))
    assert {frame.size for frame in last} == {TINY}


@pytest.mark.parametrize("codec", list(Codec))
def test_pure_noise_gives_no_picture_and_no_exception(codec: Codec) -> None:
    chance = random.Random(5)
    frames, refused = _decode_all([bytearray(chance.randbytes(900)) for _ in range(20)], codec)
    assert not frames
    assert refused["decode_error"] >= 1


def test_a_forged_header_of_16384_by_16384_is_refused_before_it_is_allocated() -> None:
    nal_units = coded_clip(TINY).units[0].split(START_CODE)
    assert [nal[0] & 0x1F for nal in nal_units[1:3]] == [7, 8], "SPS and PPS come first"
    nal_units[1] = _sps(16384, 16384)
    frames, refused = _decode_all([bytearray(START_CODE.join(nal_units))])
    assert not frames
    assert refused["decode_error"] == 1


def _decode_all(
    units: list[bytearray], codec: Codec = Codec.H264
) -> tuple[list[Frame], Counter[str]]:
    """Frames and refusals of a run of access units; pts counts them."""
    frames: list[Frame] = []
    refused: Counter[str] = Counter()
    done = threading.Event()
    thread = DecodeThread(
        "test",
        max_side=1280,
        clock=ManualClock(),
        deliver=frames.append,
        refuse=lambda reason, _: refused.update([reason]),
        done=done.set,
    )
    for pts, unit in enumerate(units):
        assert thread.offer(CodedPicture(pts, CodedVideo(codec, bytes(unit), True), 0.0))
    thread.stop()
    assert done.wait(20), "the decode thread did not end"
    return frames, refused


def _mutate(unit: bytearray, how: str, where: float, extra: bytes) -> None:
    at = int(where * len(unit))
    if how == "flip":
        for offset, value in enumerate(extra[: len(unit) - at]):
            unit[at + offset] ^= value
    elif how == "cut":
        del unit[at:]
    elif how == "insert":
        unit[at:at] = extra
    else:
        del unit[at : at + len(extra)]


def _flipped(unit: bytes, chance: random.Random) -> bytes:
    """Bits flipped in the payload; start codes and NAL headers stay."""
    out = bytearray(unit)
    for _ in range(8):
        out[chance.randrange(8, len(out))] ^= 1 << chance.randrange(8)
    return bytes(out)


def _cut(unit: bytes, chance: random.Random) -> bytes:
    return unit[: chance.randrange(8, len(unit))]


def _noise(unit: bytes, chance: random.Random) -> bytes:
    """Right NAL header, wrong rest."""
    return unit[:6] + chance.randbytes(len(unit))


def _headers(unit: bytes, chance: random.Random) -> bytes:
    """NAL types that do not exist, parameter sets made of noise, one forged huge size."""
    kind = bytes([chance.choice((0, 7, 8, 14, 24, 31, 0xFF))])
    return START_CODE + _sps(16384, 16384) + START_CODE + kind + chance.randbytes(40)


_DAMAGE: dict[str, Callable[[bytes, random.Random], bytes]] = {
    "flipped": _flipped,
    "cut": _cut,
    "noise": _noise,
    "headers": _headers,
}


def _sps(width: int, height: int) -> bytes:
    """A baseline sequence parameter set of any size (ITU-T H.264, 7.3.2.1.1)."""
    fields = [0, 0, 2, 1]  # id 0, frame_num of 4 bits, order count type 2, one reference frame
    bits = "".join(map(_exp_golomb, fields)) + "0"  # no gaps in frame_num
    bits += _exp_golomb(width // 16 - 1) + _exp_golomb(height // 16 - 1)
    bits += "1100" + "1"  # frames only, direct 8x8, no crop, no VUI; stop bit
    bits += "0" * (-len(bits) % 8)
    return bytes([0x67, 66, 0xC0, 52]) + int(bits, 2).to_bytes(len(bits) // 8, "big")


def _exp_golomb(value: int) -> str:
    binary = f"{value + 1:b}"
    return "0" * (len(binary) - 1) + binary


@asynccontextmanager
async def _healthy_stream_beside(service: Served) -> AsyncIterator[PacketViewer]:
    """Another stream with a viewer, that must go on all the time."""
    async with publishing(service.whip("healthy"), coded_clip()):
        await service.live("healthy")
        async with watching(service.whep("healthy")) as seen:
            await seen.wait_units(3)
            yield seen
            await seen.wait_more(5)
            assert service.state("healthy") == "live"
            dropped = (await service.stream("healthy"))["frames"]["dropped"]
            assert not dropped.keys() & {"decode_error", "unsupported_size", "no_keyframe"}


def _dropped(peer: object) -> int:
    return sum(peer.counts.dropped.values())  # type: ignore[attr-defined]


def _size(service: Served) -> Size | None:
    return service.parts.router.stream("live").snapshot().output.size
