"""FlashVSR behind the upscaler protocol: shared weights, one session for each stream."""

from __future__ import annotations

import weakref
from dataclasses import dataclass

import torch

from streamlift.errors import UpscaleError
from streamlift.frames import Size
from streamlift.upscalers.base import OnCut, Pixels, UpscalerSpec
from streamlift.upscalers.flashvsr.attention import attention
from streamlift.upscalers.flashvsr.chunks import FIRST_FRAMES, STEP_FRAMES, ChunkOptions, Chunks
from streamlift.upscalers.flashvsr.config import (
    BLOCK_PIXELS,
    CLIP_FRAMES,
    FIRST_LATENTS,
    DecoderConfig,
)
from streamlift.upscalers.flashvsr.graphs import Record, StepGraphs, record_on_cuda
from streamlift.upscalers.flashvsr.memory import StreamMemory
from streamlift.upscalers.flashvsr.model import Model
from streamlift.upscalers.flashvsr.noise import noise_source
from streamlift.upscalers.flashvsr.selection import topk_from_area
from streamlift.upscalers.flashvsr.session import FlashVsrSession
from streamlift.upscalers.flashvsr.settings import Precision, Settings, Start

__all__ = ["FlashVsr", "dtype_for"]

_LIVE_CLIPS = 3
"""Two clips of the chunk that is decoded, and the one ahead of it."""


@dataclass(frozen=True, slots=True, eq=False)
class _Recorded:
    """A stream's memory and the recordings in it, and the session that uses both, if it lives."""

    size: Size
    memory: StreamMemory
    graphs: StepGraphs
    user: weakref.ref[FlashVsrSession]

    @property
    def idle(self) -> bool:
        session = self.user()
        return session is None or session.closed


class FlashVsr:
    """Weights and settings; remembers nothing of any stream.

    With recordings, the memory of a stream that has ended is kept for the next one of its size,
    as recordings are bound to addresses: one at most, and given up when another size is opened.
    """

    def __init__(
        self, name: str, model: Model, settings: Settings, *, record: Record | None = None
    ) -> None:
        """`model` is already on its device in its precision, see `Model.prepare`; `record`: how
        to record the steady step, by default as CUDA graphs if the settings say so."""
        self.model, self.settings = model, settings
        if record is None and settings.graph and model.device.type == "cuda":
            record = record_on_cuda()
        self._record = record
        self._recorded: list[_Recorded] = []
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
        """Bytes of one stream's memory that opening it will take, known without opening it."""
        kept = sum(one.memory.nbytes() for one in tuple(self._recorded) if one.idle)
        return max(0, self._memory(size, "meta").nbytes() - kept)

    def workspace_bytes(self, size: Size) -> int:
        """What a computation needs while it runs, once for all streams of a device.

        The decoder's last stage is the widest by far: a latent's four frames at output size, of
        which three are alive at once, and twice as many where both latents are decoded together.
        """
        large, decoder = size.times(self.settings.scale), self.model.config.decoder
        wide = decoder.channels[3] if isinstance(decoder, DecoderConfig) else 4 * decoder.base
        latents = 2 if self.settings.decode_together else 1
        itemsize = self.model.dtype.itemsize
        return 3 * latents * CLIP_FRAMES * wide * large.pixels * itemsize

    def open(self, size: Size, *, seed: int = 0) -> FlashVsrSession:
        """A session for frames of this size, a multiple of `spec.multiple` on both sides.

        With recordings the first of a size takes a moment: all is compiled and recorded here, and
        nothing once frames come. Raises UpscaleError for another size, ConfigError when the
        settings keep no block at it.
        """
        settings, large = self.settings, size.times(self.settings.scale)
        options = ChunkOptions(
            topk=topk_from_area(large.height, large.width, settings.sparse_ratio),
            local_range=settings.local_range,
            attend=attention(settings.attention, self.model.device),
            colour=settings.colour,
            wavelet_levels=settings.wavelet_levels,
            decode_together=settings.decode_together,
            record=self._record,
        )
        kept = self._kept(size)
        if kept is None:
            memory, graphs = self._memory(size, self.model.device), None
        else:
            memory, graphs = kept.memory, kept.graphs
            memory.clear()
        noise = noise_source(settings.noise, seed)
        chunks = Chunks(self.model, memory, noise, options, graphs)
        session = FlashVsrSession(
            chunks, size, scale=settings.scale, start=settings.start, resize=settings.resize
        )
        if chunks.graphs is not None:
            self._recorded.append(_Recorded(size, memory, chunks.graphs, weakref.ref(session)))
        return session

    def _kept(self, size: Size) -> _Recorded | None:
        """An idle memory of this size with its recordings; all other idle ones are given up."""
        idle = [one for one in self._recorded if one.idle]
        self._recorded = [one for one in self._recorded if not one.idle]
        return next((one for one in idle if one.size == size and one.graphs), None)

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
