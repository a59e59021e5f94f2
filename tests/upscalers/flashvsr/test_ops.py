"""The small operations against the public reference's numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from streamlift.errors import ConfigError
from streamlift.upscalers.flashvsr.attention import attend_exact, attend_flex
from streamlift.upscalers.flashvsr.blocks import BlockLists
from streamlift.upscalers.flashvsr.colour import ColourFix, fix_colour
from streamlift.upscalers.flashvsr.published import sinusoid
from streamlift.upscalers.flashvsr.resize import Resize, enlarge
from streamlift.upscalers.flashvsr.rope import SpatialRope, axis_angles, rotate, split_head
from streamlift.upscalers.flashvsr.selection import (
    choose_blocks,
    topk_from_area,
    topk_from_ratio,
)
from streamlift.upscalers.flashvsr.windows import from_windows, local_mask, to_windows

Load = Callable[[str], Any]


@pytest.mark.parametrize("shape", [(2, 16, 24), (6, 8, 16)])
def test_window_order_equals_the_reference(golden: Load, shape: tuple[int, int, int]) -> None:
    expected = golden("ops")["window.{}x{}x{}.token_index".format(*shape)]
    frames, height, width = shape
    index = torch.arange(frames * height * width).reshape(frames, height, width, 1)
    windows = to_windows(index)
    assert torch.equal(windows.reshape(-1, 128), expected.long())
    assert torch.equal(from_windows(windows, *shape), index)


@pytest.mark.parametrize(
    ("case", "positions", "grid"),
    [("first", range(6), (2, 3)), ("chunk7", (18, 19), (3, 2)), ("chunk509", (1022, 1023), (2, 2))],
)
def test_rotation_equals_the_reference(
    golden: Load, case: str, positions: range, grid: tuple[int, int]
) -> None:
    ops = golden("ops")
    height, width = grid
    # The fixture's grids are smaller than a window: cut them out of a window's worth of tokens.
    rope = SpatialRope.of_grid(8, 8, 128, "cpu").at(positions)
    frames = len(positions)
    cos = from_windows(rope.cos, frames, 8, 8)[:, :height, :width].flatten(0, 2)
    sin = from_windows(rope.sin, frames, 8, 8)[:, :height, :width].flatten(0, 2)
    x = torch.unflatten(ops[f"rope.{case}.x"], -1, (2, 128))
    turned = rotate(x, type(rope)(cos, sin)).flatten(1)
    torch.testing.assert_close(turned, ops[f"rope.{case}.y"], atol=2e-5, rtol=0)


def test_angles_at_position_one_equal_the_reference(golden: Load) -> None:
    for axis, size in zip("thw", split_head(128), strict=True):
        expected = golden("ops")[f"rope.freq_{axis}_angles_pos1"]
        torch.testing.assert_close(axis_angles([1], size)[0].float(), expected)


@pytest.mark.parametrize("size", [32, 256])
def test_time_sinusoid_equals_the_reference(golden: Load, size: int) -> None:
    expected = golden("ops")[f"time.sinusoid_{size}"]
    torch.testing.assert_close(sinusoid(size).float(), expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("rows", "columns", "reach"),
    [(1, 2, 9), (2, 4, 3), (5, 3, 4), (6, 10, 11), (6, 10, 9), (8, 8, 11), (8, 8, 9)],
)
def test_local_mask_equals_the_reference(golden: Load, rows: int, columns: int, reach: int) -> None:
    expected = golden("ops")[f"local_mask.{rows}x{columns}.range{reach}"].bool()
    assert torch.equal(local_mask(rows, columns, reach), expected)


@pytest.mark.parametrize("case", ["first", "steady", "tiny_topk", "over"])
def test_block_choice_equals_the_reference(golden: Load, case: str) -> None:
    ops = golden("ops")
    q = torch.unflatten(ops[f"draft.{case}.q_mean"], -1, (4, 16)).transpose(0, 1)
    k = torch.unflatten(ops[f"draft.{case}.k_mean"], -1, (4, 16)).transpose(0, 1)
    chosen = choose_blocks(q, k, local_mask(3, 4, 5), int(ops[f"draft.{case}.topk"]))
    assert torch.equal(chosen, ops[f"draft.{case}.mask"].bool())


def test_block_lists_keep_the_mask() -> None:
    keep = torch.rand(3, 4, 7, generator=torch.Generator().manual_seed(1)) < 0.4
    keep[1, 2] = False
    lists = BlockLists.from_mask(keep)
    assert torch.equal(lists.to_mask(), keep)
    assert torch.equal(lists.count, keep.sum(-1).int())


@pytest.mark.parametrize("attend", [attend_exact, attend_flex])
@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_attention_over_block_lists_equals_the_reference(golden: Load, attend: Any) -> None:
    ops = golden("ops")
    q, k, v = (ops[f"attention.{name}"].transpose(0, 1) for name in "qkv")
    mixed = attend(q, k, v, BlockLists.from_mask(ops["attention.mask"].bool()))
    found = mixed.transpose(0, 1)
    torch.testing.assert_close(found[::4], ops["attention.out_stride4"], atol=5e-6, rtol=0)
    assert not found[128:256, 0].any(), "a query block without keys gives zeros"


@pytest.mark.parametrize("kind", [ColourFix.ADAIN, ColourFix.WAVELET])
def test_colour_fix_equals_the_reference(golden: Load, kind: ColourFix) -> None:
    ops = golden("ops")
    hq = ops["color.hq"].transpose(0, 1)
    lq = ops["color.lq_u8"].transpose(0, 1).float() / 255 * 2 - 1
    fixed = fix_colour(hq, lq, kind).transpose(0, 1)
    torch.testing.assert_close(fixed, ops[f"color.{kind}"], atol=1e-5, rtol=0)


@pytest.mark.parametrize("scale", [2, 4])
@pytest.mark.parametrize(("kind", "mean", "most"), [(Resize.PILLOW, 1, 1), (Resize.FLOAT, 0.3, 6)])
def test_enlargement_follows_pillow(
    golden: Load, scale: int, kind: Resize, mean: float, most: int
) -> None:
    ops = golden("ops")
    error = _levels_apart(ops["prep.small_u8"], ops[f"prep.bicubic_x{scale}_u8"], scale, kind)
    assert error.max() <= most
    assert error.mean() <= mean


def test_enlargement_and_centre_crop_follow_the_reference_scripts(golden: Load) -> None:
    ops = golden("ops")
    small = ops["prep.crop_src_u8"].permute(2, 0, 1)[None] / 255
    large = (enlarge(small, 4, Resize.PILLOW) * 255).round()
    top, left = (large.shape[2] - 256) // 2, (large.shape[3] - 256) // 2
    cropped = large[0, :, top : top + 256 : 8, left : left + 256 : 8].permute(1, 2, 0)
    assert (cropped - ops["prep.crop_out_stride8_u8"].float()).abs().max() <= 1


def test_topk_follows_the_area_rule() -> None:
    assert topk_from_area(1024, 1024, 2.0) == 7679
    assert topk_from_area(1024, 1024, 1.5) == 5759
    assert topk_from_ratio(1024, 1024, 2.0) == 8191


def test_a_ratio_that_keeps_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match="keeps no attention block"):
        topk_from_ratio(128, 128, 1.0)


def _levels_apart(small: torch.Tensor, large: torch.Tensor, scale: int, kind: Resize) -> Any:
    found = enlarge(small.permute(2, 0, 1)[None] / 255, scale, kind)[0].permute(1, 2, 0)
    return ((found * 255).round() - large.float()).abs()
