"""YUV 4:2:0 planes in host memory to RGB tensors on the device, and back.

Chroma siting is *centred* (each chroma sample in the middle of its 2x2 luma block): WebRTC
senders make chroma by averaging 2x2 blocks (libyuv) and browsers draw it that way, and the
models that work on planes scale each plane about its centre too. The tag for "left" siting, the
H.264 default, is absent from WebRTC streams in practice; taking it for centred shifts chroma by
half a high-resolution pixel at most. Up: bicubic. Down: the 2x2 mean.

Arithmetic is float32 whatever the model's dtype, constants from ITU-R BT.601-7, BT.709-6 and
BT.2020-2. One picture crosses the bus as one contiguous pinned copy each way, and only
`Download.wait` waits for the device.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from streamlift.errors import MediaError
from streamlift.frames import Colour, Planes, Size

if TYPE_CHECKING:
    import torch
    from torch import Tensor

__all__ = [
    "Download",
    "begin_download",
    "join_levels",
    "pack_i420",
    "planes_to_rgb",
    "planes_to_rgb_and_luma",
    "rgb_to_levels",
    "rgb_to_planes",
]

_LUMA_WEIGHTS = {  # (Kr, Kb)
    "bt601": (0.299, 0.114),
    "bt709": (0.2126, 0.0722),
    "bt2020": (0.2627, 0.0593),
}


def planes_to_rgb(
    planes: Planes,
    colour: Colour,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = None,
) -> Tensor:
    """Return the picture as (1, 3, H, W) RGB in [0, 1] on `device`, float32 unless `dtype` says.

    On CUDA the call only queues work on the current stream. Colours outside the RGB cube are
    clamped into it. Odd sizes are fine. Raises MediaError for an unknown colour matrix.
    """
    rgb, _ = planes_to_rgb_and_luma(planes, colour, device)
    return rgb if dtype is None else rgb.to(dtype)


def planes_to_rgb_and_luma(
    planes: Planes, colour: Colour, device: torch.device | str = "cpu"
) -> tuple[Tensor, Tensor]:
    """The same in float32, and the luma's levels (H, W) as they were uploaded."""
    import torch
    from torch.nn import functional as F

    weights = _luma_weights(colour)
    size = planes.size
    height, width = size.height, size.width
    packed = _upload(planes, torch.device(device)).to(torch.float32)
    luma, chroma = _split(packed, size)
    chroma = F.interpolate(chroma, scale_factor=2.0, mode="bicubic", align_corners=False)
    chroma = chroma[..., :height, :width]
    if colour.full_range:
        y, cb, cr = luma / 255.0, (chroma[:, :1] - 128.0) / 255.0, (chroma[:, 1:] - 128.0) / 255.0
    else:
        y = (luma - 16.0) / 219.0
        cb, cr = (chroma[:, :1] - 128.0) / 224.0, (chroma[:, 1:] - 128.0) / 224.0
    kr, kb = weights
    red = y + 2 * (1 - kr) * cr
    blue = y + 2 * (1 - kb) * cb
    green = (y - kr * red - kb * blue) / (1 - kr - kb)
    return torch.cat((red, green, blue), dim=1).clamp_(0.0, 1.0), luma[0, 0]


def rgb_to_planes(rgb: Tensor, colour: Colour) -> list[Planes]:
    """Return the n pictures of `rgb` (n, 3, H, W), values in [0, 1], as planes in host memory.

    Waits for the device. To go on working meanwhile, use `pack_i420` and `begin_download`.
    Raises MediaError for an unknown colour matrix.
    """
    height, width = rgb.shape[-2:]
    return begin_download(pack_i420(rgb, colour), Size(width, height)).wait()


def pack_i420(rgb: Tensor, colour: Colour) -> Tensor:
    """Return `rgb` (n, 3, H, W), values in [0, 1], as I420 bytes on the same device.

    The result is (n, H*W + 2*ceil(H/2)*ceil(W/2)) uint8: all of y, then u, then v; values are
    clamped and rounded half to even. Queues work only.
    """
    return join_levels(*rgb_to_levels(rgb, colour))


def rgb_to_levels(rgb: Tensor, colour: Colour) -> tuple[Tensor, Tensor]:
    """Return luma (n, H, W) and chroma (n, 2, ceil(H/2), ceil(W/2)) of `rgb` as float32 levels.

    Neither rounded nor clamped. Queues work only.
    """
    import torch
    from torch.nn import functional as F

    kr, kb = _luma_weights(colour)
    red, green, blue = rgb.to(torch.float32).clamp(0.0, 1.0).unbind(dim=1)  # (n, H, W) each
    y = kr * red + (1 - kr - kb) * green + kb * blue
    cb = (blue - y) / (2 * (1 - kb))
    cr = (red - y) / (2 * (1 - kr))
    chroma = torch.stack((cb, cr), dim=1)
    height, width = chroma.shape[-2:]
    if height % 2 or width % 2:
        chroma = F.pad(chroma, (0, width % 2, 0, height % 2), mode="replicate")
    chroma = F.avg_pool2d(chroma, 2)
    if colour.full_range:
        return y * 255.0, chroma * 255.0 + 128.0
    return y * 219.0 + 16.0, chroma * 224.0 + 128.0


