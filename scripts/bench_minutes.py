"""`bench_gpu.py --plan minutes`: three runs of at most nine minutes, each useful alone.

Each run is a list of steps. A step's result, or what went wrong in it, is written to the JSON file
before the next begins; what no longer fits into the time is named there too. Inputs are random,
never constant; errors come before times; card, precision and density stand in every row.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from streamlift.frames import Size, Stabilise
from streamlift.upscalers import convolution
from streamlift.upscalers.flashvsr import fused
from streamlift.upscalers.flashvsr.attention import AttentionKind, attend_exact, attention
from streamlift.upscalers.flashvsr.blocks import BlockLists
from streamlift.upscalers.flashvsr.tiny import random_model
from streamlift.upscalers.realesrgan import RealESRGAN, RRDBNet, RRDBNetConfig

__all__ = ["LIMIT_S", "Step", "run_part", "run_steps"]

LIMIT_S = 520.0
"""A run's time: under nine minutes with what starting and ending takes."""

Step = tuple[str, Callable[[], dict[str, Any]]]


def run_part(part: str, bench: Any, target: Path) -> None:
    """One of the three runs, to a JSON file."""
    steps = {"truth": _truth, "kernels": _kernels, "proof": _proof}[part](bench)
    run_steps(steps, target, common=_common(bench))


def run_steps(
    steps: list[Step],
    target: Path,
    *,
    common: dict[str, Any],
    limit_s: float = LIMIT_S,
    now_s: Callable[[], float] = time.monotonic,
) -> None:
    """Run steps while there is time, writing after each; a failure ends that step alone."""
    began_s, rows = now_s(), []
    for name, step in steps:
        row: dict[str, Any] = {"step": name, **common}
        started_s = now_s()
        if started_s - began_s >= limit_s:
            row["left_out"] = "no time"
        else:
            try:
                row |= step()
            except Exception as error:  # noqa: BLE001 # one step of many: the others are worth having
                row["error"] = "".join(traceback.format_exception_only(error)).strip()
        row["took_s"] = round(now_s() - started_s, 2)
        rows.append(row)
        target.write_text(json.dumps(rows, indent=1))
        print({key: value for key, value in row.items() if key not in common}, flush=True)


def _common(bench: Any) -> dict[str, Any]:
    name = torch.cuda.get_device_name(bench.device) if _cuda(bench) else "cpu"
    return {"card": name, "torch": torch.__version__, "sparse_ratio": bench.sparse_ratio}


def _truth(bench: Any) -> list[Step]:
    main = _main()
    return [
        ("machine", lambda: main.describe(bench.device) | main.measure_ceilings(bench.device)),
        ("tests", partial(_tests, bench)),
        *[(f"twin: {name}", partial(_twin, bench, name)) for name in _TWINS],
        *[
            (f"flashvsr: {variant.name}", partial(_flashvsr, bench, variant))
            for variant in _variants(bench)
        ],
        *[
            (f"realesrgan-x2: {name}", partial(_realesrgan, bench, graph=graph))
            for name, graph in (("eager", False), ("graph", True))
        ],
    ]


def _kernels(bench: Any) -> list[Step]:
    best = _variants(bench)[-1]
    small = bench.size.pixels < 512 * 512
    sizes = (Size(64, 64),) if small else (Size(640, 384), Size(768, 768))
    return [
        ("attention, configurations in turns", partial(_attention_configurations, bench)),
        *[
            (f"flashvsr at {size}", partial(_flashvsr, replace(bench, size=size), best))
            for size in sizes
        ],
        ("two streams", partial(_two_streams, bench, best)),
    ]


def _proof(bench: Any) -> list[Step]:
    best = _variants(bench)[-1]
    faster = replace(bench, sparse_ratio=1.5)
    return [
        ("flashvsr: as shipped", partial(_flashvsr, bench, _variants(bench)[0])),
        ("flashvsr: sustained", partial(_sustained, bench, best)),
        ("flashvsr: sparse_ratio 1.5", partial(_flashvsr, faster, best)),
        ("realesrgan-x2: bytes to bytes, calmed", partial(_probe_realesrgan, bench)),
    ]


