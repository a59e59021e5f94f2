"""Trial of networks with memory: the last output, moved along the vectors, goes in again.

`python -m scripts.train_compact.temporal {data,train,evaluate}`; the verdict is in
docs/decisions.md. Two forms, both begun with tier s's shipped weights so that they start where it
stands: `recurrent` reads the history in its first layer, `gate` only mixes it into the output.
Both are float32 and nothing of them is shipped.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any, cast

import av
import cv2
import numpy as np
import numpy.typing as npt
import onnx
import torch
from onnx import numpy_helper
from scripts.train_compact.data import DataPlan, draw_sequence
from scripts.train_compact.net import TIERS, CompactNet
from torch import Tensor, nn
from torch.nn import functional

from streamlift.bench import upscaler_method
from streamlift.codec.motion import CELL, motion_field, motion_of
from streamlift.engine.stabilise_cells import smoothed
from streamlift.frames import Plane, Planes, Size, Stabilise
from streamlift.quality import bicubic, read_clip
from streamlift.quality.coding import Coding, area_half, video_encoder, video_frame
from streamlift.quality.figures import e_warp, flicker, psnr
from streamlift.quality.figures import motion_of as truth_motion
from streamlift.upscalers.compact import Compact, Precision, Tier

FORMS = ("recurrent", "gate")
WEIGHTS = Path("src/streamlift/upscalers/compact/weights/s-fp32.onnx")
PLAN = DataPlan(
    clips=320, seed=21_000, scales=(0.4, 1.6), blurs=(0.15, 1.2), frames=8, later_photographs=True
)
HELD = replace(PLAN, clips=16, seed=905_000)
PATCH = 96
BATCH = 6
PEAK = 5e-4
LOG_EVERY = 250
BALANCE = 0.5 / 255
EPSILON = 1e-3
CALM = 0.15
"""Weight of the warping loss: how the output changes along the vectors, against the truth."""
RATES = (None, 3_000_000, 1_500_000, 1_000_000)

U8 = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True, eq=False)
class CodedClip:
    """Coded pictures lr (t, h, w), truth hr (t, 2h, 2w), cells (t, rows, columns, 3): motion in
    quarter LR pixels as x, y, and 1 where there is one."""

    lr: U8
    hr: U8
    cells: npt.NDArray[np.int16]


class TemporalNet(nn.Module):
    """Luma x2 with memory; forward takes one picture and what came before it."""

    def __init__(self, form: str) -> None:
        super().__init__()
        self.form = form
        self.one = CompactNet(TIERS["s"])
        channels = TIERS["s"].channels
        # Zero at the start: the history says nothing until it has been learned.
        self.past = nn.Conv2d(20, channels, 3, bias=False)
        self.gate = nn.Conv2d(channels + 20, 16, 3, padding=1)
        nn.init.zeros_(self.past.weight)
        nn.init.zeros_(self.gate.weight)
        nn.init.constant_(cast(Tensor, self.gate.bias), -3.0)

    def forward(self, lr: Tensor, before: tuple[Tensor, Tensor] | None, cells: Tensor) -> Tensor:
        """lr (B, 1, H, W) in [0, 1]; before is the last lr and output; cells (B, 3, H/8, W/8)."""
        x = functional.pixel_unshuffle(functional.pad(lr, (2,) * 4, mode="replicate"), 2)
        base = functional.conv2d(x, self.one.skip)
        if before is None:
            history = base.new_zeros(base.shape)
            miss = base.new_zeros(len(lr), 4, *base.shape[2:])
        else:
            known = cells[:, 2:]
            moved = functional.pixel_unshuffle(warp(before[1], cells, 2), 4)
            history = (moved - base) * functional.interpolate(known, base.shape[2:])
            miss = functional.pixel_unshuffle((warp(before[0], cells, 1) - lr).abs() * 4, 2)
            # Unknown cells must look bad, not perfect.
            miss = torch.where(functional.interpolate(known, base.shape[2:]) > 0, miss, 1.0)
        past = torch.cat([history * 4, miss], 1)
        features = self.one.head(x, padding=0)
        if self.form == "recurrent":
            features = features + functional.conv2d(
                functional.pad(past, (1,) * 4, mode="replicate"), self.past.weight
            )
        features = functional.relu(features)
        for layer in self.one.body:
            features = functional.relu(layer(features))
        own = self.one.tail(features)
        gate = torch.sigmoid(self.gate(torch.cat([features, past], 1)))
        if before is not None:
            own = own + gate * (history - own)
        return functional.pixel_shuffle(base + own, 4)


def warp(picture: Tensor, cells: Tensor, scale: int) -> Tensor:
    """Whole cells moved, linear between pixels: what the engine's cheap way does, in float."""
    height, width = picture.shape[2:]
    field = functional.interpolate(cells[:, :2], (height, width)) * (scale / 4)
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    places = torch.stack(
        [(x + field[:, 0]) * (2 / (width - 1)) - 1, (y + field[:, 1]) * (2 / (height - 1)) - 1], -1
    )
    return functional.grid_sample(
        picture, places, mode="bilinear", padding_mode="border", align_corners=True
    )


