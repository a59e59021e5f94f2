"""The three networks of one pipeline: read-only weights that all streams share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from streamlift.upscalers.flashvsr.config import DecoderConfig, ModelConfig
from streamlift.upscalers.flashvsr.decoder import TcDecoder
from streamlift.upscalers.flashvsr.dit import Dit
from streamlift.upscalers.flashvsr.projector import Projector
from streamlift.upscalers.flashvsr.vae import WanVae

__all__ = ["Model"]

_COMPILED_SHAPES = 192
"""Of one piece of code: three for each of as many sizes as a backend has slots."""


@dataclass(frozen=True, slots=True, eq=False)
class Model:
    """DiT, projector and decoder, in one precision on one device."""

    config: ModelConfig
    dit: Dit
    projector: Projector
    decoder: TcDecoder | WanVae

    @classmethod
    def build(cls, config: ModelConfig, context_rows: int) -> Model:
        """Networks without weights: for the meta device, or to load a state into."""
        decoder = config.decoder
        return cls(
            config=config,
            dit=Dit(config.dit, context_rows),
            projector=Projector(config.projector, config.version),
            decoder=TcDecoder(decoder) if isinstance(decoder, DecoderConfig) else WanVae(decoder),
        )

    def prepare(self, device: torch.device, dtype: torch.dtype, *, compiled: bool = False) -> Model:
        """The same networks, moved, frozen, and laid out as the device likes convolutions."""
        for network in self.networks().values():
            network.to(device=device, dtype=dtype).eval().requires_grad_(False)
            if device.type == "cuda" and not isinstance(network, WanVae):
                network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        # Made of the weights once, here, and not in a stream's first frame.
        self.dit.offsets()
        if isinstance(self.decoder, TcDecoder):
            self.decoder.folded()
        if compiled:
            _allow_many_sizes()
            self.projector.compile(dynamic=False)
            if isinstance(self.decoder, WanVae):  # the other is kernels of our own
                self.decoder.compile(dynamic=False)
        return self

    def networks(self) -> dict[str, nn.Module]:
        """By the names under which the cache file holds their tensors."""
        return {"dit": self.dit, "projector": self.projector, "decoder": self.decoder}

    def state(self) -> dict[str, Tensor]:
        """All tensors, each name led by its network's."""
        return {
            f"{name}.{key}": tensor
            for name, network in self.networks().items()
            for key, tensor in network.state_dict().items()
        }

    @property
    def device(self) -> torch.device:
        return self.dit.patch.weight.device

    @property
    def dtype(self) -> torch.dtype:
        return self.dit.patch.weight.dtype


def _allow_many_sizes() -> None:
    """torch compiles one piece of code for eight shapes, then runs it uncompiled: too few here.

    Two or three shapes a picture size; the settings are the process's, and only ever raised.
    """
    import torch._dynamo  # takes a second

    settings: Any = torch._dynamo.config
    for name, least in (
        ("recompile_limit", _COMPILED_SHAPES),
        ("cache_size_limit", _COMPILED_SHAPES),
        ("accumulated_recompile_limit", 8 * _COMPILED_SHAPES),
        ("accumulated_cache_size_limit", 8 * _COMPILED_SHAPES),
    ):
        # The names before and after torch 2.7.
        if hasattr(settings, name):
            setattr(settings, name, max(least, getattr(settings, name)))
