"""Projector, DiT and TCDecoder against the public reference, and against the published names."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from streamlift.upscalers.flashvsr.attention import attend_exact
from streamlift.upscalers.flashvsr.blocks import BlockLists
from streamlift.upscalers.flashvsr.config import (
    DecoderConfig,
    DitConfig,
    ProjectorConfig,
    Version,
    flashvsr,
)
from streamlift.upscalers.flashvsr.decoder import TcDecoder, fold_condition
from streamlift.upscalers.flashvsr.dit import Dit, Sparsity
from streamlift.upscalers.flashvsr.memory import KvRing
from streamlift.upscalers.flashvsr.projector import Projector, fold_pixels
from streamlift.upscalers.flashvsr.published import (
    PublishedDit,
    PublishedProjector,
    fold_dit,
    fold_projector,
    prompt_constants,
    time_constants,
)
from streamlift.upscalers.flashvsr.rope import SpatialRope
from streamlift.upscalers.flashvsr.selection import topk_from_ratio
from streamlift.upscalers.flashvsr.windows import local_mask, to_windows

Load = Callable[[str], Any]
near = partial(torch.testing.assert_close, rtol=0)


# Published names -----------------------------------------------------------------------------


def test_full_size_dit_has_the_published_names_and_shapes(manifest: Load) -> None:
    with torch.device("meta"):
        assert _shapes(PublishedDit(DitConfig())) == manifest("dit")


def test_full_size_projector_has_the_published_names_and_shapes(manifest: Load) -> None:
    with torch.device("meta"):
        assert _shapes(PublishedProjector(ProjectorConfig())) == manifest("lq-proj")


def test_full_size_decoder_has_the_published_names_and_shapes(manifest: Load) -> None:
    with torch.device("meta"):
        assert _shapes(TcDecoder(DecoderConfig())) == manifest("tcdecoder")


def test_folding_gives_exactly_the_tensors_of_the_running_networks_at_full_size() -> None:
    config = flashvsr()
    with torch.device("meta"):
        projector = Projector(config.projector, Version.V1_1)
        published = PublishedProjector(config.projector)
    folded = fold_projector(published)
    assert {k: tuple(t.shape) for k, t in folded.items()} == _shapes(projector)


# Projector -----------------------------------------------------------------------------------


@pytest.mark.parametrize("version", list(Version))
def test_projector_clip_by_clip_equals_the_reference(golden: Load, version: Version) -> None:
    data = golden("lq_projector")
    projector, carried = _projector(data, version)
    pixels = _clips(data)
    seen: dict[str, Tensor] = {}
    projector.norm1.register_forward_hook(lambda _m, _i, out: seen.update(norm1=out))
    projector.conv1.register_forward_hook(lambda _m, _i, out: seen.update(conv1=out))
    projector.conv2.register_forward_hook(lambda _m, _i, out: seen.update(conv2=out))
    projector.start(pixels[:4], *carried)
    expect = partial(_expected, data, version)
    near(pixels[3, :, 1, 2], expect("clip0.unshuffled_ch"), atol=0)
    near(seen["conv1"].transpose(0, 1), expect("clip0.conv1"), atol=2e-5)
    for clip in range(1, 6):
        tokens = projector(pixels[4 * clip : 4 * clip + 4], *carried)
        near(tokens[0][0], expect(f"clip{clip}.tokens0"), atol=2e-5)
        near(tokens[1][0], expect(f"clip{clip}.tokens1"), atol=2e-5)
        if clip == 1:
            near(seen["conv2"].transpose(0, 1), expect("clip1.conv2"), atol=2e-5)
    near(carried[0].transpose(0, 1)[::16], expect("final_cache.conv1"), atol=2e-5)
    near(carried[1].transpose(0, 1), expect("final_cache.conv2"), atol=2e-5)


@pytest.mark.parametrize("version", list(Version))
def test_a_batch_of_clips_equals_clip_by_clip(golden: Load, version: Version) -> None:
    data = golden("lq_projector")
    projector, carried = _projector(data, version)
    pixels = _clips(data)
    projector.start(pixels[:4], *carried)
    tokens = projector(pixels[4:], *carried)
    for clip in range(1, 6):
        near(tokens[0][clip - 1], _expected(data, version, f"clip{clip}.tokens0"), atol=2e-5)


# DiT -----------------------------------------------------------------------------------------


def test_constants_of_time_and_prompt_equal_the_reference(golden: Load) -> None:
    data = golden("dit_stream")
    published = _published_dit(data)
    t, t_mod = time_constants(published)
    near(t[None], data["expect.t"], atol=5e-5)
    near(t_mod[None], data["expect.t_mod"], atol=5e-5)
    context = data["input.context"]
    constants = prompt_constants(published, context)
    # Distinct rows come sorted.
    order = [int((context == row).all(1).nonzero()[0]) for row in context.unique(dim=0)]
    near(constants.embedded, data["expect.text_embedded"][0][order], atol=5e-5)
    for layer in range(3):
        keys = constants.keys[layer].transpose(0, 1).flatten(1)
        values = constants.values[layer].transpose(0, 1).flatten(1)
        near(keys, data[f"expect.block{layer}.cross_k"][order], atol=5e-5)
        near(values, data[f"expect.block{layer}.cross_v"][order], atol=5e-5)


def test_repeated_prompt_rows_are_merged_exactly(golden: Load) -> None:
    data = golden("dit_stream")
    context = data["input.context"][[0, 1, 2, 2, 2, 3, 1]]
    merged = _run_chunk0(data, context)
    assert merged.dit.context_weight.shape == (4,)
    published = _published_dit(data)
    state = fold_dit(published, context)
    index = [int((context.unique(dim=0) == row).all(1).nonzero()[0]) for row in context]
    for name in [n for n in state if n.endswith((".keys", ".values"))]:
        state[name] = state[name][:, index]
    state["context_weight"] = torch.zeros(len(index))
    plain = _Run(data, "run", state)
    near(merged.step(0), plain.step(0), atol=1e-5)


@pytest.mark.parametrize(("run", "prefix"), [("run", "expect"), ("run_alt", "expect_alt")])
def test_five_streamed_chunks_equal_the_reference(golden: Load, run: str, prefix: str) -> None:
    data = golden("dit_stream")
    dit = _Run(data, run)
    for chunk in range(5):
        prediction = dit.step(chunk)
        expected = data[f"{prefix}.chunk{chunk}.noise_pred"]
        stride = 2 if run == "run_alt" else 1
        near(prediction[:, :, ::stride, ::stride], expected, atol=5e-5)
        layers = range(3) if run == "run" else range(1)
        for layer in layers:
            expected_mask = data[f"{prefix}.chunk{chunk}.block{layer}.mask"].bool()
            assert torch.equal(dit.mask(layer), expected_mask), f"chunk {chunk} block {layer}"


def test_every_tap_inside_the_blocks_equals_the_reference(golden: Load) -> None:
    data = golden("dit_stream")
    dit = _Run(data, "run")
    for chunk in range(5):
        dit.step(chunk)
        expect = partial(_expected, data, "", part=f"chunk{chunk}")
        for layer in range(3):
            near(dit.natural(f"block{layer}.out")[::16], expect(f"block{layer}.out"), atol=5e-5)
        if chunk in (0, 2):
            _compare_block0(dit, data, expect)
        if chunk in (0, 1, 4):
            near(dit.seen["q"].transpose(0, 1)[::16], expect("block0.q"), atol=5e-5)
            near(dit.in_age("k")[::32], expect("block0.k"), atol=5e-5)
            near(dit.in_age("v")[::32], expect("block0.v"), atol=5e-5)
            near(dit.seen["attn"].transpose(0, 1)[::16], expect("block0.attn"), atol=5e-5)


def test_the_cache_after_five_chunks_equals_the_reference(golden: Load) -> None:
    data = golden("dit_stream")
    dit = _Run(data, "run")
    for chunk in range(5):
        dit.step(chunk)
    slots = dit.ring.order()[1:]  # the oldest of the four will be overwritten next
    for name, ring in (("k", dit.ring.keys[2]), ("v", dit.ring.values[2])):
        by_slot = torch.unflatten(ring.transpose(0, 1).flatten(1), 0, (4, 8, 128))
        found = by_slot[slots].flatten(0, 1)[:, ::16]
        near(found, data[f"expect.final.block2.cache_{name}"], atol=5e-5)


def test_shifting_the_temporal_index_changes_nothing(golden: Load) -> None:
    data = golden("dit_stream")
    plain, shifted = _Run(data, "run"), _Run(data, "run", shift=10**8)
    for chunk in range(3):
        near(plain.step(chunk), shifted.step(chunk), atol=2e-5)


@pytest.mark.parametrize(
    ("kv_units", "attended"), [(1, [3, 3, 3]), (2, [3, 3, 3]), (3, [3, 4, 4]), (4, [3, 4, 5])]
)
def test_the_ring_attends_as_many_units_as_the_reference_would(
    kv_units: int, attended: list[int]
) -> None:
    config = flashvsr()
    ring = KvRing.allocate(config, (8, 8), kv_units, "meta", torch.float32)
    for chunk, expected in enumerate(attended):
        new = 3 if chunk == 0 else 1
        k = torch.empty(12, new * 128, 128, device="meta")
        keys, _, means = ring.filled(0, k.shape[1])
        ring.advance(new)
        assert keys.shape[1] == expected * 128
        assert means.shape[1] == expected
        assert len(ring.order()) == expected


# TCDecoder -----------------------------------------------------------------------------------


def test_decoder_in_calls_equals_the_reference(
    golden: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = golden("tcdecoder")
    decoder = TcDecoder(DecoderConfig(channels=tuple(data.meta["config"]["channels"])))
    decoder.load_state_dict(data.weights())
    memory = decoder.new_memory(4, 6, "cpu", torch.float32)
    taps: dict[int, Tensor] = {}
    remember = TcDecoder._remember

    def watch(self: TcDecoder, x: Tensor, past: Tensor, index: int) -> Tensor:
        # What a block is given is the layer before it, an enlargement and its convolution.
        taps.setdefault(index - 1, x)
        out = remember(self, x, past, index)
        taps.setdefault(index, out)
        return out

    monkeypatch.setattr(TcDecoder, "_remember", watch)
    frames = data["input.cond_u8"].transpose(0, 1).float() / 255 * 2 - 1
    clips = torch.unflatten(torch.cat((frames[:1].expand(3, -1, -1, -1), frames)), 0, (-1, 4))
    condition = fold_condition(clips)
    near(condition[:6, :, 1, 2], data["expect.cond_unshuffled_ch"], atol=3e-5)
    latents = data["input.latents"].transpose(0, 1)
    with torch.inference_mode():
        for call, part in enumerate((slice(0, 6), slice(6, 8), slice(8, 10))):
            made = (decoder(latents[part], condition[part], memory) + 1) / 2
            near(made[3 if call == 0 else 0 :], data[f"expect.frames.chunk{call}"], atol=3e-5)
    compared = 0
    for name in data.tensors:
        if name.startswith("expect.tap"):
            layer_name, call_name = name.split(".")[2:]
            found = taps.get(int(layer_name.removeprefix("dec")))
            if found is not None:  # the others are inside what is folded
                near(found[int(call_name.removeprefix("call"))], data[name], atol=3e-5)
                compared += 1
    assert compared == 12
    near(memory[0][0], data["expect.memory_after.dec5"], atol=3e-5)
    near(memory[8][0], data["expect.memory_after.dec19"], atol=3e-5)


# Helpers of these tests ------------------------------------------------------------------------


def _shapes(module: torch.nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}


def _expected(data: Any, version: str, name: str, part: str = "") -> Tensor:
    found: Tensor = data[".".join(word for word in ("expect", version, part, name) if word)]
    return found


def _projector(data: Any, version: Version) -> tuple[Projector, tuple[Tensor, Tensor]]:
    config = ProjectorConfig(hidden1=10, hidden2=14, dim=20, layers=2)
    published = PublishedProjector(config)
    published.load_state_dict(data.weights())
    projector = Projector(config, version).requires_grad_(False)
    projector.load_state_dict(fold_projector(published))
    return projector, (torch.zeros(2, 768, 4, 6), torch.zeros(2, 10, 4, 6))


def _clips(data: Any) -> Tensor:
    frames = data["input.frames_u8"].transpose(0, 1).float() / 255 * 2 - 1
    return fold_pixels(torch.cat((frames[:1].expand(3, -1, -1, -1), frames)))


def _dit_config(data: Any) -> DitConfig:
    stored = data.meta["config"]
    return DitConfig(
        dim=stored["dim"],
        heads=stored["num_heads"],
        blocks=stored["num_layers"],
        ffn_dim=stored["ffn_dim"],
        channels=stored["in_dim"],
        text_dim=stored["text_dim"],
        freq_dim=stored["freq_dim"],
    )


def _published_dit(data: Any) -> PublishedDit:
    published = PublishedDit(_dit_config(data))
    published.load_state_dict(data.weights())
    return published


def _run_chunk0(data: Any, context: Tensor) -> _Run:
    return _Run(data, "run", fold_dit(_published_dit(data), context))


class _Run:
    """The fixture's DiT, streamed, with what its parts saw in the latest chunk."""

    def __init__(
        self, data: Any, run: str, state: dict[str, Tensor] | None = None, shift: int = 0
    ) -> None:
        config = _dit_config(data)
        self.data, self.shift, settings = data, shift, data.meta[run]
        self.published = _published_dit(data)
        state = state or fold_dit(self.published, data["input.context"])
        self.dit = Dit(config, state["context_weight"].shape[0]).requires_grad_(False)
        self.dit.load_state_dict(state)
        shape = flashvsr()
        self.ring = KvRing.allocate(
            type(shape)(dit=config), (16, 32), int(settings["kv_ratio"]), "cpu", torch.float32
        )
        self.rope = SpatialRope.of_grid(16, 32, config.head_dim, "cpu")
        topk = topk_from_ratio(256, 512, settings["topk_ratio"])
        allowed = local_mask(2, 4, settings["local_range"])
        self.sparsity = Sparsity(allowed, topk, self._attend)
        self.seen: dict[str, Tensor] = {}
        self.lists: list[BlockLists] = []
        for index, block in enumerate(self.dit.each_block()):
            block.register_forward_pre_hook(partial(self._keep_stream, index))
        for name in ("self_attn.qkv", "cross_attn"):
            self._watch(self.dit.blocks[0].get_submodule(name), name)
        self.dit.head.register_forward_hook(self._keep_end)

    def step(self, chunk: int) -> Tensor:
        self.lists, self.seen = [], {}
        first = 0 if chunk == 0 else 4 + 2 * chunk
        self.frames = 6 if chunk == 0 else 2
        at = slice(first, first + self.frames)
        prediction: Tensor = self.dit(
            self.data["input.noise"][:, at],
            self.data["input.lq_tokens"][at].flatten(1, 2),
            self.ring,
            self.rope.at([n + self.shift for n in range(at.start, at.stop)]),
            self.sparsity,
        )
        self.ring.advance(self.frames // 2)
        return prediction

    def mask(self, layer: int) -> Tensor:
        """Oldest unit first, as the reference keeps its keys."""
        by_slot = torch.unflatten(self.lists[layer].to_mask(), -1, (-1, 8))
        return by_slot[:, :, self.ring.order()].flatten(2)

    def in_age(self, name: str) -> Tensor:
        by_slot = torch.unflatten(self.seen[name].transpose(0, 1), 0, (-1, 8 * 128))
        return by_slot[self.ring.order()].flatten(0, 1)

    def natural(self, name: str) -> Tensor:
        """Tokens in (f, h, w) order."""
        index = torch.arange(self.frames * 16 * 32).reshape(self.frames, 16, 32, 1)
        out = torch.empty_like(self.seen[name])
        out[to_windows(index)[:, 0]] = self.seen[name]
        return out

    def _keep_stream(self, index: int, _module: Any, inputs: tuple[Any, ...]) -> None:
        """The residual stream before a block: it is kept without the biases added so far."""
        x, offset = inputs[:2]
        self.seen[f"block{index}.in"] = x + offset[0]
        if index:
            self.seen[f"block{index - 1}.out"] = x + offset[0]
        self.stream = x  # updated in place until the end

    def _keep_end(self, _module: Any, inputs: Any, output: Any) -> None:
        last = len(self.dit.each_block()) - 1
        self.seen[f"block{last}.out"] = self.stream + self.dit.offsets()[-1][0]

    def _watch(self, module: torch.nn.Module, name: str) -> None:
        def keep(_module: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
            self.seen[f"{name}.in"], self.seen[f"{name}.out"] = inputs[0], output

        module.register_forward_hook(keep)

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, blocks: BlockLists) -> Tensor:
        mixed = attend_exact(q, k, v, blocks)
        if not self.lists:
            self.seen |= {"q": q, "k": k.clone(), "v": v.clone(), "attn": mixed}
        self.lists.append(blocks)
        return mixed


def _compare_block0(dit: _Run, data: Any, expect: Callable[[str], Tensor]) -> None:
    _, t_mod = time_constants(dit.published)
    block = dit.published.each_block()[0]
    with torch.no_grad():
        shift1, scale1, gate1, _, _, gate2 = block.modulation[0] + t_mod
        norm3 = block.norm3
        natural = {name: dit.natural(name)[::8] for name in dit.seen if "." in name}
        near(natural["block0.in"], expect("block0.in"), atol=5e-5)
        # Modulation and gates are folded into the weights: put them back to compare.
        found = {
            "sa_in": natural["self_attn.qkv.in"] * (1 + scale1) + shift1,
            "ca_in": natural["cross_attn.in"] * norm3.weight + norm3.bias,
            "ca_out": dit.dit.each_block()[0].cross_attn.out(natural["cross_attn.out"]),
        }
        for name, tensor in found.items():
            near(tensor, expect(f"block0.{name}"), atol=5e-5)
        after = natural["block0.in"] + expect("block0.sa_out") * gate1 + expect("block0.ca_out")
        near(natural["block0.out"], after + expect("block0.ffn_out") * gate2, atol=1e-4)
