"""The middle of a picture of two windows: what crosses it, and what the ways out cost."""

from __future__ import annotations

import pytest
import torch
from tests.upscalers.golden import Golden
from torch import Tensor

from streamlift.frames import Size
from streamlift.upscalers.swiftvr.config import DitConfig
from streamlift.upscalers.swiftvr.grid import Grid
from streamlift.upscalers.swiftvr.model import Model
from streamlift.upscalers.swiftvr.picture import Canvas, Fill
from streamlift.upscalers.swiftvr.tiny import create_tiny_random
from streamlift.upscalers.swiftvr.windows import (
    Axis,
    Seam,
    plain_axis,
    shifted_axis,
    tables,
    window_starts,
)

SIDE, WINDOW = 32, 16


def _crossed(seam: Seam, *, owned: bool) -> set[int]:
    """Tokens of a side of 1024 pixels in a window that lies on both sides of its middle.

    owned: only those whose result is taken from that window.
    """
    tokens = Canvas.of(Size(SIDE * 32, SIDE * 32), seam=seam).tokens[0]
    axes = plain_axis(tokens, WINDOW), shifted_axis(tokens, WINDOW, seam)
    return {
        token
        for axis in axes
        for number, start in enumerate(axis.starts)
        if start < SIDE // 2 < start + axis.length
        for token in range(start, start + axis.length)
        if not owned or axis.owners[token] == number
    }


def test_only_a_side_of_exactly_1024_pixels_is_never_crossed() -> None:
    uncrossed = []
    for size in range(2, 300):
        length = min(size, WINDOW)
        starts = {s for k in (False, True) for s in window_starts(size, WINDOW, shifted=k)}
        crossed = {cut for start in starts for cut in range(start + 1, start + length)}
        if cuts := set(range(1, size)) - crossed:
            uncrossed.append((size, cuts))
    assert uncrossed == [(SIDE, {SIDE // 2})]


@pytest.mark.parametrize("seam", [Seam.BRIDGE, Seam.CANVAS])
def test_every_token_of_the_middle_is_in_a_window_that_crosses_it(seam: Seam) -> None:
    half = WINDOW // 2
    assert _crossed(seam, owned=False) == set(range(SIDE // 2 - half, SIDE // 2 + half))
    # And those beside the line have their result from it.
    assert _crossed(seam, owned=True) >= {SIDE // 2 - 2, SIDE // 2 - 1, SIDE // 2, SIDE // 2 + 1}
    assert not _crossed(Seam.EXACT, owned=False)


@pytest.mark.parametrize("size", [17, 31, 33, 34, 44, 60, 64, 68])
def test_neither_way_out_changes_another_side(size: int) -> None:
    assert shifted_axis(size, WINDOW, Seam.BRIDGE) == shifted_axis(size, WINDOW, Seam.EXACT)
    assert Canvas.of(Size(size * 32, 64), seam=Seam.CANVAS) == Canvas.of(Size(size * 32, 64))


def test_the_bridges_windows_own_what_inner_windows_own_elsewhere() -> None:
    bridge: Axis = shifted_axis(SIDE, WINDOW, Seam.BRIDGE)
    assert bridge.starts == (0, 8, 16)
    assert bridge.owners == (0,) * 8 + (1,) * 16 + (2,) * 8
    for latents, columns in ((2, bridge), (1, shifted_axis(48, WINDOW, Seam.BRIDGE))):
        gather, owner = tables(latents, bridge, columns)
        tokens = latents * SIDE * len(columns.owners)
        # Each token is found in its own window, at the place its result is taken from.
        assert torch.equal(gather.flatten()[owner], torch.arange(tokens))


def test_the_canvas_adds_two_tokens_of_the_pictures_edge_and_crops_them() -> None:
    canvas = Canvas.of(Size(1024, 640), seam=Seam.CANVAS)
    assert canvas.padded == Size(1088, 640)
    assert canvas.fill is Fill.EDGE
    frames = torch.rand(1, 3, 640, 1024)
    spread = canvas.spread(frames)
    assert torch.equal(spread[..., 1024:], frames[..., -1:].expand(-1, -1, -1, 64))
    assert torch.equal(canvas.crop(spread), frames)


def test_over_a_bridge_the_halves_see_each_other_and_as_published_they_do_not(
    stream: Golden, dit_model: Model
) -> None:
    latents = stream["input.latents_8x4"].transpose(0, 1)[None]  # two windows high, one wide
    exact, bridge = (_reach(dit_model, latents, seam) for seam in (Seam.EXACT, Seam.BRIDGE))
    half = latents.shape[3] // 2
    assert exact[:half].all()
    assert not exact[half:].any()
    assert bridge.all()


@pytest.mark.parametrize(("seam", "tokens"), [("exact", 4), ("bridge", 4), ("canvas", 6)])
def test_a_stream_of_two_windows_runs_every_way(seam: str, tokens: int) -> None:
    # The tiny model's windows are two tokens: 128 pixels are its 1024.
    session = create_tiny_random("cpu", {"seam": seam}).open(Size(64, 64))
    video = torch.rand(5, 1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    groups = [group for frame in video for group in session.push(frame)]
    assert torch.cat([*groups, *session.finish()]).shape == (5, 3, 128, 128)
    assert session._chunks.canvas.tokens == (tokens, tokens)


@pytest.mark.parametrize(
    ("seam", "side", "windows", "tokens"),
    [(Seam.EXACT, 32, 4, 2048), (Seam.BRIDGE, 32, 9, 2048), (Seam.CANVAS, 34, 9, 2312)],
)
def test_what_the_ways_out_cost(seam: Seam, side: int, windows: int, tokens: int) -> None:
    grid = Grid.build(DitConfig(), (2, side, side), seam, "cpu")
    assert grid.shifted.count == windows
    assert grid.turn.cos.shape == (tokens, 1, 64)


def _reach(model: Model, latents: Tensor, seam: Seam) -> Tensor:
    """Rows of the prediction that a change of the upper half's last row reaches."""
    height = latents.shape[3]
    shape = (latents.shape[1], height // 2, latents.shape[4] // 2)
    grid = Grid.build(model.config.dit, shape, seam, "cpu")
    changed = latents.clone()
    changed[:, :, :, height // 2 - 1] += 1
    with torch.inference_mode():
        difference = model.dit(changed, grid) - model.dit(latents, grid)
    reached: Tensor = difference.abs().amax((0, 1, 2, 4)) > 1e-6
    return reached
