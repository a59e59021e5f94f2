"""All memory of one stream: named tensors of fixed size, allocated once, never kept on a module."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from streamlift.upscalers.flashvsr.config import (
    CLIP_FRAMES,
    FIRST_LATENTS,
    LATENT_STRIDE,
    STEP_LATENTS,
    TOKEN_STRIDE,
    WINDOW_TOKENS,
    ModelConfig,
)
from streamlift.upscalers.flashvsr.windows import windows_per_unit

__all__ = ["KvRing", "StreamMemory"]


@dataclass(slots=True, eq=False)
class KvRing:
    """Keys and values of the latest units in every block, in window order.

    Unit u lies in slot u mod slots, so nothing is ever shifted or concatenated; the order of keys
    matters neither to softmax nor to the block choice. One unit is dropped a chunk, the oldest, by
    being overwritten.

    keys, values: (blocks, heads, slots * unit tokens, head_dim); means: of each key window,
    (blocks, heads, slots * windows, head_dim), float32; slot: where the next unit goes, () int64
    on the device, so that one recording serves every slot; seen: units written so far.
    """

    keys: Tensor
    values: Tensor
    means: Tensor
    slot: Tensor
    slots: int
    seen: int = 0

    @classmethod
    def allocate(
        cls,
        config: ModelConfig,
        grid: tuple[int, int],
        kv_units: int,
        device: torch.device | str,
        dtype: torch.dtype,
    ) -> KvRing:
        """For a grid of (height, width) tokens; `kv_units` earlier units are attended."""
        dit = config.dit
        # The first chunk brings three units at once and drops only one, hence the lower bound.
        slots = max(kv_units + 1, FIRST_LATENTS // STEP_LATENTS)
        windows = slots * windows_per_unit(*grid)
        shape = (dit.blocks, dit.heads, windows * WINDOW_TOKENS, dit.head_dim)
        wide = torch.float64 if dtype is torch.float64 else torch.float32
        return cls(
            keys=torch.zeros(shape, device=device, dtype=dtype),
            values=torch.zeros(shape, device=device, dtype=dtype),
            means=torch.zeros(
                (dit.blocks, dit.heads, windows, dit.head_dim), device=device, dtype=wide
            ),
            slot=torch.zeros((), device=device, dtype=torch.int64),
            slots=slots,
        )

    def place(self, layer: int) -> tuple[Tensor, Tensor, Tensor]:
        """Keys, values and means of one block, all slots: where the new units are written."""
        return self.keys[layer], self.values[layer], self.means[layer]

    def filled(self, layer: int, new_tokens: int) -> tuple[Tensor, Tensor, Tensor]:
        """Keys, values and means of all there are, once `new_tokens` of this chunk are written."""
        new, whole = new_tokens // WINDOW_TOKENS, self.means.shape[2]
        windows = min(self.seen * (whole // self.slots) + new, whole)
        tokens = slice(0, windows * WINDOW_TOKENS)
        keys, values, means = self.place(layer)
        return keys[:, tokens], values[:, tokens], means[:, :windows]

    def full_with(self, units: int) -> bool:
        """Whether every slot holds something once so many more units are written."""
        return self.seen + units >= self.slots

    def advance(self, units: int) -> None:
        """All blocks have stored this many new units."""
        self.seen += units
        self.slot.add_(units).remainder_(self.slots)

    def next_slot(self) -> tuple[Tensor, Tensor, Tensor]:
        """Keys, values and means of all blocks in the slot that is written next."""
        windows = self.means.shape[2] // self.slots
        first = self.seen % self.slots * windows
        tokens = slice(first * WINDOW_TOKENS, (first + windows) * WINDOW_TOKENS)
        at = slice(first, first + windows)
        return self.keys[:, :, tokens], self.values[:, :, tokens], self.means[:, :, at]

    def clear(self) -> None:
        """As before the first chunk; what the slots hold is never read before it is written."""
        self.seen = 0
        self.slot.zero_()

    def order(self) -> list[int]:
        """Slots from the oldest unit to the newest."""
        first = max(0, self.seen - self.slots)
        return [unit % self.slots for unit in range(first, self.seen)]


@dataclass(slots=True, eq=False)
class StreamMemory:
    """What one stream keeps between frames.

    clips: ring of four-frame clips at output size, (ring, 4, 3, H, W) in [-1, 1], float32, clip c
    in place c mod ring; tokens: of latents that wait for their chunk, (6, h * w, dim);
    carried1, carried2: the projector's; decoder: its memory.
    """

    clips: Tensor
    tokens: Tensor
    carried1: Tensor
    carried2: Tensor
    kv: KvRing
    decoder: list[Tensor]

    @classmethod
    def allocate(
        cls,
        config: ModelConfig,
        height: int,
        width: int,
        *,
        clips: int,
        kv_units: int,
        decoder: list[Tensor],
        device: torch.device | str,
        dtype: torch.dtype,
    ) -> StreamMemory:
        """For an output of height x width pixels; on the device "meta" it costs nothing."""
        rows, columns = height // TOKEN_STRIDE, width // TOKEN_STRIDE
        projector = config.projector

        def zeros(*shape: int, kind: torch.dtype = dtype) -> Tensor:
            return torch.zeros(shape, device=device, dtype=kind)

        return cls(
            clips=zeros(clips, CLIP_FRAMES, 3, height, width, kind=torch.float32),
            tokens=zeros(FIRST_LATENTS, rows * columns, projector.dim),
            carried1=zeros(2, 3 * TOKEN_STRIDE**2, rows, columns),
            carried2=zeros(2, projector.hidden1, rows, columns),
            kv=KvRing.allocate(config, (rows, columns), kv_units, device, dtype),
            decoder=decoder,
        )

    @property
    def latent_grid(self) -> tuple[int, int]:
        """Height and width in latents."""
        return self.clips.shape[3] // LATENT_STRIDE, self.clips.shape[4] // LATENT_STRIDE

    def nbytes(self) -> int:
        """Bytes of all tensors."""
        return sum(tensor.nbytes for tensor in self._tensors())

    def move(self, device: torch.device | str) -> None:
        """Move every tensor; on a host with CUDA the freed device memory can serve others."""
        for holder in (self, self.kv):
            for item in fields(holder):
                value = getattr(holder, item.name)
                if isinstance(value, Tensor):
                    setattr(holder, item.name, value.to(device))
        self.decoder = [tensor.to(device) for tensor in self.decoder]

    def changing(self) -> list[Tensor]:
        """What a step changes beside the key ring."""
        return [self.tokens, self.carried1, self.carried2, *self.decoder]

    def clear(self) -> None:
        """As newly allocated, at the same addresses: what recordings read and write stays there."""
        self.kv.clear()
        for tensor in self.decoder:
            tensor.zero_()

    def _tensors(self) -> list[Tensor]:
        kv = self.kv
        own = [self.clips, self.tokens, self.carried1, self.carried2]
        return [*own, kv.keys, kv.values, kv.means, kv.slot, *self.decoder]
