"""Sound, subtitles, chapters and titles in every container: along, made anew, or named."""

from __future__ import annotations

import os
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.subtitles.subtitle import SubtitleSet
from tests.offline.media import Sound, make_clip, pictures_of

from streamlift.errors import ConfigError, MediaError
from streamlift.offline import Options, upscale_file
from streamlift.upscalers.bicubic import Bicubic

FULL: dict[str, Any] = {
    "frames": 25,
    "sounds": [Sound("aac", 440, "eng"), Sound("ac3", 880, "deu")],
    "subtitles": [(0.1, 0.5, "Hello"), (0.6, 0.9, "Bye")],
    "chapters": [(0, 0.5, "One"), (0.5, 1, "Two")],
    "title": "A walk",
}


@pytest.mark.parametrize("suffix", [".mp4", ".m4v", ".mov", ".mkv", ".webm"])
def test_everything_goes_along(suffix: str, tmp_path: Path) -> None:
    source, target = make_clip(tmp_path / "in.mkv", **FULL), tmp_path / f"out{suffix}"
    assert upscale_file(source, target, Bicubic()).pictures == 25
    with av.open(str(target)) as container:
        german = {"ger", "deu"}
        languages = [s.language for s in container.streams.audio]
        assert languages[0] == "eng"
        assert languages[1] in german
        assert [s.language for s in container.streams.subtitles] == ["eng"]
        assert [c["metadata"]["title"] for c in container.chapters()] == ["One", "Two"]
        assert container.metadata["title"] == "A walk"
    assert [round(hz / 10) for hz in pitches(target)] == [44, 88]
    assert subtitles(target) == [(0.1, "Hello"), (0.6, "Bye")]


@pytest.mark.parametrize("suffix", [".ts", ".m2ts", ".avi", ".flv"])
def test_what_a_container_cannot_hold_is_named(suffix: str, tmp_path: Path) -> None:
    source, target = make_clip(tmp_path / "in.mkv", **FULL), tmp_path / f"out{suffix}"
    result = upscale_file(source, target, Bicubic())
    assert len(pictures_of(target)) == 25
    assert [round(hz / 10) for hz in pitches(target)] == [44, 88]
    with av.open(str(target)) as container:
        assert not container.streams.subtitles
    assert any("subtitle track 3 (eng, subrip) is left out" in w for w in result.warnings)
    assert any("2 chapters are left out" in w for w in result.warnings)


@pytest.mark.parametrize(
    ("source", "codec", "target", "becomes"),
    [
        ("in.wmv", "wmav2", "out.mp4", "aac"),
        ("in.avi", "pcm_u8", "out.mp4", "aac"),
        ("in.mkv", "pcm_s16le", "out.mp4", "aac"),
        ("in.mkv", "flac", "out.ts", "aac"),
        ("in.mp4", "aac", "out.webm", "opus"),
        ("in.mkv", "flac", "out.mkv", "flac"),
        ("in.mkv", "pcm_s24le", "out.mov", "pcm_s24le"),
    ],
)
def test_sound_is_copied_or_encoded_anew(
    source: str, codec: str, target: str, becomes: str, tmp_path: Path
) -> None:
    picture = "libx264" if source.endswith((".mkv", ".mp4")) else "mpeg4"
    clip = make_clip(tmp_path / source, frames=25, codec=picture, sounds=[Sound(codec, 660)])
    out = tmp_path / target
    if out == clip:
        out = tmp_path / "other.mkv"
    result = upscale_file(clip, out, Bicubic())
    with av.open(str(out)) as container:
        assert container.streams.audio[0].codec_context.codec.canonical_name == becomes
    assert bool(result.warnings) == (codec != becomes)
    assert pitches(out) == pytest.approx([660], abs=5)


