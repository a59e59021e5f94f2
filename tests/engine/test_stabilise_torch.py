"""The torch twin equals the CPU stabiliser on the same motion, and finds motion of its own."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest

from streamlift.engine.stabilise import PRESETS, Stabiliser
from streamlift.engine.stabilise_flow import flow_search
from streamlift.frames import Plane, Planes, Stabilise
from streamlift.quality.coding import area_half, luma_planes
from streamlift.quality.figures import shift_flicker
from streamlift.quality.synthetic import synthetic_clip

torch = pytest.importorskip("torch", reason="the torch twin needs torch")

from tests.upscalers.waits import Waits  # noqa: E402

from streamlift.engine.stabilise_torch import TorchStabiliser, block_motion  # noqa: E402


@pytest.mark.parametrize("strength", [Stabilise.LITE, Stabilise.STRONG])
def test_it_equals_the_cpu_stabiliser_given_the_same_motion(strength: Stabilise) -> None:
    rng = np.random.default_rng(4)
    cpu, twin = Stabiliser(strength), TorchStabiliser(strength)
    dis = flow_search(fine=PRESETS[strength].fine_flow)
    before: Plane | None = None
    for truth in synthetic_clip("leaves", side=256, frames=5):
        lr = area_half(luma_planes(truth)).y
        chroma = [_u8(128 + rng.normal(0, 9, lr.shape)) for _ in range(2)]
        hr = Planes(_u8(truth + rng.normal(0, 6, truth.shape)), *chroma)
        flow = None if before is None else dis.calc(lr, before, None)  # type: ignore[call-overload]
        expected = cpu.apply(lr, hr)
        planes = tuple(_levels(p) for p in (hr.y, hr.u, hr.v))
        motion = None if flow is None else torch.from_numpy(flow)
        found = twin.apply(_levels(lr), planes, flow=motion)
        for got, wanted in zip(found, (expected.y, expected.u, expected.v), strict=True):
            difference = np.abs(got.clamp(0, 255).numpy() - wanted)
            # The CPU rounds its output to whole levels, and under lite so does the twin; its bytes
            # of trust and age then decide some levels differently.
            assert float(difference.mean()) < 0.35
            if PRESETS[strength].cells:
                assert float((difference > 1).mean()) < 0.003
            else:
                assert float(np.quantile(difference, 0.999)) < 0.7
        before = lr


def test_its_own_motion_calms_a_panned_picture() -> None:
    rng = np.random.default_rng(3)
    picture = synthetic_clip("leaves", side=192, frames=1)[0]
    truth = [np.ascontiguousarray(np.roll(picture, (2 * t, 4 * t), (0, 1))) for t in range(8)]
    noisy = [_u8(y + cv2.GaussianBlur(rng.normal(0, 16, y.shape), (0, 0), 0.8)) for y in truth]
    twin = TorchStabiliser(Stabilise.STRONG)
    calm = []
    for y, hr in zip(truth, noisy, strict=True):
        grey = torch.full((96, 96), 128.0)
        lr = _levels(area_half(luma_planes(y)).y)
        calm.append(twin.apply(lr, (_levels(hr), grey, grey))[0].clamp(0, 255).numpy())
    assert shift_flicker(calm, (4, 2)) < 0.55 * shift_flicker(noisy, (4, 2))


@pytest.mark.parametrize("shift", [(0, 0), (3, -2), (-11, 6)])
def test_block_matching_explains_a_known_shift(shift: tuple[int, int]) -> None:
    before = synthetic_clip("leaves", side=192, frames=1)[0]
    now = np.ascontiguousarray(np.roll(before, (shift[1], shift[0]), (0, 1)))
    flow = block_motion(_levels(now), _levels(before)).numpy()
    moved = cv2.remap(before, flow, None, cv2.INTER_LINEAR | cv2.WARP_RELATIVE_MAP)  # type: ignore[call-overload]
    left = np.abs(moved.astype(np.float32) - now)[24:-24, 24:-24]
    assert float(left.mean()) < 1.0


def test_a_cut_returns_the_new_scene_as_it_is() -> None:
    twin = TorchStabiliser(Stabilise.STRONG)
    dark, light = torch.full((48, 48), 30.0), torch.full((48, 48), 200.0)
    grey = torch.full((48, 48), 128.0)
    for lr in (dark, light):
        hr = (lr.repeat(2, 2), grey, grey)
        for found, expected in zip(twin.apply(lr, hr), hr, strict=True):
            assert torch.equal(found, expected)


@pytest.mark.parametrize("strength", [Stabilise.LITE, Stabilise.STRONG])
def test_a_frame_undone_leaves_no_trace(strength: Stabilise) -> None:
    generator = torch.Generator().manual_seed(2)
    lumas = [torch.rand(48, 48, generator=generator) * 8 + 80 for _ in range(3)]
    hrs = [(lr.repeat(2, 2), lr + 1, lr + 2) for lr in lumas]
    plain, undone = TorchStabiliser(strength), TorchStabiliser(strength)
    for number, (lr, hr) in enumerate(zip(lumas, hrs, strict=True)):
        expected = plain.apply(lr, hr)
        if number:
            before = undone.remembered
            undone.apply(lr, tuple(plane * torch.nan for plane in hr))
            undone.recall(before)
        for found, wanted in zip(undone.apply(lr, hr), expected, strict=True):
            assert torch.equal(found, wanted)


@pytest.mark.parametrize("strength", [Stabilise.LITE, Stabilise.STRONG])
def test_after_the_first_frames_nothing_waits_for_the_device(strength: Stabilise) -> None:
    twin = TorchStabiliser(strength)
    with Waits() as waits:
        for number in range(4):
            lr = torch.empty(64, 96, device="meta")
            hr = (lr.repeat(2, 2), torch.empty_like(lr), torch.empty_like(lr))
            twin.apply(lr, hr)
            if number == 1:
                waits.found.clear()
    assert waits.found == []


def test_off_and_reset_return_frames_as_they_are() -> None:
    lr, grey = torch.full((48, 48), 60.0), torch.full((48, 48), 128.0)
    hr = (lr.repeat(2, 2), grey, grey)
    off, twin = TorchStabiliser(Stabilise.OFF), TorchStabiliser(Stabilise.LITE)
    for stabiliser in (off, twin):
        stabiliser.apply(lr, hr)
    twin.reset()
    assert off.apply(lr, hr) is hr
    assert twin.apply(lr, hr) is hr


def _levels(plane: Plane) -> Any:
    return torch.from_numpy(np.ascontiguousarray(plane)).float()


def _u8(values: Any) -> Plane:
    rounded: Plane = np.clip(np.rint(values), 0, 255).astype(np.uint8)
    return rounded
