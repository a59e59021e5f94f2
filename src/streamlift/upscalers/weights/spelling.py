"""The names that trainers give tensors, brought to the ones that the nets here have."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, TypeVar

__all__ = ["WRAPPERS", "rrdb_names", "unwrapped", "without_prefix"]

T = TypeVar("T")

WRAPPERS = (
    "params_ema",
    "params",
    "state_dict",
    "model_state_dict",
    "model_state",
    "model",
    "generator",
    "net_g",
    "netG",
    "g_ema",
    "ema",
    "net",
    "weights",
)
"""Keys under which checkpoints hold their tensors, the better ones first."""

_PREFIXES = ("module.", "_orig_mod.", "model.", "generator.", "net_g.", "netG.", "net.", "params.")
_DEEPEST = 3


def unwrapped(loaded: Any, wrappers: tuple[str, ...] = WRAPPERS) -> Any:
    """What lies under the first wrapper key that holds a dict, and under one in that."""
    for _ in range(_DEEPEST):
        if not isinstance(loaded, dict):
            break
        inner = next((loaded[k] for k in wrappers if isinstance(loaded.get(k), dict)), None)
        if inner is None:
            break
        loaded = inner
    return loaded


def without_prefix(tensors: Mapping[str, T]) -> dict[str, T]:
    """Without what wraps every name (`module.`, `model.`, ...).

    Of several nets under prefixes (a GAN as trained), the generator's part. The first ESRGAN's own
    names begin with `model.` too: those stay, for `rrdb_names`.
    """
    found = dict(tensors)
    for _ in range(_DEEPEST):
        if _is_first_esrgan(found):
            break
        for prefix in _PREFIXES:
            inside = {k[len(prefix) :]: v for k, v in found.items() if k.startswith(prefix)}
            others = [k for k in found if not k.startswith(prefix)]
            if inside and all(re.match(r"(net_?[dD]|discriminator|loss|vgg)", k) for k in others):
                found = inside
                break
        else:
            break
    return found


def rrdb_names(tensors: Mapping[str, T]) -> dict[str, T]:
    """RRDBNet's tensors under Real-ESRGAN's names; any other net's as they are.

    The first ESRGAN (2018) numbered its layers: `model.1.sub.0.RDB1.conv1.0.weight`. BSRGAN and
    the second ESRGAN spelled them out: `RRDB_trunk.0.RDB1.conv1.weight`, `trunk_conv`, `upconv1`,
    `HRconv`. The nets are the same.
    """
    if _is_first_esrgan(tensors):
        return {_from_first(name): tensor for name, tensor in tensors.items()}
    if any(name.startswith("RRDB_trunk.") for name in tensors):
        return {_from_trunk(name): tensor for name, tensor in tensors.items()}
    return dict(tensors)


_LAYERS = {"0": "conv_first", "3": "conv_up1", "6": "conv_up2", "8": "conv_hr", "10": "conv_last"}
_TRUNK = {
    "trunk_conv": "conv_body",
    "upconv1": "conv_up1",
    "upconv2": "conv_up2",
    "HRconv": "conv_hr",
}


def _is_first_esrgan(tensors: Mapping[str, Any]) -> bool:
    """At x4, whose layers are those of RRDBNet here; x2 and x8 had another number of them."""
    return (
        "model.0.weight" in tensors
        and "model.10.weight" in tensors
        and any(name.startswith("model.1.sub.0.RDB1.") for name in tensors)
    )


def _from_first(name: str) -> str:
    block = re.fullmatch(r"model\.1\.sub\.(\d+)\.RDB([123])\.conv([1-5])\.0\.(weight|bias)", name)
    if block:
        return "body.{}.rdb{}.conv{}.{}".format(*block.groups())
    body = re.fullmatch(r"model\.1\.sub\.\d+\.(weight|bias)", name)
    if body:
        return f"conv_body.{body[1]}"
    layer = re.fullmatch(r"model\.(\d+)\.(weight|bias)", name)
    return f"{_LAYERS[layer[1]]}.{layer[2]}" if layer and layer[1] in _LAYERS else name


def _from_trunk(name: str) -> str:
    block = re.fullmatch(r"RRDB_trunk\.(\d+)\.RDB([123])\.conv([1-5])\.(weight|bias)", name)
    if block:
        return "body.{}.rdb{}.conv{}.{}".format(*block.groups())
    layer, _, kind = name.rpartition(".")
    return f"{_TRUNK[layer]}.{kind}" if layer in _TRUNK else name
