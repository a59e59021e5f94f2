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
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from streamlift.frames import Size, Stabilise
from streamlift.upscalers import convolution
from streamlift.upscalers.flashvsr import fused
from streamlift.upscalers.flashvsr.attention import AttentionKind, attend_exact, attention
from streamlift.upscalers.flashvsr.blocks import BlockLists
from streamlift.upscalers.flashvsr.selection import topk_from_area
from streamlift.upscalers.flashvsr.tiny import random_model
from streamlift.upscalers.realesrgan import RealESRGAN, RRDBNet, RRDBNetConfig

__all__ = ["LIMIT_S", "Step", "run_part", "run_steps"]

LIMIT_S = 520.0
"""A run's time: under nine minutes with what starting and ending takes."""


@dataclass(frozen=True)
class Step:
    """One row of a run; it is left out where less than `needs_s` of the time is left."""

    name: str
    run: Callable[[], dict[str, Any]]
    needs_s: float = 30.0


def run_part(part: str, bench: Any, target: Path) -> None:
    """One of the three runs, to a JSON file."""
    steps = {"truth": _truth, "kernels": _kernels, "proof": _proof}[part](bench)
    run_steps(steps, target, common=_common(bench))


def run_steps(
    steps: Sequence[Step],
    target: Path,
    *,
    common: dict[str, Any],
    limit_s: float = LIMIT_S,
    now_s: Callable[[], float] = time.monotonic,
) -> None:
    """Run steps while there is time, writing after each; a failure ends that step alone."""
    began_s, rows = now_s(), []
    for step in steps:
        row: dict[str, Any] = {"step": step.name, **common}
        started_s = now_s()
        left_s = limit_s - (started_s - began_s)
        if left_s < step.needs_s:
            row["left_out"] = f"{max(0.0, left_s):.0f} s left, may take {step.needs_s:.0f}"
        else:
            try:
                row |= step.run()
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
    """Is it right, and how fast as it is: what takes minutes to compile comes last."""
    main = _main()
    slow = {True: 150.0, False: 30.0}
    variants = sorted(_variants(bench), key=lambda variant: variant.compiled)
    return [
        Step("machine", lambda: main.describe(bench.device) | main.measure_ceilings(bench.device)),
        Step("tests", partial(_tests, bench), 160.0),
        *[Step(f"twin: {name}", partial(_twin, bench, name), 15.0) for name in _TWINS],
        Step("flashvsr by stage: " + variants[0].name, partial(_stages, bench, variants[0]), 60.0),
        Step("flashvsr by stage: as the public code does it", partial(_baseline, bench), 60.0),
        *[
            Step(f"realesrgan-x2: {name}", partial(_realesrgan, bench, **way), slow[name == _LONG])
            for name, way in _realesrgan_ways(bench).items()
            if name != _LONG
        ],
        *[
            Step(f"flashvsr: {one.name}", partial(_flashvsr, bench, one), slow[one.compiled])
            for one in variants
        ],
        *[
            Step(f"realesrgan-x2: {name}", partial(_realesrgan, bench, **way), slow[True])
            for name, way in _realesrgan_ways(bench).items()
            if name == _LONG
        ],
    ]


def _kernels(bench: Any) -> list[Step]:
    best = _variants(bench)[-1]
    small = bench.size.pixels < 512 * 512
    sizes = (Size(64, 64),) if small else (Size(640, 384), Size(768, 768))
    return [
        Step("attention, configurations in turns", partial(_attention_configurations, bench)),
        Step("convolution, tiles in turns", partial(_convolution_tiles, bench)),
        Step("flashvsr: whole chunks in turns", partial(_chunks_in_turns, bench), 90.0),
        *[
            Step(f"flashvsr at {size}", partial(_flashvsr, replace(bench, size=size), best))
            for size in sizes
        ],
        Step("two streams", partial(_two_streams, bench, best)),
    ]


def _proof(bench: Any) -> list[Step]:
    best = _variants(bench)[-1]
    faster = replace(bench, sparse_ratio=1.5)
    return [
        Step("flashvsr: as shipped", partial(_flashvsr, bench, _variants(bench)[0])),
        Step("flashvsr: sustained", partial(_sustained, bench, best), 90.0),
        Step("flashvsr: sparse_ratio 1.5", partial(_flashvsr, faster, best)),
        Step("realesrgan-x2: bytes to bytes, calmed", partial(_probe_realesrgan, bench)),
        *[
            Step(f"flashvsr on {name}", partial(_elsewhere, bench, number, best), 60.0)
            for number, name in _other_cards(bench).items()
        ],
    ]


