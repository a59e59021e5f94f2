"""Measure FlashVSR's speed on this machine: correctness first, then variants side by side.

Full-size networks with seeded random weights: speed and rounding do not depend on training, and
block choice is compared on given lists, as rounding flips blocks when weights are random. On a
CPU only the smallest size runs, to keep this script alive; its numbers mean nothing.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import importlib.util
import json
import math
import platform
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from streamlift.frames import Size
from streamlift.upscalers.flashvsr.attention import Attend, AttentionKind, attend_exact, attention
from streamlift.upscalers.flashvsr.blocks import BlockLists
from streamlift.upscalers.flashvsr.chunks import STEP_FRAMES
from streamlift.upscalers.flashvsr.colour import ColourFix, fix_colour
from streamlift.upscalers.flashvsr.config import (
    CLIP_FRAMES,
    FIRST_LATENTS,
    STEP_LATENTS,
    TOKEN_STRIDE,
    WINDOW_TOKENS,
    ModelConfig,
    flashvsr,
    tiny_random,
)
from streamlift.upscalers.flashvsr.decoder import TcDecoder, fold_condition
from streamlift.upscalers.flashvsr.dit import Sparsity
from streamlift.upscalers.flashvsr.memory import StreamMemory
from streamlift.upscalers.flashvsr.model import Model
from streamlift.upscalers.flashvsr.noise import ContinuousNoise
from streamlift.upscalers.flashvsr.projector import fold_pixels
from streamlift.upscalers.flashvsr.resize import enlarge
from streamlift.upscalers.flashvsr.rope import SpatialRope
from streamlift.upscalers.flashvsr.selection import topk_from_area
from streamlift.upscalers.flashvsr.session import FlashVsrSession
from streamlift.upscalers.flashvsr.settings import Settings, Start
from streamlift.upscalers.flashvsr.tiny import random_model
from streamlift.upscalers.flashvsr.upscaler import FlashVsr
from streamlift.upscalers.flashvsr.windows import local_mask, windows_per_unit

SEED = 7
CONTEXT_ROWS = 64
KV_UNITS = 3
BOUNDS = {"dit": 3e-2}
BOUND = 1e-2
"""Largest relative error of a bfloat16 stage against float32 that is still rounding; of the DiT's
thirty blocks, on given lists, 1.5e-2 was measured on a CPU at full depth and small width."""


@dataclass(frozen=True)
class Variant:
    """One way to run the same function."""

    name: str
    dtype: torch.dtype
    attention: AttentionKind
    compiled: bool = False
    graph: bool = False
    together: bool = False


@dataclass(frozen=True)
class Bench:
    """What is measured: a network, a low-resolution size, how often, and in which ways."""

    config: ModelConfig
    size: Size
    device: torch.device
    warmups: int
    chunks: int
    sparse_ratio: float
    variants: tuple[Variant, ...]
    sustain_s: float = 0.0


@dataclass
class Row:
    """One line of the table; times in milliseconds a chunk of 8 frames."""

    variant: str
    fps: float = 0.0
    chunk_ms: float = 0.0
    p10_ms: float = 0.0
    p90_ms: float = 0.0
    stages_ms: dict[str, float] = field(default_factory=dict)
    tflops: dict[str, float] = field(default_factory=dict)
    share_of_ceiling: dict[str, float] = field(default_factory=dict)
    errors: dict[str, float] = field(default_factory=dict)
    peak_gb: float = 0.0
    density: float = 0.0
    psnr_db: float = math.nan
    sustained_fps: float = math.nan


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--size", choices=("full", "smallest"))
    parser.add_argument("--sparse-ratio", type=float, default=2.0)
    parser.add_argument("--no-compile", action="store_true", help="leave out compiled variants")
    parser.add_argument(
        "--sustain", type=float, metavar="S", help="seconds of the fastest variant (CUDA: 60)"
    )
    parser.add_argument("--json", type=Path, help="write everything there too")
    parser.add_argument(
        "--plan", choices=("minutes",), help="in place of the table: one of three timed runs"
    )
    parser.add_argument("--part", choices=("truth", "kernels", "proof"), default="truth")
    parser.add_argument("--swiftvr", action="store_true", help="a row of SwiftVR after the others")
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    bench = plan(
        device,
        full=(arguments.size or ("full" if device.type == "cuda" else "smallest")) == "full",
        sparse_ratio=arguments.sparse_ratio,
        compiled=not arguments.no_compile,
        sustain_s=arguments.sustain,
    )
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    if device.type == "cpu":
        torch.set_num_threads(1)
    if arguments.plan:
        minutes: Any = importlib.import_module("bench_minutes")  # beside this file
        target = arguments.json or Path(f"bench-{arguments.part}.json")
        minutes.run_part(arguments.part, bench, target)
        return
    machine = describe(device)
    ceilings = measure_ceilings(device)
    print(*(f"{key}: {value}" for key, value in (machine | ceilings).items()), sep="\n")

    def save(rows: Sequence[Row]) -> None:
        if arguments.json:
            found = {"machine": machine, "ceilings": ceilings, "rows": [asdict(r) for r in rows]}
            arguments.json.write_text(json.dumps(found, indent=1))

    rows = run(bench, ceilings["matmul_tflops"], save)
    print(table(rows))
    if arguments.swiftvr:
        script = Path(__file__).with_name("bench_swiftvr.py")  # in a process of its own: 9 GB more
        fewer = ["--no-compile"] if arguments.no_compile else []
        subprocess.run([sys.executable, script, "--device", arguments.device, *fewer], check=True)


def plan(
    device: torch.device,
    *,
    full: bool,
    sparse_ratio: float,
    compiled: bool,
    sustain_s: float | None,
) -> Bench:
    """512 x 512 to 1024 x 1024 at full size; 64 x 64 to 128 x 128 on the tiny networks."""
    low = torch.bfloat16
    if not full:
        variants = [
            Variant("float32 exact", torch.float32, AttentionKind.EXACT),
            Variant("bfloat16 exact", low, AttentionKind.EXACT),
        ]
        config, size = tiny_random(), Size(64, 64)
    else:
        variants = [Variant("eager flex", low, AttentionKind.FLEX)]
        if compiled:
            variants.append(Variant("compiled flex", low, AttentionKind.FLEX, compiled=True))
        if compiled and importlib.util.find_spec("triton") is not None:
            variants.append(Variant("compiled triton", low, AttentionKind.TRITON, compiled=True))
        if importlib.util.find_spec("triton") is not None:
            variants.append(Variant("triton", low, AttentionKind.TRITON))
            variants.append(Variant("triton, graph", low, AttentionKind.TRITON, graph=True))
        config, size = flashvsr(), Size(512, 512)
    warmups, chunks = (10, 40) if device.type == "cuda" else (1, 2)
    if sustain_s is None:
        # A card may lower its clock under load that lasts.
        sustain_s = 60.0 if device.type == "cuda" else 0.0
    return Bench(config, size, device, warmups, chunks, sparse_ratio, tuple(variants), sustain_s)


def describe(device: torch.device) -> dict[str, str]:
    found = {"torch": torch.__version__, "python": platform.python_version()}
    if device.type == "cuda":
        found["gpu"] = torch.cuda.get_device_name(device)
        found["cuda"] = str(torch.version.cuda)
        found["driver"] = driver_version()
        found["cudnn"] = str(torch.backends.cudnn.version())  # type: ignore[no-untyped-call]
        found["triton"] = package_version("triton")
    else:
        found["cpu"] = platform.processor() or platform.machine()
    return found


def package_version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "missing"


def driver_version() -> str:
    if shutil.which("nvidia-smi") is None:
        return "unknown"
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    return subprocess.run(query, capture_output=True, text=True, check=False).stdout.strip()


def measure_ceilings(device: torch.device) -> dict[str, float]:
    """What the device can do at most, on random data: TFLOP/s and TB/s."""
    cuda = device.type == "cuda"
    side, dtype = (8192, torch.bfloat16) if cuda else (256, torch.float32)
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    found = {"matmul_tflops": 2 * side**3 / median_ms(lambda: a @ b, device) / 1e9}
    if cuda and hasattr(torch, "_scaled_mm") and torch.cuda.get_device_capability(device) >= (8, 9):
        one = torch.ones((), device=device)
        low, high = a.to(torch.float8_e4m3fn), b.t().contiguous().to(torch.float8_e4m3fn).t()
        scaled = partial(torch._scaled_mm, low, high, scale_a=one, scale_b=one, out_dtype=dtype)
        found["fp8_tflops"] = 2 * side**3 / median_ms(scaled, device) / 1e9
    source = torch.randn(2**28 if cuda else 2**18, device=device)
    target = torch.empty_like(source)
    copy_ms = median_ms(lambda: target.copy_(source), device)
    found["copy_tb_per_s"] = 2 * source.nbytes / copy_ms / 1e9
    return found


def run(
    bench: Bench, ceiling_tflops: float, save: Callable[[Sequence[Row]], None] = lambda rows: None
) -> list[Row]:
    """Correctness of every variant, then their times, interleaved; `save` hears of each result."""
    reference = random_model(
        bench.config, seed=SEED, context_rows=CONTEXT_ROWS, device=bench.device
    ).prepare(bench.device, torch.float32)
    expected = Stages(bench, reference, attend_exact)
    answers = expected.answers()
    frames = stream(bench, reference, AttentionKind.EXACT)
    work = expected.tflop()
    rows: list[Row] = []
    models: dict[tuple[torch.dtype, bool], Model] = {}
    for variant in bench.variants:
        key = variant.dtype, variant.compiled
        if key not in models:
            models[key] = random_model(
                bench.config, seed=SEED, context_rows=CONTEXT_ROWS, device=bench.device
            ).prepare(bench.device, variant.dtype, compiled=variant.compiled)
        model = models[key]
        row = Row(variant.name, density=expected.density())
        own = Stages(bench, model, attention(variant.attention, bench.device), like=expected)
        row.errors = {n: relative_error(a, answers[n]) for n, a in own.answers().items()}
        row.errors["lists differ"] = own.lists_differ(expected)
        row.psnr_db = psnr(stream(bench, model, variant.attention), frames)
        print(f"{variant.name}: {verdict(row.errors)}: {rounded(row.errors)}", flush=True)
        for name, step in own.steps().items():
            row.stages_ms[name] = median_ms(step, bench.device, bench.chunks, bench.warmups)
        row.tflops = {name: tflop / row.stages_ms[name] * 1000 for name, tflop in work.items()}
        row.share_of_ceiling = {name: rate / ceiling_tflops for name, rate in row.tflops.items()}
        rows.append(row)
        save(rows)
    # Each is as large as a stream; all streams of the next step have to fit beside each other.
    del reference, expected, answers, frames, own, step
    sessions = [
        LiveChunks(bench, models[variant.dtype, variant.compiled], variant)
        for variant in bench.variants
    ]
    for row, taken in zip(rows, in_turns(bench, sessions), strict=True):
        row.chunk_ms, row.p10_ms, row.p90_ms = spread(taken)
        row.fps = STEP_FRAMES / row.chunk_ms * 1000
        row.peak_gb = peak_gb(bench.device)
    save(rows)
    best = min(range(len(rows)), key=lambda n: rows[n].chunk_ms)
    if bench.sustain_s:
        rows[best].sustained_fps = sustained_fps(sessions[best], bench.sustain_s, bench.device)
        save(rows)
    return rows


def verdict(errors: dict[str, float]) -> str:
    """Whether every stage is within its bound."""
    beyond = [
        f"{name} {error:.2g} > {BOUNDS.get(name, BOUND):g}"
        for name, error in errors.items()
        if name != "lists differ" and error > BOUNDS.get(name, BOUND)
    ]
    return f"NOT WITHIN ({', '.join(beyond)})" if beyond else "within its bounds"


def in_turns(bench: Bench, sessions: Sequence[LiveChunks]) -> list[list[float]]:
    """Milliseconds of whole chunks of each, A B A B, so that a changing clock is fair."""
    for _ in range(bench.warmups):
        for session in sessions:
            session.chunk()
    reset_peak(bench.device)
    times: list[list[float]] = [[] for _ in sessions]
    for _ in range(bench.chunks):
        for session, taken in zip(sessions, times, strict=True):
            taken.append(timed_ms(session.chunk, bench.device))
    return times


class LiveChunks:
    """A live session, eight frames at a time; four different random chunks in rotation."""

    def __init__(self, bench: Bench, model: Model, variant: Variant) -> None:
        self._chunks = random_video(bench, 4 * STEP_FRAMES).chunk(4)
        self._next = 0
        self.session = open_session(
            bench, model, variant.attention, graph=variant.graph, together=variant.together
        )
        list(self.session.push(self._chunks[0][:1]))

    def chunk(self) -> None:
        frames = self._chunks[self._next % 4]
        self._next += 1
        for number in range(STEP_FRAMES):
            for _ in self.session.push(frames[number : number + 1]):
                pass


class Stages:
    """Each stage of a steady chunk on fixed random inputs; `like` gives the block lists to use."""

    def __init__(
        self, bench: Bench, model: Model, attend: Attend, like: Stages | None = None
    ) -> None:
        self.bench, self.model, self._attend = bench, model, attend
        large = bench.size.times(2)
        self.rows, self.columns = large.height // TOKEN_STRIDE, large.width // TOKEN_STRIDE
        assert isinstance(model.decoder, TcDecoder)
        self.memory = StreamMemory.allocate(
            bench.config,
            large.height,
            large.width,
            clips=3,
            kv_units=KV_UNITS,
            decoder=model.decoder.new_memory(
                2 * self.rows, 2 * self.columns, bench.device, model.dtype
            ),
            device=bench.device,
            dtype=model.dtype,
        )
        self.video = random_video(bench, STEP_FRAMES)
        self.large = enlarge(self.video, 2) * 2 - 1
        latents, dim = FIRST_LATENTS + STEP_LATENTS, bench.config.dit.dim
        shape = (bench.config.dit.channels, latents, 2 * self.rows, 2 * self.columns)
        self.noise = ContinuousNoise(SEED).draw(0, shape).to(bench.device, model.dtype)
        tokens = ContinuousNoise(SEED).draw(1, (1, latents, self.rows * self.columns, dim))
        self.tokens = tokens[0].to(bench.device, model.dtype)
        self.rope = SpatialRope.of_grid(
            self.rows, self.columns, bench.config.dit.head_dim, bench.device
        )
        self.allowed = local_mask(self.rows // 8, self.columns // 8, 11).to(bench.device)
        self.topk = topk_from_area(large.height, large.width, bench.sparse_ratio)
        self._given = like.lists if like else None
        self.lists: list[BlockLists] = []
        self._chosen: list[BlockLists] = []
        self._qkv: tuple[Tensor, Tensor, Tensor] | None = None
        with torch.inference_mode():
            self._dit(slice(0, FIRST_LATENTS))
            self.memory.kv.advance(FIRST_LATENTS // STEP_LATENTS)
            self._dit_step()
        if self._given is None:
            self.lists = self._chosen

    def answers(self) -> dict[str, Tensor]:
        """The output of each stage, float32."""
        zero = [*self.memory.decoder, self.memory.carried1, self.memory.carried2]
        found = {}
        for name, step in self.steps().items():
            for tensor in zero:
                tensor.zero_()
            found[name] = step().float()
        return found

    def steps(self) -> dict[str, Callable[[], Tensor]]:
        return {
            name: torch.inference_mode()(step)
            for name, step in (
                ("enlarge", lambda: enlarge(self.video, 2)),
                ("projector", self._projector),
                ("dit", self._dit_step),
                ("attention", self._attention),
                ("decoder", self._decoder),
                ("colour", lambda: fix_colour(self.large.flip(0), self.large, ColourFix.ADAIN)),
            )
        }

    def density(self) -> float:
        """Share of key blocks attended in the steady chunk."""
        kept = sum(float(blocks.count.sum()) for blocks in self.lists)
        return kept / sum(blocks.index.numel() for blocks in self.lists)

    def lists_differ(self, other: Stages) -> float:
        """Share of the other's chosen blocks that this one's own choice leaves out."""
        both = total = 0.0
        for mine, theirs in zip(self._chosen, other.lists, strict=True):
            both += float((mine.to_mask() & theirs.to_mask()).sum())
            total += float(theirs.count.sum())
        return 1 - both / total

    def tflop(self) -> dict[str, float]:
        """Work of the stages that are matrix products, in TFLOP a chunk."""
        dit = self.bench.config.dit
        tokens = STEP_LATENTS * self.rows * self.columns
        per_token = 2 * dit.dim * (6 * dit.dim + 2 * dit.ffn_dim + 2 * CONTEXT_ROWS)
        windows = STEP_LATENTS // 2 * windows_per_unit(self.rows, self.columns)
        pairs = windows * windows * (KV_UNITS + 1) * WINDOW_TOKENS**2 * self.density_given()
        sparse = 4.0 * pairs * dit.dim * dit.blocks
        linear = float(tokens * per_token * dit.blocks)
        counted = {"dit": linear + sparse, "attention": sparse}
        for name, step in (("projector", self._projector), ("decoder", self._decoder)):
            with FlopCounterMode(display=False) as counter, torch.inference_mode():
                step()
            counted[name] = float(counter.get_total_flops())
        return {name: flop / 1e12 for name, flop in counted.items()}

    def density_given(self) -> float:
        lists = self._given or self.lists
        return sum(float(b.count.sum()) for b in lists) / sum(b.index.numel() for b in lists)

    def _projector(self) -> Tensor:
        pixels = fold_pixels(self.large.to(self.model.dtype))
        projector, memory = self.model.projector, self.memory
        found: list[Tensor] = projector(pixels, memory.carried1, memory.carried2)
        return found[0]

    def _dit_step(self) -> Tensor:
        return self._dit(slice(FIRST_LATENTS, FIRST_LATENTS + STEP_LATENTS))

    def _dit(self, at: slice) -> Tensor:
        self._chosen = []
        steady = at.start > 0
        sparsity = Sparsity(
            self.allowed, self.topk, self._recorded if steady else self._first_chunk
        )
        prediction: Tensor = self.model.dit(
            self.noise[:, at],
            self.tokens[at],
            self.memory.kv,
            self.rope.at(range(at.start, at.stop)),
            sparsity,
        )
        return prediction

    def _first_chunk(self, q: Tensor, k: Tensor, v: Tensor, blocks: BlockLists) -> Tensor:
        # Every block, so that all variants start from the same cache but for rounding.
        every = torch.ones_like(blocks.to_mask())
        return self._attend(q, k, v, BlockLists.from_mask(every))

    def _recorded(self, q: Tensor, k: Tensor, v: Tensor, blocks: BlockLists) -> Tensor:
        used = self._given[len(self._chosen)] if self._given else blocks
        self._chosen.append(blocks)
        self._qkv = (q, k, v)
        return self._attend(q, k, v, used)

    def _attention(self) -> Tensor:
        """As often as there are blocks, on the last block's tensors."""
        assert self._qkv is not None
        for blocks in self._given or self.lists:
            mixed = self._attend(*self._qkv, blocks)
        return mixed

    def _decoder(self) -> Tensor:
        latents = self.noise[:, :STEP_LATENTS].transpose(0, 1)
        clips = self.large.reshape(STEP_LATENTS, CLIP_FRAMES, *self.large.shape[1:])
        condition = fold_condition(clips.to(self.model.dtype))
        frames: Tensor = self.model.decoder(latents, condition, self.memory.decoder)
        return frames