def join_levels(y: Tensor, chroma: Tensor, finite: Tensor | None = None) -> Tensor:
    """Levels to I420 bytes (n, H*W + 2*ceil(H/2)*ceil(W/2)), clamped and rounded half to even.

    `finite` (n,) bool: a byte more for each picture, 1 where it is a picture at all.
    """
    import torch

    parts = [y.flatten(1), chroma.flatten(1)]
    if finite is not None:
        parts.append(finite[:, None].to(y.dtype))
    samples = torch.cat(parts, dim=1)
    return samples.round_().clamp_(0.0, 255.0).to(torch.uint8)


@dataclass(frozen=True, slots=True, eq=False)
class Download:
    """Pictures on their way to host memory; `wait` blocks until they are there."""

    _device_bytes: Tensor  # kept until the copy is over, so that its memory is not reused
    _host_bytes: Tensor
    _size: Size
    _done: torch.cuda.Event | None

    @property
    def ready(self) -> bool:
        """Whether `wait` would return at once, or raise what the device failed with."""
        try:
            return self._done is None or self._done.query()  # type: ignore[no-untyped-call]
        except RuntimeError:
            return True

    def wait(self) -> list[Planes]:
        """Return the n pictures; they own their (pinned) memory."""
        if self._done is not None:
            self._done.synchronize()  # the one wait of a frame: its bytes are needed on the host
        return [_planes_of(row, self._size) for row in self._host_bytes.numpy()]

    @property
    def finite(self) -> bool:
        """After `wait`: whether all pictures are numbers; True where nobody looked."""
        size = self._size
        samples = size.pixels + 2 * ((size.height + 1) // 2) * ((size.width + 1) // 2)
        return bool(self._host_bytes[:, samples:].all())


def begin_download(packed: Tensor, size: Size) -> Download:
    """Start copying `packed`, as `join_levels` made it from pictures of `size`, to the host.

    On CUDA the copy is queued on the current stream into pinned memory; on the CPU nothing is
    copied at all.
    """
    import torch

    if packed.device.type != "cuda":
        return Download(packed, packed, size, None)
    host = torch.empty(packed.shape, dtype=torch.uint8, pin_memory=True)
    host.copy_(packed, non_blocking=True)
    stream = torch.cuda.current_stream(packed.device)
    packed.record_stream(stream)  # it may have been made on another stream
    done = torch.cuda.Event()  # type: ignore[no-untyped-call]
    done.record(stream)
    return Download(packed, host, size, done)


def _upload(planes: Planes, device: torch.device) -> Tensor:
    import torch

    luma, chroma = planes.y.size, planes.u.size
    # A fresh pinned buffer a frame: the caching host allocator hands a block out again only when
    # the copy that read it is over.
    buffer = torch.empty(luma + 2 * chroma, dtype=torch.uint8, pin_memory=device.type == "cuda")
    host = buffer.numpy()
    host[:luma].reshape(planes.y.shape)[...] = planes.y
    host[luma : luma + chroma].reshape(planes.u.shape)[...] = planes.u
    host[luma + chroma :].reshape(planes.v.shape)[...] = planes.v
    return buffer.to(device, non_blocking=True)


def _split(packed: Tensor, size: Size) -> tuple[Tensor, Tensor]:
    luma = size.pixels
    chroma_height, chroma_width = (size.height + 1) // 2, (size.width + 1) // 2
    return (
        packed[:luma].view(1, 1, size.height, size.width),
        packed[luma:].view(1, 2, chroma_height, chroma_width),
    )


def _planes_of(packed: np.ndarray[tuple[int, ...], np.dtype[np.uint8]], size: Size) -> Planes:
    luma = size.pixels
    shape = ((size.height + 1) // 2, (size.width + 1) // 2)
    chroma = shape[0] * shape[1]
    return Planes(
        y=packed[:luma].reshape(size.height, size.width),
        u=packed[luma : luma + chroma].reshape(shape),
        v=packed[luma + chroma : luma + 2 * chroma].reshape(shape),
    )


def _luma_weights(colour: Colour) -> tuple[float, float]:
    weights = _LUMA_WEIGHTS.get(colour.matrix)
    if weights is None:
        raise MediaError(
            f"unknown colour matrix {colour.matrix!r}",
            found=colour.matrix,
            expected=sorted(_LUMA_WEIGHTS),
        )
    return weights
