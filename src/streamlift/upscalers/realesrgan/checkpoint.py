"""From a checkpoint's tensors to a loaded net; architecture and sizes are read off the tensors."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from streamlift.errors import ConfigError
from streamlift.upscalers.realesrgan.rrdbnet import RRDBNet, RRDBNetConfig
from streamlift.upscalers.realesrgan.srvgg import Activation, SRVGGConfig, SRVGGNetCompact
from streamlift.upscalers.weights import check_fit, load_state_dict, rrdb_names, wrong_net

__all__ = ["Net", "NetConfig", "build_net", "interpolate", "load_net", "read_config"]

Net = RRDBNet | SRVGGNetCompact
NetConfig = RRDBNetConfig | SRVGGConfig


def load_net(path: Path, *, other: Path | None = None, share: float = 1.0) -> Net:
    """Load a net from a .pth or .safetensors file, float32, on the CPU, in eval mode.

    With `other`, the weights are `share` of `path` and the rest of `other`: deep network
    interpolation. Raises WeightsError when a file cannot be read or is no net of this family.
    """
    tensors = rrdb_names(load_state_dict(path))
    if other is not None:
        second = rrdb_names(load_state_dict(other))
        tensors = interpolate(tensors, second, share, where=str(other))
    return build_net(tensors, where=str(path))


def interpolate(
    first: Mapping[str, Tensor], second: Mapping[str, Tensor], share: float, *, where: str
) -> dict[str, Tensor]:
    """Return share * first + (1 - share) * second, tensor by tensor.

    Wang et al., "Deep Network Interpolation for Continuous Imagery Effect Transition" (2019).
    Raises ConfigError for a share outside [0, 1], WeightsError when the two nets differ.
    """
    if not 0.0 <= share <= 1.0:
        raise ConfigError("share of an interpolated net", found=share, expected="0 to 1")
    check_fit(
        {name: t.shape for name, t in second.items()},
        {name: t.shape for name, t in first.items()},
        where,
    )
    return {
        name: share * t.float() + (1 - share) * second[name].float() for name, t in first.items()
    }


def build_net(
    tensors: Mapping[str, Tensor], *, where: str, activation: Activation | None = None
) -> Net:
    """Make the net that the tensors belong to and load them strictly; float32, eval mode.

    `activation` says what no tensor shows: which parameterless activation an SRVGG net without
    PReLU slopes was trained with. Raises WeightsError naming missing, unexpected and misshapen
    tensors; `where` is named in it.
    """
    config = read_config(tensors, where=where, activation=activation)
    with torch.device("meta"):  # no memory, no random numbers: every tensor is assigned below
        net: Net = RRDBNet(config) if isinstance(config, RRDBNetConfig) else SRVGGNetCompact(config)
    expected = {name: t.shape for name, t in net.state_dict().items()}
    check_fit({name: t.shape for name, t in tensors.items()}, expected, where)
    net.load_state_dict({n: t.float() for n, t in tensors.items()}, strict=True, assign=True)
    return net.eval().requires_grad_(False)


def read_config(
    tensors: Mapping[str, Tensor], *, where: str, activation: Activation | None = None
) -> NetConfig:
    """Read architecture, scale, blocks and channels from the tensors' names and shapes.

    Raises WeightsError when they belong to neither RRDBNet nor SRVGGNetCompact.
    """
    if "conv_first.weight" in tensors and "body.0.rdb1.conv1.weight" in tensors:
        return _rrdbnet_config(tensors, where)
    if "body.0.weight" in tensors and "conv_first.weight" not in tensors:
        return _srvgg_config(tensors, where, activation)
    raise wrong_net(
        where,
        f"tensors such as {', '.join(sorted(tensors)[:3])}",
        "an RRDBNet (conv_first.weight, body.0.rdb1.conv1.weight, ...) "
        "or an SRVGGNetCompact (body.0.weight, ...). If it is another single-image net, the "
        "upscaler spandrel reads it: pip install 'streamlift[spandrel]'",
    )


def _rrdbnet_config(tensors: Mapping[str, Tensor], where: str) -> RRDBNetConfig:
    features, inputs = _kernel(tensors, "conv_first.weight", where)
    growth, _ = _kernel(tensors, "body.0.rdb1.conv1.weight", where)
    scale = {12: 2, 3: 4, 48: 1}.get(inputs)
    if scale is None:
        raise wrong_net(
            where, f"conv_first with {inputs} input channels", "3 (x4), 12 (x2) or 48 (x1)"
        )
    return RRDBNetConfig(
        scale=scale, blocks=_count(tensors, where), features=features, growth=growth
    )


def _srvgg_config(
    tensors: Mapping[str, Tensor], where: str, activation: Activation | None
) -> SRVGGConfig:
    features, channels = _kernel(tensors, "body.0.weight", where)
    prelu = "body.1.weight" in tensors
    if not prelu and activation in (None, Activation.PRELU):
        raise wrong_net(where, "no PReLU slopes (body.1.weight)", "an SRVGGNetCompact with PReLU")
    last = max(_numbers(tensors), default=0)
    outputs, _ = _kernel(tensors, f"body.{last}.weight", where)
    scale = next((s for s in (1, 2, 3, 4) if channels * s * s == outputs), None)
    if channels != 3 or scale is None or last % 2 or last > 2 * len(tensors):
        raise wrong_net(
            where,
            f"{channels} channels in and {outputs} out of layer body.{last}",
            "3 channels in and 3*scale*scale out of an even layer",
        )
    return SRVGGConfig(
        scale=scale,
        convs=last // 2 - 1,
        features=features,
        channels=channels,
        activation=Activation.PRELU if prelu else activation or Activation.PRELU,
    )


def _kernel(tensors: Mapping[str, Tensor], name: str, where: str) -> tuple[int, int]:
    """Channels out of and into a 3x3 convolution."""
    weight = tensors.get(name)
    if weight is None or weight.dim() != 4 or weight.shape[2:] != (3, 3):
        found = "nothing" if weight is None else str(tuple(weight.shape))
        raise wrong_net(where, f"{name}: {found}", "a 3x3 convolution's weight")
    return weight.shape[0], weight.shape[1]


def _count(tensors: Mapping[str, Tensor], where: str) -> int:
    """Number of blocks; a forged file must not make us build more than it holds."""
    numbers = _numbers(tensors)
    if numbers != set(range(len(numbers))):
        raise wrong_net(
            where, f"blocks {sorted(numbers)[:8]}...", "blocks 0, 1, 2, ... without a gap"
        )
    return len(numbers)


def _numbers(tensors: Mapping[str, Tensor]) -> set[int]:
    found = (re.match(r"body\.(\d{1,6})\.", name) for name in tensors)
    return {int(match[1]) for match in found if match}
