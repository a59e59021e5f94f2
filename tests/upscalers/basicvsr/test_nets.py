"""The same numbers as the original code, for the operator, the flow and both whole nets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from streamlift.errors import UpscaleError
from streamlift.upscalers.basicvsr import BasicVSRpp, Cleaning, RealBasicVSR
from streamlift.upscalers.basicvsr.checkpoint import build_basicvsrpp, build_realbasicvsr
from streamlift.upscalers.basicvsr.deform import modulated_deform_conv2d

Arrays = Callable[[str], dict[str, Any]]
_PARTS = ("x", "offset", "mask", "weight")
_SHAPE = ("stride", "padding", "dilation", "groups", "deform_groups")
OPERATOR, NET = 1e-5, 1e-4


@pytest.fixture(scope="module")
def basicvsrpp(weights: Arrays) -> BasicVSRpp:
    return build_basicvsrpp(weights("basicvsrpp"), where="recipe")


@pytest.fixture(scope="module")
def realbasicvsr(weights: Arrays) -> RealBasicVSR:
    return build_realbasicvsr(weights("realbasicvsr"), where="recipe")


@pytest.mark.parametrize(
    "case", ["plain", "dg4", "dg2_groups2_stride2_dil2", "bvpp_like", "nobias"]
)
def test_the_deformable_convolution_equals_the_original(
    arrays: Arrays, manifest: Arrays, case: str
) -> None:
    found, told = arrays("modulated_deform_conv.npz"), manifest("info")[f"dcn.{case}"]
    x, offset, mask, weight = (found[f"{case}.{part}"] for part in _PARTS)
    shape = {name: told[name] for name in _SHAPE}
    out = modulated_deform_conv2d(x, offset, mask, weight, found.get(f"{case}.bias"), **shape)
    assert _difference(out, found[f"{case}.y"]) <= OPERATOR


@pytest.mark.parametrize("shape", [(5, 1), (2, 6), (4, 7)])
def test_it_is_exact_at_whole_pixels_whatever_the_width(shape: tuple[int, int]) -> None:
    """Offsets that move every tap by one whole pixel are a moved picture: with one column too."""
    x, weight = torch.rand(1, 2, *shape), torch.rand(3, 2, 3, 3)
    offset = torch.zeros(1, 18, *shape)
    offset[:, ::2] = 1.0  # down
    moved = torch.cat((x[:, :, 1:], torch.zeros(1, 2, 1, shape[1])), dim=2)
    plain = torch.nn.functional.conv2d(moved, weight, padding=1)
    out = modulated_deform_conv2d(x, offset, torch.ones(1, 9, *shape), weight, padding=1)
    # In the first row the tap above lies outside of `moved`, but inside of x.
    assert _difference(out[:, :, 1:], plain[:, :, 1:]) <= OPERATOR


def test_half_precision_still_knows_where_it_samples() -> None:
    """At column 900 half precision knows only every half pixel: a quarter would be lost."""
    stripes = (torch.arange(1024) % 2).float().view(1, 1, 1, -1).expand(1, 1, 3, -1)
    weight = torch.zeros(1, 1, 3, 3)
    weight[..., 1, 1] = 1.0
    offset = torch.zeros(1, 18, 3, 1024)
    offset[:, 1::2] = 0.25
    mask = torch.ones(1, 9, 3, 1024)
    out = modulated_deform_conv2d(stripes.half(), offset, mask.half(), weight.half(), padding=1)
    assert out.dtype == torch.float16
    assert float(out[0, 0, 1, 900]) == pytest.approx(0.25, abs=1e-3)


def test_offsets_that_do_not_fit_are_refused() -> None:
    with pytest.raises(UpscaleError, match="offsets"):
        modulated_deform_conv2d(
            torch.zeros(1, 2, 4, 4),
            torch.zeros(1, 9, 4, 4),
            torch.zeros(1, 9, 4, 4),
            torch.zeros(2, 2, 3, 3),
            padding=1,
        )


def test_both_flows_equal_the_original(
    arrays: Arrays, basicvsrpp: BasicVSRpp, realbasicvsr: RealBasicVSR
) -> None:
    real, plus = arrays("realbasicvsr.npz"), arrays("basicvsrpp.npz")
    clip = real["rbv.input"][0]
    flow = realbasicvsr.spynet(clip[:1], clip[1:2])
    assert _difference(flow, real["rbv.spynet_0_1"]) <= OPERATOR
    clip = plus["input"][0].float() / 255
    assert _difference(basicvsrpp.spynet(clip[:1], clip[1:2]), plus["spynet_0_1"]) <= OPERATOR


@pytest.mark.parametrize(("threshold", "passes"), [(255, 1), (5, 3)])
def test_realbasicvsr_equals_the_original(
    arrays: Arrays, realbasicvsr: RealBasicVSR, threshold: int, passes: int
) -> None:
    found = arrays("realbasicvsr.npz")
    clip = found["rbv.input"][0]
    before = clip.clone()
    cleaned, counted = realbasicvsr.clean(clip, Cleaning(threshold))
    assert counted == passes
    assert _difference(cleaned, found[f"rbv.thres{threshold}.cleaned"][0]) <= NET
    out = torch.cat(list(realbasicvsr(clip, Cleaning(threshold))))
    assert _difference(out, found[f"rbv.thres{threshold}.output"][0]) <= NET
    assert torch.equal(clip, before)  # upstream writes into the caller's frames


@pytest.mark.long
def test_basicvsrpp_equals_the_original(arrays: Arrays, basicvsrpp: BasicVSRpp) -> None:
    found = arrays("basicvsrpp.npz")
    clip = found["input"][0].float() / 255
    before = clip.clone()
    out = torch.cat(list(basicvsrpp(clip)))
    assert _difference(out[2], found["output_frame2"]) <= NET
    assert _difference(out[:, :, 96:160, 104:168], found["output_crops"]) <= NET
    told = torch.stack((out.mean((1, 2, 3)), out.std((1, 2, 3))), dim=1)
    assert _difference(told, found["output_mean_std"]) <= NET
    assert torch.equal(clip, before)


@pytest.mark.parametrize(
    ("name", "count"), [("basicvsrpp", 7_322_933), ("realbasicvsr", 6_294_840)]
)
def test_the_published_sizes(
    request: pytest.FixtureRequest, manifest: Arrays, name: str, count: int
) -> None:
    net = request.getfixturevalue(name)
    assert (
        sum(t.numel() for t in net.state_dict().values()) == count == manifest(name)["parameters"]
    )
    assert len(net.state_dict()) == manifest(name)["tensors"]


def _difference(a: Tensor, b: Tensor) -> float:
    assert a.shape == b.shape
    return float((a - b).abs().max())