def test_sound_encoded_anew_stays_in_step(tmp_path: Path) -> None:
    """Silence, then a tone from 0.5 s on, as the source has it."""
    clip = make_clip(tmp_path / "in.mkv", frames=50, sounds=[Sound("pcm_s16le")])
    target = tmp_path / "out.mp4"
    upscale_file(clip, target, Bicubic())
    with av.open(str(target)) as container:
        audio = container.streams.audio[0]
        assert audio.duration is not None
        assert audio.time_base is not None
        assert float(audio.duration * audio.time_base) == pytest.approx(2.0, abs=0.06)


def test_many_channels_are_kept(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "in.mkv", sounds=[Sound("flac", layout="5.1")])
    target = tmp_path / "out.webm"
    upscale_file(clip, target, Bicubic())
    with av.open(str(target)) as container:
        assert container.streams.audio[0].codec_context.layout.nb_channels == 6


@pytest.mark.parametrize("name", ["out.nonsense", "out", "out.wmv", "out.txt"])
def test_a_target_of_no_known_form_is_refused_before_work(name: str, tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "in.mp4")
    with pytest.raises(MediaError, match=r"cannot write .*expected one of \.mp4"):
        upscale_file(clip, tmp_path / name, Bicubic())
    assert [p.name for p in tmp_path.iterdir()] == ["in.mp4"]


@pytest.mark.parametrize(("suffix", "codec"), [(".webm", "h264"), (".ts", "av1"), (".avi", "hevc")])
def test_a_codec_that_a_container_cannot_hold_is_refused(
    suffix: str, codec: str, tmp_path: Path
) -> None:
    clip = make_clip(tmp_path / "in.mp4")
    with pytest.raises(ConfigError, match=f"hold no {codec}; expected one of"):
        upscale_file(clip, tmp_path / f"out{suffix}", Bicubic(), options=Options(codec=codec))


@pytest.mark.parametrize("codec", ["h264", "hevc", "av1", "vp9"])
def test_every_codec_can_be_asked_for(codec: str, tmp_path: Path) -> None:
    clip, target = make_clip(tmp_path / "in.mp4", sounds=[Sound()]), tmp_path / "out.mkv"
    upscale_file(clip, target, Bicubic(), options=Options(codec=codec))
    with av.open(str(target)) as container:
        assert container.streams.video[0].codec_context.codec.canonical_name == codec
    assert len(pictures_of(target)) == 12


@pytest.mark.parametrize(
    ("codec", "crf", "fine"),
    [("h264", 51, True), ("h264", 52, False), ("h264", -1, False), ("av1", 63, True)],
)
def test_quality_has_bounds(codec: str, crf: int, fine: bool, tmp_path: Path) -> None:
    clip, target = make_clip(tmp_path / "in.mp4"), tmp_path / "out.mkv"
    options = Options(codec=codec, crf=crf)
    if fine:
        assert upscale_file(clip, target, Bicubic(), options=options).pictures == 12
        return
    with pytest.raises(ConfigError, match=rf"--crf {crf}: {codec} takes 0 \(best\) to 51"):
        upscale_file(clip, target, Bicubic(), options=options)


def test_hardware_that_is_not_there_is_named_and_software_takes_over(tmp_path: Path) -> None:
    clip, target = make_clip(tmp_path / "in.mp4"), tmp_path / "out.mp4"
    result = upscale_file(clip, target, Bicubic(), options=Options(hardware=True))
    assert len(pictures_of(target)) == 12
    with av.open(str(target)) as container:
        assert container.streams.video[0].codec_context.codec.canonical_name == "h264"
    assert result.warnings in ((), ("no hardware encoder of h264 opens here; libx264 is used",))


def pitches(path: Path) -> list[float]:
    """The strongest frequency of each track of sound."""
    found = []
    with av.open(str(path)) as container:
        count = len(container.streams.audio)
    for number in range(count):
        with av.open(str(path)) as container:
            stream = container.streams.audio[number]
            resampler = av.AudioResampler("s16", "mono", 48000)
            pieces: list[Any] = []
            for frame in container.decode(stream):
                assert isinstance(frame, av.AudioFrame)
                pieces += [part.to_ndarray()[0] for part in resampler.resample(frame)]
            wave = np.concatenate(pieces).astype(float)
        spectrum = np.abs(np.fft.rfft(wave * np.hanning(len(wave))))
        found.append(float(np.argmax(spectrum) * 48000 / len(wave)))
    return found


