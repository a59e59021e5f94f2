"""One odd moment neither ends the job nor passes for the end."""

from __future__ import annotations

import itertools
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.video.stream import VideoStream
from tests.offline.media import Sound, make_clip, pictures_of, scene, times_of

from streamlift.errors import MediaError
from streamlift.offline import upscale_file
from streamlift.upscalers.bicubic import Bicubic
from streamlift.upscalers.toy import Toy, ToyKnobs


def packets_of(path: Path, kind: str = "video") -> list[tuple[int, int]]:
    """Place and size of each packet in the file."""
    with av.open(str(path)) as container:
        stream = getattr(container.streams, kind)[0]
        return [(p.pos, p.size) for p in container.demux(stream) if p.size and p.pos is not None]


def spoilt(path: Path, place: int, size: int) -> None:
    data = bytearray(path.read_bytes())
    data[place : place + size] = np.random.default_rng(1).bytes(size)
    path.write_bytes(data)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts"])
def test_a_damaged_packet_costs_a_few_pictures(suffix: str, tmp_path: Path) -> None:
    source = make_clip(tmp_path / f"in{suffix}", frames=60, options={"g": "10"}, sounds=[Sound()])
    place, size = packets_of(source)[30]
    spoilt(source, place + 8, size - 8)
    result = upscale_file(source, tmp_path / "out.mp4", Bicubic())
    assert result.pictures >= 45
    assert result.cut_off is None
    assert result.warnings or suffix == ".ts"  # there the decoder may conceal it without a word
    assert len(pictures_of(tmp_path / "out.mp4")) == result.pictures


