"""The training loop of `compact`: Charbonnier loss, Adam, warm-up and cosine, averaged weights."""

from __future__ import annotations

import copy
import json
import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scripts.train_compact.export import calibrate
from scripts.train_compact.net import TIERS, Calibration, CompactNet
from torch import Tensor, nn

__all__ = ["U8", "Schedule", "Trained", "calibration_pictures", "load_trained", "train"]

CALIBRATION_PICTURES = 48

LOG_EVERY = 1000
"""Steps; the checkpoint is written then too."""

U8 = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Schedule:
    """How one tier is trained. `patch` is the LR side; the last `exact_share` of steps is fp32.

    `epsilon` is Charbonnier's, in units of 255 levels: small is L1, large is L2. With `balance`
    the loss is the mean of log(balance + a patch's error), so that easy and hard patches count
    alike, as they do in a mean of decibels; in units of 255 levels, 0 for a plain mean. In the last
    `square_share` of steps a patch's error is its root mean square, which is what decibels measure;
    before, the mean's steadier gradients get further. A `clean_share` of patches is the target's
    own 2x2 mean, with no coder and no noise between. `rounded` computes as the 8-bit graph does,
    with steps calibrated at the start.
    """

    tier: str
    steps: int
    seed: int = 7
    batch: int = 16
    patch: int = 64
    peak: float = 2e-3
    floor: float = 0.01
    warm_up: int = 200
    averaging: float = 0.998
    clip: float = 0.5
    epsilon: float = 1e-3
    balance: float = 0.0
    clean_share: float = 0.0
    exact_share: float = 0.2
    square_share: float = 0.0
    rounded: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Trained:
    """A network with its averaged weights, and what it took."""

    net: CompactNet
    schedule: Schedule
    log: list[dict[str, float]]
    calibration: Calibration | None = None


def train(
    lr: U8,
    hr: U8,
    held: tuple[U8, U8],
    schedule: Schedule,
    checkpoint: Path,
    *,
    start: Path | None = None,
) -> Trained:
    """Train one tier on (n, h, w) LR and (n, 2h, 2w) HR pictures; write `checkpoint` as it goes.

    `held` is (lr, hr) for the log only. `start` is a checkpoint whose weights to begin with.
    An interrupted run continues from `checkpoint`.
    """
    torch.manual_seed(schedule.seed)
    rng = np.random.default_rng(schedule.seed)
    net = CompactNet(TIERS[schedule.tier])
    if start is not None:
        net.load_state_dict(torch.load(start, weights_only=True)["averaged"])
    averaged = copy.deepcopy(net)
    calibration = calibrate(net, calibration_pictures(lr)) if schedule.rounded else None
    optimiser = torch.optim.Adam(net.parameters(), lr=schedule.peak, betas=(0.9, 0.99))
    log: list[dict[str, float]] = []
    first = 0
    if checkpoint.exists():
        saved = torch.load(checkpoint, weights_only=True)
        net.load_state_dict(saved["net"])
        averaged.load_state_dict(saved["averaged"])
        optimiser.load_state_dict(saved["optimiser"])
        first, log = int(saved["step"]), saved["log"]
        rng = np.random.default_rng([schedule.seed, first])
        calibration = _calibration(saved)
    began, total = time.process_time(), 0.0
    for step in range(first, schedule.steps):
        for group in optimiser.param_groups:
            group["lr"] = _rate(schedule, step)
        source, target = _batch(rng, lr, hr, schedule)
        exact = step >= schedule.steps * (1 - schedule.exact_share)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=not exact):
            output = net(source, calibration)
        square = step >= schedule.steps * (1 - schedule.square_share)
        loss = _loss(output, target, schedule, square=square)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(net.parameters(), schedule.clip)
        optimiser.step()
        _average(averaged, net, schedule.averaging)
        total += float(loss.detach())
        if (step + 1) % LOG_EVERY == 0 or step + 1 == schedule.steps:
            gain = _held_gain(averaged, *held)
            row = {"step": step + 1, "loss": total / LOG_EVERY, "gain_db": gain}
            row["cpu_s"] = time.process_time() - began
            total = 0.0
            log.append({k: round(v, 5) for k, v in row.items()})
            print(schedule.tier, json.dumps(log[-1]), flush=True)
            _save(checkpoint, schedule, net, averaged, optimiser, step + 1, log, calibration)
    return Trained(averaged, schedule, log, calibration)


def load_trained(checkpoint: Path) -> Trained:
    """Read a finished checkpoint's averaged weights."""
    saved = torch.load(checkpoint, weights_only=True)
    schedule = Schedule(**saved["schedule"])
    net = CompactNet(TIERS[schedule.tier])
    net.load_state_dict(saved["averaged"])
    return Trained(net, schedule, saved["log"], _calibration(saved))


