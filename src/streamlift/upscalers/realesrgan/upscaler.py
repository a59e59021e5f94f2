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
from dataclasses import dataclass, fields
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
_WARM_UP_RUNS = 3  # what PyTorch's notes on CUDA graphs ask for


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
        self._captured: OrderedDict[Size, _CapturedNet] = OrderedDict()
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

    def session_bytes(self, size: Size) -> int:
        """An estimate of what the widest layers hold at once, a quarter added for workspaces."""
        config = self._net.config
        samples = size.pixels * config.features * 3
        if isinstance(config, RRDBNetConfig):
            body = size.pixels // config.unshuffle**2 * (config.features + 4 * config.growth) * 3
            samples = max(samples * config.scale**2, body)
        frames = 4 * size.pixels * config.scale**2 * config.channels
        itemsize = torch.finfo(self.dtype).bits // 8
        return (samples + frames) * itemsize * 5 // 4

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
        return RealESRGANSession(self, size, self._runner(size), self._enlarge_wide)

    def _runner(self, size: Size) -> Callable[[Tensor], Tensor]:
        if not self._graph:
            return self._enlarge
        captured = self._captured.get(size)
        if captured is None:
            with torch_faults(self.spec.name, self.device):
                captured = _CapturedNet(self._enlarge, size, self.device, self.dtype)
            self._captured[size] = captured
            if len(self._captured) > _KEPT_GRAPHS:
                self._captured.popitem(last=False)  # sessions that use it keep it alive
        self._captured.move_to_end(size)
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
        out = out.clamp_(0.0, 1.0)
        # The mean of each block is what the larger picture looks like from twice the distance.
        return F.avg_pool2d(out, self._shrink) if self._shrink > 1 else out


class RealESRGANSession:
    """One stream: a size and the way to run it."""

    wanted = 1

    def __init__(
        self,
        upscaler: RealESRGAN,
        size: Size,
        run: Callable[[Tensor], Tensor],
        run_wide: Callable[[Tensor], Tensor],
    ) -> None:
        self._name = upscaler.spec.name
        self._run_wide = run_wide
        self._last: Tensor | None = None
        self._device = upscaler.device
        self._shape = (1, 3, size.height, size.width)
        self._run = run

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
        with torch.no_grad(), torch_faults(self._name, self._device):
            hr = self._run(lr)
        self._last = lr
        yield hr

    def redo(self) -> Tensor:
        """The last push's picture in bfloat16. Raises UpscaleError before the first push."""
        if self._last is None:
            raise UpscaleError(
                f"{self._name} has made no picture yet", found="no frame", expected="a push before"
            )
        with torch.no_grad(), torch_faults(self._name, self._device):
            return self._run_wide(self._last)

    def finish(self) -> Iterator[Tensor]:
        """Nothing is ever owed."""
        yield from ()


class _CapturedNet:
    """A net at one size as a CUDA graph with static input and output buffers."""

    def __init__(
        self,
        run: Callable[[Tensor], Tensor],
        size: Size,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        self._device = device
        self._graph = torch.cuda.CUDAGraph()
        # Free for the next user: sessions of one size share the buffers, on whatever stream.
        self._free = torch.cuda.Event()  # type: ignore[no-untyped-call]
        with torch.cuda.device(device), torch.no_grad():
            self._input = torch.zeros(1, 3, size.height, size.width, device=device, dtype=dtype).to(
                memory_format=torch.channels_last
            )
            stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
            stream.wait_stream(torch.cuda.current_stream(device))
            # cuDNN picks its kernels by trying them, here and never during capture.
            with torch.backends.cudnn.flags(enabled=True, benchmark=True):
                with torch.cuda.stream(stream):
                    for _ in range(_WARM_UP_RUNS):
                        run(self._input)
                # Thread-local: encode threads may talk to the device meanwhile.
                with torch.cuda.graph(
                    self._graph, stream=stream, capture_error_mode="thread_local"
                ):
                    self._output = run(self._input)
            torch.cuda.current_stream(device).wait_stream(stream)

    def __call__(self, lr: Tensor) -> Tensor:
        stream = torch.cuda.current_stream(self._device)
        stream.wait_event(self._free)
        self._input.copy_(lr, non_blocking=True)
        self._graph.replay()
        hr = self._output.clone()  # the next replay writes the same addresses
        self._free.record(stream)
        return hr


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