def subtitles(path: Path) -> list[tuple[float, str]]:
    found = []
    with av.open(str(path)) as container:
        stream: Any = container.streams.subtitles[0]
        for packet in container.demux(stream):
            if packet.pts is None or not packet.size:
                continue
            for shown in stream.decode(packet):
                text = shown.dialogue.decode().strip()
                if text:
                    found.append((round(float(packet.pts * packet.time_base), 2), text))
    return found


def test_fonts_and_styled_subtitles_stay_in_matroska_and_are_named_elsewhere(
    tmp_path: Path,
) -> None:
    source = styled(tmp_path / "in.mkv")
    result = upscale_file(source, tmp_path / "out.mkv", Bicubic())
    assert result.warnings == ()
    with av.open(str(tmp_path / "out.mkv")) as container:
        kinds = [s.type for s in container.streams]
        assert sorted(kinds) == ["attachment", "subtitle", "video"]
        assert container.streams.subtitles[0].codec_context.codec.canonical_name == "ass"
        (font,) = (s for s in container.streams if s.type == "attachment")
        assert getattr(font, "data", None) == b"a font"
    said = " ".join(upscale_file(source, tmp_path / "out.mp4", Bicubic()).warnings)
    assert "loses its styles" in said
    assert "hold no attachments" in said
    (text,) = (text for _, text in subtitles(tmp_path / "out.mp4"))
    assert text.endswith("Hello")


def test_the_transparency_of_a_webm_is_named_though_its_decoder_drops_it(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "in.webm", codec="libvpx-vp9", pix_fmt="yuva420p")
    result = upscale_file(source, tmp_path / "out.mp4", Bicubic())
    assert "transparency is left out: the result is opaque" in result.warnings


def test_a_disk_that_is_full_is_named(tmp_path: Path) -> None:
    """A limit on the size of files stands in for the disk's."""
    source, folder = make_clip(tmp_path / "in.mp4", frames=60), tmp_path / "out"
    folder.mkdir()
    command = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000)); "
        "from streamlift.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    target = folder / "out.mp4"
    run = subprocess.run(
        [sys.executable, "-c", command, "upscale", source, target, "--backend", "bicubic"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        check=False,
    )
    assert run.returncode == 1
    assert f"writing {target}: the file grew larger than the disk allows" in run.stderr
    assert "Traceback" not in run.stderr
    assert list(folder.iterdir()) == []


def styled(path: Path) -> Path:
    """A clip with an ASS track and a font for it."""
    header = (
        b"[Script Info]\r\nScriptType: v4.00+\r\n\r\n[V4+ Styles]\r\nFormat: Name, Fontname, "
        b"Fontsize\r\nStyle: Default,Arial,16\r\n\r\n[Events]\r\nFormat: Layer, Start, End, Style, "
        b"Name, MarginL, MarginR, MarginV, Effect, Text\r\n"
    )
    plain = make_clip(path.with_name("plain.mp4"))
    with av.open(str(plain)) as source, av.open(str(path), "w") as container:
        video = container.add_stream_from_template(source.streams.video[0])
        written: Any = container.add_stream("ass")
        written.codec_context.subtitle_header = header
        written.codec_context.time_base = written.time_base = Fraction(1, 1000)
        container.add_attachment("font.ttf", "font/ttf", b"a font")
        for packet in source.demux(source.streams.video[0]):
            if packet.dts is not None:
                packet.stream = video
                container.mux(packet)
        shown = SubtitleSet.create(b"0,0,Default,,0,0,0,,{\\i1}Hello{\\i0}", 0, 200)
        coded = written.codec_context.encode_subtitle(shown)
        coded.stream, coded.time_base = written, Fraction(1, 1000)
        coded.pts = coded.dts = 100
        coded.duration = 200
        container.mux(coded)
    return path
