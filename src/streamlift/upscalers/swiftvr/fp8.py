"""Linear layers in 8-bit floats: E4M3 weights and activations, products summed in float32.

One scale for each row of activations and each output of the weights. On CUDA it is torch's scaled
matrix product (compute capability 8.9 or later); elsewhere the same numbers are multiplied in
float32.
"""

from __future__ import annotations

from enum import StrEnum

import torch
from torch import Tensor, nn

__all__ = ["Fp8Linear", "Linears", "quantise"]

_KIND = torch.float8_e4m3fn
_LARGEST = torch.finfo(_KIND).max


class Linears(StrEnum):
    """How the denoiser's linear layers multiply: as the rest, or in 8-bit floats (E4M3)."""

    PLAIN = "plain"
    FP8 = "fp8"


class Fp8Linear(nn.Module):
    """What a linear layer computes, but for the rounding of both factors to three bits."""

    weight: Tensor
    scale: Tensor
    bias: Tensor

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        weight, scale = _rounded(layer.weight.detach())
        self.register_buffer("weight", weight)  # (outputs, inputs)
        self.register_buffer("scale", scale.reshape(1, -1))
        self.register_buffer("bias", layer.bias.detach())

    def forward(self, x: Tensor) -> Tensor:
        """(..., inputs) -> (..., outputs), in x's precision."""
        rows, scale = _rounded(x.flatten(0, -2))
        if x.is_cuda:
            product: Tensor = torch._scaled_mm(
                rows,
                self.weight.t(),
                scale_a=scale,
                scale_b=self.scale,
                bias=self.bias.bfloat16(),
                out_dtype=torch.bfloat16,  # the only one that scales by rows allow
                use_fast_accum=True,
            ).to(x.dtype)
        else:
            exact = rows.float() @ self.weight.float().t()
            product = (exact * scale * self.scale).to(x.dtype) + self.bias
        return torch.unflatten(product, 0, x.shape[:-1])


def quantise(blocks: nn.Module) -> None:
    """Put an `Fp8Linear` in the place of every linear layer below `blocks`."""
    for module in blocks.modules():
        for name, child in list(module.named_children()):
            if isinstance(child, nn.Linear):
                setattr(module, name, Fp8Linear(child))


def _rounded(x: Tensor) -> tuple[Tensor, Tensor]:
    """x by rows in 8 bits, and the float32 scale of each, (rows, 1)."""
    wide = x.float()
    scale = wide.abs().amax(-1, keepdim=True).clamp(min=1e-12) / _LARGEST
    return (wide / scale).clamp(-_LARGEST, _LARGEST).to(_KIND), scale
