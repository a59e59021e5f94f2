"""The upscalers by name: one factory each, imported only when asked for."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from typing import Any

from streamlift.errors import ConfigError, NotReady
from streamlift.upscalers.base import Upscaler

__all__ = ["RTX_TERMS", "create_upscaler", "upscaler_names"]

RTX_TERMS = " (installing this extra means you accept NVIDIA's licence)"


def create_upscaler(name: str, *, device: str = "cpu", settings: Mapping[str, Any]) -> Upscaler:
    """Build the named upscaler on a device ("cpu", "cuda:0"); load its weights strictly.

    Raises ConfigError for an unknown name or setting, WeightsError when weights are missing,
    NotReady when the device or a package is.
    """
    factory = _FACTORIES.get(name)
    if factory is None:
        raise ConfigError(
            f"unknown upscaler {name!r}", found=name, expected=sorted(upscaler_names())
        )
    return factory(device, settings)


def upscaler_names() -> tuple[str, ...]:
    return tuple(_FACTORIES)


def _bicubic(device: str, settings: Mapping[str, Any]) -> Upscaler:
    from streamlift.upscalers.bicubic import Bicubic

    return Bicubic.from_settings(settings)


def _compact(device: str, settings: Mapping[str, Any]) -> Upscaler:
    _need("onnxruntime", "compact", extra="server")
    from streamlift.upscalers.compact import Compact

    return Compact.from_settings(settings)


def _toy(device: str, settings: Mapping[str, Any]) -> Upscaler:
    from streamlift.upscalers.toy import Toy

    return Toy.from_settings(settings)


def _realesrgan(name: str) -> Callable[[str, Mapping[str, Any]], Upscaler]:
    def factory(device: str, settings: Mapping[str, Any]) -> Upscaler:
        _need("torch", name, extra="torch")
        from streamlift.upscalers.realesrgan import RealESRGAN

        return RealESRGAN.from_settings(name, device, settings)

    return factory


def _spandrel(device: str, settings: Mapping[str, Any]) -> Upscaler:
    _need("torch", "spandrel", extra="spandrel")
    from streamlift.upscalers.spandrel import Spandrel

    return Spandrel.from_settings(device, settings)


def _need(module: str, name: str, *, extra: str, terms: str = "") -> None:
    if importlib.util.find_spec(module) is None:
        raise NotReady(
            f"upscaler {name} needs {module}: pip install 'streamlift[{extra}]'{terms}",
            found=f"no module {module}",
            expected=module,
        )


def _flashvsr(name: str) -> Callable[[str, Mapping[str, Any]], Upscaler]:
    def factory(device: str, settings: Mapping[str, Any]) -> Upscaler:
        _need("torch", name, extra="torch")
        from streamlift.upscalers.flashvsr.loading import create_flashvsr

        return create_flashvsr(name, device, settings)

    return factory


def _flashvsr_tiny_random(device: str, settings: Mapping[str, Any]) -> Upscaler:
    _need("torch", "flashvsr-tiny-random", extra="torch")
    from streamlift.upscalers.flashvsr.tiny import create_tiny_random

    return create_tiny_random(device, settings)


def _basicvsr(name: str) -> Callable[[str, Mapping[str, Any]], Upscaler]:
    def factory(device: str, settings: Mapping[str, Any]) -> Upscaler:
        _need("torch", name, extra="torch")
        from streamlift.upscalers.basicvsr import BasicVSR

        return BasicVSR.from_settings(name, device, settings)

    return factory


def _swiftvr(device: str, settings: Mapping[str, Any]) -> Upscaler:
    _need("torch", "swiftvr", extra="torch")
    from streamlift.upscalers.swiftvr.loading import create_swiftvr

    return create_swiftvr(device, settings)


def _swiftvr_tiny_random(device: str, settings: Mapping[str, Any]) -> Upscaler:
    _need("torch", "swiftvr-tiny-random", extra="torch")
    from streamlift.upscalers.swiftvr.tiny import create_tiny_random

    return create_tiny_random(device, settings)


def _rtx_vsr(device: str, settings: Mapping[str, Any]) -> Upscaler:
    _need("torch", "rtx-vsr", extra="rtx", terms=RTX_TERMS)
    _need("nvvfx", "rtx-vsr", extra="rtx", terms=RTX_TERMS)
    from streamlift.upscalers.rtx_vsr import RtxVsr

    return RtxVsr.from_settings(device, settings)


_FACTORIES: dict[str, Callable[[str, Mapping[str, Any]], Upscaler]] = {
    "bicubic": _bicubic,
    "compact": _compact,
    "toy": _toy,
    "realesrgan-x2": _realesrgan("realesrgan-x2"),
    "realesrgan-general": _realesrgan("realesrgan-general"),
    "realesrgan-anime": _realesrgan("realesrgan-anime"),
    "spandrel": _spandrel,
    "flashvsr": _flashvsr("flashvsr"),
    "flashvsr-full": _flashvsr("flashvsr-full"),
    "basicvsrpp": _basicvsr("basicvsrpp"),
    "realbasicvsr": _basicvsr("realbasicvsr"),
    "rtx-vsr": _rtx_vsr,
    "flashvsr-tiny-random": _flashvsr_tiny_random,
    "swiftvr": _swiftvr,
    "swiftvr-tiny-random": _swiftvr_tiny_random,
}
