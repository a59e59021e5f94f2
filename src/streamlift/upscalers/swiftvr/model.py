"""The networks of SwiftVR: read-only weights that all streams share."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from streamlift.upscalers.swiftvr.config import ModelConfig
from streamlift.upscalers.swiftvr.dit import Dit
from streamlift.upscalers.swiftvr.fp8 import Linears, quantise
from streamlift.upscalers.swiftvr.reae import Decoder, Encoder

__all__ = ["LAST_CONV", "Model"]

LAST_CONV = "decoder.layers.22."
"""The tensors that stay float32 in every precision."""


@dataclass(frozen=True, slots=True, eq=False)
class Model:
    """DiT, encoder and decoder, in one precision on one device."""

    config: ModelConfig
    dit: Dit
    encoder: Encoder
    decoder: Decoder

    @classmethod
    def build(cls, config: ModelConfig, context_rows: int) -> Model:
        """Networks without weights: for the meta device, or to load a state into."""
        return cls(
            config, Dit(config.dit, context_rows), Encoder(config.reae), Decoder(config.reae)
        )

    def prepare(
        self,
        device: torch.device,
        dtype: torch.dtype,
        *,
        compiled: bool = False,
        linears: Linears = Linears.PLAIN,
    ) -> Model:
        """The same networks, moved, frozen, and laid out as the device likes convolutions."""
        *layers, last = self.decoder.layers
        for network in (self.dit, self.encoder, *layers):
            network.to(device=device, dtype=dtype)
        last.to(device=device, dtype=torch.float32)
        for network in self.networks().values():
            network.eval().requires_grad_(False)
        for part in (self.encoder, self.decoder):
            part.to(memory_format=self.layout(device))  # type: ignore[call-overload]
        if device.type != "meta":
            self.dit.weigh_context()
        if linears is Linears.FP8:
            quantise(self.dit.blocks)
        if compiled:
            self.dit.compile_parts()
            self.encoder.compile(dynamic=False)
            self.decoder.compile(dynamic=False)
        return self

    def networks(self) -> dict[str, nn.Module]:
        """By the names under which the converted file holds their tensors."""
        return {"dit": self.dit, "encoder": self.encoder, "decoder": self.decoder}

    def state(self) -> dict[str, Tensor]:
        """All tensors, each name led by its network's."""
        return {
            f"{name}.{key}": tensor
            for name, network in self.networks().items()
            for key, tensor in network.state_dict().items()
        }

    @staticmethod
    def layout(device: torch.device | str) -> torch.memory_format:
        """How the autoencoder's maps lie in memory on a device."""
        on_cuda = torch.device(device).type == "cuda"
        return torch.channels_last if on_cuda else torch.contiguous_format

    @property
    def device(self) -> torch.device:
        return self.dit.patch.weight.device

    @property
    def dtype(self) -> torch.dtype:
        return self.dit.patch.weight.dtype
