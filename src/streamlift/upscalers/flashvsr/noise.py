"""Where the latents start from: standard normal noise, the same on every device."""

from __future__ import annotations

from enum import StrEnum
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

__all__ = ["ContinuousNoise", "Noise", "NoisePolicy", "RepeatedNoise", "noise_source"]


class NoisePolicy(StrEnum):
    """CONTINUOUS: new noise for every chunk; REPEATED: the reference's stream, one draw for all."""

    CONTINUOUS = "continuous"
    REPEATED = "repeated"


class Noise(Protocol):
    """Noise of one stream by chunk index; the same whenever and however often it is asked."""

    def draw(self, chunk: int, shape: tuple[int, int, int, int]) -> Tensor:
        """Standard normal float32 on the CPU; shape is (channels, latents, height, width)."""
        ...


class ContinuousNoise:
    """Keyed by (seed, chunk) through a counter-based generator, so that it needs no state."""

    def __init__(self, seed: int) -> None:
        self._seed = seed % 2**64

    def draw(self, chunk: int, shape: tuple[int, int, int, int]) -> Tensor:
        key = np.array([self._seed, chunk % 2**64], dtype=np.uint64)
        generator = np.random.Generator(np.random.Philox(key=key))
        return torch.from_numpy(generator.standard_normal(shape, dtype=np.float32))


class RepeatedNoise:
    """The reference's `stream(seed)`: its generator starts anew with the same seed each call."""

    def __init__(self, seed: int) -> None:
        self._seed = seed % 2**64

    def draw(self, chunk: int, shape: tuple[int, int, int, int]) -> Tensor:
        return torch.randn((1, *shape), generator=torch.Generator().manual_seed(self._seed))[0]


def noise_source(policy: NoisePolicy, seed: int) -> Noise:
    """The source of one stream."""
    return ContinuousNoise(seed) if policy is NoisePolicy.CONTINUOUS else RepeatedNoise(seed)
