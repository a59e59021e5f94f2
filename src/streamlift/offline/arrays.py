"""Enlarging pixel arrays: RGB at full chroma, 8 or 16 bits, alpha beside."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import cv2
import numpy as np

from streamlift.clock import Clock
from streamlift.engine.chain import UpscaleChain
from streamlift.errors import UpscaleError
from streamlift.frames import Colour, Frame, Planes, Size, Stabilise
from streamlift.offline.stills import Pixels, size_of
from streamlift.upscalers import Upscaler
from streamlift.upscalers.base import Pixels as Form

__all__ = ["ArrayEnlarger", "resized_pixels"]

_KR, _KB = 0.299, 0.114
_FULL = Colour("bt601", full_range=True)


class ArrayEnlarger:
    """One model on pictures that know nothing of each other."""

    def __init__(self, upscaler: Upscaler, device: str, clock: Clock) -> None:
        self._upscaler, self._device, self._clock = upscaler, device, clock
        self.scale = upscaler.spec.scale

    def enlarge(self, pixels: Pixels) -> Pixels:
        """(H, W, C) -> (scale*H, scale*W, C) of the same kind. Raises UpscaleError."""
        if pixels.shape[2] in (2, 4):
            colour, alpha = pixels[..., :-1], pixels[..., -1:]
            both: Pixels = np.concatenate((self.enlarge(colour), self._cubic(alpha)), axis=2)
            return both
        spec = self._upscaler.spec
        if spec.name == "bicubic":
            return self._cubic(pixels)
        most = np.iinfo(pixels.dtype).max
        values = pixels.astype(np.float32) / most
        if spec.pixels is Form.RGB:
            enlarged = self._by_rgb(values)
        elif pixels.shape[2] == 1:
            enlarged = self._luma(values)
        else:
            enlarged = self._by_luma(values)
        levels: Pixels = np.clip(np.rint(enlarged * most), 0, most).astype(pixels.dtype)
        return levels

    def _cubic(self, pixels: Pixels) -> Pixels:
        size = size_of(pixels).times(self.scale)
        whole = np.ascontiguousarray(pixels)
        found: Pixels = cv2.resize(whole, (size.width, size.height), interpolation=cv2.INTER_CUBIC)
        whole = np.atleast_3d(found)
        return whole

    def _by_luma(self, rgb: Pixels) -> Pixels:
        """Luma by the model, the differences of colour bicubically, all at full resolution."""
        red, green, blue = rgb[..., 0], rgb[..., 1], rgb[..., 2]
        y = _KR * red + (1 - _KR - _KB) * green + _KB * blue
        chroma = np.stack((blue - y, red - y), axis=2)
        big_y = self._luma(y[..., None])[..., 0]
        big = self._cubic(chroma)
        blue, red = big_y + big[..., 0], big_y + big[..., 1]
        green = (big_y - _KR * red - _KB * blue) / (1 - _KR - _KB)
        return np.stack((red, green, blue), axis=2)

    def _luma(self, y: Pixels) -> Pixels:
        """(H, W, 1) in [0, 1]; what 8 bits do not hold is enlarged bicubically and added."""
        levels = y[..., 0] * 255
        upper = np.clip(np.rint(levels), 0, 255).astype(np.uint8)
        rest = (levels - upper)[..., None]
        height, width = upper.shape
        grey = np.full(((height + 1) // 2, (width + 1) // 2), 128, np.uint8)
        frame = Frame(0, Size(width, height), Planes(upper, grey, grey), _FULL, 0.0)
        chain = UpscaleChain(self._upscaler, self._device, Stabilise.OFF, clock=self._clock)
        done = [*chain.push(frame), *chain.finish()]
        if len(done) != 1:
            raise UpscaleError("upscaler gave another number of pictures than it took")
        whole = done[0].planes.y.astype(np.float32)[..., None]
        return (whole + self._cubic(rest)) / 255

    def _by_rgb(self, values: Pixels) -> Pixels:
        import torch
        from torch.nn import functional as F

        size = size_of(values)
        multiple = self._upscaler.spec.multiple
        tensor = torch.from_numpy(np.ascontiguousarray(values.transpose(2, 0, 1)))[None]
        tensor = tensor.expand(1, 3, -1, -1)  # grey is RGB of one value
        right, down = (-size.width) % multiple, (-size.height) % multiple
        if right or down:
            tensor = F.pad(tensor, (0, right, 0, down), mode="replicate")
        tensor = tensor.contiguous().to(self._device)
        session = self._upscaler.open(Size(size.width + right, size.height + down))
        groups: Iterable[Any] = [*session.push(tensor), *session.finish()]
        outputs = [one for group in groups for one in group]
        if len(outputs) != 1:
            raise UpscaleError("upscaler gave another number of pictures than it took")
        found: Pixels = outputs[0].to("cpu", torch.float32).numpy().transpose(1, 2, 0)
        big = size.times(self.scale)
        found = found[: big.height, : big.width]
        return found.mean(axis=2, keepdims=True) if values.shape[2] == 1 else found


def resized_pixels(pixels: Pixels, size: Size) -> Pixels:
    """At another size: Lanczos up, the mean of what a pixel covers down."""
    before = size_of(pixels)
    if before == size:
        return pixels
    shrinks = size.width <= before.width and size.height <= before.height
    how = cv2.INTER_AREA if shrinks else cv2.INTER_LANCZOS4
    found = cv2.resize(np.ascontiguousarray(pixels), (size.width, size.height), interpolation=how)
    return np.atleast_3d(found)
