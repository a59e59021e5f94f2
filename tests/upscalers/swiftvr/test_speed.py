"""What speed rests on, shown without a card: work counted, one graph of code, 8-bit layers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from tests.upscalers.counting import Counting
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounter
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from streamlift.frames import Size
from streamlift.upscalers.flashvsr.settings import Start
from streamlift.upscalers.swiftvr.config import ModelConfig, swiftvr, tiny_random
from streamlift.upscalers.swiftvr.dit import Dit
from streamlift.upscalers.swiftvr.fp8 import Fp8Linear, Linears, quantise
from streamlift.upscalers.swiftvr.grid import Grid, Turn
from streamlift.upscalers.swiftvr.model import Model
from streamlift.upscalers.swiftvr.settings import Settings
from streamlift.upscalers.swiftvr.tiny import create_tiny_random, random_model
from streamlift.upscalers.swiftvr.upscaler import SwiftVr
from streamlift.upscalers.swiftvr.windows import Seam, Windows

META = torch.device("meta")
SIDE = 32  # tokens of 1024 pixels
CPU = torch.device("cpu")


# Work of a chunk -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("latents", "seam", "expected"),
    [
        # TFLOP a chunk: linear layers and cross-attention, self-attention, encoder, decoder.
        (1, Seam.EXACT, (9.08, 0.10, 0.17, 1.23)),
        (2, Seam.EXACT, (18.2, 0.39, 0.34, 2.46)),
        (2, Seam.BRIDGE, (18.2, 0.63, 0.34, 2.46)),
        (2, Seam.CANVAS, (20.5, 0.87, 0.38, 2.78)),
    ],
)
def test_tflop_of_a_chunk_at_1024_pixels(
    latents: int, seam: Seam, expected: tuple[float, ...]
) -> None:
    side = SIDE + (2 if seam is Seam.CANVAS else 0)
    linear, attention = _dit_tflop(latents, side, seam)
    encoder, decoder = _reae_tflop(latents, side)
    found = (linear, attention, encoder, decoder)
    for one, other in zip(found, expected, strict=True):
        assert one == pytest.approx(other, rel=0.04)


@pytest.mark.parametrize(
    ("part", "kernels", "gigabytes"),
    [
        # Launched one by one, without compiling: what a graph replays. The blocks' bytes hold 8.6
        # GB of weights.
        ("blocks, exact", 600, 33.8),
        ("blocks, bridge", 660, 37.2),
        ("encoder", 111, 5.0),
        ("decoder", 131, 11.0),
    ],
)
def test_kernels_and_bytes_of_a_chunk(part: str, kernels: int, gigabytes: float) -> None:
    """At 1024 pixels, two latents, bfloat16: no change may make them more."""
    counted = _count(part)
    assert counted.kernels <= kernels
    assert counted.bytes / 1e9 <= gigabytes
    # No gather where windows are in token order; over the bridge q, k, v and the result.
    assert counted.gathers == (4 * 15 if part == "blocks, bridge" else 0)


def test_what_a_computation_needs_is_what_admission_counts_with() -> None:
    with META:
        model = Model.build(swiftvr(), 2).prepare(META, torch.bfloat16)
    size = Size(512, 512)
    upscaler = SwiftVr("counted", model, Settings(start=Start.FULL))
    session = upscaler.open(size)
    counted = Counting()
    with counted:
        for _ in range(upscaler.spec.first):
            list(session.push(torch.empty(1, 3, size.height, size.width, device=META)))
    # The picture that it gives back is the caller's.
    promised = upscaler.workspace_bytes(size)
    assert 0.5 * promised < counted.peak <= promised


def test_growth_runs_before_enlarging() -> None:
    """A quarter of the work of the order as published, and the largest maps are written once."""
    config = swiftvr().reae
    with META:
        decoder = Model.build(swiftvr(), 2).decoder
    shapes: list[tuple[int, tuple[int, ...]]] = []
    for number in (7, 13, 19):
        grow = decoder.layers[number]
        assert isinstance(grow, nn.Module)
        grow.conv.register_forward_hook(  # type: ignore[union-attr]
            lambda _m, i, o, n=number: shapes.append((n, tuple(o.shape)))
        )
    memory = [torch.empty(1, *s, device=META) for s in decoder.memory_shapes(4, 4)]
    decoder(torch.empty(1, 1, config.channels, 4, 4, device=META), memory)
    assert shapes == [(7, (1, 512, 4, 4)), (13, (1, 512, 8, 8)), (19, (2, 256, 16, 16))]


def test_the_decoders_largest_maps_are_of_one_latent() -> None:
    with META:
        decoder = Model.build(swiftvr(), 2).decoder
    largest: list[int] = []
    decoder.layers[20].register_forward_hook(lambda _m, i, o: largest.append(o.shape[0]))
    memory = [torch.empty(1, *s, device=META) for s in decoder.memory_shapes(2, 2)]
    decoder(torch.empty(1, 6, 48, 2, 2, device=META), memory)
    assert largest == [4] * 6


def test_channels_last_maps_stay_so_through_the_autoencoder() -> None:
    model = create_tiny_random("cpu", {}).model
    for part in (model.encoder, model.decoder):
        part.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    wrong: list[str] = []

    def look(name: str) -> Any:
        def hook(_module: nn.Module, inputs: Any, _output: Tensor) -> None:
            if not inputs[0].is_contiguous(memory_format=torch.channels_last):
                wrong.append(name)

        return hook

    for part in (model.encoder, model.decoder):
        for name, module in part.named_modules():
            if isinstance(module, nn.Conv2d):
                module.register_forward_hook(look(name))
    memories = [
        [
            torch.zeros(2, *shape).to(memory_format=torch.channels_last)
            for shape in part.memory_shapes(4, 4)
        ]
        for part in (model.encoder, model.decoder)
    ]
    with torch.inference_mode():
        latents = model.encoder(torch.rand(2, 8, 3, 64, 64), memories[0])
        model.decoder(latents, memories[1])
    assert wrong == []


# Compiling -------------------------------------------------------------------------------------


def test_all_blocks_compile_to_two_graphs_without_a_break() -> None:
    """As torch.compile sees them: the layer's number is no part of the code."""
    torch._dynamo.reset()
    config = replace(tiny_random().dit, blocks=6)
    model = random_model(ModelConfig(config, tiny_random().reae), seed=1).prepare(
        CPU, torch.float32
    )
    grid = Grid.build(config, (2, 4, 4), Seam.BRIDGE, "cpu")
    latents = torch.randn(1, 2, config.channels, 8, 8)
    counter = CompileCounter()
    with torch.inference_mode():
        expected = model.dit(latents, grid)
        for block in model.dit.blocks:
            block.compile(dynamic=False, fullgraph=True, backend=counter)
        found = model.dit(latents, grid)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    assert counter.frame_count == 2  # plain windows, shifted windows


