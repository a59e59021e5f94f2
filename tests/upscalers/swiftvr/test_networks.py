"""SwiftVR's autoencoder and denoiser against the public reference, layer by layer."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from tests.upscalers.golden import Golden, read_manifest
from tests.upscalers.swiftvr.clip import Context, clip_schedule
from torch import Tensor
from torch.nn import functional as F

from streamlift.upscalers.swiftvr.config import LATENT_FRAMES, swiftvr
from streamlift.upscalers.swiftvr.dit import Block
from streamlift.upscalers.swiftvr.fold import TimeConstants, embed_prompt
from streamlift.upscalers.swiftvr.grid import Grid, Turn
from streamlift.upscalers.swiftvr.model import Model
from streamlift.upscalers.swiftvr.published import published_dit_shapes, published_reae_shapes
from streamlift.upscalers.swiftvr.windows import Seam

near = partial(torch.testing.assert_close, rtol=0)


# ReAE ------------------------------------------------------------------------------------------


def test_the_encoder_equals_the_reference_call_by_call(reae: Golden, reae_model: Model) -> None:
    calls = _encoder_calls(reae)
    memory = _memory(reae_model, "encoder")
    for call, frames in enumerate(calls):
        if frames.shape[1]:
            found = _no_grad(reae_model.encoder, frames, memory)[0]
            name = f"call{call}" if call < len(calls) - 1 else "flush"
            near(found, reae[f"expect.latents.{name}"], atol=5e-5)
    for number, state in zip((4, 5, 6, 9, 10, 11, 14, 15, 16), memory, strict=True):
        expected = reae[f"expect.encoder_state.mem_{number}"]
        near(state[0, :, ::2, ::2], expected.reshape(state[0, :, ::2, ::2].shape), atol=5e-5)


def test_every_layer_of_the_encoder_equals_the_reference(reae: Golden, reae_model: Model) -> None:
    outputs = _taps(reae_model.encoder, _encoder_calls(reae)[0], _memory(reae_model, "encoder"))
    _compare_taps(outputs, reae, "encoder")


def test_the_decoder_equals_the_reference_call_by_call(reae: Golden, reae_model: Model) -> None:
    memory, done = _memory(reae_model, "decoder"), 0
    for call, count in enumerate((3, 1, 4)):
        latents = reae["input.latents"][None, done : done + count]
        done += count
        found = _no_grad(reae_model.decoder, latents, memory)[0]
        if call == 0:
            near(found[3:], reae["expect.frames.call0"], atol=5e-5)
        else:
            near(found[:, :, ::3, ::2], reae[f"expect.frames.call{call}"], atol=5e-5)
    for number, state in zip((3, 4, 5, 9, 10, 11, 15, 16, 17), memory, strict=True):
        expected = reae[f"expect.decoder_state.mem_{number}"]
        near(state[0, :, ::2, ::2], expected.reshape(state[0, :, ::2, ::2].shape), atol=5e-5)


def test_every_layer_of_the_decoder_equals_the_reference(reae: Golden, reae_model: Model) -> None:
    latents = reae["input.latents"][None, :3]
    outputs = _taps(reae_model.decoder, latents, _memory(reae_model, "decoder"))
    _compare_taps(outputs, reae, "decoder")
    near(outputs[22], reae["expect.raw.call0"], atol=5e-5)


def test_a_round_trip_in_other_calls_equals_the_reference(reae: Golden, reae_model: Model) -> None:
    frames = torch.cat(_encoder_calls(reae), 1)
    encoder, decoder = _memory(reae_model, "encoder"), _memory(reae_model, "decoder")
    latents = [_no_grad(reae_model.encoder, part, encoder) for part in torch.split(frames, 4, 1)]
    found = [
        _no_grad(reae_model.decoder, part, decoder)
        for part in torch.split(torch.cat(latents, 1), [2, 1, 3, 2], 1)
    ]
    near(torch.cat(found, 1)[0, 3:, :, 1::2, ::3], reae["expect.roundtrip_sub"], atol=5e-5)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_streams_of_a_batch_do_not_see_each_other(
    reae: Golden, reae_model: Model, layout: torch.memory_format
) -> None:
    videos = torch.stack([reae["input.frames_u8"][n : n + 8].float() / 255 for n in (0, 9, 20)])
    singles: list[Tensor] = []
    for network, inputs in (("encoder", videos), ("decoder", None)):
        net = getattr(reae_model, network)
        given = inputs if inputs is not None else torch.cat(singles)
        singles = [
            _no_grad(net, one, _memory(reae_model, network)) for one in torch.split(given, 1)
        ]
        memory = [m.to(memory_format=layout) for m in _memory(reae_model, network, streams=3)]
        together = _no_grad(net, given, memory)
        near(together, torch.cat(singles), atol=1e-6)
        assert all(m.is_contiguous(memory_format=layout) for m in memory)


# Denoiser --------------------------------------------------------------------------------------


def test_the_constants_of_time_and_prompt_equal_the_reference(
    stream: Golden, dit_model: Model
) -> None:
    read, config = stream.weights().__getitem__, dit_model.config.dit
    time = TimeConstants.of(read, config)
    near(time.t, stream["expect.t"].flatten(), atol=5e-5)
    near(time.t_mod, stream["expect.t_mod"].reshape(6, -1), atol=5e-5)
    near(embed_prompt(read, stream["input.prompt"]), stream["expect.text"], atol=5e-5)
    order = _row_order(stream["input.prompt"])
    for number, block in enumerate(dit_model.dit.blocks):
        assert isinstance(block, Block)
        for name, found in (("k", block.cross_attn.keys), ("v", block.cross_attn.values)):
            rows = found.transpose(0, 1).flatten(1)
            near(rows, stream[f"expect.block{number}.cross_{name}"][order], atol=5e-5)


@pytest.mark.parametrize(
    ("name", "counts", "overlap"),
    [("plain", (2, 2, 3, 1), 0), ("overlap1", (2, 2, 3, 1), 1), ("overlap2", (3, 3, 2), 2)],
)
def test_restored_latents_equal_the_reference(
    stream: Golden, dit_model: Model, name: str, counts: tuple[int, ...], overlap: int
) -> None:
    context, latents = Context(dit_model, overlap), _latents(stream, "input.latents")
    for chunk, part in enumerate(torch.split(latents, list(counts), 1)):
        found = context.restore(part)
        near(_as_golden(found), stream[f"expect.{name}.chunk{chunk}.restored"], atol=5e-5)


@pytest.mark.parametrize("grid", ["8x4", "3x6"])
def test_other_grids_equal_the_reference(stream: Golden, dit_model: Model, grid: str) -> None:
    found = Context(dit_model, 0).restore(_latents(stream, f"input.latents_{grid}"))
    near(_as_golden(found), stream[f"expect.grid{grid}.chunk0.restored"], atol=5e-5)


def test_the_file_form_of_the_denoiser_equals_the_reference(
    stream: Golden, dit_model: Model
) -> None:
    latents = _latents(stream, "input.latents")
    context = Context(dit_model, 0)
    for name, part in (("first", latents[:, :3]), ("middle", latents[:, 3:5])):
        near(_as_golden(context.restore(part)), stream[f"expect.offline.{name}"], atol=5e-5)
    last = context.restore_last(latents[:, 5:6], before=latents[:, 3:5], latents=2)
    near(_as_golden(last), stream["expect.offline.last"], atol=5e-5)
    only = context.restore_last(latents[:, :1], before=None, latents=2)
    near(_as_golden(only), stream["expect.offline.only"], atol=5e-5)


@pytest.mark.parametrize(
    ("case", "latents", "chunk"),
    [("plain", slice(0, 2), 0), ("plain", slice(4, 7), 2), ("grid8x4", slice(0, 3), 0)],
)
def test_every_branch_of_a_block_equals_the_reference(
    stream: Golden, dit_model: Model, case: str, latents: slice, chunk: int
) -> None:
    name = "input.latents_8x4" if case == "grid8x4" else "input.latents"
    x = _latents(stream, name)[:, latents]
    shape = (x.shape[1], x.shape[3] // 2, x.shape[4] // 2)
    grid = Grid.build(dit_model.config.dit, shape, Seam.EXACT, "cpu")
    weights = stream.weights()
    t_mod = stream["expect.t_mod"].reshape(6, -1)
    seen = _watch(dit_model, x, grid)
    for number in range(3):
        expected = f"expect.{case}.chunk{chunk}.block{number}"
        mod = weights[f"blocks.{number}.scale_shift_table"][0] + t_mod
        norm2 = (weights[f"blocks.{number}.norm2.weight"], weights[f"blocks.{number}.norm2.bias"])
        block = seen[number]
        near(block["in"][::4], stream[f"{expected}.in"], atol=5e-5)
        near(block["out"], stream[f"{expected}.out"], atol=5e-5)
        if number == 2:
            continue
        # Gates and modulation are inside the linear layers; here they are put on what is seen.
        for tap, found in (
            ("sa_in", block["sa_in"] * (1 + mod[1]) + mod[0]),
            ("ca_in", block["ca_in"] * norm2[0] + norm2[1]),
            ("ca_out", block["ca_out"]),
            ("ffn_in", block["ffn_in"] * (1 + mod[4]) + mod[3]),
        ):
            near(found[::4], stream[f"{expected}.{tap}"], atol=5e-5)
        near(block["sa_out"][::4], stream[f"{expected}.sa_out"] * mod[2], atol=5e-5)
        near(block["ffn_out"][::4], stream[f"{expected}.ffn_out"] * mod[5], atol=5e-5)


def test_where_time_begins_changes_nothing(stream: Golden, dit_model: Model) -> None:
    latents = _latents(stream, "input.latents")[:, :2]
    shape = (2, 5, 9)
    plain = Grid.build(dit_model.config.dit, shape, Seam.EXACT, "cpu")
    later = Grid.build(dit_model.config.dit, (502, 5, 9), Seam.EXACT, "cpu")
    cos, sin = later.turn.cos[-90:], later.turn.sin[-90:]
    turn = Turn(cos, sin, torch.complex(cos, sin))
    moved = Grid(shape, None, None, plain.plain, plain.shifted, turn)
    near(
        _no_grad(dit_model.dit, latents, plain), _no_grad(dit_model.dit, latents, moved), atol=1e-5
    )


def test_streams_of_a_batch_are_denoised_apart(stream: Golden, dit_model: Model) -> None:
    latents = _latents(stream, "input.latents")
    batch = torch.cat((latents[:, :2], latents[:, 3:5], latents[:, 6:8]))
    grid = Grid.build(dit_model.config.dit, (2, 5, 9), Seam.EXACT, "cpu")
    single = torch.cat([_no_grad(dit_model.dit, one, grid) for one in torch.split(batch, 1)])
    near(_no_grad(dit_model.dit, batch, grid), single, atol=2e-6)


# The published files ---------------------------------------------------------------------------


def test_the_full_size_networks_have_the_published_names_and_shapes() -> None:
    config = swiftvr()
    assert published_dit_shapes(config.dit) == read_manifest("swiftvr", "transformer")
    assert published_reae_shapes(config.reae) == read_manifest("swiftvr", "reae")


@pytest.mark.parametrize("frames", [1, 5, 13, 29, 33, 53, 57, 77])
def test_the_file_forms_schedule_is_the_references(ops: Golden, frames: int) -> None:
    assert clip_schedule(frames, latents=6) == ops[f"schedule.t{frames}.clip24"].tolist()


# Helpers ---------------------------------------------------------------------------------------


def _encoder_calls(reae: Golden) -> list[Tensor]:
    """What each call of the reference completes, and the flush, (1, frames, 3, H, W)."""
    video, waiting, calls, done = reae["input.frames_u8"].float()[None] / 255, 0, [], 0
    for count in reae.meta["config"]["encode_calls"]:
        waiting += count
        whole = waiting // LATENT_FRAMES * LATENT_FRAMES
        calls.append(video[:, done : done + whole])
        done, waiting = done + whole, waiting - whole
    rest = video[:, done:]
    copies = rest[:, -1:].expand(-1, -rest.shape[1] % LATENT_FRAMES, -1, -1, -1)
    return [*calls, torch.cat((rest, copies), 1)]


def _memory(model: Model, network: str, streams: int = 1) -> list[Tensor]:
    shapes = getattr(model, network).memory_shapes(3, 4)
    return [torch.zeros(streams, *shape) for shape in shapes]


@torch.inference_mode()
def _no_grad(network: Any, *inputs: Any) -> Tensor:
    result: Tensor = network(*inputs)
    return result


def _taps(network: Any, inputs: Tensor, memory: list[Tensor]) -> dict[int, Tensor]:
    """Each layer's output in one call."""
    outputs: dict[int, Tensor] = {}

    def keep(number: int, _layer: Any, _inputs: Any, output: Tensor) -> None:
        outputs.setdefault(number, []).append(output)  # type: ignore[arg-type, attr-defined]

    hooks = [
        layer.register_forward_hook(partial(keep, number))
        for number, layer in enumerate(network.layers)
    ]
    _no_grad(network, inputs, memory)
    for hook in hooks:
        hook.remove()
    return {number: torch.cat(parts) for number, parts in outputs.items()}  # type: ignore[arg-type]


