"""What a user may choose about FlashVSR; see docs/flashvsr.md."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from streamlift.errors import ConfigError
from streamlift.upscalers.choices import read_settings
from streamlift.upscalers.flashvsr.attention import AttentionKind
from streamlift.upscalers.flashvsr.colour import WAVELET_LEVELS, ColourFix
from streamlift.upscalers.flashvsr.noise import NoisePolicy
from streamlift.upscalers.flashvsr.resize import Resize

__all__ = ["Precision", "Settings", "Start", "settings_from"]


class Precision(StrEnum):
    """AUTO is bfloat16 on CUDA, float32 elsewhere."""

    AUTO = "auto"
    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"


class Start(StrEnum):
    """FULL waits for the first chunk; PRIMED makes it of copies of the first frame."""

    FULL = "full"
    PRIMED = "primed"


@dataclass(frozen=True, slots=True)
class Settings:
    """One value a choice; the defaults are the authors', but for the start.

    scale: 2 or 4. start: `primed` gives the first frame at once, `full` waits for 25 frames.
    sparse_ratio: share of attention, 2.0 stable or 1.5 faster. local_range: width of the attended
    neighbourhood in blocks, 11 stable or 9 sharper. kv_units: earlier pairs of latents attended.
    noise: see NoisePolicy. colour, wavelet_levels: see ColourFix. resize: see Resize.
    precision, attention: see there. decode_together: decode both latents of a chunk as one batch,
    which is faster in sum, but gives the first four frames later.
    vae_tiled: decode Full in overlapping tiles, as the reference does by default.
    compile: let torch.compile fuse the networks (CUDA; minutes of warm-up).
    graph: replay the steady step as CUDA graphs; without CUDA it changes nothing.
    """

    scale: int = 2
    start: Start = Start.PRIMED
    sparse_ratio: float = 2.0
    local_range: int = 11
    kv_units: int = 3
    noise: NoisePolicy = NoisePolicy.CONTINUOUS
    colour: ColourFix = ColourFix.ADAIN
    wavelet_levels: int = WAVELET_LEVELS
    resize: Resize = Resize.FLOAT
    precision: Precision = Precision.AUTO
    attention: AttentionKind = AttentionKind.AUTO
    decode_together: bool = False
    vae_tiled: bool = False
    compile: bool = False
    graph: bool = False

    def __post_init__(self) -> None:
        for name, good, expected in (
            ("scale", self.scale in (2, 4), "2 or 4"),
            ("sparse_ratio", 0 < self.sparse_ratio <= 64, "above 0; the authors use 2.0 or 1.5"),
            ("local_range", self.local_range >= 1, "at least 1; the authors use 11 or 9"),
            ("kv_units", 1 <= self.kv_units <= 16, "1 to 16; the authors use 3"),
            ("wavelet_levels", 1 <= self.wavelet_levels <= 5, "1 to 5"),
        ):
            if not good:
                found = getattr(self, name)
                raise ConfigError(
                    f"FlashVSR cannot run with {name} {found}", found=found, expected=expected
                )


def settings_from(mapping: Mapping[str, Any], **defaults: Any) -> Settings:
    """Settings from a configuration file's values.

    Raises ConfigError for an unknown key, or a value of the wrong kind.
    """
    return read_settings(Settings, "FlashVSR", mapping, **defaults)
