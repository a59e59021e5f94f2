"""From the published tensors to those that run: constants folded in, a tensor at a time.

The 20 GB file is never in memory as a whole: `read` fetches a tensor by its name when it is
wanted. Folds are taken in float64 and rounded once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from streamlift.upscalers.flashvsr.published import sinusoid
from streamlift.upscalers.swiftvr.config import DitConfig

__all__ = ["Read", "TimeConstants", "distinct_rows", "embed_prompt", "fold_dit", "fold_reae"]

Read = Callable[[str], Tensor]
Linear = tuple[Tensor, Tensor]


@dataclass(frozen=True, slots=True, eq=False)
class TimeConstants:
    """What is left of the one time step: t (dim,) and t_mod (6, dim)."""

    t: Tensor
    t_mod: Tensor

    @classmethod
    @torch.no_grad()
    def of(cls, read: Read, config: DitConfig) -> TimeConstants:
        """At time step 1000, float32."""
        s = sinusoid(config.freq_dim).float()
        t = _two(read, "condition_embedder.time_embedder", s, F.silu)
        mod = F.linear(F.silu(t), *_linear(read, "condition_embedder.time_proj"))
        return cls(t, torch.unflatten(mod, 0, (6, -1)))


def distinct_rows(prompt: Tensor) -> tuple[Tensor, Tensor]:
    """Distinct rows of the prompt, and the log of how often each occurs.

    Equal rows are equal keys: one key with that much added to its score is the same.
    """
    rows, counts = torch.unique(prompt.float(), dim=0, return_counts=True)
    return rows, counts.float().log()


@torch.no_grad()
def embed_prompt(read: Read, rows: Tensor) -> Tensor:
    """(rows, text_dim) -> (rows, dim), float32."""

    def gelu(x: Tensor) -> Tensor:
        return F.gelu(x, approximate="tanh")

    return _two(read, "condition_embedder.text_embedder", rows.float(), gelu)


@torch.no_grad()
def fold_dit(
    read: Read, config: DitConfig, prompt: Tensor, blocks: Iterable[int] | None = None
) -> Iterator[tuple[str, Tensor]]:
    """Name and tensor of everything `Dit` holds, in its own order, float32 or float64.

    prompt: (rows, text_dim), distinct or not. blocks: to fold these only, rather than all.
    """
    rows, weight = distinct_rows(prompt)
    time, context = TimeConstants.of(read, config), embed_prompt(read, rows)
    yield "context_weight", weight
    patch = read("patch_embedding.weight").flatten(1)
    yield from _named("patch", (patch, read("patch_embedding.bias")))
    for index in range(config.blocks) if blocks is None else blocks:
        below = partial(_below, read, f"blocks.{index}.")
        for name, tensor in _fold_block(below, config, time.t_mod, context):
            yield f"blocks.{index}.{name}", tensor
    shift, scale = (read("scale_shift_table")[0].float() + time.t).double()
    yield from _named("head", _after(_linear(read, "proj_out"), 1 + scale, shift))


def fold_reae(read: Read, names: Iterable[str]) -> Iterator[tuple[str, Tensor]]:
    """Name and tensor of `Encoder` and `Decoder`, led by `encoder.` and `decoder.`.

    Growth repeats a time step and convolves the pair with three taps and zeros around: of one
    step's copies the earlier sees the last two taps, the later the first two.
    """
    for name in names:
        part, _, rest = name.partition(".")
        layer = rest.partition(".")[0]
        tensor = read(name)
        if rest.endswith(".proj.weight"):
            yield f"{part}.layers.{layer}.conv.weight", tensor
        elif rest.endswith(".conv3d.weight"):
            k0, k1, k2 = tensor.double().unbind(2)
            yield f"{part}.layers.{layer}.conv.weight", torch.cat((k1 + k2, k0 + k1))
        else:
            yield f"{part}.layers.{rest}", tensor


def _fold_block(
    read: Read, config: DitConfig, t_mod: Tensor, context: Tensor
) -> Iterator[tuple[str, Tensor]]:
    mod = (read("scale_shift_table")[0].float() + t_mod).double()
    shift1, scale1, gate1, shift2, scale2, gate2 = mod
    parts = [_after(_linear(read, f"attn1.to_{n}"), 1 + scale1, shift1) for n in "qkv"]
    weight, bias = (torch.cat(same) for same in zip(*parts, strict=True))
    yield from _named("self_attn.qkv", (weight, bias))
    yield "self_attn.norm_q.weight", read("attn1.norm_q.weight")
    yield "self_attn.norm_k.weight", read("attn1.norm_k.weight")
    yield from _named("self_attn.out", _before(_linear(read, "attn1.to_out.0"), gate1))
    heads = (config.heads, config.head_dim)
    keys = F.linear(context, *_linear(read, "attn2.to_k"))
    keys = F.rms_norm(keys, keys.shape[-1:], read("attn2.norm_k.weight").float(), config.eps)
    values = F.linear(context, *_linear(read, "attn2.to_v"))
    yield "cross_attn.keys", torch.unflatten(keys, -1, heads).transpose(0, 1)
    yield "cross_attn.values", torch.unflatten(values, -1, heads).transpose(0, 1)
    gain, shift = read("norm2.weight"), read("norm2.bias")
    yield from _named("cross_attn.q", _after(_linear(read, "attn2.to_q"), gain, shift))
    yield "cross_attn.norm_q.weight", read("attn2.norm_q.weight")
    yield from _named("cross_attn.out", _linear(read, "attn2.to_out.0"))
    yield from _named("ffn.0", _after(_linear(read, "ffn.net.0.proj"), 1 + scale2, shift2))
    yield from _named("ffn.2", _before(_linear(read, "ffn.net.2"), gate2))


def _below(read: Read, prefix: str, name: str) -> Tensor:
    return read(prefix + name)


def _two(read: Read, name: str, x: Tensor, between: Callable[[Tensor], Tensor]) -> Tensor:
    x = F.linear(x, *_linear(read, f"{name}.linear_1"))
    return F.linear(between(x), *_linear(read, f"{name}.linear_2"))


def _linear(read: Read, name: str) -> Linear:
    return read(f"{name}.weight").float(), read(f"{name}.bias").float()


def _after(layer: Linear, gain: Tensor, shift: Tensor) -> Linear:
    """layer(x * gain + shift) as one linear layer of x."""
    weight, bias = layer[0].double(), layer[1].double()
    return weight * gain.double(), bias + weight @ shift.double()


def _before(layer: Linear, gate: Tensor) -> Linear:
    """gate * layer(x) as one linear layer of x."""
    return layer[0].double() * gate[:, None], layer[1].double() * gate


def _named(name: str, layer: Linear) -> Iterator[tuple[str, Tensor]]:
    yield f"{name}.weight", layer[0]
    yield f"{name}.bias", layer[1]
