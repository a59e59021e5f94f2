"""All memory of one stream: named tensors of fixed size, allocated once, never kept on a module."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from streamlift.frames import Size
from streamlift.upscalers.swiftvr.config import LATENT_FRAMES
from streamlift.upscalers.swiftvr.model import Model
from streamlift.upscalers.swiftvr.picture import Canvas

__all__ = ["StreamMemory"]


@dataclass(slots=True, eq=False)
class StreamMemory:
    """What one stream keeps between frames.

    frames: those that wait for their chunk, (4n, 3, h, w) in [0, 1], float32, at the publisher's
    size; latents: the last ones of the chunk before, then those of this one, (1, o + n, C, h, w);
    encoder, decoder: each memory block's last input, (1, channels, h, w).
    """

    frames: Tensor
    latents: Tensor
    encoder: list[Tensor]
    decoder: list[Tensor]

    @classmethod
    def allocate(
        cls,
        model: Model,
        size: Size,
        canvas: Canvas,
        *,
        latents: int,
        overlap: int,
        device: torch.device | str,
    ) -> StreamMemory:
        """For chunks of `latents` latents; on the device "meta" it costs nothing."""
        grid = tuple(2 * tokens for tokens in canvas.tokens)
        rows, columns = grid
        layout = model.layout(device)

        def zeros(*shape: int, kind: torch.dtype = model.dtype) -> Tensor:
            return torch.zeros(shape, device=device, dtype=kind)

        def state(shapes: Sequence[tuple[int, int, int]]) -> list[Tensor]:
            return [zeros(1, *shape).to(memory_format=layout) for shape in shapes]

        return cls(
            frames=zeros(LATENT_FRAMES * latents, 3, size.height, size.width, kind=torch.float32),
            latents=zeros(1, overlap + latents, model.config.reae.channels, rows, columns),
            encoder=state(model.encoder.memory_shapes(rows, columns)),
            decoder=state(model.decoder.memory_shapes(rows, columns)),
        )

    def nbytes(self) -> int:
        """Bytes of all tensors."""
        return sum(tensor.nbytes for tensor in self.tensors())

    def tensors(self) -> list[Tensor]:
        return [self.frames, self.latents, *self.encoder, *self.decoder]

    def move(self, device: torch.device | str) -> None:
        """Move every tensor; on a host with CUDA the freed device memory can serve others."""
        self.frames, self.latents = self.frames.to(device), self.latents.to(device)
        self.encoder = [tensor.to(device) for tensor in self.encoder]
        self.decoder = [tensor.to(device) for tensor in self.decoder]
