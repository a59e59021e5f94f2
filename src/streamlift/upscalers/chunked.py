"""The account of one stream of a model that takes frames in chunks: what was taken, made and given.

A *primed* stream begins with copies of its first frame, so that an answer is there at once; of
what the model makes of copies only that answer is given.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, Protocol

import torch
from torch import Tensor

from streamlift.errors import UpscaleError
from streamlift.frames import Size
from streamlift.upscalers.faults import torch_faults

__all__ = ["ChunkRun", "ChunkedSession"]


class ChunkRun(Protocol):
    """A model run over one stream's memory."""

    memory: Any

    @property
    def wanted(self) -> int:
        """Frames to add before the next whole chunk."""
        ...

    def run(self) -> Iterator[Tensor]:
        """The chunk that waits: groups of frames, in order."""
        ...

    def move(self, device: torch.device | str) -> None: ...

    def record(self) -> None:
        """Make anew what is bound to the addresses of the memory, if anything is."""
        ...


class ChunkedSession(ABC):
    """An `UpscaleSession` that can be parked. A model's own says how frames are taken (`_add`),
    and which of its outputs stand for frames of the stream (`_real`)."""

    def __init__(
        self, name: str, chunks: ChunkRun, size: Size, device: torch.device, *, primed_with: int
    ) -> None:
        """`primed_with`: copies of the first frame that a primed stream begins with, or 0."""
        self._name, self._chunks, self._device = name, chunks, device
        self._shape = (1, 3, size.height, size.width)
        self._primed_with = primed_with
        self._last: Tensor | None = None
        self._taken = 0
        self._given = 0
        self._made = 0  # outputs of the model, delivered or not
        self._busy = self._closed = self._parked = False

    @property
    def wanted(self) -> int:
        """Frames still to push before the next computation."""
        return 1 if self._priming else self._chunks.wanted

    @property
    def closed(self) -> bool:
        """Whether it has ended; what it still owes is computed before anything else is."""
        return self._closed

    def push(self, lr: Tensor) -> Iterator[Tensor]:
        """Take one frame (1, 3, H, W) in [0, 1]; yield groups (n, 3, scale * H, scale * W).

        What can be done of a frame alone is done at once; a chunk that is due is computed as the
        iterator is consumed. Raises UpscaleError for a wrong shape or state and when the device
        fails, OutOfMemory when it is full.
        """
        self._check(lr)
        priming = self._priming
        with torch_faults(self._name, self._device):
            self._add(lr, self._primed_with if priming else 1)
        self._last = lr
        self._taken += 1
        self._busy = priming or self._chunks.wanted == 0
        return self._run() if self._busy else iter(())

    def finish(self) -> Iterator[Tensor]:
        """Yield the frames still owed, from copies of the last one; the session ends.

        It owes nothing after that, however often it is asked.
        """
        if self._closed:
            return iter(())
        self._check_open()
        self._closed = True
        return self._settle()

    def park(self) -> None:
        """Move the stream's memory to the host, until `resume`."""
        self._chunks.move("cpu")
        self._parked = True

    def resume(self) -> None:
        """Move the stream's memory back to the device, and record its step there if it was."""
        with torch_faults(self._name, self._device):
            self._chunks.move(self._device)
            self._chunks.record()
        self._parked = False

    def nbytes(self) -> int:
        """Bytes of the stream's memory."""
        return int(self._chunks.memory.nbytes())

    @abstractmethod
    def _add(self, lr: Tensor, copies: int) -> None:
        """Take this frame so many times."""

    @abstractmethod
    def _missing(self) -> int:
        """Copies of the last frame that make a chunk of what waits, at the end of a stream."""

    @abstractmethod
    def _real(self, frames: Tensor, first: int) -> Tensor:
        """Those of the outputs `first` and following that stand for frames of the stream."""

    def _in_range(self, frames: Tensor) -> Tensor:
        """The model's values as [0, 1]."""
        return frames

    @property
    def _priming(self) -> bool:
        return self._primed_with > 0 and self._taken == 0

    def _settle(self) -> Iterator[Tensor]:
        last = self._last
        # Two chunks at most: the frames that wait, and those that the model lags behind.
        while last is not None and self._given < self._taken:
            with torch_faults(self._name, self._device):
                self._add(last, self._missing())
            yield from self._run()

    def _run(self) -> Iterator[Tensor]:
        """The chunk that waits: of its frames those that are owed."""
        groups = self._chunks.run()
        while True:
            with torch_faults(self._name, self._device):
                frames = next(groups, None)
            if frames is None:
                break
            first, self._made = self._made, self._made + frames.shape[0]
            owed = self._real(frames, first)[: self._taken - self._given]
            self._given += owed.shape[0]
            if owed.shape[0]:
                yield self._in_range(owed)
        self._busy = False

    def _check(self, lr: Tensor) -> None:
        self._check_open()
        if tuple(lr.shape) != self._shape:
            raise UpscaleError(
                "frame does not fit the session; open one for each size",
                found=tuple(lr.shape),
                expected=self._shape,
            )

    def _check_open(self) -> None:
        for wrong, found, expected in (
            (self._closed, "finished", "an open session: open another"),
            (self._parked, "parked", "a resumed session: call resume() first"),
            (self._busy, "outputs not taken", "the last push's iterator exhausted"),
        ):
            if wrong:
                raise UpscaleError(
                    f"the session cannot take this now: {found}", found=found, expected=expected
                )
