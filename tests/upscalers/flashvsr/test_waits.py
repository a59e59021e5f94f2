"""A full-size chunk on a device that has no values: nothing in it waits for the device."""

from __future__ import annotations

import torch
from tests.upscalers.waits import Waits
from torch import Tensor

from streamlift.upscalers.flashvsr.blocks import BlockLists
from streamlift.upscalers.flashvsr.chunks import FIRST_FRAMES, STEP_FRAMES, ChunkOptions, Chunks
from streamlift.upscalers.flashvsr.config import ModelConfig, flashvsr, tiny_random
from streamlift.upscalers.flashvsr.memory import StreamMemory
from streamlift.upscalers.flashvsr.model import Model
from streamlift.upscalers.flashvsr.noise import ContinuousNoise
from streamlift.upscalers.flashvsr.selection import topk_from_area


def without_values(
    config: ModelConfig | None = None,
    *,
    height: int = 1024,
    width: int = 1024,
    dtype: torch.dtype = torch.bfloat16,
) -> Chunks:
    """A stream of the published network at this output size, all of it on "meta"."""
    config = config or flashvsr()
    with torch.device("meta"):
        model = Model.build(config, context_rows=64)
    model = model.prepare(torch.device("meta"), dtype)
    memory = StreamMemory.allocate(
        config,
        height,
        width,
        clips=3,
        kv_units=3,
        decoder=model.decoder.new_memory(height // 8, width // 8, "meta", dtype),
        device="meta",
        dtype=dtype,
    )
    options = ChunkOptions(topk_from_area(height, width, 2.0), 11, _attend)
    return Chunks(model, memory, ContinuousNoise(1), options)


def run_chunk(chunks: Chunks) -> list[Tensor]:
    """Frames until the next chunk is complete, and the chunk."""
    height, width = chunks.memory.clips.shape[3:]
    frame = torch.empty(3, height, width, device="meta")
    for _ in range(chunks.wanted):
        chunks.add(frame)
    return list(chunks.run())


def test_no_step_of_a_chunk_waits_for_the_device() -> None:
    chunks = without_values()
    assert [group.shape[0] for group in run_chunk(chunks)] == [1, 4, 4, 4, 4, 4]
    with Waits() as waits:
        groups = run_chunk(chunks)
    assert [group.shape[0] for group in groups] == [4, 4]
    assert waits.found == []
    assert waits.calls > 100
    assert chunks.wanted == STEP_FRAMES
    assert FIRST_FRAMES == 25


def test_noise_and_angles_are_ready_before_the_next_chunk_is_due() -> None:
    chunks = without_values(tiny_random(), height=128, width=128)
    for chunk in range(3):
        assert chunks._ready.chunk == chunk
        run_chunk(chunks)


def _attend(q: Tensor, k: Tensor, v: Tensor, blocks: BlockLists) -> Tensor:
    return torch.empty_like(q.transpose(0, 1), memory_format=torch.contiguous_format).transpose(
        0, 1
    )
