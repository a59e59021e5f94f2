"""Stills: every recorded run of the original `enhance`, and its failures made clear."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pytest

torch = pytest.importorskip("torch")

from streamlift.errors import (  # noqa: E402
    ConfigError,
    OutOfMemory,
    StreamliftError,
    UnsupportedSize,
    UpscaleError,
)
from streamlift.upscalers.realesrgan import (  # noqa: E402
    Alpha,
    Net,
    SRVGGConfig,
    SRVGGNetCompact,
    build_net,
    enhance,
    interpolate,
)
from streamlift.upscalers.realesrgan.resample import resize_lanczos4  # noqa: E402

if TYPE_CHECKING:
    from tests.upscalers.realesrgan.conftest import Reference

DATA = Path(__file__).parents[2] / "data" / "realesrgan"


def cases_of(folder: str) -> list[Any]:
    cases = json.loads((DATA / folder / "cases.json").read_text())["cases"]
    return [pytest.param(case, id=case["name"]) for case in cases]


def swap(picture: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """BGR(A), as the records hold it, to RGB(A) and back; grey stays."""
    if picture.ndim == 2:
        return picture
    order = [2, 1, 0, 3][: picture.shape[2]]
    return np.ascontiguousarray(picture[..., order])


def run(net: Net, picture: npt.NDArray[Any], case: dict[str, Any]) -> npt.NDArray[Any]:
    linear = case.get("alpha_upsampler") == "bicubic"  # what the original calls its linear resize
    result = enhance(
        net,
        swap(picture),
        outscale=case["outscale"],
        tile=case["tile"],
        tile_pad=case["tile_pad"],
        pre_pad=case["pre_pad"],
        alpha=Alpha.LINEAR if linear else Alpha.NET,
    )
    return swap(result)


def assert_same(
    found: npt.NDArray[Any], expected: npt.NDArray[Any], most: int, share: float
) -> None:
    assert found.shape == expected.shape
    assert found.dtype == expected.dtype
    difference = np.abs(found.astype(int) - expected.astype(int))
    assert difference.max() <= most
    assert (difference > 0).mean() < share


@pytest.fixture(scope="module")
def two_block_net(rrdbnet: Reference) -> Callable[[int, bool], Net]:
    def make(scale: int, half: bool) -> Net:
        net = build_net(rrdbnet.weights(f"x{scale}_2block"), where="x")
        return net.half() if half else net

    return make


@pytest.mark.parametrize("case", cases_of("rrdbnet"))
def test_rrdbnet_stills_are_those_of_the_original(
    case: dict[str, Any], rrdbnet: Reference, two_block_net: Callable[[int, bool], Net]
) -> None:
    pictures = rrdbnet.arrays("enhance.npz")
    net = two_block_net(case["scale"], case.get("half", False))
    if "error" in case:
        with pytest.raises((ConfigError, UnsupportedSize)) as caught:
            run(net, pictures[case["input"]], case)
        assert caught.value.found is not None
        assert caught.value.expected is not None
        return

    found = run(net, pictures[case["input"]], case)

    expected = pictures[case["output"]]
    if found.dtype == np.uint16:
        assert_same(found, expected, most=8, share=1.0)
    elif case["half"]:
        assert_same(found, expected, most=1, share=0.04)
    else:
        assert_same(found, expected, most=1, share=0.005)


@pytest.mark.parametrize("case", cases_of("srvgg"))
def test_srvgg_stills_are_those_of_the_original(case: dict[str, Any], srvgg: Reference) -> None:
    pictures = srvgg.arrays("enhance.npz")
    tensors = [srvgg.weights(file.removesuffix(".pth")) for file in case["models"]]
    weights = tensors[0]
    if case["dni_weight"]:
        weights = interpolate(tensors[0], tensors[1], case["dni_weight"][0], where="x")

    found = run(build_net(weights, where="x"), pictures[case["input"]], case)

    assert_same(found, pictures[case["output"]], most=1, share=0.005)


class Failing(SRVGGNetCompact):
    """Fails on its third run."""

    def __init__(self, error: Exception) -> None:
        super().__init__(SRVGGConfig(scale=2, convs=1, features=4))
        self.error = error
        self.runs = 0

    def forward(self, x: Any) -> Any:
        self.runs += 1
        if self.runs == 3:
            raise self.error
        return super().forward(x)


@pytest.mark.parametrize(
    ("raised", "expected"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried 2 GiB"), OutOfMemory),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), OutOfMemory),
        (RuntimeError("the kernel broke"), UpscaleError),
    ],
)
def test_a_tile_that_fails_is_an_error_and_not_an_old_tile(
    raised: Exception, expected: type[StreamliftError]
) -> None:
    picture = np.zeros((16, 16, 3), np.uint8)

    with pytest.raises(expected):
        enhance(Failing(raised), picture, tile=8, tile_pad=2)


@pytest.mark.parametrize(
    "picture", [np.zeros((4, 4, 3), np.float32), np.zeros((1, 3, 4, 4), np.uint8)]
)
def test_a_picture_of_another_kind_is_refused(picture: npt.NDArray[Any]) -> None:
    with pytest.raises(ConfigError, match="cannot be enhanced"):
        enhance(Failing(RuntimeError()), picture)


def test_a_dark_16_bit_picture_keeps_its_depth() -> None:
    net = SRVGGNetCompact(SRVGGConfig(scale=2, convs=1, features=4)).eval()
    for parameter in net.parameters():
        parameter.data.zero_()  # nothing but the enlarged input remains
    picture = np.full((4, 4, 3), 200, np.uint16)

    assert (enhance(net, picture) == 200).all()


def test_lanczos_keeps_a_flat_picture_flat() -> None:
    for dtype in (np.uint8, np.uint16):
        picture = np.full((5, 7), 77, dtype)
        assert (resize_lanczos4(picture, 11, 9) == 77).all()
