"""FlashVSR behind the upscaler protocol: shared weights, one session for each stream."""

from __future__ import annotations

import torch

from streamlift.errors import UpscaleError
from streamlift.frames import Size
from streamlift.upscalers.base import OnCut, Pixels, UpscalerSpec
from streamlift.upscalers.flashvsr.attention import attention
from streamlift.upscalers.flashvsr.chunks import FIRST_FRAMES, STEP_FRAMES, ChunkOptions, Chunks
from streamlift.upscalers.flashvsr.config import BLOCK_PIXELS, CLIP_FRAMES, FIRST_LATENTS
from streamlift.upscalers.flashvsr.graphs import record_on_cuda
from streamlift.upscalers.flashvsr.memory import StreamMemory
from streamlift.upscalers.flashvsr.model import Model
from streamlift.upscalers.flashvsr.noise import noise_source
from streamlift.upscalers.flashvsr.selection import topk_from_area
from streamlift.upscalers.flashvsr.session import FlashVsrSession
from streamlift.upscalers.flashvsr.settings import Precision, Settings, Start

__all__ = ["FlashVsr", "dtype_for"]

_LIVE_CLIPS = 3
"""Two clips of the chunk that is decoded, and the one ahead of it."""


class FlashVsr:
    """Weights and settings; remembers nothing of any stream."""

    def __init__(self, name: str, model: Model, settings: Settings) -> None:
        """`model` is already on its device in its precision, see `Model.prepare`."""
        self.model, self.settings = model, settings
        self.spec = UpscalerSpec(
            name=name,
            scale=settings.scale,
            first=1 if settings.start is Start.PRIMED else FIRST_FRAMES,
            step=STEP_FRAMES,
            lag=CLIP_FRAMES,
            multiple=BLOCK_PIXELS // settings.scale,
            pixels=Pixels.RGB,
            on_cut=OnCut.CONTINUE,
        )

    def session_bytes(self, size: Size) -> int:
        """Bytes of one stream's memory, known without opening it.

        What a computation needs while it runs comes on top, once for all streams of a device.
        """
        return self._memory(size, "meta").nbytes()

    def open(self, size: Size, *, seed: int = 0) -> FlashVsrSession:
        """A session for frames of this size, a multiple of `spec.multiple` on both sides.

        Raises UpscaleError for another size, ConfigError when the settings keep no block at it.
        """
        settings, large = self.settings, size.times(self.settings.scale)
        memory = self._memory(size, self.model.device)
        options = ChunkOptions(
            topk=topk_from_area(large.height, large.width, settings.sparse_ratio),
            local_range=settings.local_range,
            attend=attention(settings.attention, self.model.device),
            colour=settings.colour,
            wavelet_levels=settings.wavelet_levels,
            decode_together=settings.decode_together,
            record=record_on_cuda() if settings.graph and self._on_cuda else None,
        )
        chunks = Chunks(self.model, memory, noise_source(settings.noise, seed), options)
        return FlashVsrSession(
            chunks, size, scale=settings.scale, start=settings.start, resize=settings.resize
        )

    @property
    def _on_cuda(self) -> bool:
        return self.model.device.type == "cuda"

    def _memory(self, size: Size, device: torch.device | str) -> StreamMemory:
        large = size.times(self.settings.scale)
        if large.width % BLOCK_PIXELS or large.height % BLOCK_PIXELS or not large.pixels:
            raise UpscaleError(
                f"FlashVSR cannot take {size}; pad the frames",
                found=str(size),
                expected=f"multiples of {self.spec.multiple}",
            )
        grid = (large.height // 8, large.width // 8)
        primed = self.settings.start is Start.PRIMED
        return StreamMemory.allocate(
            self.model.config,
            large.height,
            large.width,
            # A full start decodes six latents with their clips; all of a primed one's are equal.
            clips=_LIVE_CLIPS if primed else FIRST_LATENTS + 1,
            kv_units=self.settings.kv_units,
            decoder=self.model.decoder.new_memory(*grid, device, self.model.dtype),
            device=device,
            dtype=self.model.dtype,
        )


def dtype_for(precision: Precision, device: torch.device) -> torch.dtype:
    """The number format to compute in."""
    if precision is Precision.AUTO:
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    return torch.bfloat16 if precision is Precision.BFLOAT16 else torch.float32