def coded(clip: Sequence[Planes], coding: Coding | None) -> tuple[list[Planes], Any]:
    """Code and decode with motion vectors: pictures and cells. Without a coder: by x264 at CRF 8,
    for its vectors only."""
    encoder = video_encoder(clip[0], coding or Coding(crf=8), 25)
    decoder = av.CodecContext.create("h264", "r")
    decoder.options = {"flags2": "+export_mvs"}
    packets: list[Any] = []
    for index, planes in enumerate(clip):
        frame = video_frame(planes)
        frame.pts = index
        packets += encoder.encode(frame)
    pictures = [p for packet in [*packets, *encoder.encode(None)] for p in decoder.decode(packet)]
    pictures += decoder.decode(None)
    size = clip[0].size
    out, cells = [], []
    for index, picture in enumerate(pictures):
        motion = motion_of(picture, index - 1 if index else None)
        rows, columns = -(-size.height // CELL), -(-size.width // CELL)
        found = np.zeros((rows, columns, 3), np.int16)
        if motion is not None:
            field, known = motion_field(motion, Size(size.width, size.height))
            found[..., :2], found[..., 2] = smoothed(field), known
        cells.append(found)
        i420 = picture.to_ndarray(format="yuv420p")
        y = np.ascontiguousarray(i420[: size.height, : size.width])
        out.append(replace(clip[index], y=cast(Plane, y)))
    return (list(clip) if coding is None else out), np.stack(cells)


def make_data(options: argparse.Namespace) -> None:
    for name, plan in (("sequences", PLAN), ("sequences-held", HELD)):
        folder = options.folder / name
        folder.mkdir(parents=True, exist_ok=True)
        for index in range(plan.clips):
            path = folder / f"{index:05d}.npz"
            if path.exists():
                continue
            rng = np.random.default_rng(plan.seed + index)
            small, hr, coding = draw_sequence(rng, plan)
            lr, cells = coded(small, coding)
            part = path.with_suffix(".part")
            with part.open("wb") as file:
                np.savez(file, lr=np.stack([p.y for p in lr]), hr=np.stack(hr), cells=cells)
            part.rename(path)


def load(folder: Path) -> list[CodedClip]:
    found = []
    for path in sorted(folder.glob("*.npz")):
        with np.load(path) as clip:
            found.append(CodedClip(clip["lr"], clip["hr"], clip["cells"]))
    return found


def shipped() -> CompactNet:
    """Tier s as a trainable net, from its float32 graph."""
    constants = {c.name: numpy_helper.to_array(c) for c in onnx.load(WEIGHTS).graph.initializer}
    net = CompactNet(TIERS["s"])
    convs = {"head": net.head, "hidden1": net.body[0], "hidden2": net.body[1], "tail": net.tail}
    with torch.no_grad():
        for name, conv in convs.items():
            factor = {"head": 255.0, "tail": 1 / 255}.get(name, 1.0)
            kernel = torch.from_numpy(constants[f"{name}.kernel"].copy()) * factor
            bias = torch.from_numpy(constants[f"{name}.bias"].copy())
            if name.startswith("hidden"):
                kernel[:, :, 1, 1] -= torch.eye(len(bias))
            layer = cast(Any, conv)
            layer.direct.copy_(kernel)
            layer.point.zero_()
            layer.bias.copy_(bias / 255 if name == "tail" else bias)
        net.skip.copy_(torch.from_numpy(constants["skip.kernel"].copy()))
    return net


def unroll(net: TemporalNet, lr: Tensor, cells: Tensor) -> list[Tensor]:
    """lr (B, T, h, w), cells (B, T, 3, rows, columns) -> T outputs (B, 1, 2h, 2w)."""
    outputs: list[Tensor] = []
    before = None
    for t in range(lr.shape[1]):
        now = lr[:, t : t + 1]
        outputs.append(net(now, before, cells[:, t]))
        before = (now, outputs[-1])
    return outputs


def loss_of(outputs: list[Tensor], hr: Tensor, cells: Tensor) -> Tensor:
    total = outputs[0].new_zeros(())
    for t, output in enumerate(outputs):
        wrong = ((output - hr[:, t : t + 1]) ** 2).mean((1, 2, 3))
        total = total + 0.5 * torch.log(BALANCE**2 + EPSILON**2 + wrong).mean()
    for t in range(1, len(outputs)):
        mine = outputs[t] - warp(outputs[t - 1], cells[:, t], 2)
        true = hr[:, t : t + 1] - warp(hr[:, t - 1 : t], cells[:, t], 2)
        known = functional.interpolate(cells[:, t, 2:], mine.shape[2:])
        wrong = (((mine - true) ** 2) * known).mean((1, 2, 3))
        total = total + CALM * 0.5 * torch.log(BALANCE**2 + EPSILON**2 + wrong).mean()
    return total / len(outputs)


def batch(rng: np.random.Generator, clips: list[CodedClip]) -> tuple[Tensor, Tensor, Tensor]:
    lrs, hrs, cells = [], [], []
    for _ in range(BATCH):
        clip = clips[int(rng.integers(len(clips)))]
        top, left = (int(v) * CELL for v in rng.integers(0, (clip.lr.shape[1] - PATCH) // CELL, 2))
        rows, columns = (
            slice(top // CELL, (top + PATCH) // CELL),
            slice(left // CELL, (left + PATCH) // CELL),
        )
        lr = clip.lr[:, top : top + PATCH, left : left + PATCH]
        hr = clip.hr[:, 2 * top : 2 * (top + PATCH), 2 * left : 2 * (left + PATCH)]
        moves = clip.cells[:, rows, columns].copy()
        if rng.random() < 0.5:
            lr, hr, moves = (
                lr[:, :, ::-1],
                hr[:, :, ::-1],
                moves[:, :, ::-1] * np.array([-1, 1, 1], np.int16),
            )
        if rng.random() < 0.5:
            lr, hr, moves = (
                lr.transpose(0, 2, 1),
                hr.transpose(0, 2, 1),
                moves.transpose(0, 2, 1, 3)[..., [1, 0, 2]],
            )
        lrs.append(lr)
        hrs.append(hr)
        cells.append(moves)
    return _unit(np.stack(lrs)), _unit(np.stack(hrs)), _cells(np.stack(cells))


def _unit(pictures: Any) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(pictures)).float().div_(255)


def _cells(cells: Any) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(cells, -1, -3))).float()


def train(options: argparse.Namespace) -> None:
    """Until the CPU budget is spent; goes on from its checkpoint."""
    clips, held = load(options.folder / "sequences"), load(options.folder / "sequences-held")
    path = options.folder / f"temporal-{options.form}.pt"
    torch.manual_seed(3)
    net = TemporalNet(options.form)
    net.one.load_state_dict(shipped().state_dict())
    if options.form == "gate":
        for parameter in net.one.parameters():
            parameter.requires_grad_(False)
    optimiser = torch.optim.Adam([p for p in net.parameters() if p.requires_grad], lr=PEAK)
    step, spent, log = 0, 0.0, [{"step": 0.0, "cpu_s": 0.0, **gains(net, held)}]
    if path.exists():
        saved = torch.load(path, weights_only=True)
        net.load_state_dict(saved["net"])
        optimiser.load_state_dict(saved["optimiser"])
        step, spent, log = saved["step"], saved["cpu_s"], saved["log"]
    rng = np.random.default_rng([3, step])
    began = time.process_time() - spent
    total = 0.0
    while (spent := time.process_time() - began) < options.cpu_s:
        share = spent / options.cpu_s
        for group in optimiser.param_groups:
            group["lr"] = (
                PEAK * min(1, (step + 1) / 100) * (0.02 + 0.49 * (1 + math.cos(math.pi * share)))
            )
        lr, hr, cells = batch(rng, clips)
        loss = loss_of(unroll(net, lr, cells), hr, cells)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(net.parameters(), 0.5)
        optimiser.step()
        total += float(loss.detach())
        step += 1
        if step % LOG_EVERY == 0:
            log.append(
                {
                    "step": step,
                    "cpu_s": round(spent, 1),
                    "loss": total / LOG_EVERY,
                    **gains(net, held),
                }
            )
            total = 0.0
            print(options.form, json.dumps(log[-1]), flush=True)
            state = {"net": net.state_dict(), "optimiser": optimiser.state_dict()}
            torch.save(
                {**state, "step": step, "cpu_s": spent, "log": log}, path.with_suffix(".part")
            )
            path.with_suffix(".part").rename(path)


@torch.no_grad()
def gains(net: TemporalNet, held: list[CodedClip]) -> dict[str, float]:
    """dB over the first picture's way (no history) on the later half of held-out clips."""
    with_history, without = [], []
    for clip in held:
        lr, cells = _unit(clip.lr)[None], _cells(clip.cells)[None]
        for t, output in enumerate(unroll(net, lr, cells)):
            if t >= len(clip.lr) // 2:
                with_history.append(psnr(_bytes(output), clip.hr[t]))
                without.append(psnr(_bytes(net.one(lr[:, t : t + 1])), clip.hr[t]))
    return {"psnr": round(fmean(with_history), 4), "one": round(fmean(without), 4)}


def _bytes(output: Tensor) -> Plane:
    return cast(Plane, (output[0, 0] * 255).round().clamp(0, 255).to(torch.uint8).numpy())


@torch.no_grad()
def evaluate(options: argparse.Namespace) -> None:
    """Files as truth: each form beside tier s in 8 bits, alone and with the stabiliser."""
    nets = {}
    for form in FORMS:
        path = options.folder / f"temporal-{form}.pt"
        if path.exists():
            nets[form] = TemporalNet(form)
            nets[form].load_state_dict(torch.load(path, weights_only=True)["net"])
    small = Compact(Tier.S, Precision.INT8)
    methods = [
        bicubic(),
        upscaler_method(small, name="s"),
        upscaler_method(small, Stabilise.LITE, name="s"),
    ]
    for rate in RATES:
        rows: dict[str, list[list[float]]] = {}
        for name in options.clip:
            clip = read_clip(name, frames=options.frames)
            truth = [p.y for p in clip.frames]
            motions = truth_motion(truth)
            lr, cells = coded(
                [area_half(p) for p in clip.frames],
                None if rate is None else Coding(bitrate_bps=rate),
            )
            outputs = {m.name: [e(p).y for p in lr] for m in methods for e in [m.open()]}
            for form, net in nets.items():
                made = unroll(net, _unit(np.stack([p.y for p in lr]))[None], _cells(cells)[None])
                outputs[form] = [_bytes(o) for o in made]
            for method, output in outputs.items():
                quality = fmean(itertools.starmap(psnr, zip(output, truth, strict=True)))
                rows.setdefault(method, []).append(
                    [quality, e_warp(output, motions), flicker(output, truth, motions)]
                )
        for method, values in rows.items():
            mean = np.mean(values, 0)
            figures = f"PSNR {mean[0]:.2f} E_warp {mean[1]:.2f} flicker {mean[2]:.2f}"
            print(f"{rate or 'uncoded'} {method}: {figures}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("command", choices=["data", "train", "evaluate"])
    parser.add_argument("--folder", type=Path, default=Path("data/compact"))
    parser.add_argument("--form", choices=FORMS, default="recurrent")
    parser.add_argument("--cpu-s", type=float, default=3600)
    parser.add_argument("--clip", action="append", type=Path, default=[])
    parser.add_argument("--frames", type=int, default=24)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    cv2.setNumThreads(1)
    {"data": make_data, "train": train, "evaluate": evaluate}[options.command](options)


if __name__ == "__main__":
    main()
