"""BasicVSR++ (Chan et al., CVPR 2022): four passes through a clip with deformable alignment."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from streamlift.upscalers.basicvsr.blocks import Enlarging, Trunk, one_by_one
from streamlift.upscalers.basicvsr.deform import modulated_deform_conv2d
from streamlift.upscalers.basicvsr.spynet import WIDTHS, SPyNet
from streamlift.upscalers.basicvsr.warp import flow_warp

__all__ = ["BasicVSRpp", "BasicVSRppConfig"]

_PASSES = ("backward_1", "forward_1", "backward_2", "forward_2")
_TAPS = 9
_LONGEST_RESIDUE_PX = 10.0
"""How far a tap may be moved away from where the flow points."""


@dataclass(frozen=True, slots=True)
class BasicVSRppConfig:
    """Sizes of the net; the defaults are the published checkpoints'."""

    features: int = 64
    blocks: int = 7
    first_blocks: int = 5
    last_blocks: int = 5
    deform_groups: int = 16
    tail: int = 64
    flow_widths: tuple[int, ...] = WIDTHS


class BasicVSRpp(Enlarging):
    """Every output depends on all later frames of the clip."""

    def __init__(self, config: BasicVSRppConfig) -> None:
        features = config.features
        super().__init__(features, config.tail)
        self.config = config
        self.spynet = SPyNet(config.flow_widths)
        self.feat_extract = Trunk(3, features, config.first_blocks)
        self.deform_align = nn.ModuleDict(
            {name: _Alignment(features, config.deform_groups) for name in _PASSES}
        )
        self.backbone = nn.ModuleDict(
            {
                name: Trunk((2 + number) * features, features, config.blocks)
                for number, name in enumerate(_PASSES)
            }
        )
        self.reconstruction = Trunk(5 * features, features, config.last_blocks)

    def forward(self, clip: Tensor, first: int = 0) -> Iterator[Tensor]:
        """(t, 3, H, W) RGB in [0, 1] -> frames (1, 3, 4H, 4W) from number `first` on, one by one.

        `clip` is not changed; what comes out is not clamped.
        """
        pictures = one_by_one(clip)
        pairs = list(pairwise(pictures))
        later = [self.spynet(here, there) for here, there in pairs]
        earlier = [self.spynet(there, here) for here, there in pairs]
        found = [[self.feat_extract(picture) for picture in pictures]]
        for name in _PASSES:
            flows = later if name.startswith("backward") else earlier
            found.append(self._propagate(name, found, flows))
        for index, picture in enumerate(pictures):
            if index >= first:
                joined = torch.cat([features[index] for features in found], dim=1)
                yield self.enlarge(self.reconstruction(joined), picture)

    def _propagate(self, name: str, found: list[list[Tensor]], flows: list[Tensor]) -> list[Tensor]:
        """One pass. `flows`: between neighbours, number i that of frames i and i + 1."""
        backward = name.startswith("backward")
        order = list(range(len(found[0])))
        if backward:
            order.reverse()
        align, backbone = self.deform_align[name], self.backbone[name]
        carried = torch.zeros_like(found[0][0])
        done: list[Tensor] = []
        flow_before: Tensor | None = None
        for index in order:
            if done:
                flow = flows[index if backward else index - 1]
                carried = align(carried, done, found[0][index], flow, flow_before)
                flow_before = flow
            joined = torch.cat([*(features[index] for features in found), carried], dim=1)
            carried = carried + backbone(joined)
            done.append(carried)
        return done[::-1] if backward else done


class _Alignment(nn.Module):
    """Second-order: what was carried from one frame and from two frames away, moved to here."""

    def __init__(self, features: int, groups: int) -> None:
        super().__init__()
        self.groups = groups
        self.weight = nn.Parameter(torch.zeros(features, 2 * features, 3, 3))
        self.bias = nn.Parameter(torch.zeros(features))
        self.conv_offset = nn.Sequential(
            nn.Conv2d(3 * features + 4, features, 3, padding=1),
            nn.LeakyReLU(0.1, inplace=True),
            nn.Conv2d(features, features, 3, padding=1),
            nn.LeakyReLU(0.1, inplace=True),
            nn.Conv2d(features, features, 3, padding=1),
            nn.LeakyReLU(0.1, inplace=True),
            nn.Conv2d(features, 3 * _TAPS * groups, 3, padding=1),
        )

    def forward(
        self,
        carried: Tensor,
        done: list[Tensor],
        here: Tensor,
        flow: Tensor,
        flow_before: Tensor | None,
    ) -> Tensor:
        """`flow`: from this frame to the one before in the pass; `flow_before`: one further."""
        warped = flow_warp(carried, flow)
        if flow_before is None:
            second, far, flow_far = (torch.zeros_like(p) for p in (carried, carried, flow))
        else:
            second = done[-2]
            flow_far = flow + flow_warp(flow_before, flow)
            far = flow_warp(second, flow_far)
        flows = torch.cat((flow, flow_far), dim=1).to(here.dtype)
        told = self.conv_offset(torch.cat((warped, here, far, flows), dim=1)).float()
        residue, share = told.split((2 * _TAPS * self.groups, _TAPS * self.groups), dim=1)
        # The first half of the deform groups lies in what comes from one frame away. Offsets are
        # (down, across), flows (across, down).
        repeats = (1, _TAPS * self.groups // 2, 1, 1)
        bases = [f.flip(1).repeat(repeats) for f in (flow, flow_far)]
        offset = _LONGEST_RESIDUE_PX * torch.tanh(residue) + torch.cat(bases, dim=1)
        return modulated_deform_conv2d(
            torch.cat((carried, second), dim=1),
            offset,
            torch.sigmoid(share).to(here.dtype),
            self.weight,
            self.bias,
            padding=1,
            deform_groups=self.groups,
        )
