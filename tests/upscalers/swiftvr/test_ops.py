"""The pieces of SwiftVR against the public reference."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from tests.upscalers.golden import Golden, read_golden
from torch.nn import functional as F

from streamlift.frames import Size
from streamlift.upscalers.flashvsr.published import sinusoid
from streamlift.upscalers.flashvsr.rope import axis_angles
from streamlift.upscalers.swiftvr.config import DitConfig
from streamlift.upscalers.swiftvr.dit import attend, rotate
from streamlift.upscalers.swiftvr.fold import fold_reae
from streamlift.upscalers.swiftvr.grid import Grid, Turn, split_head
from streamlift.upscalers.swiftvr.picture import Canvas, Resize
from streamlift.upscalers.swiftvr.reae import _Grow, _Pool, _SoftLimit
from streamlift.upscalers.swiftvr.windows import (
    Seam,
    Windows,
    plain_axis,
    shifted_axis,
    tables,
    window_starts,
)

near = partial(torch.testing.assert_close, rtol=0)
GRIDS = sorted(
    {
        tuple(name.split(".")[1:4])
        for name in read_golden("swiftvr", "ops").tensors
        if name.startswith("window.")
    }
)


# Windows ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("grid", "window", "kind"), GRIDS)
def test_windows_begin_where_the_references_do(
    ops: Golden, grid: str, window: str, kind: str
) -> None:
    height, width = (int(side) for side in grid.split("x")[-2:])
    for axis, size, length in zip("hw", (height, width), _window(window), strict=True):
        found = window_starts(size, length, shifted=kind == "shifted")
        assert found == ops[f"window.{grid}.{window}.{kind}.starts_{axis}"].tolist()


@pytest.mark.parametrize(("grid", "window", "kind"), [g for g in GRIDS if g[0].count("x") == 2])
def test_the_tokens_of_a_window_and_the_owner_of_a_token_are_the_references(
    ops: Golden, grid: str, window: str, kind: str
) -> None:
    latents, height, width = (int(side) for side in grid.split("x"))
    high, wide = _window(window)
    if kind == "plain":
        rows, columns = plain_axis(height, high), plain_axis(width, wide)
    else:
        rows, columns = (
            shifted_axis(size, length, Seam.EXACT)
            for size, length in ((height, high), (width, wide))
        )
    gather, owner = tables(latents, rows, columns)
    name = f"window.{grid}.{window}.{kind}"
    assert gather.tolist() == ops[f"{name}.gather"].tolist()
    assert owner.tolist() == ops[f"{name}.owner"].tolist()


@pytest.mark.parametrize(
    ("size", "plain", "shifted"),
    [
        (32, [0, 16], [0, 16]),
        (34, [0, 16, 18], [0, 8, 18]),
        (44, [0, 16, 28], [0, 8, 24, 28]),
        (60, [0, 16, 32, 44], [0, 8, 24, 40, 44]),
        (64, [0, 16, 32, 48], [0, 8, 24, 40, 48]),
    ],
)
def test_windows_of_sizes_of_interest(size: int, plain: list[int], shifted: list[int]) -> None:
    assert window_starts(size, 16, shifted=False) == plain
    assert window_starts(size, 16, shifted=True) == shifted


@pytest.mark.parametrize("grid", ["2x5x9", "3x8x4", "2x3x6"])
@pytest.mark.parametrize("kind", ["plain", "shifted"])
def test_attention_in_windows_equals_the_reference(ops: Golden, grid: str, kind: str) -> None:
    latents, height, width = (int(side) for side in grid.split("x"))
    config = DitConfig(dim=32, heads=2, window=(4, 4))
    constants = Grid.build(config, (latents, height, width), Seam.EXACT, "cpu")
    q, k, v = (ops[f"attention.{grid}.{name}"][None] for name in "qkv")
    windows = constants.plain if kind == "plain" else constants.shifted
    if constants.order is not None:
        q, k, v = (x[:, constants.order] for x in (q, k, v))
    found = attend(q, k, v, windows)
    if constants.back is not None:
        found = found[:, constants.back]
    near(found[0], ops[f"attention.{grid}.out_{kind}"], atol=2e-6)


def test_where_plain_windows_do_not_overlap_plain_blocks_gather_nothing() -> None:
    config = DitConfig(dim=12, heads=2, window=(4, 4))
    grid = Grid.build(config, (2, 8, 8), Seam.EXACT, "cpu")
    assert [_gathers(grid.plain), _gathers(grid.shifted)] == [(4, False), (4, False)]
    bridge = Grid.build(config, (2, 8, 8), Seam.BRIDGE, "cpu")
    assert [_gathers(bridge.plain), _gathers(bridge.shifted)] == [(4, False), (9, True)]


# Position and time -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "shape", "first", "bound"),
    [
        ("start", (3, 2, 3), 0, 2e-5),
        ("later", (2, 3, 2), 37, 2e-5),
        ("beyond", (2, 2, 2), 1030, 5e-4),
    ],
)
def test_rotation_equals_the_reference_at_any_time(
    ops: Golden, name: str, shape: tuple[int, int, int], first: int, bound: float
) -> None:
    # Ours counts from zero: the tables of a later time are those of a longer chunk, cut.
    latents, height, width = shape
    grid = Grid.build(
        DitConfig(dim=256, heads=2), (first + latents, height, width), Seam.EXACT, "cpu"
    )
    skip = first * height * width
    back = slice(None) if grid.back is None else grid.back
    cos, sin = (table[back][skip:] for table in (grid.turn.cos, grid.turn.sin))
    turn = Turn(cos, sin, torch.complex(cos, sin))
    found = rotate(ops[f"rope.{name}.x"][None], turn)
    near(found[0], ops[f"rope.{name}.y"], atol=bound)


def test_angles_equal_the_reference(ops: Golden) -> None:
    t, y, x = split_head(128)
    assert (t, y, x) == (44, 42, 42)
    near(axis_angles([1], t)[0].float(), ops["rope.angles_t_pos1"].float(), atol=1e-6)
    near(axis_angles([1], y)[0].float(), ops["rope.angles_hw_pos1"].float(), atol=1e-6)


@pytest.mark.parametrize("size", [32, 256])
def test_the_time_steps_sinusoid_equals_the_reference(ops: Golden, size: int) -> None:
    near(sinusoid(size).float(), ops[f"time.sinusoid_{size}"], atol=2e-4)


def test_norms_equal_the_reference(ops: Golden) -> None:
    x, weight, bias = ops["norm.x"], ops["norm.weight"], ops["norm.bias"]
    near(F.rms_norm(x, (48,), weight, 1e-6), ops["norm.rms"], atol=5e-6)
    near(F.layer_norm(x, (48,), eps=1e-6), ops["norm.layer"], atol=5e-6)
    near(F.layer_norm(x, (48,), weight, bias, 1e-6), ops["norm.layer_affine"], atol=5e-6)


# The autoencoder's pieces ----------------------------------------------------------------------


def test_growth_in_time_equals_the_reference(ops: Golden) -> None:
    folded = dict(fold_reae(lambda name: ops["tgrow.weight"], ["decoder.13.conv3d.weight"]))
    grow = _Grow(6, 2)
    grow.conv.weight.data = folded["decoder.layers.13.conv.weight"].float()
    with torch.inference_mode():
        found = grow(ops["tgrow.x"])
    near(found, ops["tgrow.y"].repeat_interleave(2, -1).repeat_interleave(2, -2), atol=1e-5)


def test_pooling_in_time_equals_the_reference(ops: Golden) -> None:
    pool = _Pool(6, 2)
    pool.conv.weight.data = ops["tpool.weight"]
    with torch.inference_mode():
        near(pool(ops["tpool.x"]), ops["tpool.y"], atol=1e-5)


def test_the_soft_limit_and_pixel_order_equal_the_reference(ops: Golden) -> None:
    near(_SoftLimit()(ops["clamp.x"]), ops["clamp.y"], atol=1e-5)
    near(F.interpolate(ops["nearest.x"], scale_factor=2), ops["nearest.y"], atol=0)
    near(F.pixel_unshuffle(ops["pixel.x"], 2), ops["pixel.unshuffled"], atol=0)


# Preparation -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "height", "width", "resize"),
    [
        ("x2", 24, 40, Resize.BILINEAR),
        ("x4", 48, 80, Resize.BILINEAR),
        ("to_30x47", 30, 47, Resize.BILINEAR),
        ("same", 12, 20, Resize.BILINEAR),
        ("x2_bicubic_option", 24, 40, Resize.BICUBIC),
    ],
)
def test_frames_are_enlarged_and_padded_as_the_reference_does(
    ops: Golden, name: str, height: int, width: int, resize: Resize
) -> None:
    frames = ops["prep.small_u8"].permute(0, 3, 1, 2).float() / 255
    canvas = Canvas.of(Size(width, height), resize=resize)
    expected = ops[f"prep.{name}"]
    if resize is Resize.BICUBIC:
        expected = expected.clamp(0, 1)
    near(canvas.spread(frames), expected, atol=1e-6)
    assert canvas.crop(expected).shape[2:] == (height, width)


def _window(name: str) -> tuple[int, int]:
    high, _, wide = name.removeprefix("w").partition("x")
    return int(high), int(wide or high)


def _gathers(windows: Windows) -> tuple[int, bool]:
    return windows.count, windows.gather is not None