def test_damaged_sound_is_no_reason_to_stop(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "in.mp4", frames=30, sounds=[Sound("ac3")])
    place, size = packets_of(source, "audio")[5]
    spoilt(source, place, size)
    result = upscale_file(source, tmp_path / "out.webm", Bicubic())
    assert result.pictures == 30
    assert result.cut_off is None


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_a_clip_that_was_cut_off_does_not_pass_for_a_whole_one(suffix: str, tmp_path: Path) -> None:
    source = tmp_path / f"in{suffix}"
    noise = np.random.default_rng(1)
    with av.open(str(source), "w", options={"movflags": "faststart"}) as container:
        stream = container.add_stream("libx264", rate=25)
        assert isinstance(stream, VideoStream)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for _ in range(100):
            picture = noise.integers(0, 255, (64, 96, 3), dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    assert upscale_file(source, tmp_path / "whole.mp4", Bicubic()).cut_off is None
    source.write_bytes(source.read_bytes()[: source.stat().st_size // 2])
    target = tmp_path / "out.mp4"
    result = upscale_file(source, target, Bicubic())
    assert result.cut_off is not None
    assert "it is cut off" in result.cut_off
    assert 30 <= len(pictures_of(target)) == result.pictures < 70


def test_a_clip_whose_index_was_never_written_is_named(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "in.mp4", frames=50)
    source.write_bytes(source.read_bytes()[:3000])
    with pytest.raises(MediaError, match=r"reading .*in\.mp4: it is an MP4 whose index is missing"):
        upscale_file(source, tmp_path / "out.mp4", Bicubic())


@pytest.mark.parametrize("source", ["in.ts", "in.mkv"])
def test_a_clock_that_begins_late_begins_at_zero(source: str, tmp_path: Path) -> None:
    path = two_parts(tmp_path / source, starts=(7200, 7201))
    target = tmp_path / "out.mp4"
    upscale_file(path, target, Bicubic())
    assert times_of(target) == pytest.approx([n / 25 for n in range(50)], abs=0.002)
    assert sound_starts(target)[0] == pytest.approx(0, abs=0.05)


def test_a_clock_that_steps_back_is_mended_for_picture_and_sound(tmp_path: Path) -> None:
    path = two_parts(tmp_path / "in.ts", starts=(100, 3))
    target = tmp_path / "out.mp4"
    result = upscale_file(path, target, Bicubic())
    assert times_of(target) == pytest.approx([n / 25 for n in range(50)], abs=0.06)
    assert "the clock of the source jumped" in result.warnings[0]
    starts = sound_starts(target)
    assert starts[-1] == pytest.approx(2, abs=0.1)
    assert max(b - a for a, b in itertools.pairwise(starts)) < 0.1


def test_a_clock_that_jumps_ahead_is_mended(tmp_path: Path) -> None:
    path = two_parts(tmp_path / "in.ts", starts=(3, 4000))
    target = tmp_path / "out.mp4"
    upscale_file(path, target, Bicubic())
    assert times_of(target) == pytest.approx([n / 25 for n in range(50)], abs=0.06)
    assert sound_starts(target)[-1] == pytest.approx(2, abs=0.1)


def test_a_clock_that_wraps_is_mended(tmp_path: Path) -> None:
    """MPEG-TS counts 33 bits at 90 kHz: after 26.5 hours it begins anew."""
    wrap = Fraction(2**33, 90000)
    path = two_parts(tmp_path / "in.ts", starts=(wrap - 1, wrap))
    target = tmp_path / "out.mp4"
    upscale_file(path, target, Bicubic())
    assert times_of(target) == pytest.approx([n / 25 for n in range(50)], abs=0.06)


def test_a_start_that_is_meant_is_kept(tmp_path: Path) -> None:
    source = make_clip(
        tmp_path / "in.mp4",
        frames=10,
        pts=[n + 12 for n in range(10)],
        time_base=Fraction(1, 25),
        sounds=[Sound()],
    )
    target = tmp_path / "out.mp4"
    upscale_file(source, target, Bicubic())
    assert times_of(target) == times_of(source)
    assert times_of(target)[0] == 0.48


def test_a_change_of_size_is_fitted_and_said(tmp_path: Path) -> None:
    source = tmp_path / "in.ts"
    first, second = (
        make_clip(tmp_path / f"{n}.ts", frames=10, size=size).read_bytes()
        for n, size in enumerate(((96, 64), (128, 96)))
    )
    source.write_bytes(first + second)
    target = tmp_path / "out.mp4"
    result = upscale_file(source, target, Bicubic())
    assert {(f.width, f.height) for f in pictures_of(target)} == {(192, 128)}
    assert result.pictures >= 18
    assert any("another size" in line for line in result.warnings)


def test_a_file_of_which_nothing_decodes_is_an_error(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "in.mkv", frames=5)
    for place, size in packets_of(source):
        spoilt(source, place, size)
    with pytest.raises(MediaError, match=r"reading .*no picture in it can be decoded"):
        upscale_file(source, tmp_path / "out.mp4", Bicubic())
    assert [p.name for p in tmp_path.iterdir()] == ["in.mkv"]


def test_a_model_with_look_ahead_takes_a_damaged_clip_too(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "in.mp4", frames=60, options={"g": "10"})
    place, size = packets_of(source)[30]
    spoilt(source, place, size)
    result = upscale_file(source, tmp_path / "out.mp4", Toy(ToyKnobs(first=5, step=4, lag=2)))
    assert len(pictures_of(tmp_path / "out.mp4")) == result.pictures >= 45


def two_parts(path: Path, starts: tuple[Fraction | int, Fraction | int]) -> Path:
    """Two seconds of picture and sound; each second's times begin where `starts` says."""
    coded = _coded()
    parts = [[c for c in coded if (c[0] >= 1) == second] for second in (False, True)]
    if path.suffix != ".ts":
        _write(path, [(at - n + starts[n], kind, p) for n in (0, 1) for at, kind, p in parts[n]])
        return path
    whole = b""
    for n, part in enumerate(parts):
        piece = path.with_name(f"part{n}.ts")
        _write(piece, [(at - n + starts[n], kind, p) for at, kind, p in part])
        whole += piece.read_bytes()
    path.write_bytes(whole)
    return path


def _coded() -> list[tuple[Fraction, str, bytes]]:
    """Time, kind and bytes of 50 pictures and 94 pieces of sound, in order of time."""
    video: Any = av.CodecContext.create("libx264", "w")
    video.width, video.height, video.pix_fmt = 96, 64, "yuv420p"
    video.time_base, video.framerate, video.max_b_frames = Fraction(1, 25), Fraction(25), 0
    video.options = {"g": "25", "tune": "zerolatency"}
    sound: Any = av.CodecContext.create("ac3", "w")
    sound.sample_rate, sound.layout, sound.format = 48000, "stereo", "fltp"
    coded: list[tuple[Fraction, str, bytes]] = []
    for n in range(50):
        frame = av.VideoFrame.from_ndarray(scene(n), format="rgb24")
        frame.pts, frame.time_base = n, Fraction(1, 25)
        coded += [(Fraction(p.pts, 25), "video", bytes(p)) for p in video.encode(frame)]
    for n in range(62):
        piece = av.AudioFrame.from_ndarray(
            np.zeros((2, 1536), np.float32), format="fltp", layout="stereo"
        )
        piece.sample_rate, piece.pts = 48000, n * 1536
        at = Fraction(n * 1536, 48000)
        coded += [(at, "sound", bytes(p)) for p in sound.encode(piece)]
    return sorted(coded, key=lambda c: c[0])


def _write(path: Path, packets: list[tuple[Fraction, str, bytes]]) -> None:
    with av.open(str(path), "w", options={"avoid_negative_ts": "disabled"}) as container:
        video: Any = container.add_mux_stream("h264", rate=25, width=96, height=64)
        sound: Any = container.add_mux_stream("ac3", rate=48000)
        base = Fraction(1, 90000)
        for at, kind, data in packets:
            packet = av.Packet(data)
            packet.stream, packet.time_base = video if kind == "video" else sound, base
            packet.pts = packet.dts = round(at / base)
            packet.duration = 3600 if kind == "video" else 2880
            container.mux(packet)


def sound_starts(path: Path) -> list[float]:
    with av.open(str(path)) as container:
        return [
            float(p.pts * p.time_base)
            for p in container.demux(container.streams.audio[0])
            if p.pts is not None and p.time_base is not None and p.size
        ]


def test_pictures_before_zero_keep_their_pace_and_their_sound(tmp_path: Path) -> None:
    """Matroska cannot say a time before 0: such pictures come without one."""
    source = make_clip(tmp_path / "in.mp4", frames=25, sounds=[Sound("mp3")], options={"bf": "0"})
    early = tmp_path / "early.mkv"
    with (
        av.open(str(source)) as whole,
        av.open(str(early), "w", container_options={"avoid_negative_ts": "disabled"}) as shifted,
    ):
        tracks = {s: shifted.add_stream_from_template(s) for s in whole.streams}
        for packet in whole.demux():
            if packet.dts is None or packet.pts is None:
                continue
            shift = round(Fraction(1, 2) / packet.time_base)
            packet.pts, packet.dts = packet.pts - shift, packet.dts - shift
            packet.stream = tracks[packet.stream]
            shifted.mux(packet)
    assert pictures_of(early)[0].pts is None
    upscale_file(early, tmp_path / "out.mp4", Bicubic())
    times = times_of(tmp_path / "out.mp4")
    assert np.allclose(np.diff(times), 0.04, atol=0.0011)
    with av.open(str(tmp_path / "out.mp4")) as out:
        sound = [p for p in out.demux(audio=0) if p.size]
    with av.open(str(source)) as before:
        assert len(sound) == len([p for p in before.demux(audio=0) if p.size])
    assert 0 <= times[0] < 0.06  # sound began a frame of MP3 before it
