"""The published checkpoint: its exact names and shapes, which are diffusers' Wan2.2 names."""

from __future__ import annotations

import torch
from torch import nn

from streamlift.upscalers.swiftvr.config import DitConfig, ReaeConfig
from streamlift.upscalers.swiftvr.reae import Decoder, Encoder

__all__ = ["PublishedDit", "published_dit_shapes", "published_reae_shapes"]


class PublishedDit(nn.Module):
    """`transformer/diffusion_pytorch_model.safetensors`."""

    def __init__(self, config: DitConfig) -> None:
        super().__init__()
        dim = config.dim
        self.scale_shift_table = nn.Parameter(torch.empty(1, 2, dim))
        self.patch_embedding = nn.Conv3d(config.channels, dim, (1, 2, 2))
        self.condition_embedder = nn.Module()
        self.condition_embedder.time_embedder = _Two(config.freq_dim, dim)
        self.condition_embedder.time_proj = nn.Linear(dim, 6 * dim)
        self.condition_embedder.text_embedder = _Two(config.text_dim, dim)
        self.blocks = nn.ModuleList(_PublishedBlock(config) for _ in range(config.blocks))
        self.proj_out = nn.Linear(dim, config.channels * 4)


class _Two(nn.Module):
    def __init__(self, inputs: int, dim: int) -> None:
        super().__init__()
        self.linear_1 = nn.Linear(inputs, dim)
        self.linear_2 = nn.Linear(dim, dim)


class _PublishedBlock(nn.Module):
    def __init__(self, config: DitConfig) -> None:
        super().__init__()
        dim, wide = config.dim, config.ffn_dim
        self.scale_shift_table = nn.Parameter(torch.empty(1, 6, dim))
        self.attn1 = _PublishedAttention(config)
        self.attn2 = _PublishedAttention(config)
        self.norm2 = nn.LayerNorm(dim, eps=config.eps)
        self.ffn = nn.Module()
        first = nn.Module()
        first.proj = nn.Linear(dim, wide)
        self.ffn.net = nn.ModuleList([first, nn.Identity(), nn.Linear(wide, dim)])


class _PublishedAttention(nn.Module):
    def __init__(self, config: DitConfig) -> None:
        super().__init__()
        for name in ("to_q", "to_k", "to_v"):
            setattr(self, name, nn.Linear(config.dim, config.dim))
        self.to_out = nn.ModuleList([nn.Linear(config.dim, config.dim)])
        self.norm_q = nn.RMSNorm(config.dim, eps=config.eps)
        self.norm_k = nn.RMSNorm(config.dim, eps=config.eps)


def published_dit_shapes(config: DitConfig) -> dict[str, tuple[int, ...]]:
    """Name to shape of every tensor of the transformer's file."""
    with torch.device("meta"):
        state = PublishedDit(config).state_dict()
    return {name: tuple(tensor.shape) for name, tensor in state.items()}


def published_reae_shapes(config: ReaeConfig) -> dict[str, tuple[int, ...]]:
    """Name to shape of every tensor of `reae.safetensors`, in the order of the layers.

    What runs has the same, but for growth: its taps over time are summed (`fold`).
    """
    with torch.device("meta"):
        parts = {"encoder": Encoder(config), "decoder": Decoder(config)}
    shapes: dict[str, tuple[int, ...]] = {}
    for part, network in parts.items():
        for name, tensor in network.state_dict().items():
            name, shape = f"{part}.{name.removeprefix('layers.')}", tuple(tensor.shape)
            if name == "decoder.7.conv.weight":
                name = "decoder.7.proj.weight"
            elif name in ("decoder.13.conv.weight", "decoder.19.conv.weight"):
                name, shape = name.replace("conv", "conv3d"), (shape[1], shape[1], 3, 1, 1)
            shapes[name] = shape
    return shapes