def _variants(bench: Any) -> list[Any]:
    main = _main()
    if not _cuda(bench):
        return [main.Variant("exact", torch.float32, AttentionKind.EXACT)]
    low = torch.bfloat16
    return [
        main.Variant("triton", low, AttentionKind.TRITON),
        main.Variant("flex", low, AttentionKind.FLEX),
        main.Variant("compile", low, AttentionKind.TRITON, compiled=True),
        main.Variant("compile, graph", low, AttentionKind.TRITON, compiled=True, graph=True),
        main.Variant("graph, both latents together", low, AttentionKind.TRITON, False, True, True),
        main.Variant("graph", low, AttentionKind.TRITON, graph=True),
    ]


def _tests(bench: Any) -> dict[str, Any]:
    script = Path(__file__).with_name("test_gpu")
    if not _cuda(bench):
        return {"skipped": "no CUDA device"}
    environment = os.environ | {"PYTHON": sys.executable}
    run = subprocess.run(
        [script, "-q"], env=environment, capture_output=True, text=True, timeout=180, check=False
    )
    return {"passed": run.returncode == 0, "says": run.stdout.splitlines()[-12:]}


def _flashvsr(bench: Any, variant: Any) -> dict[str, Any]:
    """One variant alone: first picture, chunks, and the peak of nothing else."""
    main = _main()
    _fresh(bench)
    model = random_model(bench.config, seed=main.SEED, device=bench.device)
    model = model.prepare(bench.device, variant.dtype, compiled=variant.compiled)
    began_s = time.perf_counter()
    live = main.LiveChunks(bench, model, variant)
    _wait(bench)
    first_s = time.perf_counter() - began_s
    for _ in range(bench.warmups):
        live.chunk()
    taken = [main.timed_ms(live.chunk, bench.device) for _ in range(bench.chunks)]
    median, low, high = main.spread(taken)
    return {
        "precision": str(variant.dtype),
        "size": str(bench.size),
        "first_picture_s": first_s,
        "chunk_ms": median,
        "p10_ms": low,
        "p90_ms": high,
        "fps": 8000 / median,
        "peak_gb": main.peak_gb(bench.device),
    }


def _sustained(bench: Any, variant: Any) -> dict[str, Any]:
    main = _main()
    model = random_model(bench.config, seed=main.SEED, device=bench.device)
    live = main.LiveChunks(bench, model.prepare(bench.device, variant.dtype), variant)
    seconds = 60.0 if _cuda(bench) else 0.1
    return {"fps": main.sustained_fps(live, seconds, bench.device), "seconds": seconds}