def stream(bench: Bench, model: Model, kind: AttentionKind) -> Tensor:
    """Frames of three live chunks, (n, 3, H, W)."""
    session = open_session(bench, model, kind)
    out: list[Tensor] = []
    for frame in torch.split(random_video(bench, 1 + 2 * STEP_FRAMES), 1):
        out.extend(session.push(frame))
    return torch.cat(out)


def open_session(
    bench: Bench,
    model: Model,
    kind: AttentionKind,
    *,
    graph: bool = False,
    together: bool = False,
) -> FlashVsrSession:
    settings = Settings(
        attention=kind,
        sparse_ratio=bench.sparse_ratio,
        start=Start.PRIMED,
        kv_units=KV_UNITS,
        graph=graph,
        decode_together=together,
    )
    return FlashVsr("bench", model, settings).open(bench.size, seed=SEED)


def random_video(bench: Bench, frames: int) -> Tensor:
    """Smooth random pictures with fine noise, never constant."""
    size, generator = bench.size, torch.Generator().manual_seed(SEED)
    coarse = torch.rand(frames, 3, size.height // 16, size.width // 16, generator=generator)
    smooth = enlarge(coarse, 16) if min(coarse.shape[2:]) > 1 else coarse
    fine = torch.rand(frames, 3, size.height, size.width, generator=generator)
    return (0.8 * smooth + 0.2 * fine).to(bench.device)


def sustained_fps(session: LiveChunks, seconds: float, device: torch.device) -> float:
    """Frames a second over a long run, wall time."""
    begin, chunks = time.perf_counter(), 0
    while time.perf_counter() - begin < seconds:
        timed_ms(session.chunk, device)
        chunks += 1
    return chunks * STEP_FRAMES / (time.perf_counter() - begin)


def timed_ms(step: Callable[[], object], device: torch.device) -> float:
    if device.type != "cuda":
        begin = time.perf_counter()
        step()
        return (time.perf_counter() - begin) * 1000
    first = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
    last = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
    first.record()
    step()
    last.record()
    last.synchronize()  # the time of one chunk is what is measured
    return float(first.elapsed_time(last))


def median_ms(
    step: Callable[[], object], device: torch.device, times: int = 20, warmups: int = 3
) -> float:
    for _ in range(warmups):
        step()
    return statistics.median(timed_ms(step, device) for _ in range(times))


def spread(times: list[float]) -> tuple[float, float, float]:
    """Median, p10 and p90."""
    ordered = sorted(times)
    last = len(ordered) - 1
    return statistics.median(ordered), ordered[round(0.1 * last)], ordered[round(0.9 * last)]


def relative_error(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


def psnr(found: Tensor, expected: Tensor) -> float:
    return -10 * math.log10(max(float((found - expected).square().mean()), 1e-12))


def reset_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_gb(device: torch.device) -> float:
    """Of all variants together: they share the device while they take turns."""
    return torch.cuda.max_memory_allocated(device) / 1e9 if device.type == "cuda" else 0.0


def rounded(values: dict[str, float]) -> dict[str, float]:
    return {name: float(f"{value:.2g}") for name, value in values.items()}


def table(rows: Sequence[Row]) -> str:
    """The last lines: one row a variant, the same in Markdown."""
    names = list(rows[0].stages_ms)
    head = ["variant", "fps", "ms/chunk", "p10", "p90", *(f"{name} ms" for name in names)]
    head += ["TFLOP/s dit", "share", "peak GB", "density", "worst rel. error", "PSNR dB"]
    head.append("sustained fps")
    lines = [head, ["---"] * len(head)]
    for row in rows:
        errors = [error for name, error in row.errors.items() if name != "lists differ"]
        cells = [row.fps, row.chunk_ms, row.p10_ms, row.p90_ms]
        cells += [row.stages_ms[name] for name in names]
        cells += [row.tflops["dit"], row.share_of_ceiling["dit"], row.peak_gb, row.density]
        cells += [max(errors), row.psnr_db, row.sustained_fps]
        lines.append([row.variant, *(f"{cell:.3g}" for cell in cells)])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


if __name__ == "__main__":
    main()
