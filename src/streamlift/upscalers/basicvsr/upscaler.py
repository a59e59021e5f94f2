"""BasicVSR++ and RealBasicVSR behind the upscaler protocol: shared weights, a window a stream."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from streamlift.errors import ConfigError, UpscaleError
from streamlift.frames import Size
from streamlift.upscalers.base import OnCut, Pixels, UpscalerSpec
from streamlift.upscalers.basicvsr.basicvsrpp import BasicVSRpp
from streamlift.upscalers.basicvsr.checkpoint import load_net
from streamlift.upscalers.basicvsr.realbasicvsr import RealBasicVSR
from streamlift.upscalers.basicvsr.settings import (
    NAMES,
    BasicVSRSettings,
    Precision,
    Presize,
    Trained,
)
from streamlift.upscalers.basicvsr.window import WindowSession
from streamlift.upscalers.faults import check_device, torch_faults
from streamlift.upscalers.weights import WeightStore

__all__ = ["BasicVSR"]

log = logging.getLogger(__name__)

_FILES = {
    Trained.REDS4: "basicvsr_plusplus_c64n7_8x1_600k_reds4_20210217-db622b2f.pth",
    Trained.VIMEO_BD: "basicvsr_plusplus_c64n7_8x1_300k_vimeo90k_bd_20210305-ab315ab1.pth",
    Trained.VIMEO_BI: "basicvsr_plusplus_c64n7_8x1_300k_vimeo90k_bi_20210305-4ef437e2.pth",
}
_REAL_FILE = "realbasicvsr_c64b20_1x30x8_lr5e-5_150k_reds_20211104-52f77c2c.pth"
_PUBLISHED = {"basicvsrpp": (274, 7_322_933), "realbasicvsr": (320, 6_294_840)}
"""Tensors and the numbers in them, of the published files."""
_NATIVE = 4
_SMALLEST_SIDE = 64
"""Below it the flow's coarsest level is less than two pixels; smaller pictures are padded."""
_KEPT_MAPS = 5
"""Feature maps that a window keeps for each of its frames."""


class BasicVSR:
    """One net of the family on one device, for any number of streams."""

    def __init__(
        self,
        name: str,
        net: BasicVSRpp | RealBasicVSR,
        settings: BasicVSRSettings,
        *,
        device: torch.device,
    ) -> None:
        self.settings, self.device, self._net = settings, device, net
        half = settings.precision is Precision.FP16 or (
            settings.precision is Precision.AUTO and device.type == "cuda"
        )
        self.dtype = torch.float16 if half else torch.float32
        self._presize = 2 if settings.presize is Presize.HALF else 1
        self._shrink = _NATIVE // settings.scale // self._presize
        window = settings.window
        self.spec = UpscalerSpec(
            name=name,
            scale=settings.scale,
            first=window.step + window.ahead,
            step=window.step,
            lag=window.ahead,
            multiple=4 * self._presize,
            pixels=Pixels.RGB,
            on_cut=OnCut.RESTART,
        )
        with torch_faults(name, device):
            net.to(device, self.dtype)
            net.spynet.float()
        if device.type == "cpu":
            log.warning("%s runs on the CPU: seconds for each frame, for short files only", name)

    @classmethod
    def from_settings(
        cls,
        name: str,
        device: str,
        settings: Mapping[str, Any],
        *,
        store: WeightStore | None = None,
    ) -> BasicVSR:
        """Load the net that `name` and `settings` ask for.

        Raises ConfigError for a bad setting, NotReady for a device that is not there, and
        WeightsError for a checkpoint that is missing, damaged, or of another architecture.
        """
        chosen = BasicVSRSettings.read(name, settings)
        place = check_device(device)
        if chosen.path is not None:
            path = Path(chosen.path).expanduser()
        else:
            store = store or WeightStore.from_environment(os.environ)
            path = store.require(_REAL_FILE if name == NAMES[1] else _FILES[chosen.checkpoint])
        net = load_net(path)
        found = NAMES[1] if isinstance(net, RealBasicVSR) else NAMES[0]
        if found != name:
            raise ConfigError(
                f"{path} is a net of {found}: use that backend", found=found, expected=name
            )
        if chosen.path is None:
            _check_published(name, net)
        return cls(name, net, chosen, device=place)

    def session_bytes(self, size: Size) -> int:
        """What a window keeps, and what the enlarging of one frame takes on top."""
        config, itemsize = self._net.config, self.dtype.itemsize
        pixels = size.pixels // self._presize**2
        frames = self.settings.window.frames
        kept = frames * pixels * ((_KEPT_MAPS * config.features + 3) * itemsize + 2 * 2 * 4)
        large = pixels * _NATIVE**2
        return kept + large * (3 * config.tail * itemsize + 2 * 3 * 4)

    def open(self, size: Size, *, seed: int = 0) -> WindowSession:
        """Raises UpscaleError for a size that is no multiple."""
        del seed  # nothing here is random
        multiple = self.spec.multiple
        if size.width % multiple or size.height % multiple:
            raise UpscaleError(
                f"{self.spec.name} takes sizes that divide by {multiple}",
                found=str(size),
                expected=f"multiples of {multiple}",
            )
        shape = (1, 3, size.height, size.width)
        return WindowSession(
            self.spec.name, self.settings.window, shape, self._prepare, self.enlarge
        )

    def _prepare(self, lr: Tensor) -> Tensor:
        with torch_faults(self.spec.name, self.device):
            # A copy: a window keeps it, and the caller may fill its own again.
            return lr.to(self.device, self.dtype, copy=True)

    def enlarge(self, clip: Tensor, first: int = 0) -> Iterator[Tensor]:
        """A whole clip (t, 3, H, W) -> (1, 3, sH, sW) in [0, 1] from number `first` on, one by one.

        `clip` is on the device in its dtype and is not changed. Raises UpscaleError, OutOfMemory.
        """
        height, width = clip.shape[-2] // self._presize, clip.shape[-1] // self._presize
        frames: Iterator[Tensor] | None = None
        while True:
            with torch.no_grad(), torch_faults(self.spec.name, self.device):
                if frames is None:
                    frames = self._frames(clip, first, height, width)
                hr = next(frames, None)
                if hr is None:
                    return
                hr = hr[..., : height * _NATIVE, : width * _NATIVE].clamp(0.0, 1.0)
                if self._shrink > 1:
                    # The mean of each block: the larger picture from twice the distance.
                    hr = F.avg_pool2d(hr, self._shrink)
            yield hr

    def _frames(self, clip: Tensor, first: int, height: int, width: int) -> Iterator[Tensor]:
        if self._presize > 1:
            clip = F.avg_pool2d(clip, self._presize)
        right, down = max(0, _SMALLEST_SIDE - width), max(0, _SMALLEST_SIDE - height)
        if right or down:
            clip = F.pad(clip, (0, right, 0, down), mode="replicate")
        frames: Iterator[Tensor]
        if isinstance(self._net, RealBasicVSR):
            frames = self._net(clip, self.settings.cleaning, first)
        else:
            frames = self._net(clip, first)
        return frames


def _check_published(name: str, net: BasicVSRpp | RealBasicVSR) -> None:
    """The table's files are pinned by digest; this says in the net's own words that they fit."""
    tensors = net.state_dict()
    numbers = sum(tensor.numel() for tensor in tensors.values())
    if (len(tensors), numbers) != _PUBLISHED[name]:
        raise ConfigError(
            f"the published {name} has another size",
            found=(len(tensors), numbers),
            expected=_PUBLISHED[name],
        )
