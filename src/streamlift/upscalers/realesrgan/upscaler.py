"""The lean frame path: one RGB frame in, one enlarged frame out, nothing remembered between them.

On CUDA: float16, channels-last, one captured graph a size, no wait for the device in `push`.
float16 ends at 65504: a frame that the net drives beyond is made anew in bfloat16.
"""

from __future__ import annotations

import copy
import logging
import os
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from streamlift.config.checks import KINDS
from streamlift.errors import ConfigError, UpscaleError
from streamlift.frames import Size
from streamlift.upscalers.base import OnCut, Pixels, UpscalerSpec
from streamlift.upscalers.faults import check_device, torch_faults
from streamlift.upscalers.realesrgan.captured import CapturedNet
from streamlift.upscalers.realesrgan.checkpoint import Net, load_net
from streamlift.upscalers.realesrgan.rrdbnet import RRDBNetConfig
from streamlift.upscalers.weights import WeightStore

__all__ = ["Precision", "RealESRGAN", "RealESRGANSession", "RealESRGANSettings"]

log = logging.getLogger(__name__)

# wdn: "weak denoise". Interpolated with the other it keeps as much noise as one likes.
_GENERAL, _GENERAL_WEAK = "realesr-general-x4v3.pth", "realesr-general-wdn-x4v3.pth"
_DEFAULT_FILES = {
    "realesrgan-x2": "RealESRGAN_x2plus.pth",
    "realesrgan-general": _GENERAL,
    "realesrgan-anime": "realesr-animevideov3.pth",
}
_KEPT_GRAPHS = 2  # sizes; a stream that comes back to a backend finds its graph captured


class Precision(StrEnum):
    """The dtype of weights and activations. AUTO: fp16 on CUDA, fp32 on a CPU."""

    AUTO = "auto"
    FP16 = "fp16"
    BF16 = "bf16"
    FP32 = "fp32"


@dataclass(frozen=True, slots=True)
class RealESRGANSettings:
    """A backend's `settings`.

    path: any compatible .pth or .safetensors file, in place of the name's own checkpoint;
    weights: another checkpoint of the table. scale: 2, or 4 with an x4 net; by default 2 where
    the net allows it. denoise: 0 (keep noise) to 1, `realesrgan-general` only. graph: capture
    CUDA graphs.
    """

    path: str | None = None
    weights: str | None = None
    scale: int | None = None
    denoise: float | None = None
    precision: Precision = Precision.AUTO
    graph: bool = True

    @classmethod
    def read(cls, settings: Mapping[str, Any]) -> RealESRGANSettings:
        """Raises ConfigError that names an unknown key or a value of the wrong kind."""
        known = {f.name for f in fields(cls)}
        if unknown := sorted(set(settings) - known):
            raise ConfigError(
                f"unknown realesrgan setting {', '.join(unknown)}",
                found=unknown,
                expected=sorted(known),
            )
        values = dict(settings)
        for key, kinds in _KINDS.items():
            value = values.get(key)
            if value is not None and (
                not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds)
            ):
                raise _wrong_setting(key, value, " or ".join(KINDS.get(k, "text") for k in kinds))
        if "precision" in values:
            try:
                values["precision"] = Precision(values["precision"])
            except ValueError as error:
                raise _wrong_setting("precision", values["precision"], list(Precision)) from error
        return cls(**values)


