"""Any single-image architecture that the optional package `spandrel` knows, one frame at a time.

The package reads architecture, scale and size rules out of the file; they make the spec. It is
imported only here, and needs torchvision of the same release as torch.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from streamlift.errors import ConfigError, NotReady, UpscaleError, WeightsError
from streamlift.frames import Size
from streamlift.upscalers.base import Pixels, UpscalerSpec
from streamlift.upscalers.faults import check_device, torch_faults
from streamlift.upscalers.weights import load_checkpoint

__all__ = ["Spandrel", "SpandrelSession"]

log = logging.getLogger(__name__)

_SETTINGS = ("path", "half")


class Spandrel:
    """One file's net on one device, for any number of streams."""

    def __init__(self, descriptor: Any, device: torch.device, *, half: bool) -> None:
        """`descriptor` is spandrel's ImageModelDescriptor.

        Raises ConfigError when the net is not RGB to RGB, or is not an enlarging one.
        """
        channels = (descriptor.input_channels, descriptor.output_channels)
        if channels != (3, 3) or descriptor.scale not in (1, 2, 3, 4):
            raise ConfigError(
                f"{descriptor.architecture.name} is no net for RGB pictures",
                found=f"{channels[0]} channels in, {channels[1]} out, x{descriptor.scale}",
                expected="3 channels in and out, x1 to x4",
            )
        size = descriptor.size_requirements
        self.spec = UpscalerSpec(
            name="spandrel",
            scale=descriptor.scale,
            multiple=size.multiple_of or 1,
            pixels=Pixels.RGB,
        )
        self.device = device
        half = half and device.type == "cuda" and descriptor.supports_half
        self.dtype = torch.float16 if half else torch.float32
        with torch_faults("spandrel", device):
            self._descriptor = descriptor.to(device, self.dtype).eval()
        log.info("spandrel: %s x%d on %s", descriptor.architecture.name, descriptor.scale, device)

    @classmethod
    def from_settings(cls, device: str, settings: Mapping[str, Any]) -> Spandrel:
        """Settings: `path` (required); `half` (true): float16 where net and device allow it.

        Raises NotReady when the package or the device is not there, ConfigError for a bad
        setting, WeightsError for a file that is unsafe or that spandrel does not know.
        """
        unknown = sorted(set(settings) - set(_SETTINGS))
        path, half = settings.get("path"), settings.get("half", True)
        if unknown or not isinstance(path, str) or not isinstance(half, bool):
            raise ConfigError(
                "spandrel settings: path (a file) is required, half may be true or false",
                found=dict(settings),
                expected=list(_SETTINGS),
            )
        place = check_device(device)
        return cls(_describe(Path(path).expanduser()), place, half=half)

    def session_bytes(self, size: Size) -> int:
        """A guess: 64 channels at the output's size, three times; nets differ widely."""
        return size.pixels * self.spec.scale**2 * 64 * 3 * (2 if self.dtype.itemsize == 2 else 4)

    def open(self, size: Size, *, seed: int = 0) -> SpandrelSession:
        del seed  # nothing here is random
        return SpandrelSession(self, self._descriptor, size)


class SpandrelSession:
    """One frame in, one frame out, no memory."""

    wanted = 1

    def __init__(self, upscaler: Spandrel, descriptor: Any, size: Size) -> None:
        self._device, self._dtype = upscaler.device, upscaler.dtype
        self._descriptor = descriptor
        self._shape = (1, 3, size.height, size.width)

    def push(self, lr: Tensor) -> Iterator[Tensor]:
        """(1, 3, H, W) RGB in [0, 1] -> the same, scale times larger. Raises UpscaleError."""
        if tuple(lr.shape) != self._shape:
            raise UpscaleError(
                "spandrel got a frame of another shape",
                found=tuple(lr.shape),
                expected=self._shape,
            )
        with torch.no_grad(), torch_faults("spandrel", self._device):
            # The descriptor itself pads to what `multiple` cannot say (a least side, a square),
            # crops and clamps. The clone is an ordinary tensor, not one of its inference mode.
            hr: Tensor = self._descriptor(lr.to(self._device, self._dtype)).clone()
        yield hr

    def finish(self) -> Iterator[Tensor]:
        """Nothing is ever owed."""
        yield from ()


def _describe(path: Path) -> Any:
    try:
        spandrel = importlib.import_module("spandrel")
    except (ImportError, RuntimeError) as error:
        # A torchvision of another torch build fails with RuntimeError on import.
        raise NotReady(
            f"upscaler spandrel needs the packages spandrel and a torchvision that fits torch "
            f"{torch.__version__}: pip install 'streamlift[spandrel]' ({error})",
            found=str(error),
            expected="spandrel and torchvision",
        ) from error
    tensors = load_checkpoint(path)  # our safe reader, not the package's
    try:
        found = spandrel.ModelLoader(device="cpu").load_from_state_dict(
            spandrel.canonicalize_state_dict(tensors)
        )
    except (spandrel.UnsupportedModelError, RuntimeError, ValueError, LookupError) as error:
        raise WeightsError(
            f"{path} is of no architecture that the package spandrel knows: {error}",
            expected="a single-image super-resolution net",
        ) from error
    if not isinstance(found, spandrel.ImageModelDescriptor):
        raise WeightsError(
            f"{path} is no net that takes a picture alone",
            expected="a single-image super-resolution net",
        )
    return found