def _two_streams(bench: Any, variant: Any) -> dict[str, Any]:
    main = _main()
    model = random_model(bench.config, seed=main.SEED, device=bench.device)
    model = model.prepare(bench.device, variant.dtype)
    pair = [main.LiveChunks(bench, model, variant) for _ in range(2)]

    def both() -> None:
        for live in pair:
            live.chunk()

    median = main.median_ms(both, bench.device, max(2, bench.chunks // 4))
    return {"chunk_ms": median, "fps_of_both": 16000 / median}


def _realesrgan(bench: Any, *, graph: bool) -> dict[str, Any]:
    main = _main()
    _fresh(bench)
    session = _net(bench, graph).open(bench.size)
    frame = main.random_video(bench, 1)
    median = main.median_ms(lambda: list(session.push(frame)), bench.device, bench.chunks)
    return {"ms": median, "fps": 1000 / median, "peak_gb": main.peak_gb(bench.device)}


def _probe_realesrgan(bench: Any) -> dict[str, Any]:
    from streamlift.engine import measure_fps

    calmed = Stabilise.STRONG if _cuda(bench) else Stabilise.OFF
    fps = measure_fps(_net(bench, graph=True), str(bench.device), stabilise=calmed)
    return {"fps": fps, "stabilise": str(calmed)}


def _net(bench: Any, graph: bool) -> RealESRGAN:
    torch.manual_seed(_main().SEED)
    small = not _cuda(bench)
    sizes = RRDBNetConfig(2, blocks=1, features=8, growth=4) if small else RRDBNetConfig(2)
    return RealESRGAN(RRDBNet(sizes).eval(), name="realesrgan-x2", device=bench.device, graph=graph)


def _attention_configurations(bench: Any) -> dict[str, Any]:
    main = _main()
    q, k, v, blocks = _attention_inputs(bench)
    work = 4.0 * float(blocks.count.sum()) * 128**2 * q.shape[2] / 1e9
    if not _cuda(bench):
        return {"exact_ms": main.median_ms(lambda: attend_exact(q, k, v, blocks), bench.device, 2)}
    kernels = importlib.import_module("streamlift.upscalers.flashvsr.triton_attention")
    ways: dict[str, Any] = {
        "plain": kernels.attend_plain,
        "flex": attention(AttentionKind.FLEX, q.device),
    }
    if torch.cuda.get_device_capability(bench.device)[0] == 9:
        for one in kernels.CONFIGURATIONS:
            ways[str(one)] = partial(kernels.attend_persistent, configuration=one)
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(3 + bench.chunks):
        for name, way in ways.items():
            step = partial(way, q, k, v, blocks)
            taken[name].append(main.timed_ms(step, bench.device))
    medians = {name: main.spread(times[3:])[0] for name, times in taken.items()}
    return {"tflops": {name: work / ms for name, ms in medians.items()}, "ms": medians}


def _attention_inputs(bench: Any) -> tuple[Any, ...]:
    """As in a steady chunk at 46.9 %: 12 heads, a unit of queries, four of keys."""
    large = bench.size.times(2)
    rows = max(1, large.pixels // 128**2)
    heads, dim = bench.config.dit.heads, bench.config.dit.head_dim
    low = torch.bfloat16 if _cuda(bench) else torch.float32
    generator = torch.Generator(bench.device).manual_seed(1)

    def random(tokens: int) -> Any:
        shape = (heads, tokens, dim)
        return torch.randn(shape, generator=generator, device=bench.device).to(low)

    keep = torch.rand(heads, rows, 4 * rows, generator=generator, device=bench.device) < 0.469
    blocks = BlockLists.from_mask(keep)
    return random(rows * 128), random(4 * rows * 128), random(4 * rows * 128), blocks


def _twin(bench: Any, name: str) -> dict[str, Any]:
    """Relative error of a kernel at full size against its twin in float32 on the same device."""
    found, expected = _TWINS[name](bench)
    return {"relative_error": _main().relative_error(found.float(), expected.float())}


def _twin_attention(bench: Any) -> tuple[Any, Any]:
    q, k, v, blocks = _attention_inputs(bench)
    kind = AttentionKind.AUTO
    exact = attend_exact(q.float(), k.float(), v.float(), blocks)
    return attention(kind, bench.device)(q, k, v, blocks), exact


def _twin_norm(bench: Any) -> tuple[Any, Any]:
    dim = bench.config.dit.dim
    x = torch.randn(8192 if _cuda(bench) else 64, dim, device=bench.device)
    offset = torch.randn(dim, device=bench.device)
    expected = torch.nn.functional.layer_norm(x.bfloat16().float() + offset, (dim,), eps=1e-6)
    return fused.layer_norm(x.bfloat16(), offset, 1e-6), expected


def _twin_convolution(bench: Any) -> tuple[Any, Any]:
    side, channels = (512, 128) if _cuda(bench) else (16, 8)
    last = torch.channels_last
    x = torch.randn(2, channels, side, side, device=bench.device).bfloat16().to(memory_format=last)
    kernel = torch.randn(channels, channels, 3, 3, device=bench.device) / channels
    kernel = kernel.bfloat16()
    out = torch.empty_like(x)
    convolution.conv3x3(x, convolution.pack_taps(kernel), None, out)
    return out, torch.nn.functional.conv2d(x.float(), kernel.float(), padding=1)


_TWINS: dict[str, Callable[[Any], tuple[Any, Any]]] = {
    "attention": _twin_attention,
    "norm": _twin_norm,
    "convolution": _twin_convolution,
}


def _fresh(bench: Any) -> None:
    if _cuda(bench):
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(bench.device)


def _wait(bench: Any) -> None:
    if _cuda(bench):
        torch.cuda.synchronize(bench.device)


def _cuda(bench: Any) -> bool:
    return bool(bench.device.type == "cuda")


def _main() -> Any:
    """`bench_gpu`, which as a rule is the program that runs."""
    running = sys.modules.get("__main__")
    return running if hasattr(running, "LiveChunks") else importlib.import_module("bench_gpu")