class RealESRGAN:
    """One net of the family on one device, for any number of streams."""

    def __init__(
        self,
        net: Net,
        *,
        name: str,
        device: torch.device,
        scale: int | None = None,
        precision: Precision = Precision.AUTO,
        graph: bool = True,
    ) -> None:
        """Takes `net` over and moves it. Raises ConfigError for a scale it cannot serve."""
        config = net.config
        scale = _choose_scale(config.scale, scale)
        self.spec = UpscalerSpec(
            name=name,
            scale=scale,
            multiple=config.unshuffle,
            pixels=Pixels.RGB,
            on_cut=OnCut.CONTINUE,
        )
        self.device = device
        self.dtype = _dtype(precision, device)
        self._graph = graph and device.type == "cuda"
        with torch_faults(name, device):
            net.to(device, self.dtype)
            net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # stubs lack it
            self._net = net
        self._wide_net: Net | None = None
        self._shrink = config.scale // scale
        self._captured: OrderedDict[tuple[Size, int], CapturedNet] = OrderedDict()
        self._batch = 1
        if device.type == "cpu":
            log.warning(
                "%s runs on the CPU: it works, but far from real time; "
                "use device: cuda:0 for live video, or the compact upscaler",
                name,
            )

    @classmethod
    def from_settings(
        cls,
        name: str,
        device: str,
        settings: Mapping[str, Any],
        *,
        store: WeightStore | None = None,
    ) -> RealESRGAN:
        """Load the net that `name` and `settings` ask for.

        Raises ConfigError for a bad setting, NotReady for a device that is not there, and
        WeightsError for a checkpoint that is missing, damaged, or of another architecture.
        """
        options = RealESRGANSettings.read(settings)
        place = check_device(device)
        net = _load(name, options, store or WeightStore.from_environment(os.environ))
        return cls(
            net,
            name=name,
            device=place,
            scale=options.scale,
            precision=options.precision,
            graph=options.graph,
        )

    def batched(self, count: int) -> RealESRGAN:
        """The same net for `count` frames at a time: for files, where none is waited for."""
        other = copy.copy(self)
        other.spec = replace(self.spec, first=count, step=count)
        other._batch = count
        return other

    def session_bytes(self, size: Size) -> int:
        """An estimate of what the widest layers hold at once, a quarter added for workspaces."""
        config = self._net.config
        samples = size.pixels * config.features * 3
        if isinstance(config, RRDBNetConfig):
            body = size.pixels // config.unshuffle**2 * (config.features + 4 * config.growth) * 3
            samples = max(samples * config.scale**2, body)
        frames = 4 * size.pixels * config.scale**2 * config.channels
        itemsize = torch.finfo(self.dtype).bits // 8
        return self._batch * (samples + frames) * itemsize * 5 // 4

    def open(self, size: Size, *, seed: int = 0) -> RealESRGANSession:
        """Open a session; on CUDA the first at a size takes a moment to capture its graph.

        Raises UpscaleError for a size that is no multiple, and OutOfMemory.
        """
        del seed  # nothing here is random
        multiple = self.spec.multiple
        if size.width % multiple or size.height % multiple:
            raise UpscaleError(
                f"{self.spec.name} takes sizes that divide by {multiple}",
                found=str(size),
                expected=f"multiples of {multiple}",
            )
        runner = self._runner(size)
        return RealESRGANSession(self, size, runner, self._enlarge_wide, count=self._batch)

    def _runner(self, size: Size) -> Callable[[Tensor], Tensor]:
        if not self._graph:
            return self._enlarge
        key = size, self._batch
        captured = self._captured.get(key)
        if captured is None:
            with torch_faults(self.spec.name, self.device):
                captured = CapturedNet(self._enlarge, *key, self.device, self.dtype)
            self._captured[key] = captured
            if len(self._captured) > _KEPT_GRAPHS:
                self._captured.popitem(last=False)  # sessions that use it keep it alive
        self._captured.move_to_end(key)
        return captured

    def _enlarge(self, lr: Tensor) -> Tensor:
        return self._run(self._net, lr, self.dtype)

    def _enlarge_wide(self, lr: Tensor) -> Tensor:
        """The same with the range of float32, for what float16 cannot hold."""
        if self.dtype is not torch.float16:
            return self._enlarge(lr)
        if self._wide_net is None:
            log.warning(
                "%s: float16 overflowed; such frames are made anew in bfloat16", self.spec.name
            )
            self._wide_net = copy.deepcopy(self._net).to(torch.bfloat16)
        return self._run(self._wide_net, lr, torch.bfloat16)

    def _run(self, net: Net, lr: Tensor, dtype: torch.dtype) -> Tensor:
        x = lr.to(self.device, dtype, memory_format=torch.channels_last)
        out: Tensor = net(x)
        # A limit alone would make a white point of an overflow, which looks like a picture's own.
        out = out.masked_fill_(out.isinf(), torch.nan).clamp_(0.0, 1.0)
        # The mean of each block is what the larger picture looks like from twice the distance.
        return F.avg_pool2d(out, self._shrink) if self._shrink > 1 else out


