"""RealBasicVSR (Chan et al., 2022): cleans a clip, then enlarges it four times."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from streamlift.upscalers.basicvsr.blocks import Enlarging, Trunk, leaky, one_by_one
from streamlift.upscalers.basicvsr.spynet import WIDTHS, SPyNet
from streamlift.upscalers.basicvsr.warp import flow_warp

__all__ = ["Cleaning", "RealBasicVSR", "RealBasicVSRConfig"]


@dataclass(frozen=True, slots=True)
class RealBasicVSRConfig:
    """Sizes of the net; the defaults are the published checkpoint's."""

    features: int = 64
    blocks: int = 20
    cleaning_blocks: int = 20
    tail: int = 64
    flow_widths: tuple[int, ...] = WIDTHS


@dataclass(frozen=True, slots=True)
class Cleaning:
    """How often a clip is cleaned.

    Another pass follows while one changed the clip by `threshold` of 255 levels or more on
    average, up to `passes`. The authors train with 255 (one pass) and advise 5 for tests.
    """

    threshold: float = 5.0
    passes: int = 3


class RealBasicVSR(nn.Module):
    """Forward and backward through a clip; every output depends on all later frames."""

    def __init__(self, config: RealBasicVSRConfig) -> None:
        super().__init__()
        self.config = config
        self.image_cleaning = nn.Sequential(
            Trunk(3, config.features, config.cleaning_blocks),
            nn.Conv2d(config.features, 3, 3, padding=1),
        )
        self.basicvsr = _BasicVSR(config)

    @property
    def spynet(self) -> SPyNet:
        return self.basicvsr.spynet

    def clean(self, clip: Tensor, cleaning: Cleaning) -> tuple[Tensor, int]:
        """(t, 3, H, W) in [0, 1] -> a new clip of the same shape, and how many passes it took."""
        for number in range(1, cleaning.passes + 1):
            changes = []
            cleaned = torch.empty_like(clip)
            for index in range(clip.shape[0]):  # one by one: a window's features are large
                frame = clip[index : index + 1]
                residue = self.image_cleaning(frame)
                cleaned[index : index + 1] = frame + residue
                changes.append(residue.abs().float().mean())
            clip = cleaned
            # The mean decides what is done next, so the device is waited for, once a pass; the
            # last pass needs no answer.
            if number == cleaning.passes or cleaning.threshold >= 255:
                return clip, number
            if float(torch.stack(changes).mean()) < cleaning.threshold / 255:
                return clip, number
        return clip, 0

    def forward(self, clip: Tensor, cleaning: Cleaning, first: int = 0) -> Iterator[Tensor]:
        """(t, 3, H, W) RGB in [0, 1] -> frames (1, 3, 4H, 4W) from number `first` on, one by one.

        `clip` is not changed; what comes out is not clamped.
        """
        cleaned, _ = self.clean(clip, cleaning)
        return self.basicvsr.frames(cleaned, first)


class _BasicVSR(Enlarging):
    """Chan et al., "BasicVSR: The Search for Essential Components in Video SR" (2021)."""

    def __init__(self, config: RealBasicVSRConfig) -> None:
        super().__init__(config.features, config.tail)
        features = config.features
        self.spynet = SPyNet(config.flow_widths)
        self.backward_resblocks = Trunk(features + 3, features, config.blocks)
        self.forward_resblocks = Trunk(features + 3, features, config.blocks)
        self.fusion = nn.Conv2d(2 * features, features, 1)

    def frames(self, clip: Tensor, first: int) -> Iterator[Tensor]:
        pictures = one_by_one(clip)
        behind = self._backward(pictures)
        carried = torch.zeros_like(behind[0])
        for index, picture in enumerate(pictures):
            if index:
                carried = flow_warp(carried, self.spynet(picture, pictures[index - 1]))
            carried = self.forward_resblocks(torch.cat((picture, carried), dim=1))
            if index >= first:
                fused = leaky(self.fusion(torch.cat((behind[index], carried), dim=1)))
                yield self.enlarge(fused, picture)

    def _backward(self, pictures: list[Tensor]) -> list[Tensor]:
        n, _, height, width = pictures[0].shape
        carried = pictures[0].new_zeros(n, self.fusion.out_channels, height, width)
        found: list[Tensor] = []
        for index in reversed(range(len(pictures))):
            if found:
                flow = self.spynet(pictures[index], pictures[index + 1])
                carried = flow_warp(carried, flow)
            carried = self.backward_resblocks(torch.cat((pictures[index], carried), dim=1))
            found.append(carried)
        return found[::-1]
