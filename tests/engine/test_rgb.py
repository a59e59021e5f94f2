"""RGB models' pictures: launched before waited for, calmed on the device, and made of numbers."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from streamlift.clock import ManualClock
from streamlift.engine.chain import UpscaleChain
from streamlift.errors import InvalidOutput
from streamlift.frames import Colour, Fit, Frame, Planes, Size, Stabilise, Target
from streamlift.sizes import placed_in

torch = pytest.importorskip("torch", reason="RGB models need torch")

from streamlift.engine.rgb import RgbWay  # noqa: E402
from streamlift.engine.yuv import Download, begin_download  # noqa: E402
from streamlift.upscalers.base import Pixels, UpscalerSpec  # noqa: E402

SIZE = Size(48, 32)

_WITHOUT = """
import sys

# As where they are not installed: an import fails, and a look for them finds nothing.
sys.modules.update(dict.fromkeys({blocked}))
import streamlift.engine, streamlift.codec
from streamlift.engine import accelerators, measure_fps
from streamlift.engine.chain import UpscaleChain
from streamlift.engine.rgb import RgbWay
from streamlift.engine.stabilise_torch import TorchStabiliser
from streamlift.engine.yuv import planes_to_rgb
from streamlift.frames import Stabilise
from streamlift.upscalers.flashvsr.tiny import create_tiny_random
from streamlift.upscalers.realesrgan import RealESRGAN
from streamlift.engine.rgb import RgbWay
RgbWay("cpu", Stabilise.STRONG)
print(measure_fps(create_tiny_random("cpu", {{}}), "cpu") > 0)
"""


def test_the_gpu_side_needs_torch_and_neither_codecs_nor_opencv_nor_a_server() -> None:
    blocked = ("av", "aiortc", "aioice", "cv2", "fastapi", "uvicorn", "onnxruntime", "httpx")
    run = subprocess.run(
        [sys.executable, "-c", _WITHOUT.format(blocked=blocked)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() == "True"


def test_on_a_device_all_groups_are_launched_before_the_first_is_waited_for() -> None:
    events: list[str] = []

    class Watched:
        def __init__(self, packed: Any, size: Size) -> None:
            self._download = begin_download(packed, size)

        def wait(self) -> list[Planes]:
            events.append("wait")
            return self._download.wait()

        @property
        def finite(self) -> bool:
            return self._download.finite

    def groups() -> Iterator[Any]:
        for _ in range(2):
            events.append("launch")
            yield torch.rand(2, 3, 64, 96)

    for launch_all, expected in (
        (True, ["launch", "launch", "wait", "wait"]),
        (False, ["launch", "wait", "launch", "wait"]),
    ):
        events.clear()
        watched: Any = Watched
        way = RgbWay("cpu", launch_all=launch_all, download=watched)
        for number in range(4):
            way.to_rgb(_planes(100), _frame(number))
        assert len(list(way.to_planes(groups(), None))) == 4
        assert events == expected


def test_the_device_calms_flicker_before_it_packs_and_a_gap_starts_anew() -> None:
    rng = np.random.default_rng(1)
    calm, plain = RgbWay("cpu", Stabilise.STRONG), RgbWay("cpu")
    spread: dict[RgbWay, list[Any]] = {calm: [], plain: []}
    base = torch.from_numpy(rng.random((1, 3, 64, 96), np.float32))
    for number in range(8):
        # Detail that changes from picture to picture, over a picture that stands still.
        noise = torch.from_numpy(rng.normal(0, 0.1, base.shape).astype(np.float32))
        for way, seen in spread.items():
            way.to_rgb(_planes(100), _frame(number + (1000 if number == 7 else 0)))
            seen += way.to_planes([(base + noise).clamp(0, 1)], None)
    flicker = [
        float(np.abs(np.diff([p.y.astype(float) for p in seen[:7]], axis=0)).mean())
        for seen in spread.values()
    ]
    assert flicker[0] < 0.7 * flicker[1]
    assert not np.array_equal(spread[calm][6].y, spread[plain][6].y)
    assert np.array_equal(spread[calm][7].y, spread[plain][7].y)


class _Overflows:
    """A model that gives what is no number in one corner, as float16 does beyond its range."""

    wanted = 1

    def __init__(self, *, mends: bool) -> None:
        self.redone = 0
        self._mends = mends
        self._count = 0

    def push(self, lr: Any) -> Iterator[Any]:
        self._last = torch.nn.functional.interpolate(lr, scale_factor=2.0)
        hr = self._last.clone()
        self._count += 1
        if self._count == 3:
            hr[..., :2, :2] = float("nan")
        yield hr

    def redo(self) -> Any:
        self.redone += 1
        return self._last if self._mends else self._last * float("inf")

    def finish(self) -> Iterator[Any]:
        yield from ()


class _Model:
    spec = UpscalerSpec("overflows", 2, pixels=Pixels.RGB)

    def __init__(self, session: Any) -> None:
        self.session = session

    def session_bytes(self, size: Size) -> int:
        return 0

    def open(self, size: Size, *, seed: int = 0) -> Any:
        return self.session


def test_a_corner_that_is_no_number_is_made_anew_and_spoils_nothing() -> None:
    for device in ("cpu", "calmed on the device"):
        session = _Overflows(mends=True)
        chain = UpscaleChain(_Model(session), "cpu", Stabilise.OFF, clock=ManualClock())
        if device != "cpu":
            chain._rgb = RgbWay("cpu", Stabilise.STRONG)
        outputs = [out for number in range(6) for out in chain.push(_frame(number))]
        assert session.redone == 1
        assert [int(out.planes.y.min()) for out in outputs] == [100] * 6


def test_a_picture_that_stays_no_number_ends_the_session_with_the_reason() -> None:
    chain = UpscaleChain(_Model(_Overflows(mends=False)), "cpu", Stabilise.OFF, clock=ManualClock())
    for number in range(2):
        list(chain.push(_frame(number)))
    with pytest.raises(InvalidOutput, match="not of numbers"):
        list(chain.push(_frame(2)))


def test_a_download_tells_whether_its_pictures_are_of_numbers() -> None:
    packed = torch.zeros(2, 4 * 6 + 2 * 2 * 3 + 1, dtype=torch.uint8)
    for flags, finite in (((1, 1), True), ((1, 0), False)):
        packed[:, -1] = torch.tensor(flags)
        download: Download = begin_download(packed, Size(6, 4))
        assert [planes.size for planes in download.wait()] == [Size(6, 4)] * 2
        assert download.finite is finite


def _planes(level: int) -> Planes:
    chroma = np.full((SIZE.height // 2, SIZE.width // 2), 128, np.uint8)
    return Planes(np.full((SIZE.height, SIZE.width), level, np.uint8), chroma, chroma)


def _frame(number: int) -> Frame:
    return Frame(3600 * number, SIZE, _planes(100), Colour(), 0.0)


class _Doubles:
    """An RGB model and its session: nearest neighbour, on sides that are multiples of 16."""

    spec = UpscalerSpec(name="doubles", scale=2, multiple=16, pixels=Pixels.RGB)
    wanted = 1

    def session_bytes(self, size: Size) -> int:
        return 0

    def open(self, size: Size, *, seed: int = 0) -> _Doubles:
        return self

    def push(self, rgb: Any) -> Iterator[Any]:
        yield rgb.repeat_interleave(2, dim=-1).repeat_interleave(2, dim=-2)

    def finish(self) -> Iterator[Any]:
        yield from ()


def _slope(number: int) -> Frame:
    """Of a size that is padded before the model."""
    size = Size(50, 34)
    y = np.add.outer(np.arange(34) * 2, np.arange(50) * 2 + 30).astype(np.uint8)
    chroma = np.full((17, 25), 128, np.uint8)
    return Frame(3600 * number, size, Planes(y, chroma, chroma), Colour(), 0.0)


@pytest.mark.parametrize("strength", [Stabilise.OFF, Stabilise.STRONG])
@pytest.mark.parametrize(
    "target",
    [Target(scale=1.5), Target(size=Size(128, 64)), Target(size=Size(128, 64), fit=Fit.COVER)],
)
def test_a_target_is_met_where_the_pictures_are_and_is_the_processors_to_the_eye(
    target: Target, strength: Stabilise
) -> None:
    chain, plain = (
        UpscaleChain(_Doubles(), "cpu", Stabilise.OFF, clock=ManualClock()) for _ in range(2)
    )
    chain._rgb, plain._rgb = RgbWay("cpu", strength), RgbWay("cpu", strength)
    outs = list(chain.push(_slope(0)))
    chain._rgb.wanted = target
    outs += chain.push(_slope(1))
    chain._rgb.wanted = None
    outs += chain.push(_slope(2))
    assert [out.shaped for out in outs] == [None, target, None]
    assert [out.planes.size for out in outs] == [
        Size(100, 68), target.output(Size(50, 34)), Size(100, 68),
    ]  # fmt: skip
    (_, same) = [out for number in range(2) for out in plain.push(_slope(number))]
    pytest.importorskip("av", reason="the processor's way is FFmpeg's")
    from streamlift.codec.resample import Resampler

    layout = placed_in(Size(100, 68), target.output(Size(50, 34)), target.fit)
    expected = Resampler().laid_out(same.planes, layout, Colour())
    for one, other in zip(outs[1].planes.each(), expected.each(), strict=True):
        assert np.abs(one.astype(int) - other.astype(int)).mean() < 1.5
