"""`swiftvr-tiny-random`: SwiftVR's data flow with made-up weights, for tests only.

Its pictures are not better than its input. It exists so that a chunked model with look-ahead can
be run through the whole service on a slow CPU. Its denoiser and half of its autoencoder are random
and weak; the other half carries each frame's brightness through, averaged over each latent, so that
a pixel stamp in the input is still readable in the output.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from streamlift.upscalers.flashvsr.upscaler import dtype_for
from streamlift.upscalers.swiftvr.config import ModelConfig, tiny_random
from streamlift.upscalers.swiftvr.model import Model
from streamlift.upscalers.swiftvr.settings import settings_from
from streamlift.upscalers.swiftvr.upscaler import SwiftVr

__all__ = ["TINY_RANDOM", "create_tiny_random", "random_model"]

TINY_RANDOM = "swiftvr-tiny-random"
_CONTEXT_ROWS = 4
_SEED = 20260609
_WEAK = 0.02
_LUMA = (0.299, 0.587, 0.114)


def create_tiny_random(device: str, settings: Mapping[str, Any]) -> SwiftVr:
    """The tests-only upscaler. Raises ConfigError for an unknown setting."""
    chosen = settings_from(settings)
    place = torch.device(device)
    model = random_model(tiny_random(), seed=_SEED)
    _carry_picture(model)
    prepared = model.prepare(
        place, dtype_for(chosen.precision, place), compiled=chosen.compile, linears=chosen.linears
    )
    return SwiftVr(TINY_RANDOM, prepared, chosen)


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
    if name.endswith(("norm_q.weight", "norm_k.weight")):
        parameter.fill_(1.0)
    elif name.endswith(("bias", "context_weight")):
        parameter.zero_()
    else:
        # keys and values are activations, the others (outputs, inputs, taps)
        fan_in = 1 if name.endswith(("keys", "values")) else parameter[0].numel()
        parameter.normal_(0.0, fan_in**-0.5, generator=generator)


@torch.no_grad()
def _carry_picture(model: Model) -> None:
    """Weaken what is random, and add the path of a latent's four frames, each one number.

    Latent j holds frames 4j .. 4j + 3 in its first four channels. It must decode to frames
    4j - 3 .. 4j: three of them out of the decoder's first memory block.
    """
    for network in (model.encoder, model.decoder):
        for parameter in network.parameters():
            parameter.mul_(_WEAK)
    model.dit.head.weight.mul_(_WEAK / 4)  # latents are a quarter of the brightness
    state = model.state()

    def path(layer: str, *pairs: tuple[int, int], gain: float = 1.0, halve: bool = False) -> None:
        weight = state[f"{layer}.weight"]
        for to, source in pairs:
            if weight.shape[-1] == 1:
                weight[to, source] += gain
            elif halve:
                weight[to, source, 1:, 1:] += gain / 4
            else:
                weight[to, source, 1, 1] += gain

    width = model.config.reae.encoder
    for channel in range(12):
        path("encoder.layers.0", (0, channel), gain=_LUMA[channel // 4] / 4)
    path("encoder.layers.2.conv", (0, 0), (1, width))
    path("encoder.layers.3", (0, 0), (1, 1), halve=True)
    path("encoder.layers.7.conv", (0, 0), (1, 1), (2, width), (3, width + 1))
    four = tuple((n, n) for n in range(4))
    path("encoder.layers.8", *four, halve=True)
    path("encoder.layers.12.conv", *four)
    path("encoder.layers.13", *four, halve=True)
    path("encoder.layers.17", *four, gain=1 / 4)  # small, where the decoder's limit is straight
    n0, n1, n2, _ = model.config.reae.decoder
    path("decoder.layers.1", *four, gain=4)
    path("decoder.layers.3.conv.0", *((n, n0 + n) for n in (1, 2, 3)))
    path("decoder.layers.3.conv.2", *((n, n) for n in (1, 2, 3)))
    path("decoder.layers.3.conv.4", *((3 + n, n) for n in (1, 2, 3)))
    path("decoder.layers.7.conv", (0, 4), (1, 5), (2, 6), (3, 0))
    path("decoder.layers.8", *four)
    path("decoder.layers.13.conv", (0, 0), (1, 1), (n1, 2), (n1 + 1, 3))
    path("decoder.layers.14", (0, 0), (1, 1))
    path("decoder.layers.19.conv", (0, 0), (n2, 1))
    path("decoder.layers.20", (0, 0))
    path("decoder.layers.22", *((n, 0) for n in range(12)))
