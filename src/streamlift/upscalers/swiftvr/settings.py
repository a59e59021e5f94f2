"""What a user may choose about SwiftVR; see docs/swiftvr.md."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from streamlift.errors import ConfigError
from streamlift.upscalers.choices import read_settings
from streamlift.upscalers.flashvsr.settings import Precision, Start
from streamlift.upscalers.swiftvr.fp8 import Linears
from streamlift.upscalers.swiftvr.picture import Resize
from streamlift.upscalers.swiftvr.windows import Seam

__all__ = ["MODEL", "Settings", "settings_from"]

MODEL = "SwiftVR"


@dataclass(frozen=True, slots=True)
class Settings:
    """One value a choice.

    scale: 2 or 4. latents: of a chunk, 1, 2 or 6, each 4 frames. start: `primed` gives the first
    frame at once, `full` waits for a whole chunk. seam: see Seam. overlap: latents of the chunk
    before that are seen again, at most `latents`. resize: see Resize. precision: see Precision.
    linears: see Linears. decode_together: decode all latents of a chunk as one batch, which is
    faster in sum, but gives the first four frames later. compile: let torch.compile fuse the
    networks (CUDA; minutes of warm-up). graph: replay the steady step as one CUDA graph; without
    CUDA it changes nothing.
    """

    scale: int = 2
    latents: int = 2
    start: Start = Start.PRIMED
    seam: Seam = Seam.BRIDGE
    overlap: int = 0
    resize: Resize = Resize.BILINEAR
    precision: Precision = Precision.AUTO
    linears: Linears = Linears.PLAIN
    decode_together: bool = False
    compile: bool = False
    graph: bool = False

    def __post_init__(self) -> None:
        for name, good, expected in (
            ("scale", self.scale in (2, 4), "2 or 4"),
            ("latents", self.latents in (1, 2, 6), "1, 2 or 6"),
            ("overlap", 0 <= self.overlap <= self.latents, f"0 to {self.latents}, the latents"),
        ):
            if not good:
                found = getattr(self, name)
                raise ConfigError(
                    f"{MODEL} cannot run with {name} {found}", found=found, expected=expected
                )


def settings_from(mapping: Mapping[str, Any], **defaults: Any) -> Settings:
    """Settings from a configuration file's values.

    Raises ConfigError for an unknown key, or a value of the wrong kind.
    """
    return read_settings(Settings, MODEL, mapping, **defaults)
