"""Any legal name is a name; targets are never the source, nor half there."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from tests.offline.media import make_clip, pictures_of

from streamlift.errors import ConfigError, MediaError, UpscaleError
from streamlift.offline import Options, upscale_file
from streamlift.offline.names import Numbered, kind_of
from streamlift.upscalers.bicubic import Bicubic
from streamlift.upscalers.toy import Toy, ToyKnobs

NAMES = [
    "clip:1",
    "75% off",
    "100%",
    "%d is no number here%d",
    "-dash",
    "two\nlines",
    "tab\there",
    "quote\"s and 's",
    "n" * 246,
    "ü" * 120,
    "concat:a|b",
    "http:no",
    "file:x",
    "a#b?c=d",
    "[0-9]*",
    " ",
]


@pytest.mark.parametrize("name", NAMES)
def test_names_of_pictures(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    data = cv2.imencode(".png", np.full((32, 32, 3), 90, np.uint8))[1].tobytes()
    source, target = Path(f"{name}.png"), Path("out") / f"{name}.png"
    source.write_bytes(data)
    upscale_file(source, target, Bicubic())
    assert os.listdir("out") == [f"{name}.png"]


@pytest.mark.parametrize("name", NAMES)
def test_names_of_videos(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    plain = make_clip(Path("plain.mp4"), frames=3)
    source, target = plain.rename(f"{name}.mp4"), Path("out") / f"{name}.mp4"
    upscale_file(source, target, Bicubic())
    assert os.listdir("out") == [f"{name}.mp4"]
    assert len(pictures_of(target)) == 3


def test_a_pattern_counts_and_an_existing_name_does_not(tmp_path: Path) -> None:
    sequence = Numbered.read(tmp_path / "a%04d.png")
    assert sequence is not None
    assert sequence.path(7).name == "a0007.png"
    assert sequence.path(12345).name == "a12345.png"
    for name in ("75% off.png", "100%.png", "a%%d.png", "%d-%d.png", "%s.png"):
        assert Numbered.read(tmp_path / name) is None
    (tmp_path / "is%dthere.png").write_bytes(b"")
    assert Numbered.read(tmp_path / "is%dthere.png") is None


@pytest.mark.parametrize("how", ["same", "hard link", "symbolic link", "other spelling"])
def test_the_source_is_never_the_target(how: str, tmp_path: Path) -> None:
    source = make_clip(tmp_path / "one.mp4", frames=2)
    target = tmp_path / "two.mp4"
    if how == "hard link":
        os.link(source, target)
    elif how == "symbolic link":
        target.symlink_to(source)
    else:
        target = source if how == "same" else tmp_path / "." / ".." / tmp_path.name / "one.mp4"
    before = source.read_bytes()
    with pytest.raises(ConfigError, match="is the source itself"):
        upscale_file(source, target, Bicubic())
    assert source.read_bytes() == before


def test_a_sequence_is_never_written_over_itself(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "1.png"), np.full((32, 32, 3), 90, np.uint8))
    with pytest.raises(ConfigError, match="is the source itself"):
        upscale_file(tmp_path / "%d.png", tmp_path / "%d.png", Bicubic())
    with pytest.raises(ConfigError, match="would replace the source"):
        upscale_file(tmp_path / "1.png", tmp_path / "%d.png", Bicubic())


def test_an_older_result_is_replaced_only_by_a_whole_one(tmp_path: Path) -> None:
    source, target = make_clip(tmp_path / "in.mp4"), tmp_path / "out.mp4"
    target.write_bytes(b"older")
    with pytest.raises(ConfigError, match="--no-clobber"):
        upscale_file(source, target, Bicubic(), options=Options(clobber=False))
    with pytest.raises(UpscaleError):
        upscale_file(source, target, Toy(ToyKnobs(fail_at=5)))
    assert target.read_bytes() == b"older"
    upscale_file(source, target, Bicubic())
    assert len(pictures_of(target)) == 12
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.mp4", "out.mp4"]


@pytest.mark.parametrize(
    ("source", "target", "said"),
    [
        (
            "nowhere.mp4",
            "out.mp4",
            r"reading .*nowhere\.mp4: no such file .*; expected a video",
        ),
        ("nowhere.png", "out.png", r"reading .*nowhere\.png: no such file"),
        ("folder", "out.mp4", r"reading .*folder: it is a folder"),
        (
            "notes.txt",
            "out.mp4",
            r"reading .*notes\.txt: it is no video .*; expected a video",
        ),
        ("empty.mp4", "out.mp4", r"reading .*empty\.mp4: the file is empty"),
        ("sound.wav", "out.mp4", r"reading .*sound\.wav: it holds no video; expected a video"),
        ("fake.png", "out.png", r"reading .*fake\.png: the picture is damaged or cut off"),
        ("in.mp4", "notes.txt/out.mp4", r"writing .*out\.mp4: "),
        ("in.mp4", "folder.mp4", r"writing .*folder\.mp4: it is no ordinary file"),
        ("in.mp4", "n" * 300 + ".mp4", "the name is too long"),
        ("in.mp4", "/dev/null", "."),
        ("in.mp4", "/proc/out.mp4", r"writing /proc/out\.mp4: "),
    ],
)
def test_errors_say_where_and_why_in_plain_words(
    source: str, target: str, said: str, tmp_path: Path
) -> None:
    import wave

    make_clip(tmp_path / "in.mp4", frames=2)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder.mp4").mkdir()
    (tmp_path / "notes.txt").write_text("no video")
    (tmp_path / "empty.mp4").write_bytes(b"")
    (tmp_path / "fake.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    with wave.open(str(tmp_path / "sound.wav"), "wb") as sound:
        sound.setparams((1, 2, 8000, 0, "NONE", ""))
        sound.writeframes(bytes(1600))
    before = {p.name for p in tmp_path.iterdir()}
    with pytest.raises(MediaError, match=said) as caught:
        upscale_file(tmp_path / source, tmp_path / target, Bicubic())
    assert "Errno" not in str(caught.value)
    assert "avcodec" not in str(caught.value)
    assert "\n" not in str(caught.value)
    assert {p.name for p in tmp_path.iterdir()} == before


def test_first_bytes_say_what_a_file_is() -> None:
    assert kind_of(b"\xff\xd8\xff\xe0") == "jpeg"
    assert kind_of(b"RIFF\0\0\0\0WEBPVP8 ") == "webp"
    assert kind_of(b"RIFF\0\0\0\0WAVEfmt ") == ""
    assert kind_of(b"") == ""