def calibration_pictures(lr: U8) -> U8:
    """Four dozen LR pictures from all over the training clips."""
    some: U8 = lr[np.linspace(0, len(lr) - 1, CALIBRATION_PICTURES).astype(int)]
    return some


def _calibration(saved: dict[str, Any]) -> Calibration | None:
    steps = saved.get("calibration")
    return Calibration(tuple(steps["hidden"]), steps["tail"]) if steps else None


def _save(
    path: Path,
    schedule: Schedule,
    net: CompactNet,
    averaged: CompactNet,
    optimiser: torch.optim.Adam,
    step: int,
    log: list[dict[str, float]],
    calibration: Calibration | None,
) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    torch.save(
        {
            "schedule": asdict(schedule),
            "net": net.state_dict(),
            "averaged": averaged.state_dict(),
            "optimiser": optimiser.state_dict(),
            "step": step,
            "log": log,
            "calibration": asdict(calibration) if calibration else None,
        },
        part,
    )
    part.rename(path)


def _batch(rng: np.random.Generator, lr: U8, hr: U8, schedule: Schedule) -> tuple[Tensor, Tensor]:
    side = schedule.patch
    sources: list[U8] = []
    targets: list[U8] = []
    for _ in range(schedule.batch):
        picture = int(rng.integers(len(lr)))
        # Whole 2x2 blocks would do, but any offset varies how patches meet the coder's blocks.
        top, left = (int(v) for v in rng.integers(0, lr.shape[1] - side + 1, 2))
        source = lr[picture, top : top + side, left : left + side]
        target = hr[picture, 2 * top : 2 * (top + side), 2 * left : 2 * (left + side)]
        if rng.random() < schedule.clean_share:
            means = target.reshape(side, 2, side, 2).mean((1, 3))
            source = np.rint(means).astype(np.uint8)
        turn, mirror = int(rng.integers(4)), bool(rng.integers(2))
        for patches, patch in ((sources, source), (targets, target)):
            turned = np.rot90(patch, turn)
            patches.append(turned[:, ::-1] if mirror else turned)
    return _unit(np.stack(sources)), _unit(np.stack(targets))


def _unit(pictures: U8) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(pictures)).float().div_(255)[:, None]


def _loss(output: Tensor, target: Tensor, schedule: Schedule, *, square: bool) -> Tensor:
    if square:
        mean = ((output - target) ** 2).mean((1, 2, 3))
        return 0.5 * torch.log(schedule.balance**2 + schedule.epsilon**2 + mean).mean()
    error = torch.sqrt((output - target) ** 2 + schedule.epsilon**2).mean((1, 2, 3))
    return torch.log(schedule.balance + error).mean() if schedule.balance else error.mean()


def _rate(schedule: Schedule, step: int) -> float:
    if step < schedule.warm_up:
        return schedule.peak * (step + 1) / schedule.warm_up
    done = (step - schedule.warm_up) / max(1, schedule.steps - schedule.warm_up)
    share = schedule.floor + (1 - schedule.floor) * 0.5 * (1 + math.cos(math.pi * done))
    return schedule.peak * share


@torch.no_grad()
def _average(averaged: CompactNet, net: CompactNet, keep: float) -> None:
    torch._foreach_lerp_(list(averaged.parameters()), list(net.parameters()), 1 - keep)


@torch.no_grad()
def _held_gain(net: CompactNet, lr: U8, hr: U8) -> float:
    """Mean dB over bicubic on held-out pictures of the training kind."""
    base = CompactNet(TIERS["xs"])
    gains = []
    for begin in range(0, len(lr), 8):
        source, target = (_unit(pictures[begin : begin + 8]) for pictures in (lr, hr))
        errors = [_error(net(source), target), _error(_bicubic(base, source), target)]
        gains.append(10 * torch.log10(errors[1] / errors[0]))
    return float(torch.cat(gains).mean())


def _bicubic(net: CompactNet, source: Tensor) -> Tensor:
    """The untrained linear path alone."""
    edged = nn.functional.pad(source, (2,) * 4, mode="replicate")
    base = nn.functional.conv2d(nn.functional.pixel_unshuffle(edged, 2), net.skip)
    return nn.functional.pixel_shuffle(base, 4)


def _error(output: Tensor, target: Tensor) -> Tensor:
    output = output.clamp(0, 1)
    return ((output - target) ** 2)[..., 8:-8, 8:-8].mean((1, 2, 3)).clamp_min(1e-7)
