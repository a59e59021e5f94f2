"""The whole Tiny pipeline against the public reference, streamed frame by frame."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from streamlift.frames import Size
from streamlift.upscalers.flashvsr.attention import attend_exact
from streamlift.upscalers.flashvsr.blocks import BlockLists
from streamlift.upscalers.flashvsr.chunks import ChunkOptions, Chunks
from streamlift.upscalers.flashvsr.colour import ColourFix, fix_colour
from streamlift.upscalers.flashvsr.config import (
    DecoderConfig,
    DitConfig,
    ModelConfig,
    ProjectorConfig,
    Version,
)
from streamlift.upscalers.flashvsr.decoder import TcDecoder, fold_condition
from streamlift.upscalers.flashvsr.dit import Sparsity
from streamlift.upscalers.flashvsr.memory import KvRing, StreamMemory
from streamlift.upscalers.flashvsr.model import Model
from streamlift.upscalers.flashvsr.noise import Noise, RepeatedNoise
from streamlift.upscalers.flashvsr.projector import fold_pixels
from streamlift.upscalers.flashvsr.published import (
    PublishedDit,
    PublishedProjector,
    fold_dit,
    fold_projector,
)
from streamlift.upscalers.flashvsr.rope import SpatialRope
from streamlift.upscalers.flashvsr.selection import topk_from_ratio
from streamlift.upscalers.flashvsr.tiny import create_tiny_random
from streamlift.upscalers.flashvsr.upscaler import FlashVsr
from streamlift.upscalers.flashvsr.windows import local_mask

Load = Callable[[str], Any]
near = partial(torch.testing.assert_close, rtol=0)


def test_frames_equal_the_reference_with_v1_1_weights(golden: Load) -> None:
    data = golden("pipeline_tiny")
    frames, _ = _stream(data, Version.V1_1)
    near(frames[:, :, 1::4, 2::8], data["expect.v1.1.frames_sub"], atol=1e-4)
    near(frames[:, 44, :64], data["expect.v1.1.frame44_top"], atol=1e-4)


def test_frames_equal_the_reference_with_the_v1_cache_rule(golden: Load) -> None:
    data = golden("pipeline_tiny")
    frames, _ = _stream(data, Version.V1)
    near(frames[:, :, 3::8, 5::16], data["expect.v1.frames_sparse"], atol=1e-4)


def test_frames_before_the_colour_fix_equal_the_reference(golden: Load) -> None:
    data = golden("pipeline_tiny")
    frames, _ = _stream(data, Version.V1_1, colour=ColourFix.OFF)
    expected = data["expect.v1.1.nofix_frames_sparse"].clamp(-1, 1)
    near(frames[:, :, 3::8, 5::16], expected, atol=1e-4)


def test_decoding_a_chunk_as_one_batch_changes_nothing(golden: Load) -> None:
    data = golden("pipeline_tiny")
    frames, _ = _stream(data, Version.V1_1, decode_together=True)
    near(frames[:, :, 1::4, 2::8], data["expect.v1.1.frames_sub"], atol=1e-4)


def test_latents_equal_the_reference(golden: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    data = golden("pipeline_tiny")
    latents: list[Tensor] = []
    decode = Chunks._decode

    def watch(chunks: Chunks, part: Tensor, index: int) -> Tensor:
        latents.append(part)
        return decode(chunks, part, index)

    monkeypatch.setattr(Chunks, "_decode", watch)
    _stream(data, Version.V1_1)
    near(torch.cat(latents).transpose(0, 1), data["expect.v1.1.latents"], atol=5e-5)


def test_block_masks_equal_the_reference(golden: Load) -> None:
    data = golden("pipeline_tiny")
    _, lists = _stream(data, Version.V1_1)
    assert len(lists) == 8
    for call, blocks in enumerate(lists):
        chunk, layer = divmod(call, 2)
        keep = torch.unflatten(blocks.to_mask(), -1, (-1, 2))
        units = keep.shape[2]
        seen = 3 + chunk
        order = [unit % 4 for unit in range(seen - units, seen)]
        expected = data[f"expect.v1.1.chunk{chunk}.block{layer}.mask"].bool()
        assert torch.equal(keep[:, :, order].flatten(2), expected)


def test_repeated_noise_equals_the_reference_stream(golden: Load) -> None:
    data = golden("pipeline_tiny")
    noise = RepeatedNoise(0)
    for chunk, name in ((0, "first"), (1, "next"), (2, "next")):
        expected = data[f"input.stream_seed0.noise_{name}"]
        near(noise.draw(chunk, tuple(expected.shape)), expected, atol=0)
    frames, _ = _stream(data, Version.V1_1, noise=noise)
    expected = data["expect.v1.1.stream_seed0.frames_sparse"]
    near(frames[:, :, 3::8, 5::16], expected, atol=1e-4)


class Recorder:
    """CUDA graphs cannot run here: this keeps their rules, fixed addresses in and out.

    What a part writes beside its result it writes again at each replay, and a part may neither be
    recorded nor run for the first time while `streaming`.
    """

    def __init__(self) -> None:
        self.streaming = False
        self.recorded = 0
        self.replayed = 0

    def __call__(self, step: Callable[[], Tensor]) -> tuple[Callable[[], None], Tensor]:
        assert not self.streaming
        self.recorded += 1
        result = step().clone()

        def replay() -> None:
            self.replayed += 1
            result.copy_(step())

        return replay, result


def test_recorded_parts_replay_with_new_inputs_at_every_ring_slot() -> None:
    tiny = create_tiny_random("cpu", {"start": "full"})
    frames = torch.rand(25 + 8 * 6, 1, 3, 64, 64, generator=torch.Generator().manual_seed(3))
    recorder = Recorder()
    recording = FlashVsr("recording", tiny.model, tiny.settings, record=recorder)
    expected = _all_of(tiny.open(Size(64, 64)), frames)
    session = recording.open(Size(64, 64))
    recorder.streaming = True
    near(_all_of(session, frames), expected, atol=0)
    assert recorder.recorded == 3  # whatever the slot
    steady = 6 + 1  # chunks, one of them made of the last frame's copies
    assert recorder.replayed == (6 + 2 * steady) + steady + (5 + 2 * steady)


def test_recordings_serve_the_next_stream_of_their_size_as_if_it_were_the_first() -> None:
    tiny = create_tiny_random("cpu", {})
    recorder = Recorder()
    recording = FlashVsr("recording", tiny.model, tiny.settings, record=recorder)
    generator = torch.Generator().manual_seed(4)
    bytes_of_one = recording.session_bytes(Size(64, 64))
    for number in range(3):
        frames = torch.rand(19, 1, 3, 64, 64, generator=generator)
        session = recording.open(Size(64, 64), seed=number)
        assert recording.session_bytes(Size(64, 64)) == bytes_of_one
        recorder.streaming = True
        near(
            _all_of(session, frames), _all_of(tiny.open(Size(64, 64), seed=number), frames), atol=0
        )
        assert recording.session_bytes(Size(64, 64)) == 0
    assert recorder.recorded == 3
    recorder.streaming = False
    beside = [recording.open(Size(64, 64)) for _ in range(2)]  # the second finds none idle
    assert recorder.recorded == 6
    recording.open(Size(128, 64))
    assert recorder.recorded == 9
    assert len({id(session._chunks.memory) for session in beside}) == 2


def test_a_parked_stream_is_recorded_anew_before_its_next_frame() -> None:
    tiny = create_tiny_random("cpu", {})
    recorder = Recorder()
    recording = FlashVsr("recording", tiny.model, tiny.settings, record=recorder)
    frames = torch.rand(30, 1, 3, 64, 64, generator=torch.Generator().manual_seed(5))
    session = recording.open(Size(64, 64))
    found = []
    for number, frame in enumerate(frames):
        recorder.streaming = True
        found += [group.clone() for group in session.push(frame)]
        recorder.streaming = False
        if number in (3, 12, 13, 27):
            session.park()
            session.resume()
    found += [group.clone() for group in session.finish()]
    near(torch.cat(found), _all_of(tiny.open(Size(64, 64)), frames), atol=0)
    assert recorder.recorded == 15


def _all_of(session: Any, frames: Tensor) -> Tensor:
    groups = [group.clone() for frame in frames for group in session.push(frame)]
    return torch.cat([*groups, *(group.clone() for group in session.finish())])


def test_the_whole_clip_form_equals_the_stream(golden: Load) -> None:
    data = golden("pipeline_tiny")
    model = _model(data, Version.V1_1)
    video = data["input.lr_u8"].transpose(0, 1).float() / 255 * 2 - 1
    video = video.repeat_interleave(4, 2).repeat_interleave(4, 3)
    frames = torch.cat((video[:1].expand(3, -1, -1, -1), video))
    carried = torch.zeros(2, 768, 8, 16), torch.zeros(2, 8, 8, 16)
    with torch.inference_mode():
        pixels = fold_pixels(frames)
        model.projector.start(pixels[:4], *carried)
        tokens = model.projector(pixels[4:], *carried)[0]
        latents = _whole_clip_latents(data, model, tokens)
        near(latents, data["expect.v1.1.latents"], atol=5e-5)
        memory = model.decoder.new_memory(16, 32, "cpu", torch.float32)
        condition = fold_condition(torch.unflatten(frames[:48], 0, (-1, 4)))
        assert isinstance(model.decoder, TcDecoder)
        decoded = model.decoder(latents.transpose(0, 1), condition, memory)[3:]
    fixed = fix_colour(decoded, video[:45], ColourFix.ADAIN).transpose(0, 1)
    near(fixed[:, :, 1::4, 2::8], data["expect.v1.1.frames_sub"], atol=1e-4)


def _whole_clip_latents(data: Any, model: Model, tokens: Tensor) -> Tensor:
    """All tokens are there before the first chunk, as in the reference's clip form."""
    ring = KvRing.allocate(model.config, (8, 16), 3, "cpu", torch.float32)
    rope = SpatialRope.of_grid(8, 16, model.config.dit.head_dim, "cpu")
    sparsity = Sparsity(local_mask(1, 2, 9), topk_from_ratio(128, 256, 2.0), attend_exact)
    latents = []
    for first, last in ((0, 6), (6, 8), (8, 10), (10, 12)):
        noise = data["input.noise"][:, first:last]
        rotation = rope.at(range(first, last))
        latents.append(noise - model.dit(noise, tokens[first:last], ring, rotation, sparsity))
        ring.advance((last - first) // 2)
    return torch.cat(latents, 1)


class _Slices:
    """A whole clip's noise, cut for its chunks."""

    def __init__(self, noise: Tensor) -> None:
        self.noise = noise

    def draw(self, chunk: int, shape: tuple[int, int, int, int]) -> Tensor:
        first = 0 if chunk == 0 else 4 + 2 * chunk
        return self.noise[:, first : first + shape[1]]


def _stream(
    data: Any, version: Version, *, noise: Noise | None = None, **options: Any
) -> tuple[Tensor, list[BlockLists]]:
    """(3, 45, H, W) frames, and the block lists of every attention call."""
    lists: list[BlockLists] = []

    def attend(q: Tensor, k: Tensor, v: Tensor, blocks: BlockLists) -> Tensor:
        lists.append(blocks)
        return attend_exact(q, k, v, blocks)

    model = _model(data, version)
    run = data.meta["run"]
    height, width = run["height"], run["width"]
    chosen = ChunkOptions(
        topk=topk_from_ratio(height, width, run["topk_ratio"]),
        local_range=run["local_range"],
        attend=attend,
        **options,
    )
    memory = StreamMemory.allocate(
        model.config,
        height,
        width,
        clips=7,
        kv_units=3,
        decoder=model.decoder.new_memory(height // 8, width // 8, "cpu", torch.float32),
        device="cpu",
        dtype=torch.float32,
    )
    chunks = Chunks(model, memory, noise or _Slices(data["input.noise"]), chosen)
    video = data["input.lr_u8"].transpose(0, 1).float() / 255 * 2 - 1
    out: list[Tensor] = []
    for frame in video.repeat_interleave(4, 2).repeat_interleave(4, 3):
        chunks.add(frame)
        if chunks.wanted == 0:
            out.extend(chunks.run())
    frames = torch.cat(out).transpose(0, 1)
    assert frames.shape == (3, 45, height, width)
    return frames, lists


def _model(data: Any, version: Version) -> Model:
    dit, lq, tcd = (data.meta[f"config_{name}"] for name in ("dit", "lq", "tcd"))
    config = ModelConfig(
        version=version,
        dit=DitConfig(
            dim=dit["dim"],
            heads=dit["num_heads"],
            blocks=dit["num_layers"],
            ffn_dim=dit["ffn_dim"],
            text_dim=dit["text_dim"],
            freq_dim=dit["freq_dim"],
        ),
        projector=ProjectorConfig(hidden1=lq["hidden1"], hidden2=lq["hidden2"], dim=lq["out_dim"]),
        decoder=DecoderConfig(channels=tuple(tcd["channels"])),
    )
    published_dit, published_lq = PublishedDit(config.dit), PublishedProjector(config.projector)
    published_dit.load_state_dict(data.weights("weights.dit."))
    published_lq.load_state_dict(data.weights("weights.lq."))
    state = fold_dit(published_dit, data["input.context"])
    model = Model.build(config, state["context_weight"].shape[0])
    model.dit.load_state_dict(state)
    model.projector.load_state_dict(fold_projector(published_lq))
    model.decoder.load_state_dict(data.weights("weights.tcd."))
    return model.prepare(torch.device("cpu"), torch.float32)
