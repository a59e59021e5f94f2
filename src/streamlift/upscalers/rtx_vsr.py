"""NVIDIA's own upscaler, RTX Video Super Resolution, through its package `nvidia-vfx` (`nvvfx`).

The package is proprietary and never shipped; whoever installs it accepts NVIDIA's licence. Facts
about it are from its documentation and from other people's use of it (November 2026). Nothing here
was run on the real one: the tests run on a module that asserts the same contract.
"""

from __future__ import annotations

import importlib
import math
import re
import threading
import weakref
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor
from torch.utils.dlpack import from_dlpack

from streamlift.errors import ConfigError, InvalidOutput, NotReady, UpscaleError
from streamlift.frames import Size
from streamlift.upscalers.base import Pixels, UpscalerSpec
from streamlift.upscalers.faults import check_device, torch_faults

__all__ = ["QUALITIES", "RtxVsr", "RtxVsrSession", "RtxVsrSettings"]

NAME = "rtx-vsr"
QUALITIES = (
    *("low", "medium", "high", "ultra"),
    *("highbitrate_low", "highbitrate_medium", "highbitrate_high", "highbitrate_ultra"),
    *("streaming_medium", "streaming_ultra"),
)
"""Levels that enlarge; those that only clean at the same size are not for this."""
_SMALLEST_SIDE, _LARGEST_SIDE = 64, 8192
"""Of the result."""
_GUESSED_BYTES = 300_000_000
"""An effect's memory, until it is measured on a card."""
_DRIVERS = "Linux: 570.190+, 580.82+ or 590.44+; Windows: 570.65+"
_HINTS = {
    -14: f"the driver or its libnvidia-ngx.so is missing (drivers {_DRIVERS}; in a container "
    "NVIDIA_DRIVER_CAPABILITIES=all, not in WSL2)",
    -13: "it has no model for this quality or size, or for this card (Turing or later)",
    -12: "it has no model for this quality or size, or for this card (Turing or later)",
    -1: f"a fault of the driver or the library (drivers {_DRIVERS})",
}
_BLACK_FAULT = "all black: a known driver fault; try a driver of 580.x or 590.x"
_LIT = 0.05
"""Mean of a picture that is not just dark: a stream's own content must not look like a fault."""
_LOADING = threading.Lock()
"""One effect loads at a time, in the whole process."""


@dataclass(frozen=True, slots=True)
class RtxVsrSettings:
    """A backend's `settings`.

    quality: one of QUALITIES. strength: 0 to 1, where the installed SDK knows it. scale: 2 to 4.
    """

    quality: str = "high"
    strength: float | None = None
    scale: int = 2

    @classmethod
    def read(cls, settings: Mapping[str, Any]) -> RtxVsrSettings:
        """Raises ConfigError that names an unknown key or a value that cannot be."""
        known = {f.name for f in fields(cls)}
        if unknown := sorted(set(settings) - known):
            raise ConfigError(
                f"unknown {NAME} setting {', '.join(unknown)}",
                found=unknown,
                expected=sorted(known),
            )
        read = cls(**settings)
        strength = read.strength
        number = isinstance(strength, int | float) and not isinstance(strength, bool)
        for key, good, expected in (
            ("quality", read.quality in QUALITIES, ", ".join(QUALITIES)),
            ("scale", type(read.scale) is int and read.scale in (2, 3, 4), "2, 3 or 4"),
            ("strength", strength is None or (number and 0 <= strength <= 1), "0 to 1"),
        ):
            if not good:
                found = getattr(read, key)
                raise ConfigError(
                    f"{NAME} setting {key}: found {found!r}, expected {expected}",
                    found=found,
                    expected=expected,
                )
        return read


