"""The same chunk of several streams as one batch: weights are read once for all of them.

Every layer works token by token but for attention, where windows are a batch already, so streams
of one size are one pass. Their memories stay their own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from streamlift.upscalers.swiftvr.chunks import Chunks

__all__ = ["run_together"]


def run_together(streams: Sequence[Chunks]) -> Iterator[list[Tensor]]:
    """Run the whole chunk that waits in each; yield a group of frames of every stream at a time.

    The groups are those that `Chunks.run` gives one by one. Raises ValueError unless all streams
    have one model, size and state of their chunk.
    """
    first = streams[0]
    kinds = {(id(chunks.model), *chunks.alike()) for chunks in streams}
    if len(kinds) > 1:
        raise ValueError(f"streams that run together must be alike, found {kinds}")
    seen = torch.cat([chunks.context() for chunks in streams])
    restored = _denoise(first, seen)
    for chunks in streams:
        chunks.keep_context()
    for latents in torch.split(restored, first.group(restored.shape[1]), 1):
        yield _decode(streams, latents)


@torch.inference_mode()
def _denoise(first: Chunks, seen: Tensor) -> Tensor:
    velocity = first.model.dit(seen, first.grid(seen.shape[1]))
    restored: Tensor = (seen - velocity)[:, first.kept :]
    return restored


@torch.inference_mode()
def _decode(streams: Sequence[Chunks], latents: Tensor) -> list[Tensor]:
    memories = [chunks.memory.decoder for chunks in streams]
    shared = [torch.cat(states) for states in zip(*memories, strict=True)]
    frames = streams[0].model.decoder(latents, shared)
    for number, memory in enumerate(memories):
        for own, all_ in zip(memory, shared, strict=True):
            own.copy_(all_[number : number + 1])
    return [
        chunks.without_surplus(chunks.canvas.crop(frames[number]))
        for number, chunks in enumerate(streams)
    ]
