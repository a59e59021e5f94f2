"""What a user may choose about BasicVSR++ and RealBasicVSR; see docs/basicvsr.md."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Any

from streamlift.errors import ConfigError
from streamlift.upscalers.basicvsr.realbasicvsr import Cleaning
from streamlift.upscalers.basicvsr.window import Window

__all__ = ["NAMES", "BasicVSRSettings", "Precision", "Presize", "Trained", "Use"]

NAMES = ("basicvsrpp", "realbasicvsr")


class Use(StrEnum):
    """What the defaults are for: little delay, or little work."""

    LIVE = "live"
    FILES = "files"


class Trained(StrEnum):
    """Which of the published BasicVSR++ checkpoints."""

    REDS4 = "reds4"
    VIMEO_BI = "vimeo-bi"
    VIMEO_BD = "vimeo-bd"


class Presize(StrEnum):
    """HALF: the input is halved first, which loses detail and costs a quarter."""

    NONE = "none"
    HALF = "half"


class Precision(StrEnum):
    """AUTO: fp16 on CUDA, fp32 elsewhere. Optical flow and positions are float32 always."""

    AUTO = "auto"
    FP16 = "fp16"
    FP32 = "fp32"


_WINDOWS = {Use.LIVE: Window(past=4, step=8, ahead=4), Use.FILES: Window(past=5, step=30, ahead=5)}
_CLEANING = {Use.LIVE: Cleaning(threshold=255, passes=1), Use.FILES: Cleaning()}
_ONLY = {"checkpoint": "basicvsrpp", "clean_threshold": "realbasicvsr", "clean_passes": NAMES[1]}
_KINDS: dict[str, tuple[type, ...]] = {
    "path": (str,),
    "scale": (int,),
    "past": (int,),
    "step": (int,),
    "ahead": (int,),
    "clean_threshold": (int, float),
    "clean_passes": (int,),
}
_CHOICES: dict[str, type[StrEnum]] = {
    "use": Use,
    "checkpoint": Trained,
    "presize": Presize,
    "precision": Precision,
}


@dataclass(frozen=True, slots=True)
class BasicVSRSettings:
    """A backend's `settings`. None takes what `use` says.

    path: a file in place of the published one. scale: 2 or 4. past, step, ahead: the window, in
    frames. clean_threshold (0 to 255 levels), clean_passes: see `Cleaning`.
    """

    use: Use = Use.LIVE
    path: str | None = None
    checkpoint: Trained = Trained.REDS4
    scale: int = 2
    past: int | None = None
    step: int | None = None
    ahead: int | None = None
    presize: Presize = Presize.NONE
    precision: Precision = Precision.AUTO
    clean_threshold: float | None = None
    clean_passes: int | None = None

    @classmethod
    def read(cls, name: str, settings: Mapping[str, Any]) -> BasicVSRSettings:
        """Raises ConfigError that names an unknown key or a value that cannot be."""
        known = {f.name for f in fields(cls) if _ONLY.get(f.name, name) == name}
        if unknown := sorted(set(settings) - known):
            raise ConfigError(
                f"unknown {name} setting {', '.join(unknown)}",
                found=unknown,
                expected=sorted(known),
            )
        values = dict(settings)
        for key, kinds in _KINDS.items():
            value = values.get(key)
            if value is not None and (not isinstance(value, kinds) or isinstance(value, bool)):
                raise _wrong(name, key, value, " or ".join(k.__name__ for k in kinds))
        for key, choice in _CHOICES.items():
            if key in values:
                try:
                    values[key] = choice(values[key])
                except ValueError as error:
                    raise _wrong(name, key, values[key], [c.value for c in choice]) from error
        read = cls(**values)
        read._check(name)
        return read

    @property
    def window(self) -> Window:
        usual = _WINDOWS[self.use]
        return Window(
            past=usual.past if self.past is None else self.past,
            step=usual.step if self.step is None else self.step,
            ahead=usual.ahead if self.ahead is None else self.ahead,
        )

    @property
    def cleaning(self) -> Cleaning:
        usual = _CLEANING[self.use]
        return Cleaning(
            usual.threshold if self.clean_threshold is None else self.clean_threshold,
            usual.passes if self.clean_passes is None else self.clean_passes,
        )

    def _check(self, name: str) -> None:
        window, cleaning = self.window, self.cleaning
        for key, good, expected in (
            ("scale", self.scale in (2, 4), "2 or 4"),
            ("past", 0 <= window.past <= 64, "0 to 64"),
            ("step", 1 <= window.step <= 256, "1 to 256"),
            ("ahead", 0 <= window.ahead <= 64, "0 to 64"),
            ("clean_threshold", 0 <= cleaning.threshold <= 255, "0 to 255"),
            ("clean_passes", 1 <= cleaning.passes <= 3, "1 to 3"),
        ):
            if not good:
                raise _wrong(name, key, getattr(self, key), expected)
        if self.presize is Presize.HALF and self.scale != 2:
            raise _wrong(name, "presize", "half", "none with scale 4: a half enlarged 4 times is 2")


def _wrong(name: str, key: str, value: object, expected: object) -> ConfigError:
    return ConfigError(
        f"{name} setting {key}: found {value!r}, expected {expected}",
        found=value,
        expected=expected,
    )