class RealESRGANSession:
    """One stream: a size, the way to run it, and the frames that wait until a batch is full."""

    def __init__(
        self,
        upscaler: RealESRGAN,
        size: Size,
        run: Callable[[Tensor], Tensor],
        run_wide: Callable[[Tensor], Tensor],
        *,
        count: int = 1,
    ) -> None:
        self._name = upscaler.spec.name
        self._run_wide = run_wide
        self._device = upscaler.device
        self._shape = (1, 3, size.height, size.width)
        self._run = run
        self._count = count
        self._waiting: list[Tensor] = []
        self._last: list[Tensor] = []

    @property
    def wanted(self) -> int:
        """Frames still to push before the next computation."""
        return self._count - len(self._waiting)

    def push(self, lr: Tensor) -> Iterator[Tensor]:
        """(1, 3, H, W) RGB in [0, 1], any float dtype and device -> the same, scale times larger.

        The result is on the upscaler's device, in its dtype, and stays valid. Raises
        UpscaleError for another shape or when the device fails, OutOfMemory.
        """
        if tuple(lr.shape) != self._shape:
            raise UpscaleError(
                f"{self._name} got a frame of another shape",
                found=tuple(lr.shape),
                expected=self._shape,
            )
        self._waiting.append(lr)
        if self.wanted == 0:
            yield self._make()

    def redo(self) -> Tensor:
        """The last output once more, in bfloat16. Raises UpscaleError before the first one."""
        if not self._last:
            raise UpscaleError(
                f"{self._name} has made no picture yet", found="no frame", expected="a push before"
            )
        return self._through(self._run_wide)

    def finish(self) -> Iterator[Tensor]:
        """What waits for its batch to be full."""
        if self._waiting:
            yield self._make()

    def _make(self) -> Tensor:
        self._last, self._waiting = self._waiting, []
        return self._through(self._run)

    def _through(self, run: Callable[[Tensor], Tensor]) -> Tensor:
        """The last frames; a batch that is not full is filled up with copies of its last one."""
        missing = self._count - len(self._last)
        frames = [*self._last, *self._last[-1:] * missing]
        with torch.no_grad(), torch_faults(self._name, self._device):
            lr = frames[0] if len(frames) == 1 else torch.cat(frames)
            return run(lr)[: len(self._last)]


_KINDS: dict[str, tuple[type, ...]] = {
    "path": (str,),
    "weights": (str,),
    "scale": (int,),
    "denoise": (int, float),
    "graph": (bool,),
}

_DTYPES = {
    Precision.FP16: torch.float16,
    Precision.BF16: torch.bfloat16,
    Precision.FP32: torch.float32,
}


def _load(name: str, options: RealESRGANSettings, store: WeightStore) -> Net:
    if options.path is not None and options.weights is not None:
        raise ConfigError(
            f"{name}: give path or weights, not both",
            found=[options.path, options.weights],
            expected="one of them",
        )
    file = options.weights or _DEFAULT_FILES[name]
    if options.denoise is not None and (options.path is not None or file != _GENERAL):
        raise ConfigError(
            f"{name}: only {_GENERAL} knows denoise",
            found={"denoise": options.denoise, "file": options.path or file},
            expected="no denoise setting",
        )
    if options.path is not None:
        return load_net(Path(options.path).expanduser())
    if file != _GENERAL:
        return load_net(store.require(file))
    # The strength that the authors' tool uses by default; the ends need one file only.
    denoise = 0.5 if options.denoise is None else options.denoise
    if not 0.0 <= denoise <= 1.0:
        raise _wrong_setting("denoise", denoise, "0 to 1")
    if denoise == 1.0:
        return load_net(store.require(_GENERAL))
    if denoise == 0.0:
        return load_net(store.require(_GENERAL_WEAK))
    return load_net(
        store.require(_GENERAL), other=store.require(_GENERAL_WEAK), share=float(denoise)
    )


def _choose_scale(native: int, wanted: int | None) -> int:
    possible = (native, 2) if native == 4 else (native,)
    scale = wanted if wanted is not None else min(possible)
    if scale not in possible:
        raise ConfigError(
            f"a x{native} net cannot enlarge {scale} times", found=scale, expected=list(possible)
        )
    return scale


def _dtype(precision: Precision, device: torch.device) -> torch.dtype:
    if precision is Precision.AUTO:
        precision = Precision.FP16 if device.type == "cuda" else Precision.FP32
    return _DTYPES[precision]


def _wrong_setting(key: str, value: object, expected: object) -> ConfigError:
    return ConfigError(
        f"realesrgan setting {key}: found {value!r}, expected {expected}",
        found=value,
        expected=expected,
    )