def _compare_taps(outputs: dict[int, Tensor], reae: Golden, network: str) -> None:
    prefix = f"expect.tap.{network}."
    names = [name for name in reae.tensors if name.startswith(prefix)]
    assert names
    for name in names:
        found = outputs[int(name.removeprefix(prefix))]
        near(found[:, :, ::2, ::2], reae[name], atol=5e-5)


def _latents(stream: Golden, name: str) -> Tensor:
    """(C, T, h, w) of the file -> (1, T, C, h, w)."""
    return stream[name].transpose(0, 1)[None]


def _as_golden(latents: Tensor) -> Tensor:
    return latents[0].transpose(0, 1)


def _row_order(prompt: Tensor) -> list[int]:
    """For each distinct row as we keep them, its place in the prompt."""
    distinct = torch.unique(prompt, dim=0)
    return [int((prompt == row).all(1).nonzero()[0]) for row in distinct]


def _watch(model: Model, latents: Tensor, grid: Grid) -> list[dict[str, Tensor]]:
    """Inputs and outputs of every block and its branches, tokens in (t, h, w) order."""
    back = slice(None) if grid.back is None else grid.back
    seen: list[dict[str, Tensor]] = []

    def hook(where: dict[str, Tensor], before: str, after: str) -> Any:
        def keep(_module: Any, inputs: Any, output: Tensor) -> None:
            where[before], where[after] = inputs[0][0, back], output[0, back]

        return keep

    hooks = []
    for block in model.dit.blocks:
        assert isinstance(block, Block)
        where: dict[str, Tensor] = {}
        seen.append(where)
        hooks += [
            block.register_forward_hook(hook(where, "in", "out")),
            block.self_attn.register_forward_hook(hook(where, "sa_in", "sa_out")),
            block.cross_attn.register_forward_hook(hook(where, "ca_in", "ca_out")),
            block.ffn.register_forward_hook(hook(where, "ffn_in", "ffn_out")),
        ]
    _no_grad(model.dit, latents, grid)
    for one in hooks:
        one.remove()
    assert torch.equal(F.layer_norm(seen[0]["in"], (64,), eps=1e-6), seen[0]["sa_in"])
    return seen
