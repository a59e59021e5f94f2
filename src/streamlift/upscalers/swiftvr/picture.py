"""From the publisher's frames to the network's canvas and back: enlarge, pad, crop."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from torch import Tensor
from torch.nn import functional as F

from streamlift.frames import Size
from streamlift.upscalers.swiftvr.config import TOKEN_STRIDE
from streamlift.upscalers.swiftvr.windows import Seam

__all__ = ["Canvas", "Fill", "Resize"]


class Resize(StrEnum):
    """BILINEAR is what the model was released with; BICUBIC is the reference's option."""

    BILINEAR = "bilinear"
    BICUBIC = "bicubic"


class Fill(StrEnum):
    """What stands right of and below the picture: BLACK as in the reference, or its EDGE."""

    BLACK = "black"
    EDGE = "edge"


@dataclass(frozen=True, slots=True)
class Canvas:
    """One picture size: `target` is delivered, `padded` is what the network works on."""

    target: Size
    padded: Size
    fill: Fill = Fill.BLACK
    resize: Resize = Resize.BILINEAR

    @classmethod
    def of(
        cls,
        target: Size,
        *,
        seam: Seam = Seam.EXACT,
        window: tuple[int, int] = (16, 16),
        resize: Resize = Resize.BILINEAR,
    ) -> Canvas:
        """Sides up to whole tokens; a `canvas` seam adds two tokens to a side of two windows.

        What it adds is the picture's edge, as black beside the picture would be seen by it.
        """
        high, wide = (_tokens(side) for side in (target.height, target.width))
        fill = Fill.BLACK
        if seam is Seam.CANVAS:
            extra = [2 if n == 2 * w else 0 for n, w in zip((high, wide), window, strict=True)]
            high, wide = high + extra[0], wide + extra[1]
            fill = Fill.EDGE if any(extra) else fill
        padded = Size(wide * TOKEN_STRIDE, high * TOKEN_STRIDE)
        return cls(target, padded, fill, resize)

    @property
    def tokens(self) -> tuple[int, int]:
        """Height and width in tokens."""
        return self.padded.height // TOKEN_STRIDE, self.padded.width // TOKEN_STRIDE

    def spread(self, frames: Tensor) -> Tensor:
        """(n, 3, h, w) in [0, 1] -> (n, 3, padded height, padded width)."""
        large = (self.target.height, self.target.width)
        if tuple(frames.shape[2:]) != large:
            frames = F.interpolate(
                frames, size=large, mode=self.resize.value, align_corners=False, antialias=False
            )
            if self.resize is Resize.BICUBIC:
                frames = frames.clamp(0, 1)
        right = self.padded.width - self.target.width
        below = self.padded.height - self.target.height
        if not right and not below:
            return frames
        mode = "replicate" if self.fill is Fill.EDGE else "constant"
        return F.pad(frames, (0, right, 0, below), mode=mode)

    def crop(self, frames: Tensor) -> Tensor:
        """The picture out of the padded frames."""
        return frames[..., : self.target.height, : self.target.width]


def _tokens(side: int) -> int:
    return -(-side // TOKEN_STRIDE)
