"""The published checkpoints: their exact names and shapes, and the folding into what runs."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from streamlift.upscalers.flashvsr.config import TOKEN_STRIDE, DitConfig, ProjectorConfig

__all__ = [
    "PromptConstants",
    "PublishedDit",
    "PublishedProjector",
    "fold_dit",
    "fold_projector",
    "prompt_constants",
    "sinusoid",
    "time_constants",
]

_TIMESTEP = 1000.0
"""The one timestep of a one-step model."""


class PublishedProjector(nn.Module):
    """`LQ_proj_in.ckpt`."""

    def __init__(self, config: ProjectorConfig) -> None:
        super().__init__()
        folded = 3 * TOKEN_STRIDE**2
        self.conv1 = nn.Conv3d(folded, config.hidden1, (4, 3, 3))
        self.norm1 = _Gain("gamma", (config.hidden1, 1, 1, 1))
        self.conv2 = nn.Conv3d(config.hidden1, config.hidden2, (4, 3, 3))
        self.norm2 = _Gain("gamma", (config.hidden2, 1, 1, 1))
        self.linear_layers = nn.ModuleList(
            nn.Linear(config.hidden2, config.dim) for _ in range(config.layers)
        )


class PublishedDit(nn.Module):
    """`diffusion_pytorch_model_streaming_dmd.safetensors`."""

    def __init__(self, config: DitConfig) -> None:
        super().__init__()
        dim = config.dim
        self.config = config
        self.patch_embedding = nn.Conv3d(config.channels, dim, (1, 2, 2))
        self.text_embedding = nn.Sequential(
            nn.Linear(config.text_dim, dim), nn.GELU(approximate="tanh"), nn.Linear(dim, dim)
        )
        self.time_embedding = nn.Sequential(
            nn.Linear(config.freq_dim, dim), nn.SiLU(), nn.Linear(dim, dim)
        )
        self.time_projection = nn.Sequential(nn.SiLU(), nn.Linear(dim, 6 * dim))
        self.blocks = nn.ModuleList(PublishedBlock(config) for _ in range(config.blocks))
        self.head = _PublishedHead(config)

    def each_block(self) -> list[PublishedBlock]:
        """The blocks, with their type."""
        return [block for block in self.blocks if isinstance(block, PublishedBlock)]


class PublishedBlock(nn.Module):
    """One transformer block."""

    def __init__(self, config: DitConfig) -> None:
        super().__init__()
        self.modulation = nn.Parameter(torch.empty(1, 6, config.dim))
        self.self_attn = _PublishedAttention(config)
        self.cross_attn = _PublishedAttention(config)
        self.norm3 = nn.LayerNorm(config.dim, eps=config.eps)
        self.ffn = nn.Sequential(
            nn.Linear(config.dim, config.ffn_dim),
            nn.GELU(approximate="tanh"),
            nn.Linear(config.ffn_dim, config.dim),
        )


class _PublishedAttention(nn.Module):
    def __init__(self, config: DitConfig) -> None:
        super().__init__()
        self.q = nn.Linear(config.dim, config.dim)
        self.k = nn.Linear(config.dim, config.dim)
        self.v = nn.Linear(config.dim, config.dim)
        self.o = nn.Linear(config.dim, config.dim)
        self.norm_q = nn.RMSNorm(config.dim, eps=config.eps)
        self.norm_k = nn.RMSNorm(config.dim, eps=config.eps)


class _PublishedHead(nn.Module):
    def __init__(self, config: DitConfig) -> None:
        super().__init__()
        self.modulation = nn.Parameter(torch.empty(1, 2, config.dim))
        self.head = nn.Linear(config.dim, config.channels * 4)


class _Gain(nn.Module):
    def __init__(self, name: str, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.register_parameter(name, nn.Parameter(torch.ones(shape)))


@dataclass(frozen=True, slots=True, eq=False)
class PromptConstants:
    """What is left of the prompt: per block keys and values (heads, rows, d), and row weights.

    Equal rows of the prompt (its padding) are kept once; `weight` is the log of their count, added
    to the score, which is exact.
    """

    embedded: Tensor
    keys: list[Tensor]
    values: list[Tensor]
    weight: Tensor


def sinusoid(size: int, timestep: float = _TIMESTEP) -> Tensor:
    """(size,) float64: cosines, then sines, of timestep * 10000 ** (-2i / size)."""
    half = torch.arange(size // 2, dtype=torch.float64) / (size // 2)
    angles = timestep * 10000.0**-half
    return torch.cat((angles.cos(), angles.sin()))


@torch.no_grad()
def time_constants(dit: PublishedDit) -> tuple[Tensor, Tensor]:
    """t (dim,) and t_mod (6, dim)."""
    kind = dit.patch_embedding.weight.dtype
    t = dit.time_embedding(sinusoid(dit.config.freq_dim).to(kind))
    return t, torch.unflatten(dit.time_projection(t), -1, (6, -1))


@torch.no_grad()
def prompt_constants(dit: PublishedDit, prompt: Tensor) -> PromptConstants:
    """prompt: (rows, text_dim), the saved text encoder output."""
    distinct, counts = _distinct_rows(prompt)
    embedded = dit.text_embedding(distinct.to(dit.patch_embedding.weight.dtype))
    heads = (dit.config.heads, dit.config.head_dim)
    keys, values = [], []
    for block in dit.each_block():
        attention = block.cross_attn
        keys.append(
            torch.unflatten(attention.norm_k(attention.k(embedded)), -1, heads).transpose(0, 1)
        )
        values.append(torch.unflatten(attention.v(embedded), -1, heads).transpose(0, 1))
    return PromptConstants(embedded, keys, values, counts.to(embedded).log())


@torch.no_grad()
def fold_projector(published: PublishedProjector) -> dict[str, Tensor]:
    """State of `projector.Projector`: the time taps moved into the input channels, oldest first."""
    state = dict(published.state_dict())
    for name in ("conv1.weight", "conv2.weight"):
        state[name] = state[name].transpose(1, 2).flatten(1, 2).contiguous()
    for name in ("norm1.gamma", "norm2.gamma"):
        state[name] = state[name].flatten()
    return state


@torch.no_grad()
def fold_dit(
    published: PublishedDit, prompt: Tensor, dtype: torch.dtype = torch.float32
) -> dict[str, Tensor]:
    """State of `dit.Dit`: time, prompt, modulation, gates and norm3 gone into the weights.

    Products are taken in float64 and rounded once, to `dtype`.
    """
    t, t_mod = time_constants(published)
    context = prompt_constants(published, prompt)
    patch = published.patch_embedding
    shift, scale = (published.head.modulation[0] + t).double()
    state: dict[str, Tensor] = {
        **_named("patch", patch.weight.flatten(1), patch.bias),
        "context_weight": context.weight,
        **_named("head", *_after_affine(published.head.head, 1 + scale, shift)),
    }
    for index, block in enumerate(published.each_block()):
        folded = _fold_block(block, t_mod, context.keys[index], context.values[index])
        # Rounded block by block: the whole in float64 would not fit many a machine.
        state |= {f"blocks.{index}.{name}": tensor.to(dtype) for name, tensor in folded.items()}
    return {name: tensor.detach().to(dtype).contiguous() for name, tensor in state.items()}


def _fold_block(
    block: PublishedBlock, t_mod: Tensor, keys: Tensor, values: Tensor
) -> dict[str, Tensor]:
    shift1, scale1, gate1, shift2, scale2, gate2 = (block.modulation[0] + t_mod).double()
    own, cross, norm3 = block.self_attn, block.cross_attn, block.norm3
    parts = [_after_affine(layer, 1 + scale1, shift1) for layer in (own.q, own.k, own.v)]
    up, down = block.ffn[0], block.ffn[2]
    assert isinstance(up, nn.Linear)
    assert isinstance(down, nn.Linear)
    return {
        "self_attn.qkv.weight": torch.cat([weight for weight, _ in parts]),
        "self_attn.qkv.bias": torch.cat([bias for _, bias in parts]),
        "self_attn.norm_q.weight": own.norm_q.weight,
        "self_attn.norm_k.weight": own.norm_k.weight,
        **_named("self_attn.out", *_before_gate(own.o, gate1)),
        **_named("cross_attn.q", *_after_affine(cross.q, norm3.weight, norm3.bias)),
        "cross_attn.norm_q.weight": cross.norm_q.weight,
        "cross_attn.keys": keys,
        "cross_attn.values": values,
        **_named("cross_attn.out", cross.o.weight, cross.o.bias),
        **_named("ffn.0", *_after_affine(up, 1 + scale2, shift2)),
        **_named("ffn.2", *_before_gate(down, gate2)),
    }


def _distinct_rows(prompt: Tensor) -> tuple[Tensor, Tensor]:
    rows, counts = torch.unique(prompt, dim=0, return_counts=True)
    return rows, counts


def _after_affine(layer: nn.Linear, gain: Tensor, shift: Tensor) -> tuple[Tensor, Tensor]:
    """layer(x * gain + shift) as one linear layer of x."""
    weight = layer.weight.double()
    return weight * gain.double(), layer.bias.double() + weight @ shift.double()


def _before_gate(layer: nn.Linear, gate: Tensor) -> tuple[Tensor, Tensor]:
    """gate * layer(x) as one linear layer of x."""
    return layer.weight.double() * gate[:, None], layer.bias.double() * gate


def _named(name: str, weight: Tensor, bias: Tensor | None) -> dict[str, Tensor]:
    assert bias is not None
    return {f"{name}.weight": weight, f"{name}.bias": bias}
