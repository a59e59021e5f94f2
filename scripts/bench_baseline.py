"""FlashVSR's chunk the way the public code runs it, eagerly: what our variants are held against.

The same function on the same weights, but every step as the paper's code has it: Conv3d over time
for each clip, three products for queries, keys and values, modulation and gates as passes of their
own, rotation in complex128, a cache that is concatenated, tokens put into windows in each block, a
full sort for the block choice, a decoder that takes one time step after the other and folds
nothing. One thing cannot be had without the public packages: its block-sparse attention, for which
FlexAttention stands (at the same lists). Written from the description, for measuring only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from streamlift.upscalers.flashvsr.attention import Attend
from streamlift.upscalers.flashvsr.blocks import BlockLists
from streamlift.upscalers.flashvsr.colour import ColourFix, fix_colour
from streamlift.upscalers.flashvsr.config import (
    CLIP_FRAMES,
    FIRST_LATENTS,
    STEP_LATENTS,
    WINDOW_TOKENS,
)
from streamlift.upscalers.flashvsr.decoder import TcDecoder, fold_condition
from streamlift.upscalers.flashvsr.projector import Projector, fold_pixels
from streamlift.upscalers.flashvsr.resize import enlarge
from streamlift.upscalers.flashvsr.rope import axis_angles, split_head
from streamlift.upscalers.flashvsr.windows import from_windows, to_windows

__all__ = ["Baseline"]


class Baseline:
    """A steady chunk on the inputs and the cache of `stages`, a `bench_gpu.Stages`."""

    def __init__(self, stages: Any, attend: Attend, lists: Sequence[BlockLists] = ()) -> None:
        """`lists`: what each block attends in place of its own choice, which is made as well."""
        self.stages, self.model = stages, stages.model
        self._attend, self._lists = attend, lists
        model, memory = self.model, stages.memory
        assert isinstance(model.projector, Projector)
        assert isinstance(model.decoder, TcDecoder)
        self._conv3d = [_over_time(conv) for conv in (model.projector.conv1, model.projector.conv2)]
        past = FIRST_LATENTS * stages.rows * stages.columns
        self._past = [
            tuple(x[:, :past].clone() for x in (memory.kv.keys[n], memory.kv.values[n]))
            for n in range(len(model.dit.blocks))
        ]
        self._angles = self._complex_angles()
        # What the published weights multiply and add with; here they are folded away, so ones and
        # zeros take their place: as many passes, the same result.
        dim, kind = model.config.dit.dim, {"device": model.device, "dtype": model.dtype}
        self._scale, self._shift = torch.zeros(dim, **kind), torch.zeros(dim, **kind)
        self._gate = torch.ones(dim, **kind)

    def steps(self) -> dict[str, Callable[[], Tensor]]:
        return {
            name: torch.inference_mode()(step)
            for name, step in (
                ("enlarge", lambda: enlarge(self.stages.video, 2)),
                ("projector", self.projector),
                ("dit", self.dit),
                ("decoder", self.decoder),
                ("colour", self._colour),
            )
        }

    def chunk(self) -> None:
        for step in self.steps().values():
            step()

    def projector(self) -> Tensor:
        """Tokens (2, h * w, dim) of two clips, one after the other."""
        stages, projector = self.stages, self.model.projector
        carried: list[Tensor] = [stages.memory.carried1, stages.memory.carried2]
        found = []
        for clip in stages.large.to(self.model.dtype).split(CLIP_FRAMES):
            x = fold_pixels(clip)
            for number, norm in enumerate((projector.norm1, projector.norm2)):
                conv = self._conv3d[number]
                seen = torch.cat((carried[number], x)).transpose(0, 1)[None]  # (1, C, t, h, w)
                carried[number].copy_(x[-2:])
                y = conv(F.pad(seen, (1, 1, 1, 1, 0, 0), mode="replicate"))
                x = F.silu(norm(y[0].transpose(0, 1)))
            found.append(projector.linear_layers[0](x.flatten(2).transpose(1, 2)))
        return torch.cat(found)

    def dit(self) -> Tensor:
        stages, dit = self.stages, self.model.dit
        at = slice(FIRST_LATENTS, FIRST_LATENTS + STEP_LATENTS)
        noise = stages.noise[:, at]
        frames, rows, columns = STEP_LATENTS, stages.rows, stages.columns
        patches = (
            noise.reshape(-1, frames, rows, 2, columns, 2).permute(1, 2, 4, 0, 3, 5).flatten(3)
        )
        x = dit.patch(patches).flatten(0, 2) + stages.tokens[at].flatten(0, 1)
        for layer, block in enumerate(dit.blocks):
            y = self._modulated(x, block.eps)
            x = x + self._gate * self._self_attention(y, block.self_attn, layer)
            y = F.layer_norm(x, x.shape[-1:], eps=block.eps)
            x = x + self._cross_attention(y, block.cross_attn)
            y = self._modulated(x, block.eps)
            y = F.gelu(block.ffn[0](y), approximate="tanh")
            x = x + self._gate * block.ffn[2](y)
        x = dit.head(self._modulated(x, dit.config.eps))
        split = x.reshape(frames, rows, columns, 2, 2, -1).permute(5, 0, 1, 3, 2, 4)
        made: Tensor = split.reshape(-1, frames, 2 * rows, 2 * columns)
        return made

    def decoder(self) -> Tensor:
        """Time step by time step, each through all that follows before the next one begins."""
        stages, out = self.stages, list[Tensor]()
        latents = stages.noise[:, :STEP_LATENTS].transpose(0, 1)
        clips = stages.large.reshape(STEP_LATENTS, CLIP_FRAMES, *stages.large.shape[1:])
        condition = fold_condition(clips.to(self.model.dtype))
        for latent, seen in zip(torch.split(latents, 1), torch.split(condition, 1), strict=True):
            both = torch.cat((_limit(seen), _limit(latent)), 1)
            self._decode_from(1, both, out)
        return torch.cat(out)

    def _modulated(self, x: Tensor, eps: float) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], eps=eps) * (1 + self._scale) + self._shift

    def _self_attention(self, x: Tensor, own: Any, layer: int) -> Tensor:
        stages, config = self.stages, self.model.config.dit
        weights = zip(own.qkv.weight.chunk(3), own.qkv.bias.chunk(3), strict=True)
        q, k, v = (F.linear(x, weight, bias) for weight, bias in weights)
        q, k = (self._rotated(norm(y)) for norm, y in ((own.norm_q, q), (own.norm_k, k)))
        grid = (STEP_LATENTS, stages.rows, stages.columns)
        q, k, v = (to_windows(y.reshape(*grid, -1)) for y in (q, k, v))
        heads = (config.heads, config.head_dim)
        q, k, v = (torch.unflatten(y, -1, heads).transpose(0, 1).contiguous() for y in (q, k, v))
        past_k, past_v = self._past[layer]
        k, v = torch.cat((past_k, k), 1), torch.cat((past_v, v), 1)
        chosen = self._choose(q, k)
        mixed = self._attend(q, k, v, self._lists[layer] if self._lists else chosen)
        out: Tensor = own.out(from_windows(mixed.transpose(0, 1).flatten(1), *grid).flatten(0, 2))
        return out

    def _choose(self, q: Tensor, k: Tensor) -> BlockLists:
        """The rule of `selection`, with the whole of a head's shares sorted."""
        allowed = self.stages.allowed
        means = [torch.unflatten(x, 1, (-1, WINDOW_TOKENS)).float().mean(2) for x in (q, k)]
        scores = means[0] @ means[1].transpose(1, 2) / q.shape[-1] ** 0.5
        by_unit = torch.unflatten(scores, 2, (-1, allowed.shape[0]))
        by_unit = by_unit.masked_fill(~allowed[:, None, :], -torch.inf)
        shares = by_unit.flatten(2).softmax(-1)
        ranked = shares.flatten(1).sort(dim=-1, descending=True).values
        topk = min(self.stages.topk, ranked.shape[1] - 1)
        return BlockLists.from_mask(shares > ranked[:, topk, None, None])

    def _rotated(self, x: Tensor) -> Tensor:
        config = self.model.config.dit
        heads = torch.unflatten(x.double(), -1, (config.heads, -1, 2))
        turned = torch.view_as_complex(heads.contiguous()) * self._angles
        return torch.view_as_real(turned).flatten(1).to(x.dtype)

    def _complex_angles(self) -> Tensor:
        stages, device = self.stages, self.model.device
        grid = (STEP_LATENTS, stages.rows, stages.columns)
        sizes = split_head(self.model.config.dit.head_dim)
        positions = (range(FIRST_LATENTS, FIRST_LATENTS + STEP_LATENTS), range(grid[1]))
        axes = [
            axis_angles(at, size)
            for at, size in zip((*positions, range(grid[2])), sizes, strict=True)
        ]
        parts = [
            axis.reshape([-1 if n == number else 1 for n in range(3)] + [axis.shape[1]]).expand(
                *grid, -1
            )
            for number, axis in enumerate(axes)
        ]
        angles = torch.cat(parts, -1).flatten(0, 2)
        return torch.polar(torch.ones_like(angles), angles)[:, None].to(device)

    def _cross_attention(self, x: Tensor, own: Any) -> Tensor:
        config = self.model.config.dit
        heads = (config.heads, config.head_dim)
        q = torch.unflatten(own.norm_q(own.q(x)), -1, heads).transpose(0, 1)
        weight = self.model.dit.context_weight.to(q.dtype)[None]
        mixed = F.scaled_dot_product_attention(q, own.keys, own.values, attn_mask=weight)
        out: Tensor = own.out(mixed.transpose(0, 1).flatten(1))
        return out

    def _decode_from(self, index: int, x: Tensor, out: list[Tensor]) -> None:
        layers = self.model.decoder.decoder
        memories = {index: number for number, index in enumerate((5, 6, 7, 11, 12, 13, 17, 18, 19))}
        while index < len(layers):
            layer = layers[index]
            if index in memories:
                past = self.stages.memory.decoder[memories[index]]
                y = layer.conv(torch.cat((x, past), 1))
                past.copy_(x)
                x = F.relu(y + x)
            elif isinstance(layer, nn.Identity):
                x = F.interpolate(x, scale_factor=2.0, mode="nearest")
            elif hasattr(layer, "times"):
                steps = layer.conv(x).chunk(layer.times, 1)
                if len(steps) > 1:
                    for step in steps:
                        self._decode_from(index + 1, step, out)
                    return
                x = steps[0]
            else:
                x = layer(x)
            index += 1
        out.append(x * 2 - 1)

    def _colour(self) -> Tensor:
        large = self.stages.large
        return fix_colour(large.flip(0), large, ColourFix.ADAIN)


def _over_time(conv: nn.Conv2d) -> nn.Conv3d:
    """The Conv3d that the four time taps side by side stand for."""
    taps, inputs = 4, conv.in_channels // 4
    weight = torch.unflatten(conv.weight.detach(), 1, (taps, inputs)).transpose(1, 2).contiguous()
    found = nn.Conv3d(inputs, conv.out_channels, (taps, 3, 3), stride=(2, 1, 1), device="meta")
    found.weight = nn.Parameter(weight, requires_grad=False)
    assert conv.bias is not None
    found.bias = nn.Parameter(conv.bias.detach(), requires_grad=False)
    return found


def _limit(x: Tensor) -> Tensor:
    return torch.tanh(x / 3.0) * 3.0
