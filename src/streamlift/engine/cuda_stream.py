"""The CUDA stream that an engine's thread launches on, by the priority that a user chose."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

__all__ = ["CudaPriority", "take_stream"]


class CudaPriority(StrEnum):
    """Whose waiting thread blocks the card starts first, among the streams of one process.

    DEFAULT: the stream that all of a process share. HIGH: one's own, before all others. LOW: one's
    own, after those that have a higher one. What runs already is never interrupted.
    """

    DEFAULT = "default"
    HIGH = "high"
    LOW = "low"


def take_stream(device: str, priority: CudaPriority) -> None:
    """Let all that the calling thread launches on `device` from now on be of this priority.

    To be called before anything is put on the device: streams do not wait for each other.
    """
    if priority is CudaPriority.DEFAULT or not device.startswith("cuda"):
        return
    import torch

    # CUDA counts downwards: 0 is the lowest there is, and what a stream has by default.
    streams: Any = torch.cuda.Stream  # its stub knows neither of the two
    least, greatest = streams.priority_range()
    number = greatest if priority is CudaPriority.HIGH else least
    torch.cuda.set_stream(streams(device, priority=number))
