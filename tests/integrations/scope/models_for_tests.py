"""Small upscalers with the arithmetic of FlashVSR and Real-ESRGAN, but not their cost."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from streamlift.errors import OutOfMemory
from streamlift.frames import Size
from streamlift.upscalers.base import OnCut, Pixels, Upscaler, UpscalerSpec


class NearestChunks:
    """Nearest-neighbour x2 in RGB; primed like FlashVSR: 1 frame, then 8 for 4, then 8 for 8."""

    def __init__(
        self,
        *,
        first: int = 1,
        step: int = 8,
        lag: int = 4,
        on_cut: OnCut = OnCut.CONTINUE,
        multiple: int = 1,
        out_of_memory_at: int = -1,
        fail_at: int = -1,
    ) -> None:
        self.spec = UpscalerSpec("nearest", 2, first, step, lag, multiple, Pixels.RGB, on_cut)
        self.out_of_memory_at = out_of_memory_at
        self.fail_at = fail_at
        self.opened: list[Size] = []

    def session_bytes(self, size: Size) -> int:
        return 0

    def open(self, size: Size, *, seed: int = 0) -> NearestSession:
        self.opened.append(size)
        return NearestSession(self)


class NearestSession:
    def __init__(self, upscaler: NearestChunks) -> None:
        self._upscaler = upscaler
        self._owed: deque[Tensor] = deque()
        self._pushed = 0
        self.wanted = upscaler.spec.first

    def push(self, lr: Tensor) -> Iterator[Tensor]:
        if self._pushed == self._upscaler.out_of_memory_at:
            raise OutOfMemory("told to")
        if self._pushed == self._upscaler.fail_at:
            raise ZeroDivisionError("told to")
        self._pushed += 1
        self._owed.append(lr)
        self.wanted -= 1
        if self.wanted == 0:
            first_of_all = self._pushed == self._upscaler.spec.first
            self.wanted = self._upscaler.spec.step
            yield from self._give(0 if first_of_all else self._upscaler.spec.lag)

    def finish(self) -> Iterator[Tensor]:
        yield from self._give(0)

    def _give(self, lag: int) -> Iterator[Tensor]:
        out = [self._owed.popleft() for _ in range(len(self._owed) - lag)]
        if out:
            yield F.interpolate(torch.cat(out), scale_factor=2, mode="nearest")


def chunked_or_single(choice: str, device: torch.device) -> Upscaler:
    """`flashvsr` in chunks, anything else frame by frame."""
    if choice == "flashvsr":
        return NearestChunks()
    return NearestChunks(first=1, step=1, lag=0)
