"""Measure SwiftVR's speed on this machine: correctness first, then variants in turns.

Full-size networks with seeded random weights: speed and rounding do not depend on training. On a
CPU only the tiny network runs, to keep this script alive; its numbers mean nothing.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from streamlift.frames import Size
from streamlift.upscalers.swiftvr.config import LATENT_FRAMES, ModelConfig, swiftvr, tiny_random
from streamlift.upscalers.swiftvr.fp8 import Linears
from streamlift.upscalers.swiftvr.grid import Grid
from streamlift.upscalers.swiftvr.model import Model
from streamlift.upscalers.swiftvr.settings import Settings
from streamlift.upscalers.swiftvr.tiny import random_model
from streamlift.upscalers.swiftvr.upscaler import SwiftVr

SEED = 7
CONTEXT_ROWS = 2
"""As an empty prompt that is padded with equal rows comes to."""


@dataclass(frozen=True)
class Variant:
    """One way to run the same function."""

    name: str
    graph: bool = False
    compiled: bool = False
    linears: Linears = Linears.PLAIN


@dataclass
class Row:
    """What was found of one variant; times in ms a chunk of `frames`."""

    variant: str
    frames: int
    chunk_ms: float = 0.0
    p10_ms: float = 0.0
    p90_ms: float = 0.0
    fps: float = 0.0
    tflops: float = 0.0
    peak_gb: float = 0.0
    relative_error: float = 0.0
    psnr_db: float = 0.0
    stages_ms: dict[str, float] = field(default_factory=dict)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--latents", type=int, choices=(1, 2, 6), default=2)
    parser.add_argument("--no-compile", action="store_true", help="leave out compiled variants")
    parser.add_argument("--json", type=Path, help="write the rows there too")
    arguments = parser.parse_args()
    rows = run(
        torch.device(arguments.device), latents=arguments.latents, compiled=not arguments.no_compile
    )
    print(table(rows))
    if arguments.json:
        arguments.json.write_text(json.dumps([asdict(row) for row in rows], indent=1))


def run(device: torch.device, *, latents: int = 2, compiled: bool = True) -> list[Row]:
    """A row for each variant at 512 x 512 to 1024 x 1024 (CPU: the tiny network, 64 x 64)."""
    on_cuda = device.type == "cuda"
    config, size = (swiftvr(), Size(512, 512)) if on_cuda else (tiny_random(), Size(64, 64))
    if not on_cuda:
        torch.set_num_threads(1)
    variants = [Variant("eager"), Variant("graph", graph=True)]
    if compiled and on_cuda:
        variants.append(Variant("graph compiled", graph=True, compiled=True))
    if on_cuda and torch.cuda.get_device_capability(device) >= (8, 9):
        variants.append(Variant("graph fp8", graph=True, linears=Linears.FP8))
        if compiled:
            variants.append(Variant("graph compiled fp8", True, True, Linears.FP8))
    elif not on_cuda:
        variants.append(Variant("fp8", linears=Linears.FP8))
    video = random_video(size, 4 * LATENT_FRAMES * latents + 1)
    expected = stream(_upscaler(config, device, torch.float32, Variant("float32"), latents), video)
    rows = []
    # One after the other: two of the largest models do not fit a small card together.
    for variant in variants:
        upscaler = _upscaler(config, device, torch.bfloat16, variant, latents)
        rows.append(measure(upscaler, variant, video, expected))
        print(f"{variant.name}: {rows[-1].chunk_ms:.4g} ms a chunk", flush=True)
        del upscaler
        gc.collect()
        if on_cuda:
            torch.cuda.empty_cache()
    return rows


def measure(upscaler: SwiftVr, variant: Variant, video: Tensor, expected: Tensor) -> Row:
    """Pictures against float32, then whole chunks, then the stages that are not graphs."""
    device, step = upscaler.model.device, upscaler.spec.step
    row = Row(variant.name, step)
    found = stream(upscaler, video)
    row.relative_error = float((found - expected).norm() / expected.norm())
    row.psnr_db = float(-10 * (found - expected).square().mean().clamp(min=1e-12).log10())
    size = Size(video.shape[3], video.shape[2])
    session = upscaler.open(size)
    list(session.push(video[:1].to(device)))
    frames, turn = video[1:].to(device), 0

    def chunk() -> None:
        nonlocal turn
        for _ in range(step):
            for _ in session.push(frames[turn % len(frames)][None]):
                pass
            turn += 1

    warmups, times = (5, 40) if device.type == "cuda" else (1, 3)
    for _ in range(warmups):
        chunk()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    taken = sorted(timed_ms(chunk, device) for _ in range(times))
    row.chunk_ms = statistics.median(taken)
    row.p10_ms, row.p90_ms = (taken[round(share * (times - 1))] for share in (0.1, 0.9))
    row.fps = step / row.chunk_ms * 1000
    if device.type == "cuda":
        row.peak_gb = torch.cuda.max_memory_allocated(device) / 1e9
    work = 0.0
    for name, stage in stages(upscaler, size).items():
        if not variant.compiled:
            row.stages_ms[name] = statistics.median(timed_ms(stage, device) for _ in range(times))
        with FlopCounterMode(display=False) as counter:
            stage()
        work += counter.get_total_flops() / 1e12
    row.tflops = work / row.chunk_ms * 1000
    return row


def stages(upscaler: SwiftVr, size: Size) -> dict[str, Callable[[], object]]:
    """Encoder, denoiser and decoder of a steady chunk, each alone on random input."""
    model, settings = upscaler.model, upscaler.settings
    memory = upscaler.open(size)._chunks.memory
    canvas = upscaler.open(size)._chunks.canvas
    shape = (settings.latents, *canvas.tokens)
    grid = Grid.build(model.config.dit, shape, settings.seam, model.device)
    latents = torch.randn_like(memory.latents[:, -settings.latents :])
    frames = torch.rand_like(memory.frames)

    def run_in(step: Callable[[], object]) -> Callable[[], object]:
        return torch.inference_mode()(step)

    return {
        "encoder": run_in(lambda: model.encoder(canvas.spread(frames)[None], memory.encoder)),
        "dit": run_in(lambda: model.dit(latents, grid)),
        "decoder": run_in(lambda: model.decoder(latents, memory.decoder)),
    }


def stream(upscaler: SwiftVr, video: Tensor) -> Tensor:
    """All frames of a clip, (n, 3, H, W) on the host."""
    session = upscaler.open(Size(video.shape[3], video.shape[2]))
    groups = [g.cpu() for frame in torch.split(video, 1) for g in session.push(frame)]
    return torch.cat([*groups, *(g.cpu() for g in session.finish())])


def random_video(size: Size, frames: int) -> Tensor:
    """Smooth random pictures with fine noise, never constant."""
    generator = torch.Generator().manual_seed(SEED)
    coarse = torch.rand(frames, 3, size.height // 16, size.width // 16, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, scale_factor=16, mode="bilinear")
    fine = torch.rand(frames, 3, size.height, size.width, generator=generator)
    return 0.8 * smooth + 0.2 * fine


def table(rows: Sequence[Row]) -> str:
    """A row a variant, as Markdown."""
    head = ["SwiftVR", "fps", "ms/chunk", "p10", "p90", "encoder", "dit", "decoder"]
    head += ["TFLOP/s", "peak GB", "rel. error", "PSNR dB"]
    lines = [head, ["---"] * len(head)]
    for row in rows:
        parts = [row.stages_ms.get(name, float("nan")) for name in ("encoder", "dit", "decoder")]
        cells = [row.fps, row.chunk_ms, row.p10_ms, row.p90_ms, *parts, row.tflops, row.peak_gb]
        lines.append(
            [row.variant, *(f"{cell:.3g}" for cell in (*cells, row.relative_error, row.psnr_db))]
        )
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def timed_ms(step: Callable[[], object], device: torch.device) -> float:
    """Wall time until the device is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    begin = time.perf_counter()
    step()
    if device.type == "cuda":
        torch.cuda.synchronize(device)  # the time of a chunk is what is measured
    return (time.perf_counter() - begin) * 1000


def _upscaler(
    config: ModelConfig,
    device: torch.device,
    dtype: torch.dtype,
    variant: Variant,
    latents: int,
) -> SwiftVr:
    model: Model = random_model(config, seed=SEED, context_rows=CONTEXT_ROWS, device=device)
    model.prepare(device, dtype, compiled=variant.compiled, linears=variant.linears)
    settings = Settings(latents=latents, graph=variant.graph, decode_together=True)
    return SwiftVr("bench", model, settings)


if __name__ == "__main__":
    main()
