"""The upscalers by name: one factory each, imported only when asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from streamlift.errors import ConfigError
from streamlift.upscalers.base import Upscaler

__all__ = ["create_upscaler", "upscaler_names"]


def create_upscaler(name: str, *, device: str = "cpu", settings: Mapping[str, Any]) -> Upscaler:
    """Build the named upscaler on a device ("cpu", "cuda:0"); load its weights strictly.

    Raises ConfigError for an unknown name or setting, WeightsError when weights are missing.
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


def _toy(device: str, settings: Mapping[str, Any]) -> Upscaler:
    from streamlift.upscalers.toy import Toy

    return Toy.from_settings(settings)


_FACTORIES: dict[str, Callable[[str, Mapping[str, Any]], Upscaler]] = {
    "bicubic": _bicubic,
    "toy": _toy,
}
