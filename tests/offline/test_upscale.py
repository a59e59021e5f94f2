"""Files in, files out: sizes, sound, sequences, and nothing half-written."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.video.stream import VideoStream
from tests.offline.media import Sound, make_clip, pictures_of

from streamlift.errors import MediaError, UpscaleError
from streamlift.frames import Stabilise
from streamlift.offline import Options, Progress, upscale_file
from streamlift.upscalers.bicubic import Bicubic
from streamlift.upscalers.toy import Toy, ToyKnobs

FRAMES = 12


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """A moving 96x64 video of odd frame rate, with sound."""
    return make_clip(
        tmp_path / "clip.mp4", frames=FRAMES, rate=Fraction(30000, 1001), sounds=[Sound()]
    )


def test_a_video_keeps_its_frames_times_and_sound(clip: Path, tmp_path: Path) -> None:
    target = tmp_path / "big.mp4"
    assert upscale_file(clip, target, Bicubic()).pictures == FRAMES
    before, after = pictures_of(clip), pictures_of(target)
    assert {(f.width, f.height) for f in after} == {(192, 128)}
    steps = [round(float(f.time), 3) for f in after if f.time is not None]
    assert steps == [round(float(f.time), 3) for f in before if f.time is not None]
    with av.open(str(target)) as container:
        assert container.streams.audio[0].codec_context.name == "aac"
        assert sum(1 for _ in container.decode(audio=0)) >= 10


def test_a_model_with_look_ahead_gives_every_frame(clip: Path, tmp_path: Path) -> None:
    toy = Toy(ToyKnobs(first=5, step=4, lag=2))
    target = tmp_path / "big.mkv"
    assert (
        upscale_file(clip, target, toy, options=Options(stabilise=Stabilise.LITE)).pictures
        == FRAMES
    )
    assert len(pictures_of(target)) == FRAMES


def test_a_numbered_sequence_goes_in_and_out(clip: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "a" / "%03d.png", tmp_path / "b" / "%03d.png"
    upscale_file(clip, first, Bicubic())
    assert upscale_file(first, second, Bicubic()).pictures == FRAMES
    names = sorted(p.name for p in second.parent.iterdir())
    assert names == [f"{n:03d}.png" for n in range(1, FRAMES + 1)]
    assert pictures_of(second.parent / "001.png")[0].width == 384


def test_an_image_of_odd_size_is_doubled(tmp_path: Path) -> None:
    source, target = tmp_path / "in.png", tmp_path / "out.png"
    picture = np.full((31, 45, 3), 120, np.uint8)
    with av.open(str(source), "w", format="image2") as container:
        stream = container.add_stream("png")
        assert isinstance(stream, VideoStream)
        stream.width, stream.height, stream.pix_fmt = 45, 31, "rgb24"
        container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
    assert upscale_file(source, target, Bicubic()).pictures == 1
    found = pictures_of(target)[0].to_ndarray(format="rgb24")
    assert found.shape == (62, 90, 3)
    assert abs(int(found.mean()) - 120) <= 2


def test_progress_tells_what_is_left(clip: Path, tmp_path: Path) -> None:
    seen: list[Progress] = []
    upscale_file(clip, tmp_path / "big.mp4", Bicubic(), progress=seen.append)
    assert seen[-1].done == seen[-1].total == FRAMES
    assert seen[0].left_s is not None


def test_a_failing_model_leaves_no_file(clip: Path, tmp_path: Path) -> None:
    target = tmp_path / "big.mp4"
    with pytest.raises(UpscaleError):
        upscale_file(clip, target, Toy(ToyKnobs(fail_at=5)))
    assert [p.name for p in tmp_path.iterdir()] == ["clip.mp4"]


def test_an_older_result_survives_a_failure(clip: Path, tmp_path: Path) -> None:
    target = tmp_path / "big.mp4"
    target.write_bytes(b"older")
    with pytest.raises(UpscaleError):
        upscale_file(clip, target, Toy(ToyKnobs(fail_at=5)))
    assert target.read_bytes() == b"older"


def test_what_cannot_be_read_or_written_is_named(clip: Path, tmp_path: Path) -> None:
    text = tmp_path / "notes.txt"
    text.write_text("no video")
    with pytest.raises(MediaError, match=r"nowhere\.mp4"):
        upscale_file(tmp_path / "nowhere.mp4", tmp_path / "x.mp4", Bicubic())
    with pytest.raises(MediaError, match=r"notes\.txt"):
        upscale_file(text, tmp_path / "x.mp4", Bicubic())
    with pytest.raises(MediaError, match="cannot write"):
        upscale_file(clip, tmp_path / "x.nonsense", Bicubic())
    with pytest.raises(MediaError, match="numbered target"):
        upscale_file(clip, tmp_path / "x.png", Bicubic())