class RtxVsr:
    """The installed package on one card; each session has an effect of its own."""

    def __init__(
        self, module: Any, settings: RtxVsrSettings, *, index: int, device: torch.device
    ) -> None:
        """`index`: the card as the package counts; `device`: where torch finds the same.

        Raises ConfigError for a quality or strength that the installed SDK does not have.
        """
        self.settings, self.device = settings, device
        self._module, self._index = module, index
        self._level = _level(module, settings.quality)
        if settings.strength is not None and not hasattr(module.VideoSuperRes, "strength"):
            raise ConfigError(
                f"{NAME}: the installed SDK {_sdk(module)} knows no strength: leave it out",
                found=settings.strength,
                expected="SDK 1.3 or later",
            )
        self.spec = UpscalerSpec(
            name=NAME,
            scale=settings.scale,
            multiple=8 // math.gcd(8, settings.scale),  # sides of the result divide by 8
            pixels=Pixels.RGB,
        )

    @classmethod
    def from_settings(cls, device: str, settings: Mapping[str, Any]) -> RtxVsr:
        """Raises ConfigError for a bad setting, NotReady for a device that is no NVIDIA card."""
        read = RtxVsrSettings.read(settings)
        if not device.startswith("cuda"):
            raise NotReady(
                f"{NAME} runs on NVIDIA cards only, not on {device}: use cuda:0 "
                "(--device, or device in a configuration)",
                found=device,
                expected="cuda:N",
            )
        place = check_device(device)
        try:
            module = importlib.import_module("nvvfx")
        except (ImportError, OSError) as error:
            raise NotReady(
                f"{NAME}: the package nvidia-vfx cannot be loaded: {error}",
                found=str(error),
                expected="a package that fits driver and system",
            ) from error
        return cls(module, read, index=place.index or 0, device=place)

    def session_bytes(self, size: Size) -> int:
        """A guess for the effect, and one picture in and out."""
        return _GUESSED_BYTES + 3 * 4 * size.pixels * (1 + self.spec.scale**2)

    def open(self, size: Size, *, seed: int = 0) -> RtxVsrSession:
        """Load an effect for this size and run it once.

        Raises UpscaleError for a size that it cannot take, NotReady when it does not load.
        """
        del seed  # nothing here is random
        large, multiple = size.times(self.spec.scale), self.spec.multiple
        sides = (large.width, large.height)
        if size.width % multiple or size.height % multiple:
            raise UpscaleError(
                f"{NAME} takes sizes that divide by {multiple}",
                found=str(size),
                expected=f"multiples of {multiple}",
            )
        if min(sides) < _SMALLEST_SIDE or max(sides) > _LARGEST_SIDE:
            raise UpscaleError(
                f"{NAME} makes pictures of {_SMALLEST_SIDE} to {_LARGEST_SIDE} pixels a side",
                found=str(large),
                expected=f"{_SMALLEST_SIDE} to {_LARGEST_SIDE}",
            )
        return RtxVsrSession(self, size)

    @property
    def fault(self) -> type[Exception]:
        """What the package raises."""
        raised: type[Exception] = self._module.NvVFXError
        return raised

    def load(self, large: Size) -> Any:
        """A loaded effect that makes pictures of this size. Raises NotReady."""
        with _LOADING, self.on_card():
            effect = None
            try:
                effect = self._module.VideoSuperRes(quality=self._level, device=self._index)
                effect.output_width, effect.output_height = large.width, large.height
                if self.settings.strength is not None:
                    effect.strength = self.settings.strength
                effect.load()
            except self.fault as error:
                if effect is not None:
                    effect.close()
                raise _not_ready(error) from error
        return effect

    def on_card(self) -> AbstractContextManager[Any]:
        """Torch's own notion of the current card, which the package follows."""
        if self.device.type == "cuda":
            return torch.cuda.device(self.device)
        return nullcontext()

    def stream_pointer(self) -> int:
        if self.device.type != "cuda":
            return 0
        return int(torch.cuda.current_stream(self.device).cuda_stream)


