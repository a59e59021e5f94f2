"""One live stream: low-resolution frames in, as many restored ones out, in order."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from streamlift.errors import OutOfMemory, UpscaleError
from streamlift.frames import Size
from streamlift.upscalers.flashvsr.chunks import FIRST_FRAMES, Chunks
from streamlift.upscalers.flashvsr.config import CLIP_FRAMES
from streamlift.upscalers.flashvsr.resize import Resize, enlarge
from streamlift.upscalers.flashvsr.settings import Start

__all__ = ["FlashVsrSession"]

_FIRST_GIVEN = FIRST_FRAMES - CLIP_FRAMES - 1
"""The last output of chunk 0: the one a primed stream gives for its first frame."""


class FlashVsrSession:
    """All memory of one stream, and the account of what it owes.

    A primed stream begins with 25 copies of its first frame, so that an answer is there at once:
    of the outputs 0 to 24, all pictures of that frame, only number 20 is given.
    """

    def __init__(
        self, chunks: Chunks, size: Size, *, scale: int, start: Start, resize: Resize
    ) -> None:
        self._chunks, self._scale, self._resize = chunks, scale, resize
        self._shape = (1, 3, size.height, size.width)
        self._primed = start is Start.PRIMED
        self._last: Tensor | None = None
        self._taken = 0
        self._given = 0
        self._made = 0  # outputs of the model, delivered or not
        self._busy = self._closed = self._parked = False

    @property
    def wanted(self) -> int:
        """Frames still to push before the next computation."""
        return 1 if self._primed and self._taken == 0 else self._chunks.wanted

    @property
    def closed(self) -> bool:
        """Whether it has ended; what it still owes is computed before anything else is."""
        return self._closed

    def push(self, lr: Tensor) -> Iterator[Tensor]:
        """Take one frame (1, 3, H, W) in [0, 1]; yield groups (n, 3, scale * H, scale * W).

        The frame is uploaded, enlarged and, with its clip, projected at once; a chunk that is due
        is computed as the iterator is consumed, its first latent's frames before the second's.
        Raises UpscaleError for a wrong shape or state, OutOfMemory when the device is full.
        """
        self._check(lr)
        with _out_of_memory():
            last = self._enlarge(lr)
            copies = FIRST_FRAMES if self._primed and self._taken == 0 else 1
            for _ in range(copies):
                self._chunks.add(last)
        self._last = lr
        self._taken += 1
        self._busy = self._chunks.wanted == 0
        return self._due()

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
        """Move the stream's memory back to the device."""
        with _out_of_memory():
            self._chunks.move(self._chunks.model.device)
            self._chunks.record()
        self._parked = False

    def nbytes(self) -> int:
        """Bytes of the stream's memory."""
        return self._chunks.memory.nbytes()

    def _settle(self) -> Iterator[Tensor]:
        if self._last is None:
            return
        with _out_of_memory():
            last = self._enlarge(self._last)
        # At most two chunks: seven frames that wait and four that lag behind.
        while self._given < self._taken:
            with _out_of_memory():
                for _ in range(self._chunks.wanted):
                    self._chunks.add(last)
            yield from self._due()

    def _due(self) -> Iterator[Tensor]:
        """Run the next chunk if it is complete, and give what of it is owed."""
        if self._chunks.wanted == 0:
            groups = self._chunks.run()
            while True:
                with _out_of_memory():
                    frames = next(groups, None)
                if frames is None:
                    break
                owed = self._select(frames)
                if owed.shape[0]:
                    yield (owed + 1) / 2
        self._busy = False

    def _select(self, frames: Tensor) -> Tensor:
        """Those of the model's next outputs that are delivered."""
        first, self._made = self._made, self._made + frames.shape[0]
        if self._primed and first < FIRST_FRAMES:
            given = _FIRST_GIVEN - first
            if 0 <= given < frames.shape[0]:
                frames = frames[given : given + 1]
            else:
                frames = frames[FIRST_FRAMES - first :]
        owed = frames[: self._taken - self._given]
        self._given += owed.shape[0]
        return owed

    def _enlarge(self, lr: Tensor) -> Tensor:
        """(1, 3, H, W) in [0, 1] -> (3, scale * H, scale * W) in [-1, 1] on the device."""
        frame = lr.to(self._chunks.model.device, torch.float32, non_blocking=True)
        return enlarge(frame, self._scale, self._resize)[0] * 2 - 1

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


@contextmanager
def _out_of_memory() -> Iterator[None]:
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise OutOfMemory(
            f"the device has no memory left for FlashVSR: {error}; open fewer sessions"
        ) from error