def _variants(bench: Any) -> list[Any]:
    """The first as shipped, the last the fastest by the count."""
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


def _other_cards(bench: Any) -> dict[int, str]:
    """Further cards of this machine, of another name than the one that is measured."""
    if not _cuda(bench):
        return {}
    names = {n: torch.cuda.get_device_name(n) for n in range(torch.cuda.device_count())}
    seen = {torch.cuda.get_device_name(bench.device)}
    found = {}
    for number, name in names.items():
        if name not in seen:
            seen.add(name)
            found[number] = name
    return found


def _elsewhere(bench: Any, number: int, variant: Any) -> dict[str, Any]:
    with torch.cuda.device(number):
        there = replace(bench, device=torch.device("cuda", number))
        return _common(there) | _flashvsr(there, variant)


def _tests(bench: Any) -> dict[str, Any]:
    script = Path(__file__).with_name("test_gpu")
    if not _cuda(bench):
        return {"skipped": "no CUDA device"}
    environment = os.environ | {"PYTHON": sys.executable}
    run = subprocess.run(
        [script, "-q"], env=environment, capture_output=True, text=True, timeout=150, check=False
    )
    return {"passed": run.returncode == 0, "says": run.stdout.splitlines()[-12:]}


def _stages(bench: Any, variant: Any) -> dict[str, Any]:
    """One variant's errors against float32, then its time by stage."""
    main = _main()
    _fresh(bench)
    ceiling = main.measure_ceilings(bench.device)["matmul_tflops"]
    (row,) = main.run(replace(bench, variants=(variant,), sustain_s=0.0), ceiling)
    return _precision(bench, variant.dtype) | asdict(row) | {"says": main.verdict(row.errors)}


def _baseline(bench: Any) -> dict[str, Any]:
    """The public code's way, on the same weights: error, stages, and the chunk that they make."""
    main = _main()
    _fresh(bench)
    variant = _variants(bench)[0]
    build = partial(_model, bench)
    expected = main.Stages(bench, build().prepare(bench.device, torch.float32), attend_exact)
    answers = expected.answers()
    flex = attention(AttentionKind.FLEX if _cuda(bench) else AttentionKind.EXACT, bench.device)
    stages = main.Stages(bench, build().prepare(bench.device, variant.dtype), flex, like=expected)
    public = _beside("bench_baseline").Baseline(stages, flex, expected.lists)
    errors = {}
    for name, step in public.steps().items():
        for tensor in (stages.memory.carried1, stages.memory.carried2, *stages.memory.decoder):
            tensor.zero_()
        errors[name] = main.relative_error(step().float(), answers[name])
    del expected, answers
    _fresh(bench)
    times = {
        name: main.median_ms(step, bench.device, bench.chunks, bench.warmups)
        for name, step in public.steps().items()
    }
    taken = [main.timed_ms(public.chunk, bench.device) for _ in range(bench.chunks)]
    return _precision(bench, variant.dtype) | {
        "errors": errors,
        "says": main.verdict(errors),
        "stages_ms": times,
        **_spread(taken),
        "peak_gb": main.peak_gb(bench.device),
    }


def _flashvsr(bench: Any, variant: Any) -> dict[str, Any]:
    """One variant alone: first picture, chunks, and the peak of nothing else."""
    main = _main()
    _fresh(bench)
    model = _model(bench)
    model = model.prepare(bench.device, variant.dtype, compiled=variant.compiled)
    began_s = time.perf_counter()
    live = main.LiveChunks(bench, model, variant)
    _wait(bench)
    first_s = time.perf_counter() - began_s
    for _ in range(bench.warmups):
        live.chunk()
    # What a stream waits for: that of a size which was opened before.
    began_s = time.perf_counter()
    main.LiveChunks(bench, model, variant)
    _wait(bench)
    again_s = time.perf_counter() - began_s
    taken = [main.timed_ms(live.chunk, bench.device) for _ in range(bench.chunks)]
    return _precision(bench, variant.dtype) | {
        "opened_and_first_picture_s": first_s,
        "the_same_once_compiled_s": again_s,
        **_spread(taken),
        "peak_gb": main.peak_gb(bench.device),
    }


