"""One live stream: low-resolution frames in, as many restored ones out, in order."""

from __future__ import annotations

import torch
from torch import Tensor

from streamlift.frames import Size
from streamlift.upscalers.chunked import ChunkedSession
from streamlift.upscalers.flashvsr.chunks import FIRST_FRAMES, Chunks
from streamlift.upscalers.flashvsr.config import CLIP_FRAMES
from streamlift.upscalers.flashvsr.resize import Resize, enlarge
from streamlift.upscalers.flashvsr.settings import Start

__all__ = ["FlashVsrSession"]

_FIRST_GIVEN = FIRST_FRAMES - CLIP_FRAMES - 1
"""The last output of chunk 0: the one a primed stream gives for its first frame."""


class FlashVsrSession(ChunkedSession):
    """All memory of one stream.

    A primed stream begins with 25 copies of its first frame: of the outputs 0 to 24, all pictures
    of that frame, only number 20 is given. A frame is uploaded, enlarged and, with its clip,
    projected as it comes; of a chunk the first latent's frames are given before the second's.
    """

    _chunks: Chunks

    def __init__(
        self, chunks: Chunks, size: Size, *, scale: int, start: Start, resize: Resize
    ) -> None:
        copies = FIRST_FRAMES if start is Start.PRIMED else 0
        super().__init__("FlashVSR", chunks, size, chunks.model.device, primed_with=copies)
        self._scale, self._resize = scale, resize

    def _add(self, lr: Tensor, copies: int) -> None:
        frame = lr.to(self._device, torch.float32, non_blocking=True)
        # (1, 3, H, W) in [0, 1] -> (3, scale * H, scale * W) in [-1, 1]
        large = enlarge(frame, self._scale, self._resize)[0] * 2 - 1
        for _ in range(copies):
            self._chunks.add(large)

    def _missing(self) -> int:
        return self._chunks.wanted

    def _real(self, frames: Tensor, first: int) -> Tensor:
        if not self._primed_with or first >= FIRST_FRAMES:
            return frames
        given = _FIRST_GIVEN - first
        if 0 <= given < frames.shape[0]:
            return frames[given : given + 1]
        return frames[FIRST_FRAMES - first :]

    def _in_range(self, frames: Tensor) -> Tensor:
        return (frames + 1) / 2
