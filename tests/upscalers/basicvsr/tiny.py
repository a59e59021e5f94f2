"""Small nets of the family with random weights: they enlarge as bilinear does and a bit more."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from streamlift.upscalers.basicvsr import (
    BasicVSRpp,
    BasicVSRppConfig,
    RealBasicVSR,
    RealBasicVSRConfig,
)
from streamlift.upscalers.basicvsr.blocks import one_by_one

__all__ = ["plain_net", "tiny_checkpoint", "tiny_net"]


def tiny_net(name: str) -> BasicVSRpp | RealBasicVSR:
    """A net of a few channels, the same at each call."""
    widths = (4, 4, 4, 4)
    net: BasicVSRpp | RealBasicVSR
    if name == "basicvsrpp":
        net = BasicVSRpp(BasicVSRppConfig(4, 1, 1, 1, deform_groups=2, tail=4, flow_widths=widths))
    else:
        net = RealBasicVSR(RealBasicVSRConfig(4, 1, 1, tail=4, flow_widths=widths))
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for key, parameter in net.named_parameters():
            parameter.normal_(0.0, 0.05, generator=generator)
            if "bias" in key:
                parameter.zero_()
    return net.eval().requires_grad_(False)


def tiny_checkpoint(folder: Path, name: str) -> Path:
    """The net as a training run would write it: prefixed, with what is not the net's beside it."""
    tensors = {f"generator.{key}": value for key, value in tiny_net(name).state_dict().items()}
    tensors["generator.step_counter"] = torch.zeros(1)
    tensors["discriminator.conv_0.weight"] = torch.zeros(2, 3, 3, 3)
    path = folder / f"{name}.pth"
    torch.save({"meta": {"epoch": 3}, "state_dict": tensors}, path)
    return path


def plain_net() -> BasicVSRpp:
    """One that only enlarges, in no time."""

    class Plain(BasicVSRpp):
        def forward(self, clip: Tensor, first: int = 0) -> Iterator[Tensor]:
            for frame in one_by_one(clip[first:]):
                yield F.interpolate(frame, scale_factor=4.0, mode="bilinear", align_corners=False)

    return Plain(BasicVSRppConfig(4, 1, 1, 1, deform_groups=2, tail=4, flow_widths=(4, 4, 4, 4)))
