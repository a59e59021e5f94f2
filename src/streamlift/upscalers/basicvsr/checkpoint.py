"""From a published checkpoint to a loaded net of the family; sizes are read off the tensors."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from streamlift.upscalers.basicvsr.basicvsrpp import BasicVSRpp, BasicVSRppConfig
from streamlift.upscalers.basicvsr.realbasicvsr import RealBasicVSR, RealBasicVSRConfig
from streamlift.upscalers.weights import check_fit, load_checkpoint, wrong_net

__all__ = ["build_basicvsrpp", "build_realbasicvsr", "generator_tensors", "load_net"]

Net = TypeVar("Net", bound=nn.Module)

_PREFIXES = ("generator_ema.", "generator.")
"""Of what was trained together, the better ones first; `ema` is the average over training."""
_NOT_OF_THE_NET = "step_counter"
_FLOW = "spynet.basic_module.0.basic_module."
_TAPS = 9


def load_net(path: Path) -> BasicVSRpp | RealBasicVSR:
    """Load a file of either net, float32, on the CPU, in eval mode.

    Raises WeightsError when it cannot be read, holds code, or is of another architecture.
    """
    tensors = generator_tensors(load_checkpoint(path), where=str(path))
    if "image_cleaning.1.weight" in tensors:
        return build_realbasicvsr(tensors, where=str(path))
    return build_basicvsrpp(tensors, where=str(path))


def generator_tensors(loaded: Any, *, where: str) -> dict[str, Tensor]:
    """The generator's tensors out of what a training run wrote, by the net's own names.

    Discriminators, losses and the counter of steps are left out. Raises WeightsError.
    """
    if isinstance(loaded, dict) and isinstance(loaded.get("state_dict"), dict):
        loaded = loaded["state_dict"]
    if not isinstance(loaded, dict):
        raise wrong_net(where, type(loaded).__name__, "tensors by name")
    names = [name for name in loaded if isinstance(name, str)]
    for prefix in _PREFIXES:
        if any(name.startswith(prefix) for name in names):
            loaded = {n[len(prefix) :]: loaded[n] for n in names if n.startswith(prefix)}
            break
    tensors = {name: value for name, value in loaded.items() if name != _NOT_OF_THE_NET}
    for name, value in tensors.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise wrong_net(where, f"{name}: {type(value).__name__}", "tensors by name")
    return tensors


def build_basicvsrpp(tensors: Mapping[str, Tensor], *, where: str) -> BasicVSRpp:
    """Raises WeightsError naming missing, unexpected and misshapen tensors."""
    read = _Reading(tensors, where)
    config = BasicVSRppConfig(
        features=read.outputs("feat_extract.main.0.weight"),
        blocks=read.count(r"backbone\.backward_1\.main\.2\.(\d+)\.conv1\.weight"),
        first_blocks=read.count(r"feat_extract\.main\.2\.(\d+)\.conv1\.weight"),
        last_blocks=read.count(r"reconstruction\.main\.2\.(\d+)\.conv1\.weight"),
        deform_groups=read.outputs("deform_align.backward_1.conv_offset.6.weight") // (3 * _TAPS),
        tail=read.outputs("conv_hr.weight"),
        flow_widths=read.flow_widths(_FLOW),
    )
    features, groups = config.features, config.deform_groups
    if groups < 2 or groups % 2 or 2 * features % groups:
        raise wrong_net(
            where, f"{groups} deform groups", f"an even number that divides {2 * features}"
        )
    with torch.device("meta"):  # every tensor is assigned below
        net = BasicVSRpp(config)
    return _filled(net, tensors, where)


def build_realbasicvsr(tensors: Mapping[str, Tensor], *, where: str) -> RealBasicVSR:
    """Raises WeightsError naming missing, unexpected and misshapen tensors."""
    read = _Reading(tensors, where)
    config = RealBasicVSRConfig(
        features=read.outputs("basicvsr.fusion.weight"),
        blocks=read.count(r"basicvsr\.backward_resblocks\.main\.2\.(\d+)\.conv1\.weight"),
        cleaning_blocks=read.count(r"image_cleaning\.0\.main\.2\.(\d+)\.conv1\.weight"),
        tail=read.outputs("basicvsr.conv_hr.weight"),
        flow_widths=read.flow_widths(f"basicvsr.{_FLOW}"),
    )
    with torch.device("meta"):
        net = RealBasicVSR(config)
    return _filled(net, tensors, where)


def _filled(net: Net, tensors: Mapping[str, Tensor], where: str) -> Net:
    shapes = {name: tensor.shape for name, tensor in net.state_dict().items()}
    check_fit({name: tensor.shape for name, tensor in tensors.items()}, shapes, where)
    net.load_state_dict({n: t.float() for n, t in tensors.items()}, strict=True, assign=True)
    return net.eval().requires_grad_(False)


class _Reading:
    """Sizes off the tensors; a forged file must not make us build more than it holds."""

    def __init__(self, tensors: Mapping[str, Tensor], where: str) -> None:
        self._tensors, self._where = tensors, where

    def outputs(self, name: str) -> int:
        """Channels out of a convolution."""
        weight = self._tensors.get(name)
        if weight is None or weight.dim() != 4:
            found = "nothing" if weight is None else str(tuple(weight.shape))
            raise wrong_net(self._where, f"{name}: {found}", "a convolution's weight")
        return weight.shape[0]

    def count(self, pattern: str) -> int:
        """Blocks 0, 1, 2, ... whose tensors' names match."""
        found = (re.fullmatch(pattern, name) for name in self._tensors)
        return len([match for match in found if match])

    def flow_widths(self, prefix: str) -> tuple[int, ...]:
        return tuple(self.outputs(f"{prefix}{step}.conv.weight") for step in range(4))