@pytest.mark.parametrize("part", ["encoder", "decoder"])
def test_the_autoencoder_compiles_without_a_break(part: str) -> None:
    torch._dynamo.reset()
    model = create_tiny_random("cpu", {}).model
    network = getattr(model, part)
    inputs = torch.rand(1, 8, 3, 64, 64) if part == "encoder" else torch.rand(1, 2, 12, 4, 4)
    states = [torch.rand(1, *shape) for shape in network.memory_shapes(4, 4)]
    again = [state.clone() for state in states]
    counter = CompileCounter()
    with torch.inference_mode():
        expected = network(inputs, states)
        network.compile(dynamic=False, fullgraph=True, backend=counter)
        found = network(inputs, again)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(again, states)
    assert counter.frame_count == 1


# Eight bits ------------------------------------------------------------------------------------


def test_an_8_bit_layer_is_near_the_plain_one() -> None:
    torch.manual_seed(3)
    layer, x = nn.Linear(96, 64), torch.randn(2, 40, 96) * torch.logspace(-3, 2, 40)[:, None]
    with torch.inference_mode():
        expected, found = layer(x), Fp8Linear(layer)(x)
    assert found.dtype is x.dtype
    # By rows: small rows are as exact as large ones, as each has its own scale.
    error = (found - expected).norm(dim=-1) / (expected - layer.bias.detach()).norm(dim=-1)
    assert 1e-3 < float(error.max()) < 0.06


def test_an_8_bit_layer_is_exact_on_numbers_that_fit() -> None:
    layer = nn.Linear(16, 3)
    with torch.no_grad():
        layer.weight.copy_(torch.randint(-3, 4, (3, 16)))
        layer.weight[:, 0] = 448 / 64
        layer.bias.zero_()
        x = torch.randint(-3, 4, (5, 16)).float()
        x[:, 0] = 7
    with torch.inference_mode():
        torch.testing.assert_close(Fp8Linear(layer)(x), layer(x), atol=1e-3, rtol=0)


def test_only_the_blocks_layers_become_8_bit_and_weigh_half() -> None:
    model = random_model(tiny_random(), seed=1).prepare(CPU, torch.bfloat16)
    before = sum(p.nbytes for p in model.dit.blocks.parameters())
    quantise(model.dit.blocks)
    kinds = {n: type(m) for n, m in model.dit.named_modules() if isinstance(m, nn.Linear)}
    assert set(kinds) == {"patch", "head"}
    layers = [m for m in model.dit.modules() if isinstance(m, Fp8Linear)]
    assert len(layers) == 2 * 6
    assert all(m.weight.dtype is torch.float8_e4m3fn for m in layers)
    after = sum(t.nbytes for t in model.dit.blocks.state_dict().values())
    assert after < 0.75 * before  # small rows, so scales and biases count here


