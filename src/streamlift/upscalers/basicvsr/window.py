"""One stream through a net that looks both ways: overlapping windows of a clip without end.

Every output of these nets depends on all later frames, so the clip is cut: each run sees `past`
frames that were given already, `step` that it gives, and `ahead` that it only looks at. What lies
in the overlap is dropped, nothing is blended, and no feature is carried from window to window.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from streamlift.errors import OutOfMemory, UpscaleError

__all__ = ["SMALLEST_WINDOW", "Window", "WindowSession"]

log = logging.getLogger(__name__)

SMALLEST_WINDOW = 6
"""Frames in a window that memory made small: fewer would hardly see any neighbour."""

Run = Callable[[Tensor, int], Iterator[Tensor]]
"""(clip (t, 3, H, W), first) -> the enlarged frames (1, 3, sH, sW) from number `first` on."""


@dataclass(frozen=True, slots=True)
class Window:
    """Frames before, given and after, in one run."""

    past: int
    step: int
    ahead: int

    @property
    def frames(self) -> int:
        return self.past + self.step + self.ahead

    def halved(self) -> Window | None:
        """Half as many frames, at most a quarter on each side; None if that is too few."""
        if self.frames <= SMALLEST_WINDOW:
            return None
        frames = max(SMALLEST_WINDOW, self.frames // 2)
        past, ahead = (min(side, frames // 4) for side in (self.past, self.ahead))
        return Window(past, frames - past - ahead, ahead)


class WindowSession:
    """All memory of one stream: the last frames of its input.

    `window` is the one that runs now. When the device has no memory for it, it is halved, in the
    middle of a run if need be, and the frames not yet given come from smaller windows.
    """

    def __init__(
        self,
        name: str,
        window: Window,
        shape: tuple[int, int, int, int],
        prepare: Callable[[Tensor], Tensor],
        run: Run,
    ) -> None:
        """`shape` of a frame. `prepare`: a frame to the device, as `run` takes it."""
        self._name, self._shape = name, shape
        self._prepare, self._run = prepare, run
        self._wished = self.window = window
        self.wanted = window.ahead + window.step
        self._clip: list[Tensor] = []
        self._given = 0  # of the frames in `_clip`
        self._closed = False

    def push(self, lr: Tensor) -> Iterator[Tensor]:
        """(1, 3, H, W) RGB in [0, 1]; yields (1, 3, sH, sW) frame by frame once a window is full.

        Raises UpscaleError for another shape or after the end, OutOfMemory when even the smallest
        window does not fit.
        """
        if self._closed or tuple(lr.shape) != self._shape:
            found = "a finished session" if self._closed else tuple(lr.shape)
            raise UpscaleError(
                f"{self._name} cannot take this frame: {found}, expected {self._shape}",
                found=found,
                expected=self._shape,
            )
        self._clip.append(self._prepare(lr))
        self.wanted -= 1
        return self._give_due() if self.wanted == 0 else iter(())

    def finish(self) -> Iterator[Tensor]:
        """Give all that is owed, with what there is to look at; the session is over."""
        self._closed = True
        yield from self._give(until=len(self._clip))
        self._clip.clear()
        self._given = 0

    def park(self) -> None:
        """Move the frames to the host."""
        self._clip = [frame.cpu() for frame in self._clip]

    def resume(self) -> None:
        """Move them back."""
        self._clip = [self._prepare(frame) for frame in self._clip]

    def _give_due(self) -> Iterator[Tensor]:
        self.wanted = self._wished.step
        yield from self._give(until=len(self._clip) - self._wished.ahead)
        old = max(0, self._given - self._wished.past)
        del self._clip[:old]
        self._given -= old

    def _give(self, until: int) -> Iterator[Tensor]:
        """Frames up to number `until` of the clip, in windows as large as memory allows."""
        while self._given < until:
            window = self.window
            begin = max(0, self._given - window.past)
            count = min(window.step, until - self._given)
            end = min(len(self._clip), self._given + count + window.ahead)
            try:
                frames = self._run(torch.cat(self._clip[begin:end]), self._given - begin)
                for _ in range(count):
                    frame = next(frames)
                    self._given += 1
                    yield frame
            except OutOfMemory:
                smaller = window.halved()
                if smaller is None:
                    raise
                self.window = smaller
                log.warning(
                    "%s: no memory for windows of %d frames; going on with %d",
                    self._name,
                    window.frames,
                    smaller.frames,
                )
            finally:
                frames = iter(())  # the run's own memory is free before the next begins
