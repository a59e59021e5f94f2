"""Hyperparameters of the FlashVSR networks, and a function for each named configuration.

FlashVSR: "Towards Real-Time Diffusion-Based Streaming Video Super-Resolution" (arXiv 2510.12747).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

__all__ = [
    "BLOCK_PIXELS",
    "CLIP_FRAMES",
    "FIRST_LATENTS",
    "LATENT_STRIDE",
    "STEP_LATENTS",
    "TOKEN_STRIDE",
    "WINDOW",
    "WINDOW_TOKENS",
    "DecoderConfig",
    "DitConfig",
    "ModelConfig",
    "ProjectorConfig",
    "VaeConfig",
    "Version",
    "flashvsr",
    "flashvsr_full",
    "tiny_random",
]

LATENT_STRIDE = 8
"""Pixels of one latent, in each direction."""
TOKEN_STRIDE = 16
"""Pixels of one DiT token: a patch of 2 x 2 latents."""
CLIP_FRAMES = 4
"""Frames of one latent; the first latent stands for one frame only."""
WINDOW = (2, 8, 8)
"""Tokens of one attention block in time, height and width."""
WINDOW_TOKENS = 128
BLOCK_PIXELS = 128
"""Height and width must be multiples of one attention block."""
FIRST_LATENTS = 6
STEP_LATENTS = 2


class Version(StrEnum):
    """Which weights; the two also differ in the cache rule their projector was trained with."""

    V1 = "v1"
    V1_1 = "v1.1"


@dataclass(frozen=True, slots=True)
class DitConfig:
    """The one-step denoiser, shaped like Wan2.1-1.3B."""

    dim: int = 1536
    heads: int = 12
    blocks: int = 30
    ffn_dim: int = 8960
    channels: int = 16
    text_dim: int = 4096
    freq_dim: int = 256
    eps: float = 1e-6

    @property
    def head_dim(self) -> int:
        return self.dim // self.heads


@dataclass(frozen=True, slots=True)
class ProjectorConfig:
    """The causal projector from low-quality video to DiT tokens."""

    hidden1: int = 2048
    hidden2: int = 3072
    dim: int = 1536
    layers: int = 1


@dataclass(frozen=True, slots=True)
class DecoderConfig:
    """TCDecoder, the small decoder that sees the low-quality video again."""

    channels: tuple[int, int, int, int] = (512, 256, 128, 128)
    latent_channels: int = 16


@dataclass(frozen=True, slots=True)
class VaeConfig:
    """The Wan2.1 VAE decoder of the Full pipeline.

    tile, stride: (rows, columns) of latents to decode in overlapping tiles, as the reference does
    by default; without a tile the picture is decoded whole.
    """

    base: int = 96
    latent_channels: int = 16
    tile: tuple[int, int] | None = None
    stride: tuple[int, int] = (30, 52)


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """All networks of one pipeline."""

    version: Version = Version.V1_1
    dit: DitConfig = field(default_factory=DitConfig)
    projector: ProjectorConfig = field(default_factory=ProjectorConfig)
    decoder: DecoderConfig | VaeConfig = field(default_factory=DecoderConfig)


def flashvsr(version: Version = Version.V1_1) -> ModelConfig:
    """FlashVSR-Tiny as published: the streaming pipeline with TCDecoder."""
    return ModelConfig(version=version)


def flashvsr_full(version: Version = Version.V1_1, *, tiled: bool = False) -> ModelConfig:
    """FlashVSR-Full as published: the same DiT with the Wan2.1 VAE decoder."""
    return ModelConfig(version=version, decoder=VaeConfig(tile=(60, 104) if tiled else None))


def tiny_random() -> ModelConfig:
    """Small enough for live tests on one slow core; there are no trained weights of this size."""
    return ModelConfig(
        dit=DitConfig(dim=32, heads=1, blocks=2, ffn_dim=48, text_dim=16, freq_dim=16),
        projector=ProjectorConfig(hidden1=8, hidden2=8, dim=32),
        decoder=DecoderConfig(channels=(16, 8, 8, 4)),
    )