class RtxVsrSession:
    """One stream's effect. Whether it remembers frames is not documented: it is never shared.

    `wanted` is 1 always. A fault ends the session and closes its effect; the engine opens another.
    """

    wanted = 1

    def __init__(self, upscaler: RtxVsr, size: Size) -> None:
        self._upscaler, self._size = upscaler, size
        self._large = size.times(upscaler.spec.scale)
        self._effect: Any = None
        self._close: weakref.finalize[..., Any] | None = None
        self._dead = False
        self.resume()
        grey = torch.full((1, 3, size.height, size.width), 0.5, device=upscaler.device)
        try:
            self._run(grey)
        except InvalidOutput as error:
            raise NotReady(str(error), found=error.found, expected=error.expected) from error

    def push(self, lr: Tensor) -> Iterator[Tensor]:
        """(1, 3, H, W) RGB in [0, 1] -> a new tensor (1, 3, sH, sW). Raises UpscaleError."""
        shape = (1, 3, self._size.height, self._size.width)
        if self._effect is None or tuple(lr.shape) != shape:
            state = "finished or parked" if self._effect is None else tuple(lr.shape)
            raise UpscaleError(
                f"{NAME} cannot take this frame: {state}, expected {shape}",
                found=state,
                expected=shape,
            )
        yield self._run(lr)

    def finish(self) -> Iterator[Tensor]:
        """Nothing is ever owed; the effect is closed."""
        self.park()
        self._dead = True
        yield from ()

    def park(self) -> None:
        """Give the effect's memory back."""
        self._effect = None
        close, self._close = self._close, None
        if close is not None:
            close()

    def resume(self) -> None:
        """Load an effect anew."""
        if self._effect is None and not self._dead:
            self._effect = self._upscaler.load(self._large)
            # A lane that is thrown away asks nobody to finish: then the collector closes it.
            self._close = weakref.finalize(self, _closed, self._effect)

    def _run(self, lr: Tensor) -> Tensor:
        upscaler = self._upscaler
        try:
            with torch.no_grad(), torch_faults(NAME, upscaler.device), upscaler.on_card():
                x = lr[0].to(upscaler.device, torch.float32).clamp(0.0, 1.0).contiguous()
                try:
                    reply = self._effect.run(
                        _Lent(x), non_blocking=False, stream_ptr=upscaler.stream_pointer()
                    )
                except upscaler.fault as error:
                    raise UpscaleError(f"{NAME} failed: {error}", found=str(error)) from error
                # The package writes its next picture into the same memory.
                hr = from_dlpack(reply.image).clone()
                self._check(x, hr)
                return hr.clamp_(0.0, 1.0).unsqueeze(0)
        except UpscaleError:
            self.park()
            self._dead = True
            raise

    def _check(self, x: Tensor, hr: Tensor) -> None:
        expected = (3, self._large.height, self._large.width)
        if tuple(hr.shape) != expected or hr.dtype != torch.float32:
            raise InvalidOutput(
                f"{NAME} gave {tuple(hr.shape)} of {hr.dtype}, expected {expected} of float32",
                found=(tuple(hr.shape), str(hr.dtype)),
                expected=(expected, "torch.float32"),
            )
        # The package has waited for its picture, so asking costs no further wait.
        if not bool(hr.any()) and float(x.mean()) > _LIT:
            raise InvalidOutput(f"{NAME} gave {_BLACK_FAULT}", found="black", expected="image")


class _Lent:
    """A tensor for the package: older torch knows fewer keywords of DLPack than it may send."""

    def __init__(self, tensor: Tensor) -> None:
        self._tensor = tensor

    def __dlpack__(self, *, stream: Any = None, **unknown: Any) -> Any:
        del unknown
        return self._tensor.__dlpack__(stream=stream)

    def __dlpack_device__(self) -> Any:
        return self._tensor.__dlpack_device__()


def _closed(effect: Any) -> None:
    effect.close()


def _level(module: Any, quality: str) -> Any:
    """By name: the numbers differ between versions of the SDK."""
    for holder in (module.VideoSuperRes, getattr(module, "effects", None)):
        levels = getattr(holder, "QualityLevel", None)
        level = getattr(levels, quality.upper(), None)
        if level is not None:
            return level
    levels = getattr(module.VideoSuperRes, "QualityLevel", None)
    present = [name for name in QUALITIES if hasattr(levels, name.upper())]
    raise ConfigError(
        f"{NAME}: the installed SDK {_sdk(module)} has no quality {quality}; it has "
        f"{', '.join(present)}",
        found=quality,
        expected=present,
    )


def _sdk(module: Any) -> str:
    ask = getattr(module, "get_sdk_version", None)
    return str(ask()) if callable(ask) else "of unknown version"


def _not_ready(error: Exception) -> NotReady:
    match = re.search(r"code (-?\d+)", str(error))
    code = int(match[1]) if match else None
    hint = _HINTS.get(code, f"see NVIDIA's requirements (drivers {_DRIVERS})")  # type: ignore[arg-type]
    return NotReady(f"{NAME} does not load: {error}: {hint}", found=code, expected=hint)
