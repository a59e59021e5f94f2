"""Still pictures through a net as Real-ESRGAN's own tool treats them: pads, tiles, alpha, 16 bit.

Equal to `RealESRGANer.enhance` of realesrgan 0.3.0 but for three things: pictures are RGB, the
depth comes from the dtype and not from the brightest pixel, and a tile that fails is an error.
"""

from __future__ import annotations

import math
from enum import StrEnum
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from streamlift.errors import ConfigError, UnsupportedSize
from streamlift.upscalers.faults import torch_faults
from streamlift.upscalers.realesrgan.checkpoint import Net
from streamlift.upscalers.realesrgan.resample import enlarge_linear, resize_lanczos4

__all__ = ["Alpha", "Picture", "enhance"]

Picture = npt.NDArray[Any]
"""(H, W) grey, (H, W, 3) RGB or (H, W, 4) RGBA; uint8 or uint16."""

_GREY = (0.299, 0.587, 0.114)  # ITU-R BT.601-7


class Alpha(StrEnum):
    """How an alpha channel is enlarged."""

    NET = "net"  # by the net, as if it were a grey picture
    LINEAR = "linear"


def enhance(
    net: Net,
    picture: Picture,
    *,
    outscale: float | None = None,
    tile: int = 0,
    tile_pad: int = 10,
    pre_pad: int = 0,
    alpha: Alpha = Alpha.NET,
) -> Picture:
    """Enlarge one picture on the net's device and in its dtype; shape kind and dtype are kept.

    outscale: the result's size over the picture's, by Lanczos after the net if it is not the
    net's own. tile: side of the tiles in pixels, 0 for the whole picture; tile_pad: context
    read around each; pre_pad: mirrored pixels added on the right and at the bottom.

    Raises ConfigError for tiles that do not suit the net, UnsupportedSize for a picture too
    small to mirror, OutOfMemory, and UpscaleError.
    """
    _check_tiles(net, tile, tile_pad)
    if picture.dtype not in (np.uint8, np.uint16) or picture.ndim not in (2, 3):
        raise ConfigError(
            "picture of a kind that cannot be enhanced",
            found=f"{picture.dtype} {picture.shape}",
            expected="uint8 or uint16, (H, W), (H, W, 3) or (H, W, 4)",
        )
    top = float(np.iinfo(picture.dtype).max)
    values = torch.from_numpy(picture.astype(np.float32) / np.float32(top))

    def run(channels: Tensor) -> Tensor:  # (3, H, W) -> (3, scale*H, scale*W), in [0, 1]
        return _run(net, channels, tile=tile, tile_pad=tile_pad, pre_pad=pre_pad)

    if picture.ndim == 2:
        result = _grey(run(values.expand(3, -1, -1)))
    elif picture.shape[2] == 3:
        result = run(values.permute(2, 0, 1)).permute(1, 2, 0)
    else:
        colours, opacity = values[..., :3].permute(2, 0, 1), values[..., 3]
        if alpha is Alpha.NET:
            enlarged = _grey(run(opacity.expand(3, -1, -1)))
        else:
            enlarged = torch.from_numpy(enlarge_linear(opacity.numpy(), net.config.scale))
        result = torch.cat((run(colours).permute(1, 2, 0), enlarged[..., None]), dim=-1)
    output = (result * top).round().numpy().astype(picture.dtype)  # round: half to even
    if outscale is None or outscale == net.config.scale:
        return output
    height, width = picture.shape[:2]
    return resize_lanczos4(output, int(width * outscale), int(height * outscale))


def _run(net: Net, channels: Tensor, *, tile: int, tile_pad: int, pre_pad: int) -> Tensor:
    parameter = next(net.parameters())
    height, width = channels.shape[-2:]
    with torch.no_grad(), torch_faults(type(net).__name__, parameter.device):
        x = channels[None].to(parameter.device, parameter.dtype)
        x = _mirror(x, pre_pad, pre_pad)
        fold = net.config.unshuffle
        x = _mirror(x, -x.shape[-1] % fold, -x.shape[-2] % fold)
        out = _by_tiles(net, x, tile, tile_pad) if tile else net(x)
        out = out[0, :, : height * net.config.scale, : width * net.config.scale]
        return out.float().cpu().clamp_(0.0, 1.0)


def _by_tiles(net: Net, x: Tensor, tile: int, pad: int) -> Tensor:
    """Run the net tile by tile, each with `pad` pixels of context, and paste the results."""
    height, width = x.shape[-2:]
    scale = net.config.scale
    out = x.new_empty(1, x.shape[1], height * scale, width * scale)
    for row in range(math.ceil(height / tile)):
        for column in range(math.ceil(width / tile)):
            top, left = row * tile, column * tile
            bottom, right = min(top + tile, height), min(left + tile, width)
            above, before = min(pad, top), min(pad, left)
            piece = net(x[..., top - above : bottom + pad, left - before : right + pad])
            out[..., top * scale : bottom * scale, left * scale : right * scale] = piece[
                ...,
                above * scale : (above + bottom - top) * scale,
                before * scale : (before + right - left) * scale,
            ]
    return out


def _mirror(x: Tensor, right: int, bottom: int) -> Tensor:
    if right == bottom == 0:
        return x
    height, width = x.shape[-2:]
    if right >= width or bottom >= height:
        raise UnsupportedSize(
            "picture too small to be padded by its mirror image; use a smaller pre_pad",
            found=f"{width}x{height}",
            expected=f"at least {right + 1}x{bottom + 1}",
        )
    return F.pad(x, (0, right, 0, bottom), mode="reflect")


def _check_tiles(net: Net, tile: int, tile_pad: int) -> None:
    fold = net.config.unshuffle
    if tile < 0 or tile_pad < 0 or (tile and (tile % fold or tile_pad % fold)):
        raise ConfigError(
            f"tile and tile_pad must be multiples of {fold} for this x{net.config.scale} net",
            found={"tile": tile, "tile_pad": tile_pad},
            expected=f"multiples of {fold}",
        )


def _grey(rgb: Tensor) -> Tensor:
    red, green, blue = rgb.unbind(0)
    return red * _GREY[0] + green * _GREY[1] + blue * _GREY[2]