def _chunks_in_turns(bench: Any) -> dict[str, Any]:
    """Whole chunks of several ways, A B A B: as many as there is memory for."""
    main = _main()
    _fresh(bench)
    ways: dict[str, tuple[Any, Any]] = {one.name: (one, None) for one in _variants(bench)[-2:]}
    if _cuda(bench):
        ways["triton"] = (_variants(bench)[0], None)
        for one in _hopper_configurations(bench):
            step = partial(_attention_kernels().attend_persistent, configuration=one)
            ways[f"graph, {one}"] = (_variants(bench)[-1], step)
    else:
        together = replace(_variants(bench)[0], together=True)
        ways["both latents together"] = (together, None)
    model = _model(bench)
    model = model.prepare(bench.device, next(iter(ways.values()))[0].dtype)
    live = {}
    for name, (variant, attend) in ways.items():
        if _cuda(bench) and torch.cuda.mem_get_info(bench.device)[0] < _A_STREAM:
            break
        with _attending(attend):
            live[name] = main.LiveChunks(bench, model, variant)
    times = main.in_turns(bench, list(live.values()))
    found = {name: _spread(taken) for name, taken in zip(live, times, strict=True)}
    return _precision(bench, model.dtype) | {"variants": found}


_A_STREAM = 14e9
"""Bytes of one stream at 512x512 with its recordings, rounded up."""


@contextmanager
def _attending(attend: Any) -> Iterator[None]:
    """Sessions opened meanwhile attend this way."""
    module: Any = importlib.import_module("streamlift.upscalers.flashvsr.upscaler")
    before = module.attention
    if attend is not None:
        module.attention = lambda kind, device: attend
    try:
        yield
    finally:
        module.attention = before


def _sustained(bench: Any, variant: Any) -> dict[str, Any]:
    main = _main()
    _fresh(bench)
    model = _model(bench)
    live = main.LiveChunks(bench, model.prepare(bench.device, variant.dtype), variant)
    seconds = 60.0 if _cuda(bench) else 0.1
    fps = main.sustained_fps(live, seconds, bench.device)
    return _precision(bench, variant.dtype) | {"fps": fps, "seconds": seconds}


