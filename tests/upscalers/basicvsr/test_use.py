"""Both nets as they are used: files by the command, live by name only, through the engine."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from tests.clips import TICKS
from tests.engine.frames import options
from tests.offline.media import Sound, make_clip, pictures_of
from tests.upscalers.basicvsr.tiny import tiny_checkpoint
from tests.waiting import until

from streamlift.cli import OK, main
from streamlift.clock import ManualClock
from streamlift.engine import EngineBackend
from streamlift.frames import BackendInfo, BackendState, Colour, Frame, Planes, Size, Slots
from streamlift.offline import upscale_file
from streamlift.routing import Policy, choose
from streamlift.routing.policy import NEVER_CHOSEN
from streamlift.upscalers import create_upscaler
from streamlift.upscalers.basicvsr import BasicVSR, WindowSession

NAMES = ("basicvsrpp", "realbasicvsr")
SIZE = Size(64, 64)


@pytest.mark.long
@pytest.mark.parametrize("name", NAMES)
def test_a_clip_of_three_seconds_keeps_frames_duration_and_sound(name: str, tmp_path: Path) -> None:
    """40 frames: no multiple of the 30 that a window of the files' default gives."""
    source = make_clip(
        tmp_path / "in.mp4", frames=40, rate=Fraction(40, 3), size=(64, 64), sounds=[Sound()]
    )
    config = tmp_path / "config.yaml"
    config.write_text(
        f"default_backend: mine\nbackends:\n  - name: mine\n    upscaler: {name}\n"
        f"    settings: {{path: {tiny_checkpoint(tmp_path, name)}}}\n"
    )
    target = tmp_path / "out.mp4"
    # Also x4, which the model does itself.
    command = ["upscale", str(source), str(target), "--backend", "mine", "--config", str(config)]
    command += ["--scale", "4"]
    assert main(command) == OK
    before, after = pictures_of(source), pictures_of(target)
    assert len(after) == len(before) == 40
    assert {(f.width, f.height) for f in after} == {(256, 256)}
    times = [[round(float(f.time or 0), 3) for f in frames] for frames in (before, after)]
    assert times[0] == times[1]
    assert times[1][-1] == pytest.approx(3 - 3 / 40, abs=0.001)
    for path in (source, target):
        with av.open(str(path)) as container:
            assert container.streams.audio[0].codec_context.name == "aac"
            length_s = float(container.streams.audio[0].duration or 0) * float(
                container.streams.audio[0].time_base or 0
            )
            assert length_s == pytest.approx(3, abs=0.1)


@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv420p10le"])
def test_a_cut_in_a_file_starts_anew_at_8_and_at_10_bits(
    pix_fmt: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a net that looks both ways saw of one scene is not mixed into the next."""
    opened: list[Size] = []
    open_session = BasicVSR.open

    def noted(self: BasicVSR, size: Size, *, seed: int = 0) -> WindowSession:
        opened.append(size)
        return open_session(self, size, seed=seed)

    monkeypatch.setattr(BasicVSR, "open", noted)
    settings = {"path": str(tiny_checkpoint(tmp_path, "realbasicvsr")), "scale": 4}
    model = create_upscaler("realbasicvsr", settings=settings)
    source, target = tmp_path / "in.mkv", tmp_path / "out.mkv"
    with av.open(str(source), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 64, pix_fmt
        for number in range(9):
            grey = np.full((64, 64, 3), 60 if number < 5 else 200, np.uint8)
            frame = av.VideoFrame.from_ndarray(grey, format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    assert upscale_file(source, target, model).pictures == 9
    after = pictures_of(target)
    assert {(f.width, f.height) for f in after} == {(256, 256)}
    assert len(opened) == 2
    levels = [float(f.to_ndarray(format="gray").mean()) for f in after]
    assert max(levels[:5]) < min(levels[5:]) - 50


async def test_live_a_scene_cut_pays_what_is_owed_and_starts_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[Size] = []
    open_session = BasicVSR.open

    def noted(self: BasicVSR, size: Size, *, seed: int = 0) -> WindowSession:
        opened.append(size)
        return open_session(self, size, seed=seed)

    clock = ManualClock(100.0)  # which stands: no frame is late, however slow this machine is
    path = tiny_checkpoint(tmp_path, "realbasicvsr")
    backend = EngineBackend(
        "test",
        "realbasicvsr",
        preset="ultrafast",
        max_age_s=60.0,
        clock=clock,
        settings={"path": str(path), "past": 1, "step": 2, "ahead": 1},
        slots=1,
    )
    try:
        await backend.start()
        assert backend.info().state is BackendState.READY, backend.info().reason
        monkeypatch.setattr(BasicVSR, "open", noted)
        lane = await backend.open_lane(SIZE, options())
        for number in range(9):
            assert lane.offer(_lit(number, level=60 if number < 4 else 200))
            await until(lambda: not lane._inbox, "the model to take it", timeout_s=60)
        lane.finish()
        encoded = [item.pts async for item in lane]
        await lane.aclose()
    finally:
        await backend.aclose()
    assert encoded == [number * TICKS for number in range(9)]
    assert opened == [SIZE, SIZE]


def test_no_policy_ever_takes_them_and_a_name_does() -> None:
    slots = Slots(1, 0)
    ready = [
        BackendInfo(name, name, "cuda:0", BackendState.READY, "", fps, slots)
        for name, fps in (("basicvsrpp", 900.0), ("realbasicvsr", 900.0), ("bicubic", 30.0))
    ]
    assert set(NEVER_CHOSEN) == set(NAMES)
    for policy in (Policy.AUTO, Policy.QUALITY, Policy.SPEED):
        for fps in (5.0, 25.0, 500.0):
            choice = choose(policy, ready, fps, current="basicvsrpp")
            assert choice is not None
            assert choice.backend == "bicubic"
        assert choose(policy, ready[:2], 25.0) is None


def _lit(number: int, level: int) -> Frame:
    """A ramp at a level, so that a jump of it is a cut."""
    y = np.full((SIZE.height, SIZE.width), level, np.uint8)
    y[:, ::2] += 8
    half = np.full((SIZE.height // 2, SIZE.width // 2), 128, np.uint8)
    return Frame(number * TICKS, SIZE, Planes(y, half, half), Colour(), arrived_s=100.0)
