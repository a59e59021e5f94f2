"""What every upscaler is: weights shared by all streams, and sessions that hold one stream each.

Two laws shape this file. *Models see pixels, the engine sees frames*: timestamps, padding to
`multiple` and cropping back live in the engine. *Reset is forgetting, after paying*: there is no
`reset()`; `finish()` delivers every frame still owed, then a new session is opened.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol, TypeVar, runtime_checkable

from streamlift.frames import Size

__all__ = [
    "Batches",
    "OnCut",
    "Parkable",
    "Pixels",
    "Redoable",
    "UpscaleSession",
    "Upscaler",
    "UpscalerSpec",
    "WorksIn",
]

P = TypeVar("P")


class Pixels(StrEnum):
    """The pixel form a model takes and gives.

    YUV420: `frames.Planes`, one picture an item.
    RGB: `torch.Tensor` (n, 3, H, W), float, values in [0, 1]; n = 1 in, any n >= 1 out.
    """

    YUV420 = "yuv420"
    RGB = "rgb"


class OnCut(StrEnum):
    """What the engine does with the session at a scene cut."""

    CONTINUE = "continue"
    RESTART = "restart"


@dataclass(frozen=True, slots=True)
class UpscalerSpec:
    """The arithmetic of one upscaler, all the engine needs to schedule it.

    first: frames before the first output; step: frames a computation takes after that;
    lag: frames still owed right after a step; multiple: the low-resolution side must divide by it.
    """

    name: str
    scale: int
    first: int = 1
    step: int = 1
    lag: int = 0
    multiple: int = 1
    pixels: Pixels = Pixels.YUV420
    on_cut: OnCut = OnCut.CONTINUE

    @property
    def max_owed(self) -> int:
        """Frames that may be owed at most between pushes."""
        return max(self.first, self.step + self.lag) - 1

    @property
    def chunked(self) -> bool:
        return self.step > 1 or self.lag > 0


class UpscaleSession(Protocol[P]):
    """All memory of one stream in one upscaler. Used by one thread only."""

    @property
    def wanted(self) -> int:
        """Frames still to push before the next computation; 1 for per-frame models."""
        ...

    def push(self, lr: P) -> Iterator[P]:
        """Take ONE low-resolution frame; yield groups of outputs as each is ready.

        The caller exhausts the iterator before the next push. Raises UpscaleError.
        """
        ...

    def finish(self) -> Iterator[P]:
        """Yield every frame still owed; the session is over afterwards."""
        ...


class Upscaler(Protocol):
    """Weights; shared by all streams; remembers nothing of any of them."""

    @property
    def spec(self) -> UpscalerSpec: ...

    def session_bytes(self, size: Size) -> int:
        """Device memory a session at this low-resolution size will take, in bytes."""
        ...

    def open(self, size: Size, *, seed: int = 0) -> UpscaleSession[Any]:
        """Open a session for one stream; `size` is the padded low-resolution size."""
        ...


@runtime_checkable
class Parkable(Protocol):
    """A session whose device memory can be moved to the host while its stream is idle."""

    def park(self) -> None: ...

    def resume(self) -> None: ...


@runtime_checkable
class Redoable(Protocol):
    """A session that can make its last output anew with a wider number range."""

    def redo(self) -> Any:
        """The last output once more; after a picture that was not of numbers."""
        ...


@runtime_checkable
class Batches(Protocol):
    """An upscaler that takes several frames of a stream at once where delay does not matter."""

    def batched(self, count: int) -> Upscaler:
        """The same weights, `count` frames a computation; its pictures are those of one by one."""
        ...


@runtime_checkable
class WorksIn(Protocol):
    """An upscaler that needs memory while it computes, beside its sessions': once for all."""

    def workspace_bytes(self, size: Size) -> int:
        """Device memory that one step at this low-resolution size takes and gives back."""
        ...
