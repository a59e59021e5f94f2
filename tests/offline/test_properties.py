"""The table of docs/files.md: what a clip carries is kept, converted with a word, or refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.offline.media import (
    Sound,
    colour_shown,
    make_clip,
    pictures_of,
    times_of,
    turned,
    with_hdr10_plus,
)

from streamlift.errors import ConfigError
from streamlift.frames import Size
from streamlift.offline import Options, Result, upscale_file
from streamlift.offline.siting import chroma_siting
from streamlift.upscalers.bicubic import Bicubic

HDR10 = (
    "log-level=none:hdr10=1:repeat-headers=1:max-cll=1000,400:master-display="
    "G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,50)"
)
PQ: dict[str, Any] = {
    "codec": "libx265",
    "pix_fmt": "yuv420p10le",
    "matrix": 9,
    "primaries": 9,
    "transfer": 16,
    "options": {"x265-params": HDR10},
}


@dataclass(frozen=True)
class Row:
    """One line of the table: a clip with the property, and what must be true of the result."""

    clip: dict[str, Any]
    holds: Callable[[Path, Path, Result], bool]
    suffix: str = ".mkv"
    target: str = ".mp4"
    prepare: Callable[[Path], None] | None = None
    options: Options = field(default_factory=Options)


def shape(path: Path) -> float:
    """Width over height, as shown."""
    with av.open(str(path)) as container:
        video = container.streams.video[0]
        return video.width / video.height * float(video.sample_aspect_ratio or 1)


def tags(path: Path) -> tuple[int, ...]:
    frame = pictures_of(path)[0]
    return tuple(
        int(t)
        for t in (frame.colorspace, frame.color_primaries, frame.color_trc, frame.color_range)
    )


def bits(path: Path) -> int:
    return max(c.bits for c in pictures_of(path)[0].format.components)


def side(path: Path) -> set[str]:
    data: Any = pictures_of(path)[0].side_data
    return {data[n].type.name for n in range(len(data))}


def siting(path: Path) -> str | None:
    return chroma_siting(pictures_of(path)[0])


def bright_corner(path: Path) -> str:
    """Where the red corner of the scene lies in the result."""
    picture: Any = pictures_of(path)[0].to_ndarray(format="rgb24")
    height, width = picture.shape[:2]
    corners = {
        "top left": picture[height // 12, width // 12],
        "top right": picture[height // 12, -width // 12],
        "bottom left": picture[-height // 12, width // 12],
        "bottom right": picture[-height // 12, -width // 12],
    }
    return max(corners, key=lambda name: int(corners[name][0]) - int(corners[name][2]))


def said(result: Result, *words: str) -> bool:
    return any(all(word in line for word in words) for line in result.warnings)


def near(one: tuple[int, ...], other: tuple[int, ...], most: int = 8) -> bool:
    return max(abs(a - b) for a, b in zip(one, other, strict=True)) <= most


TURNS = {
    "a quarter clockwise": ((0, 1, -1, 0), (64, 96), "top right"),
    "a quarter back": ((0, -1, 1, 0), (64, 96), "bottom left"),
    "half": ((-1, 0, 0, -1), (96, 64), "bottom right"),
    "mirrored": ((-1, 0, 0, 1), (96, 64), "top right"),
}


def turn_row(matrix: tuple[int, int, int, int], size: tuple[int, int], corner: str) -> Row:
    return Row(
        {"still": True},
        lambda _, out, __: (
            (pictures_of(out)[0].width, pictures_of(out)[0].height) == (2 * size[0], 2 * size[1])
            and bright_corner(out) == corner
            and pictures_of(out)[0].rotation == 0
        ),
        suffix=".mp4",
        prepare=lambda path: turned(path, *matrix),
    )


def siting_row(place: str, target: str) -> Row:
    return Row(
        {"options": {"chroma_sample_location": place}},
        lambda src, out, _: siting(src) == siting(out) == place,
        target=target,
    )


ROWS: dict[str, Row] = {
    "size": Row({"size": (100, 62)}, lambda _, out, __: pictures_of(out)[0].width == 200),
    "frame rate": Row(
        {"rate": Fraction(24000, 1001)}, lambda src, out, _: times_of(src) == times_of(out)
    ),
    "uneven times and the last duration": Row(
        {"pts": [0, 40, 100, 500, 540, 1000], "frames": 6, "time_base": Fraction(1, 1000)},
        lambda src, out, _: times_of(out) == times_of(src) and 1.03 < duration(out) < 1.05,
    ),
    "pixel aspect": Row(
        {"aspect": Fraction(32, 27)},
        lambda src, out, _: abs(shape(out) / shape(src) - 1) < 0.01,
        suffix=".mp4",
    ),
    "shape at another size": Row(
        {},
        lambda src, out, _: abs(shape(out) / shape(src) - 1) < 0.01,
        options=Options(size=Size(160, 160)),
    ),
    **{f"turned {name}": turn_row(*row) for name, row in TURNS.items()},
    "pixel aspect of a turned clip": Row(
        {"aspect": Fraction(32, 27)},
        lambda _, out, __: abs(shape(out) - 64 / 96 / (32 / 27)) < 0.02,
        suffix=".mp4",
        prepare=lambda path: turned(path, 0, 1, -1, 0),
    ),
    "BT.709, limited": Row(
        {"matrix": 1, "full_range": False},
        lambda src, out, _: near(colour_shown(src), colour_shown(out)) and tags(out)[0] == 1,
    ),
    "BT.709, full range": Row(
        {"matrix": 1, "full_range": True},
        lambda src, out, _: near(colour_shown(src), colour_shown(out)) and tags(out)[3] == 2,
    ),
    "BT.601, full range": Row(
        {"matrix": 6, "full_range": True},
        lambda src, out, _: near(colour_shown(src), colour_shown(out)) and tags(out)[3] == 2,
    ),
    "primaries and transfer": Row(
        {"matrix": 1, "primaries": 1, "transfer": 13},
        lambda _, out, __: tags(out)[:3] == (1, 1, 13),
    ),
    "no tags, small": Row(
        {}, lambda src, out, _: near(colour_shown(src), colour_shown(out)) and tags(out)[0] == 6
    ),
    "no tags, and the result would be judged otherwise": Row(
        {"size": (640, 360), "frames": 3, "options": {"preset": "ultrafast"}},
        lambda src, out, _: near(colour_shown(src), colour_shown(out)) and tags(out)[0] == 6,
    ),
    "no tags, HD": Row(
        {"size": (1280, 720), "frames": 2, "options": {"preset": "ultrafast"}, "matrix": None},
        lambda src, out, _: near(colour_shown(src), colour_shown(out)) and tags(out)[0] == 1,
    ),
    "RGB": Row(
        {"codec": "libx264rgb", "pix_fmt": "rgb24"},
        lambda _, out, __: tags(out)[0] == 6 and bright_corner(out) == "top left",
    ),
    "10 bits": Row({"pix_fmt": "yuv420p10le"}, lambda _, out, __: bits(out) == 10),
    "HDR10": Row(
        PQ,
        lambda _, out, __: (
            bits(out) == 10
            and tags(out)[:3] == (9, 9, 16)
            and {"MASTERING_DISPLAY_METADATA", "CONTENT_LIGHT_LEVEL"} <= side(out)
        ),
    ),
    "HLG": Row(
        {**PQ, "transfer": 18, "options": {"x265-params": "log-level=none"}},
        lambda _, out, __: bits(out) == 10 and tags(out)[:3] == (9, 9, 18),
    ),
    "interlaced": Row(
        {"options": {"x264-params": "interlaced=1", "flags": "+ildct+ilme"}},
        lambda _, out, result: (
            not any(f.interlaced_frame for f in pictures_of(out)) and said(result, "deinterlaced")
        ),
        suffix=".mp4",
    ),
    "4:2:2": Row(
        {"codec": "ffv1", "pix_fmt": "yuv422p"},
        lambda _, __, result: said(result, "4:2:2", "4:2:0"),
    ),
    "4:4:4": Row(
        {"codec": "ffv1", "pix_fmt": "yuv444p"},
        lambda _, __, result: said(result, "4:4:4", "4:2:0"),
    ),
    "12 bits": Row(
        {"codec": "ffv1", "pix_fmt": "yuv420p12le"},
        lambda _, out, result: bits(out) == 10 and said(result, "12 bits", "10"),
    ),
    "transparency": Row(
        {"codec": "ffv1", "pix_fmt": "yuva420p"}, lambda _, __, result: said(result, "transparency")
    ),
    "odd result": Row(
        {"codec": "ffv1", "size": (33, 31)},
        lambda _, out, result: pictures_of(out)[0].width == 100 and said(result, "99x93", "100x94"),
        options=Options(scale=Fraction(3)),
    ),
    "odd result where the codec takes it": Row(
        {"codec": "ffv1", "size": (33, 31)},
        lambda _, out, __: (pictures_of(out)[0].width, pictures_of(out)[0].height) == (99, 93),
        target=".webm",
        options=Options(scale=Fraction(3)),
    ),
    "4:4:0": Row(
        {"codec": "ffv1", "pix_fmt": "yuv440p"},
        lambda _, __, result: said(result, "4:4:0", "4:2:0"),
    ),
    "chroma siting, upper left": siting_row("topleft", ".mp4"),
    "chroma siting, centred": siting_row("center", ".mkv"),
    "chroma siting, left": siting_row("left", ".ts"),
    "chroma siting of HDR": Row(
        {**PQ, "options": {"x265-params": HDR10, "chroma_sample_location": "topleft"}},
        lambda src, out, _: siting(src) == siting(out) == "topleft",
    ),
    "HDR10+": Row(
        {**PQ, "frames": 3},
        lambda _, out, result: said(result, "HDR10+") and "DYNAMIC_HDR_PLUS" not in side(out),
        suffix=".hevc",
        prepare=with_hdr10_plus,
    ),
    "title": Row({"title": "A walk"}, lambda _, out, __: meta(out)["title"] == "A walk"),
}


def duration(path: Path) -> float:
    with av.open(str(path)) as container:
        video = container.streams.video[0]
        return float(video.duration * video.time_base) if video.duration and video.time_base else 0


def meta(path: Path) -> dict[str, str]:
    with av.open(str(path)) as container:
        return dict(container.metadata)


@pytest.mark.parametrize("sound", [False, True], ids=["silent", "with sound"])
@pytest.mark.parametrize("name", ROWS)
def test_what_a_clip_carries(name: str, sound: bool, tmp_path: Path) -> None:
    row = ROWS[name]
    if sound and row.suffix == ".hevc":
        pytest.skip("a bare bitstream holds no sound")
    codec = "aac" if row.suffix == ".mp4" or row.target == ".mp4" else "libopus"
    source = make_clip(tmp_path / f"in{row.suffix}", **row.clip, sounds=[Sound(codec)] * sound)
    if row.prepare is not None:
        row.prepare(source)
    target = tmp_path / f"out{row.target}"
    result = upscale_file(source, target, Bicubic(), options=row.options)
    assert row.holds(source, target, result), (result, tags(target))
    with av.open(str(target)) as container:
        assert len(container.streams.audio) == sound


@settings(max_examples=12)
@given(
    matrix=st.sampled_from([None, 1, 6]),
    full_range=st.sampled_from([None, False, True]),
    aspect=st.sampled_from([None, Fraction(16, 11), Fraction(4, 3)]),
    turn=st.sampled_from([None, *(row[0] for row in TURNS.values())]),
    sound=st.booleans(),
)
def test_properties_are_kept_together(
    tmp_path_factory: pytest.TempPathFactory,
    matrix: int | None,
    full_range: bool | None,
    aspect: Fraction | None,
    turn: tuple[int, int, int, int] | None,
    sound: bool,
) -> None:
    folder = tmp_path_factory.mktemp("together")
    source, target = folder / "in.mp4", folder / "out.mp4"
    make_clip(
        source,
        frames=3,
        still=True,
        matrix=matrix,
        full_range=full_range,
        aspect=aspect,
        sounds=[Sound()] * sound,
    )
    before = shape(source)
    if turn is not None:
        turned(source, *turn)
        before = before if turn[0] else 1 / before
    result = upscale_file(source, target, Bicubic())
    assert result.warnings == ()
    assert abs(shape(target) / before - 1) < 0.01
    assert near(colour_shown(source), colour_shown(target))


@pytest.mark.parametrize("target", [".avi", ".png", ".gif"])
def test_hdr_is_never_written_as_if_it_were_not(target: str, tmp_path: Path) -> None:
    source = make_clip(tmp_path / "in.mkv", frames=1, **PQ)
    out = tmp_path / f"out{target}"
    if target == ".avi":  # H.264 with 10 bits keeps it
        upscale_file(source, out, Bicubic())
        assert tags(out)[:3] == (9, 9, 16)
        assert bits(out) == 10
        return
    with pytest.raises(ConfigError, match="HDR"):
        upscale_file(source, out, Bicubic())
    assert not out.exists()


def test_hdr_goes_into_webm_as_av1_and_not_as_vp9(tmp_path: Path) -> None:
    source, target = make_clip(tmp_path / "in.mkv", **PQ), tmp_path / "out.webm"
    upscale_file(source, target, Bicubic())
    assert bits(target) == 10
    assert tags(target)[:3] == (9, 9, 16)
    with pytest.raises(ConfigError, match=r"PQ.*vp9"):
        upscale_file(source, tmp_path / "b.webm", Bicubic(), options=Options(codec="vp9"))


def test_the_times_of_an_uneven_clip_fit_into_avi(tmp_path: Path) -> None:
    pts = [0, 1, 2, 6, 7, 8, 12, 13, 14, 15]
    source = make_clip(
        tmp_path / "in.mp4", frames=len(pts), pts=pts, time_base=Fraction(1, 25), codec="mpeg4"
    )
    result = upscale_file(source, tmp_path / "out.avi", Bicubic())
    assert result.warnings == ()
    # The form has places and no times; what readers make of them for H.264 differs by a picture.
    with av.open(str(tmp_path / "out.avi")) as container:
        places = [p.dts for p in container.demux(video=0) if p.dts is not None]
    assert places == pts


def test_av1_says_nothing_of_its_own(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SVT_LOG", raising=False)
    source = make_clip(tmp_path / "in.mp4", frames=2)
    upscale_file(source, tmp_path / "out.mkv", Bicubic(), options=Options(codec="av1"))
    assert capfd.readouterr().err == ""
