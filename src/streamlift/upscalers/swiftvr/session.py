"""One live stream: low-resolution frames in, as many restored ones out, in order."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from streamlift.errors import OutOfMemory, UpscaleError
from streamlift.frames import Size
from streamlift.upscalers.flashvsr.settings import Start
from streamlift.upscalers.swiftvr.chunks import Chunks
from streamlift.upscalers.swiftvr.config import LATENT_FRAMES, LOOK_AHEAD

__all__ = ["SwiftVrSession"]


class SwiftVrSession:
    """All memory of one stream, and the account of what it owes.

    A primed stream begins with four copies of its first frame, so that an answer is there at once;
    the first three outputs of the next chunk are pictures of these copies and are not given.
    """

    def __init__(self, chunks: Chunks, size: Size, *, start: Start) -> None:
        self._chunks = chunks
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
        if self._primed and self._taken == 0:
            return 1
        return self._chunks.frames - self._chunks.waiting

    def push(self, lr: Tensor) -> Iterator[Tensor]:
        """Take one frame (1, 3, H, W) in [0, 1]; yield groups (n, 3, scale * H, scale * W).

        The frame is uploaded and, with its latent, encoded at once; a chunk that is due is
        computed as the iterator is consumed. Raises UpscaleError for a wrong shape or state,
        OutOfMemory when the device is full.
        """
        self._check(lr)
        priming = self._primed and self._taken == 0
        self._add(lr, LATENT_FRAMES if priming else 1)
        self._last = lr
        self._taken += 1
        self._busy = priming or self._chunks.waiting == self._chunks.frames
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
        """Move the stream's memory back to the device."""
        with _out_of_memory():
            self._chunks.move(self._chunks.model.device)
        self._parked = False

    def nbytes(self) -> int:
        """Bytes of the stream's memory."""
        return self._chunks.memory.nbytes()

    def _settle(self) -> Iterator[Tensor]:
        last = self._last
        # At most two chunks: the frames that wait, and the three that lag behind.
        while last is not None and self._given < self._taken:
            missing = -self._chunks.waiting % LATENT_FRAMES
            self._add(last, missing if self._chunks.waiting else LATENT_FRAMES)
            yield from self._run()

    def _add(self, lr: Tensor, copies: int) -> None:
        with _out_of_memory():
            frame = lr.to(self._chunks.model.device, torch.float32, non_blocking=True)
            for _ in range(copies):
                self._chunks.add(frame)

    def _run(self) -> Iterator[Tensor]:
        """The chunk that waits: of its frames those that are owed."""
        groups = self._chunks.run()
        while True:
            with _out_of_memory():
                frames = next(groups, None)
            if frames is None:
                break
            owed = self._select(frames)
            if owed.shape[0]:
                yield owed
        self._busy = False

    def _select(self, frames: Tensor) -> Tensor:
        """Those of the model's next outputs that are delivered."""
        first, self._made = self._made, self._made + frames.shape[0]
        if self._primed and first > 0:
            frames = frames[max(0, 1 + LOOK_AHEAD - first) :]
        owed = frames[: self._taken - self._given]
        self._given += owed.shape[0]
        return owed

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
            f"the device has no memory left for SwiftVR: {error}; open fewer sessions"
        ) from error
