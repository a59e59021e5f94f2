"""`flashvsr-tiny-random`: FlashVSR's data flow with random weights, for tests only.

Its pictures are not better than its input. It exists so that a chunked model with look-ahead can
be run through the whole service on a slow CPU. Its wavelet colour fix reaches less far than the
real one's, so that a pixel stamp in the input is still readable in the output.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from streamlift.upscalers.flashvsr.colour import ColourFix
from streamlift.upscalers.flashvsr.config import ModelConfig, tiny_random
from streamlift.upscalers.flashvsr.model import Model
from streamlift.upscalers.flashvsr.settings import settings_from
from streamlift.upscalers.flashvsr.upscaler import FlashVsr, dtype_for

__all__ = ["TINY_RANDOM", "create_tiny_random", "random_model"]

TINY_RANDOM = "flashvsr-tiny-random"
_CONTEXT_ROWS = 4
_WAVELET_LEVELS = 3
_SEED = 20260101


def create_tiny_random(device: str, settings: Mapping[str, Any]) -> FlashVsr:
    """The tests-only upscaler. Raises ConfigError for an unknown setting."""
    chosen = settings_from(settings, colour=ColourFix.WAVELET, wavelet_levels=_WAVELET_LEVELS)
    place = torch.device(device)
    dtype = dtype_for(chosen.precision, place)
    model = random_model(tiny_random(), seed=_SEED).prepare(place, dtype, compiled=chosen.compile)
    return FlashVsr(TINY_RANDOM, model, chosen)


def random_model(
    config: ModelConfig,
    *,
    seed: int,
    context_rows: int = _CONTEXT_ROWS,
    device: torch.device | str = "cpu",
) -> Model:
    """Networks with seeded random weights, scaled so that activations keep unit variance."""
    with torch.device(device):
        model = Model.build(config, context_rows)
    generator = torch.Generator(device).manual_seed(seed)
    for network in model.networks().values():
        for name, parameter in network.named_parameters():
            _fill(name, parameter, generator)
    return model


@torch.no_grad()
def _fill(name: str, parameter: nn.Parameter, generator: torch.Generator) -> None:
    if name.endswith(("gamma", "norm_q.weight", "norm_k.weight")):
        parameter.fill_(1.0)
    elif name.endswith(("bias", "context_weight")):
        parameter.zero_()
    else:
        # keys and values are activations, the others (outputs, inputs, taps)
        fan_in = 1 if name.endswith(("keys", "values")) else parameter[0].numel()
        parameter.normal_(0.0, fan_in**-0.5, generator=generator)