def test_the_preset_gives_nearly_the_plain_pictures() -> None:
    plain, fp8 = create_tiny_random("cpu", {}), create_tiny_random("cpu", {"linears": "fp8"})
    latents = torch.randn(1, 2, 12, 8, 8, generator=torch.Generator().manual_seed(1))
    grid = Grid.build(plain.model.config.dit, (2, 4, 4), Seam.BRIDGE, "cpu")
    with torch.inference_mode():
        expected, found = plain.model.dit(latents, grid), fp8.model.dit(latents, grid)
    error = float((found - expected).norm() / expected.norm())
    assert 1e-3 < error < 0.1
    assert plain.settings.linears is Linears.PLAIN


# Helpers ---------------------------------------------------------------------------------------


def _dit_tflop(latents: int, side: int, seam: Seam) -> tuple[float, float]:
    """Of all blocks, from two of them: the rest, and self-attention alone."""
    config = replace(swiftvr().dit, blocks=2)
    with META:
        dit = Dit(config, 512).bfloat16().requires_grad_(False)
        x = torch.empty(1, latents, 48, 2 * side, 2 * side, dtype=torch.bfloat16)
    grid = _on_meta(Grid.build(config, (latents, side, side), seam, "cpu"))
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        dit(x, grid)
    by_kind = counter.get_flop_counts()["Global"]
    windows = grid.plain.count + grid.shifted.count
    own = 4 * windows * (latents * 256) ** 2 * config.dim
    return 15 * (sum(by_kind.values()) - own) / 1e12, 15 * own / 1e12


def _reae_tflop(latents: int, side: int) -> tuple[float, float]:
    with META:
        model = Model.build(swiftvr(), 2).prepare(META, torch.float32)
    found = []
    for part, inputs in (
        (model.encoder, torch.empty(1, 4 * latents, 3, 32 * side, 32 * side, device=META)),
        (model.decoder, torch.empty(1, latents, 48, 2 * side, 2 * side, device=META)),
    ):
        memory = [
            torch.empty(1, *shape, device=META) for shape in part.memory_shapes(2 * side, 2 * side)
        ]
        with FlopCounterMode(display=False) as counter, torch.inference_mode():
            part(inputs, memory)
        found.append(counter.get_total_flops() / 1e12)
    return found[0], found[1]


def _on_meta(grid: Grid) -> Grid:
    def moved(windows: Windows) -> Windows:
        return Windows(windows.count, *(_meta(t) for t in (windows.gather, windows.owner)))

    return replace(
        grid,
        order=_meta(grid.order),
        back=_meta(grid.back),
        plain=moved(grid.plain),
        shifted=moved(grid.shifted),
        turn=Turn(*(t.to(META) for t in (grid.turn.cos, grid.turn.sin, grid.turn.both))),
    )


def _meta(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.to(META)


class _Counter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Kernels an eager run launches, and the bytes they read and write; views are free."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.kernels = self.gathers = self.bytes = 0

    def repeat(self, times: int) -> None:
        """All so far is done that often."""
        self.kernels, self.gathers = times * self.kernels, times * self.gathers
        self.bytes *= times

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        outputs = [r for r in _tensors(result) if r.numel()]
        inputs = _tensors(args)
        if not func.is_view and outputs and "empty" not in str(func):
            self.kernels += 1
            self.gathers += "index" in str(func)
            self.bytes += sum(t.nbytes for t in (*inputs, *outputs))
        return result


def _count(part: str) -> _Counter:
    """All that one part launches for a chunk of two latents at 1024 pixels, in bfloat16."""
    config = replace(swiftvr(), dit=replace(swiftvr().dit, blocks=2))
    with META:
        model = Model.build(config, 512 if "blocks" in part else 2).prepare(META, torch.bfloat16)
        x = torch.empty(1, 2 * SIDE * SIDE, config.dit.dim, dtype=torch.bfloat16)
    counter = _Counter()
    if "blocks" in part:
        seam = Seam.BRIDGE if "bridge" in part else Seam.EXACT
        grid = _on_meta(Grid.build(config.dit, (2, SIDE, SIDE), seam, "cpu"))
        with counter, torch.inference_mode():
            for number, block in enumerate(model.dit.blocks):
                block(x, grid.turn, grid.shifted if number % 2 else grid.plain, None)
        counter.repeat(15)
        return counter
    network = model.encoder if part == "encoder" else model.decoder
    shapes = network.memory_shapes(2 * SIDE, 2 * SIDE)
    memory = [torch.empty(1, *s, device=META, dtype=torch.bfloat16) for s in shapes]
    frames = torch.empty(1, 8, 3, 32 * SIDE, 32 * SIDE, device=META)
    latents = torch.empty(1, 2, 48, 2 * SIDE, 2 * SIDE, device=META, dtype=torch.bfloat16)
    with counter, torch.inference_mode():
        network(frames if part == "encoder" else latents, memory)
    return counter


def _tensors(values: Any) -> list[Tensor]:
    return list(_flat(values))


def _flat(values: Any) -> Iterator[Tensor]:
    if isinstance(values, Tensor):
        yield values
    elif isinstance(values, list | tuple):
        for value in values:
            yield from _flat(value)
