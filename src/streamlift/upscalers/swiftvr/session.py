"""One live stream: low-resolution frames in, as many restored ones out, in order."""

from __future__ import annotations

import torch
from torch import Tensor

from streamlift.frames import Size
from streamlift.upscalers.chunked import ChunkedSession
from streamlift.upscalers.flashvsr.settings import Start
from streamlift.upscalers.swiftvr.chunks import Chunks
from streamlift.upscalers.swiftvr.config import LATENT_FRAMES, LOOK_AHEAD

__all__ = ["SwiftVrSession"]


class SwiftVrSession(ChunkedSession):
    """All memory of one stream.

    A primed stream begins with four copies of its first frame; the first three outputs of the next
    chunk are pictures of these copies and are not given. A frame is uploaded and, with its latent,
    encoded as it comes.
    """

    _chunks: Chunks

    def __init__(self, chunks: Chunks, size: Size, *, start: Start) -> None:
        copies = LATENT_FRAMES if start is Start.PRIMED else 0
        super().__init__("SwiftVR", chunks, size, chunks.model.device, primed_with=copies)

    def _add(self, lr: Tensor, copies: int) -> None:
        frame = lr.to(self._device, torch.float32, non_blocking=True)
        for _ in range(copies):
            self._chunks.add(frame)

    def _missing(self) -> int:
        # The latents that wait, the last filled up; or one more, for the frames that lag behind.
        waiting = self._chunks.waiting
        return -waiting % LATENT_FRAMES if waiting else LATENT_FRAMES

    def _real(self, frames: Tensor, first: int) -> Tensor:
        if not self._primed_with or first == 0:
            return frames
        return frames[max(0, 1 + LOOK_AHEAD - first) :]
