"""Hyperparameters of the SwiftVR networks, and a function for each named configuration.

SwiftVR: one-step streaming video restoration with dense window attention (arXiv 2606.09516).
"""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = [
    "LATENT_FRAMES",
    "LATENT_STRIDE",
    "LOOK_AHEAD",
    "TOKEN_STRIDE",
    "DitConfig",
    "ModelConfig",
    "ReaeConfig",
    "swiftvr",
    "tiny_random",
]

LATENT_FRAMES = 4
"""Frames of one latent: latent j is made from frames 4j .. 4j + 3."""
LOOK_AHEAD = 3
"""Later frames that frame 4j needs; also what the decoder makes too many at a stream's start."""
LATENT_STRIDE = 16
"""Pixels of one latent, in each direction."""
TOKEN_STRIDE = 32
"""Pixels of one DiT token, a patch of 2 x 2 latents: sides must be multiples of it."""


@dataclass(frozen=True, slots=True)
class DitConfig:
    """The one-step denoiser, shaped like Wan2.2-TI2V-5B. window: tokens high and wide."""

    dim: int = 3072
    heads: int = 24
    blocks: int = 30
    ffn_dim: int = 14336
    channels: int = 48
    text_dim: int = 4096
    freq_dim: int = 256
    eps: float = 1e-6
    window: tuple[int, int] = (16, 16)

    @property
    def head_dim(self) -> int:
        return self.dim // self.heads


@dataclass(frozen=True, slots=True)
class ReaeConfig:
    """The causal autoencoder: the encoder's width, and the decoder's from latents to pixels."""

    encoder: int = 64
    decoder: tuple[int, int, int, int] = (512, 256, 128, 64)
    channels: int = 48


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """Both networks."""

    dit: DitConfig = field(default_factory=DitConfig)
    reae: ReaeConfig = field(default_factory=ReaeConfig)


def swiftvr() -> ModelConfig:
    """SwiftVR as published."""
    return ModelConfig()


def tiny_random() -> ModelConfig:
    """Small enough for live tests on one slow core; there are no trained weights of this size."""
    return ModelConfig(
        dit=DitConfig(
            dim=32,
            heads=2,
            blocks=2,
            ffn_dim=48,
            channels=12,
            text_dim=16,
            freq_dim=16,
            window=(2, 2),
        ),
        reae=ReaeConfig(encoder=8, decoder=(16, 16, 12, 12), channels=12),
    )
