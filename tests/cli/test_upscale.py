"""`streamlift upscale` as it is typed: options, exit codes, lines on the terminal."""

from __future__ import annotations

from pathlib import Path

import av
import pytest
from tests.offline.media import Sound, make_clip, pictures_of

from streamlift.cli import FAILED, OK, USAGE, main
from streamlift.cli.upscale import bar
from streamlift.offline import Progress


def upscale(*arguments: object) -> int:
    return main(["upscale", *map(str, arguments), "--backend", "bicubic"])


@pytest.mark.parametrize(
    ("options", "size"),
    [
        ([], (192, 128)),
        (["--scale", "1.5"], (144, 96)),
        (["--scale", "2"], (192, 128)),
        (["--scale", "3"], (288, 192)),
        (["--scale", "4"], (384, 256)),
        (["--scale", "0.5"], (48, 32)),
        (["--size", "320x240"], (320, 240)),
    ],
)
def test_any_size(options: list[str], size: tuple[int, int], tmp_path: Path) -> None:
    source, target = make_clip(tmp_path / "in.mp4", frames=3), tmp_path / "out.mp4"
    assert upscale(source, target, *options) == OK
    frame = pictures_of(target)[0]
    assert (frame.width, frame.height) == size


@pytest.mark.parametrize(
    "options",
    [
        ["--scale", "0"],
        ["--scale", "-2"],
        ["--scale", "1/0"],
        ["--scale", "much"],
        ["--size", "640"],
        ["--size", "0x480"],
        ["--size", "20000x480"],
        ["--crf", "high"],
        ["--codec", "wmv"],
        ["--fps", "0"],
    ],
)
def test_what_cannot_be_meant_ends_with_2(
    options: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        upscale(tmp_path / "in.mp4", tmp_path / "out.mp4", *options)
    assert ended.value.code == USAGE
    assert "usage:" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--size", "64x64", "--scale", "2"], "--size or --scale"),
        (["--crf", "52"], "--crf 52: h264 takes 0 (best) to 51"),
        (["--codec", "vp9"], "hold no vp9; expected one of h264"),
        (["--no-clobber"], "--no-clobber keeps it"),
    ],
)
def test_a_mistake_is_one_line_and_2(
    options: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, target = make_clip(tmp_path / "in.mp4", frames=2), tmp_path / "out.mp4"
    target.write_bytes(b"older")
    assert upscale(source, target, *options) == USAGE
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line
    assert target.read_bytes() == b"older"


def test_the_source_as_target_ends_with_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = make_clip(tmp_path / "in.mp4", frames=2)
    assert upscale(source, source) == USAGE
    assert "is the source itself" in capsys.readouterr().err


def test_a_cut_off_source_ends_with_1_and_keeps_what_was_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = make_clip(tmp_path / "plain.mp4", frames=60, options={"crf": "1"})
    source, target = tmp_path / "in.mp4", tmp_path / "out.mp4"
    with (
        av.open(str(plain)) as whole,
        av.open(str(source), "w", options={"movflags": "faststart"}) as fast,
    ):
        video = whole.streams.video[0]
        copied = fast.add_stream_from_template(video)
        for packet in whole.demux(video):
            if packet.dts is not None:
                packet.stream = copied
                fast.mux(packet)
    source.write_bytes(source.read_bytes()[: source.stat().st_size * 8 // 10])
    assert upscale(source, target) == FAILED
    said = capsys.readouterr().err
    assert "streamlift: reading" in said
    assert "it is cut off" in said
    assert 5 < len(pictures_of(target)) < 60
    assert upscale(source, target, "--lenient") == OK
    assert "streamlift: warning: reading" in capsys.readouterr().err


def test_what_is_not_kept_is_one_warning_line_each(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = make_clip(tmp_path / "in.mp4", sounds=[Sound()], chapters=[(0, 0.4, "One")])
    assert upscale(source, tmp_path / "out.ts") == OK
    lines = capsys.readouterr().err.splitlines()
    assert lines == ["streamlift: warning: 1 chapters are left out: mpegts files hold none"]


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts", ".webm", ".avi", ".flv"])
def test_progress_has_rate_and_time_left_for_every_container(
    suffix: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    codec = "libvpx-vp9" if suffix == ".webm" else "libx264"
    source = make_clip(tmp_path / f"in{suffix}", frames=30, codec=codec)
    assert upscale(source, tmp_path / "out.mp4", "--verbose") == OK
    shown = capsys.readouterr().err
    assert "a second" in shown
    assert "s left" in shown
    assert "30/30" in shown


def test_the_bar_says_what_is_known() -> None:
    assert bar(Progress(5, None, 2.0)) == "5 pictures, 2.0 a second"
    assert "] 5/10, 2.0 a second, 2 s left" in bar(Progress(5, 10, 2.0))


def test_a_checkpoint_of_ones_own_needs_no_configuration(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    from streamlift.upscalers.realesrgan import SRVGGConfig, SRVGGNetCompact

    net = SRVGGNetCompact(SRVGGConfig(scale=2, convs=1, features=8))
    torch.save({"params": net.state_dict()}, tmp_path / "mine.pth")
    source, target = make_clip(tmp_path / "in.mp4", frames=2, size=(32, 32)), tmp_path / "out.mp4"
    model = ["--model", str(tmp_path / "mine.pth")]
    assert main(["upscale", str(source), str(target), *model]) == OK
    assert pictures_of(target)[0].width == 64


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"layers.0.attn.w": 1}, "pip install 'streamlift[spandrel]'"),
        (b"<html></html>", "a web page"),
        (None, "no checkpoint at"),
    ],
)
def test_a_file_that_is_no_model_of_ours_is_named(
    content: object, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch = pytest.importorskip("torch")
    path = tmp_path / "mine.pth"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save({"layers.0.attn.w": torch.ones(2)}, path)
    source = make_clip(tmp_path / "in.mp4", frames=2)
    arguments = ["upscale", str(source), str(tmp_path / "out.mp4"), "--model", str(path)]
    assert main(arguments) in (FAILED, USAGE)
    (line,) = (x for x in capsys.readouterr().err.splitlines() if x.startswith("streamlift: "))
    assert said in line or "spandrel" in line
    assert not (tmp_path / "out.mp4").exists()
