"""SwiftVR behind the upscaler protocol: shared weights, one session for each stream."""

from __future__ import annotations

from functools import cached_property

import torch

from streamlift.errors import UpscaleError
from streamlift.frames import Size
from streamlift.upscalers.base import OnCut, Pixels, UpscalerSpec
from streamlift.upscalers.flashvsr.graphs import Record, record_on_cuda
from streamlift.upscalers.flashvsr.settings import Start
from streamlift.upscalers.swiftvr.chunks import ChunkOptions, Chunks
from streamlift.upscalers.swiftvr.config import LATENT_FRAMES, LOOK_AHEAD, TOKEN_STRIDE
from streamlift.upscalers.swiftvr.memory import StreamMemory
from streamlift.upscalers.swiftvr.model import Model
from streamlift.upscalers.swiftvr.picture import Canvas
from streamlift.upscalers.swiftvr.session import SwiftVrSession
from streamlift.upscalers.swiftvr.settings import Settings

__all__ = ["SwiftVr"]


class SwiftVr:
    """Weights and settings; remembers nothing of any stream."""

    def __init__(self, name: str, model: Model, settings: Settings) -> None:
        """`model` is already on its device in its precision, see `Model.prepare`."""
        self.model, self.settings = model, settings
        frames = LATENT_FRAMES * settings.latents
        self.spec = UpscalerSpec(
            name=name,
            scale=settings.scale,
            first=1 if settings.start is Start.PRIMED else frames,
            step=frames,
            lag=LOOK_AHEAD,
            multiple=TOKEN_STRIDE // settings.scale,
            pixels=Pixels.RGB,
            on_cut=OnCut.CONTINUE,
        )

    def session_bytes(self, size: Size) -> int:
        """Bytes of one stream's memory, known without opening it."""
        return self._memory(size, "meta").nbytes()

    def workspace_bytes(self, size: Size) -> int:
        """What a computation needs while it runs, once for all streams of a device.

        Five times the autoencoder's widest map: a latent's four frames at half the output's sides.
        """
        large, width = size.times(self.settings.scale), self.model.config.reae.encoder
        return 5 * width * large.pixels * self.model.dtype.itemsize

    def open(self, size: Size, *, seed: int = 0) -> SwiftVrSession:
        """A session for frames of this size, a multiple of `spec.multiple` on both sides.

        There is no randomness: `seed` changes nothing. Raises UpscaleError for another size.
        """
        settings = self.settings
        options = ChunkOptions(
            latents=settings.latents,
            overlap=settings.overlap,
            seam=settings.seam,
            decode_together=settings.decode_together,
            record=self._record if settings.graph and self._on_cuda else None,
        )
        memory = self._memory(size, self.model.device)
        chunks = Chunks(self.model, memory, self._canvas(size), options)
        chunks.record()
        return SwiftVrSession(chunks, size, start=settings.start)

    @property
    def _on_cuda(self) -> bool:
        return self.model.device.type == "cuda"

    @cached_property
    def _record(self) -> Record:
        """One for all streams: their graphs never run at the same time and share working memory."""
        return record_on_cuda()

    def _canvas(self, size: Size) -> Canvas:
        return Canvas.of(
            size.times(self.settings.scale),
            seam=self.settings.seam,
            window=self.model.config.dit.window,
            resize=self.settings.resize,
        )

    def _memory(self, size: Size, device: torch.device | str) -> StreamMemory:
        multiple = self.spec.multiple
        if size.width % multiple or size.height % multiple or not size.pixels:
            raise UpscaleError(
                f"SwiftVR cannot take {size}; pad the frames",
                found=str(size),
                expected=f"multiples of {multiple}",
            )
        return StreamMemory.allocate(
            self.model,
            size,
            self._canvas(size),
            latents=self.settings.latents,
            overlap=self.settings.overlap,
            device=device,
        )