def _two_streams(bench: Any, variant: Any) -> dict[str, Any]:
    main = _main()
    _fresh(bench)
    model = _model(bench)
    model = model.prepare(bench.device, variant.dtype)
    pair = [main.LiveChunks(bench, model, variant) for _ in range(2)]

    def both() -> None:
        for live in pair:
            live.chunk()

    median = main.median_ms(both, bench.device, max(2, bench.chunks // 4))
    return _precision(bench, variant.dtype) | {"chunk_ms": median, "fps_of_both": 16000 / median}


_LONG = "graph, compile"


def _realesrgan_ways(bench: Any) -> dict[str, dict[str, Any]]:
    ways: dict[str, dict[str, Any]] = {
        "eager": {"graph": False},
        "graph": {"graph": True},
        "graph, batch of 4": {"graph": True, "batch": 4},
    }
    if _cuda(bench):
        ways[_LONG] = {"graph": True, "compiled": True}
    return ways


def _realesrgan(
    bench: Any, *, graph: bool, batch: int = 1, compiled: bool = False
) -> dict[str, Any]:
    main = _main()
    _fresh(bench)
    upscaler = _net(bench, graph, compiled).batched(batch)
    session = upscaler.open(bench.size)
    frames = main.random_video(bench, batch).split(1)

    def step() -> None:
        for frame in frames:
            list(session.push(frame))

    median = main.median_ms(step, bench.device, bench.chunks) / batch
    found = {"ms": median, "fps": 1000 / median, "peak_gb": main.peak_gb(bench.device)}
    return {"precision": str(upscaler.dtype), "size": str(bench.size), **found}


def _probe_realesrgan(bench: Any) -> dict[str, Any]:
    from streamlift.engine import measure_fps

    calmed = Stabilise.STRONG if _cuda(bench) else Stabilise.OFF
    upscaler = _net(bench, graph=True)
    fps = measure_fps(upscaler, str(bench.device), stabilise=calmed)
    return {"precision": str(upscaler.dtype), "fps": fps, "stabilise": str(calmed)}


def _net(bench: Any, graph: bool, compiled: bool = False) -> RealESRGAN:
    torch.manual_seed(_main().SEED)
    small = not _cuda(bench)
    sizes = RRDBNetConfig(2, blocks=1, features=8, growth=4) if small else RRDBNetConfig(2)
    net = RRDBNet(sizes).eval()
    if compiled:
        net.compile(dynamic=False)
    return RealESRGAN(net, name="realesrgan-x2", device=bench.device, graph=graph)


def _precision(bench: Any, dtype: torch.dtype) -> dict[str, Any]:
    """What every row of FlashVSR says of itself beside its card."""
    large = bench.size.times(2)
    windows = large.pixels // 128**2
    topk = topk_from_area(large.height, large.width, bench.sparse_ratio)
    pairs = 4 * windows**2
    density = min(topk, pairs - 1) / pairs
    return {"precision": str(dtype), "size": str(bench.size), "density": density}


def _spread(taken: list[float]) -> dict[str, float]:
    median, low, high = _main().spread(taken)
    return {"chunk_ms": median, "p10_ms": low, "p90_ms": high, "fps": 8000 / median}


def _convolution_tiles(bench: Any) -> dict[str, Any]:
    """The decoder's widest layer with several tiles, in turns."""
    main = _main()
    side, channels = (1024, 128) if _cuda(bench) else (16, 8)
    low = torch.bfloat16 if _cuda(bench) else torch.float32
    x = torch.randn(4, channels, side, side, device=bench.device).to(low)
    x = x.to(memory_format=torch.channels_last)
    taps = convolution.pack_taps(torch.randn(channels, channels, 3, 3, device=bench.device).to(low))
    out = torch.empty_like(x)
    step = partial(convolution.conv3x3, x, taps, None, out)
    if not _cuda(bench):
        return {"ms": {"twin": main.median_ms(step, bench.device, 2)}}
    kernels: Any = importlib.import_module("streamlift.upscalers.convolution_triton")
    shipped = kernels.launch_options
    tiles = [
        shipped(channels, low),
        {"BLOCK_M": 128, "BLOCK_N": 128, "K1": 32, "num_warps": 8, "num_stages": 4},
        {"BLOCK_M": 128, "BLOCK_N": 128, "K1": 64, "num_warps": 4, "num_stages": 3},
        {"BLOCK_M": 256, "BLOCK_N": 64, "K1": 32, "num_warps": 8, "num_stages": 4},
    ]
    taken: dict[str, list[float]] = {str(tile): [] for tile in tiles}
    try:
        for _ in range(3 + bench.chunks):
            for tile in tiles:
                kernels.launch_options = lambda outputs, dtype, tile=tile: tile
                taken[str(tile)].append(main.timed_ms(step, bench.device))
    finally:
        kernels.launch_options = shipped
    medians = {name: main.spread(times[3:])[0] for name, times in taken.items()}
    work = 2 * 9 * channels**2 * x.shape[0] * side**2 / 1e9
    return {"tflops": {name: work / ms for name, ms in medians.items()}, "ms": medians}


def _attention_configurations(bench: Any) -> dict[str, Any]:
    main = _main()
    q, k, v, blocks = _attention_inputs(bench)
    work = 4.0 * float(blocks.count.sum()) * 128**2 * q.shape[2] / 1e9
    if not _cuda(bench):
        return {"exact_ms": main.median_ms(lambda: attend_exact(q, k, v, blocks), bench.device, 2)}
    kernels = _attention_kernels()
    ways: dict[str, Any] = {
        "plain": kernels.attend_plain,
        "flex": attention(AttentionKind.FLEX, q.device),
    }
    for one in _hopper_configurations(bench):
        ways[str(one)] = partial(kernels.attend_persistent, configuration=one)
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(3 + bench.chunks):
        for name, way in ways.items():
            step = partial(way, q, k, v, blocks)
            taken[name].append(main.timed_ms(step, bench.device))
    medians = {name: main.spread(times[3:])[0] for name, times in taken.items()}
    return {"tflops": {name: work / ms for name, ms in medians.items()}, "ms": medians}


def _attention_kernels() -> Any:
    return importlib.import_module("streamlift.upscalers.flashvsr.triton_attention")


def _hopper_configurations(bench: Any) -> tuple[Any, ...]:
    hopper = torch.cuda.get_device_capability(bench.device)[0] == 9
    return tuple(_attention_kernels().CONFIGURATIONS) if hopper else ()


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
    """Relative error of a kernel at full size, in bfloat16 on a card, against its float32 twin."""
    device, low = bench.device, torch.bfloat16 if _cuda(bench) else torch.float32
    size, step = _TWINS[name]
    generator = torch.Generator().manual_seed(1)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator).to(low)

    inputs = size(bench, random)
    placed = [_placed(one, device) for one in inputs]
    there = step(*placed)
    if name == "attention":  # its twin would take a CPU minutes
        q, k, v, count, index = placed
        here = [attend_exact(q.float(), k.float(), v.float(), BlockLists(count, index)).cpu()]
    else:
        here = step(*(one.float() if one.is_floating_point() else one for one in inputs))
    errors = [
        _main().relative_error(found.cpu().float(), expected.float())
        for found, expected in zip(there, here, strict=True)
    ]
    return {"precision": str(low), "relative_error": max(errors)}


def _placed(x: torch.Tensor, device: torch.device) -> torch.Tensor:
    """On the device, pictures in the layout that its convolutions read."""
    x = x.to(device)
    return x.to(memory_format=torch.channels_last) if x.ndim == 4 and device.type != "cpu" else x


def _tokens(bench: Any) -> int:
    """Of a steady chunk."""
    pixels: int = bench.size.times(2).pixels
    return 2 * pixels // 256


def _attention_twin(bench: Any, random: Any) -> list[torch.Tensor]:
    q, k, v, blocks = _attention_inputs(bench)
    return [*(x.cpu() for x in (q, k, v)), blocks.count.cpu(), blocks.index.cpu()]


def _attend(q: Any, k: Any, v: Any, count: Any, index: Any) -> list[Any]:
    way = attention(AttentionKind.AUTO, q.device)
    return [way(q, k, v, BlockLists(count, index))]


def _norm_twin(bench: Any, random: Any) -> list[torch.Tensor]:
    dim = bench.config.dit.dim
    return [random(_tokens(bench), dim), random(dim).float(), random(dim)]


def _norms(x: Any, offset: Any, weight: Any) -> list[Any]:
    return [fused.layer_norm(x, offset, 1e-6), fused.rms_norm(x, weight, 1e-6)]


def _ring_twin(bench: Any, random: Any) -> list[torch.Tensor]:
    dit, tokens = bench.config.dit, _tokens(bench)
    angles = random(tokens, dit.head_dim // 2).float()
    weights = random(dit.dim), random(dit.dim)
    room = torch.zeros(dit.heads, 4 * tokens, dit.head_dim, dtype=weights[0].dtype)
    means = torch.zeros(dit.heads, 4 * tokens // 128, dit.head_dim)
    qkv, slot = random(tokens, 3 * dit.dim), torch.tensor(3)
    return [qkv, *weights, angles.cos(), angles.sin(), room, room.clone(), means, slot]


def _into_ring(*inputs: Any) -> list[Any]:
    *before, keys, values, means, slot = inputs
    # Inputs of the twin may be the very tensors of the other side.
    ring = [one.clone() for one in (keys, values, means)]
    return [*fused.qkv_into_ring(*before, *ring, slot, 4, 1e-6), *ring]


def _choice_twin(bench: Any, random: Any) -> list[torch.Tensor]:
    dit, windows = bench.config.dit, _tokens(bench) // 128
    # Whole numbers: the same scores on every device, so that no rounding decides.
    q, k = (random(dit.heads, n * windows, dit.head_dim).float().round() for n in (1, 4))
    return [q, k, torch.ones(windows, windows, dtype=torch.bool)]


def _choose(q: Any, k: Any, allowed: Any) -> list[Any]:
    topk = max(1, int(0.469 * 4 * allowed.numel()))
    return [BlockLists(*fused.choose_lists(q, k, allowed, topk)).to_mask()]


def _gelu_twin(bench: Any, random: Any) -> list[torch.Tensor]:
    dit = bench.config.dit
    weight = random(dit.ffn_dim, dit.dim) * dit.dim**-0.5
    return [random(_tokens(bench), dit.dim), weight, random(dit.ffn_dim)]


def _convolution_twin(bench: Any, random: Any) -> list[torch.Tensor]:
    side, channels = (512, 128) if _cuda(bench) else (16, 8)
    x, kernel = random(1, channels, side, side), random(channels, channels, 3, 3) / channels
    return [x, kernel, random(channels), random(1, channels, side, side)]


def _convolve(x: Any, kernel: Any, bias: Any, residual: Any) -> list[Any]:
    out = torch.empty_like(x)
    convolution.conv3x3(x, convolution.pack_taps(kernel), bias, out, residual=residual, slope=0.0)
    large = torch.empty_like(torch.nn.functional.interpolate(x, scale_factor=2.0))
    convolution.enlarging_conv(x, convolution.fold_enlargement(kernel), bias, large)
    return [out, large]


_TWINS: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "attention": (_attention_twin, _attend),
    "norms": (_norm_twin, _norms),
    "queries and keys into the ring": (_ring_twin, _into_ring),
    "block choice": (_choice_twin, _choose),
    "product and GELU": (_gelu_twin, lambda *inputs: [fused.linear_gelu(*inputs)]),
    "convolutions": (_convolution_twin, _convolve),
}


def _model(bench: Any) -> Any:
    main = _main()
    rows = main.CONTEXT_ROWS
    return random_model(bench.config, seed=main.SEED, context_rows=rows, device=bench.device)


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
    return running if hasattr(running, "LiveChunks") else _beside("bench_gpu")


def _beside(name: str) -> Any:
    """A module of this folder."""
    return importlib.import_module(name)
