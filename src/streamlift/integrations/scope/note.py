"""A line of text in the picture: Scope shows its users the picture, and not the server's log."""

from __future__ import annotations

import logging
from typing import Any

import torch
from torch import Tensor

__all__ = ["Note"]

log = logging.getLogger(__name__)

_LEAST_HEIGHT = 12
_HEIGHTS = 32
"""Lines that would fit one above the other: the letters are a 32nd of the picture's height."""


class Note:
    """Writes one line along the lower edge; the letters are drawn once for a size and a text."""

    def __init__(self) -> None:
        self._drawn: tuple[tuple[str, int, int, torch.device], Tensor] | None = None

    def write(self, pictures: Tensor, text: str) -> None:
        """Into (n, H, W, 3) uint8, in place: the strip is darkened, the letters are white."""
        height, width = pictures.shape[1:3]
        key = (text, height, width, pictures.device)
        if self._drawn is None or self._drawn[0] != key:
            self._drawn = (key, _letters(text, height, width).to(pictures.device))
        letters = self._drawn[1]
        if letters.numel():
            strip = pictures[:, -letters.shape[0] :]
            torch.maximum(strip // 3, letters[None, :, :, None], out=strip)


def _letters(text: str, height: int, width: int) -> Tensor:
    """(h, W) uint8, 255 where a letter is; empty where nothing here can draw letters."""
    try:
        # Scope has it; our base install does not.
        from PIL import Image, ImageDraw, ImageFont
    except ImportError:
        log.warning("the picture cannot tell it (no Pillow here): %s", text)
        return torch.zeros(0, width, dtype=torch.uint8)
    size = max(_LEAST_HEIGHT, height // _HEIGHTS)
    strip = Image.new("L", (width, min(height, 2 * size)), 0)
    draw = ImageDraw.Draw(strip)
    font: Any = ImageFont.load_default(size)
    room = width - size
    if (wide := draw.textlength(text, font=font)) > room:
        font = ImageFont.load_default(max(6.0, size * room / wide))
    draw.text((size // 2, size // 4), text, fill=255, font=font)
    return torch.frombuffer(bytearray(strip.tobytes()), dtype=torch.uint8).view(-1, width)
