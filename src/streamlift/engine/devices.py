"""Finding the device a backend is configured for, without needing torch on a CPU machine."""

from __future__ import annotations

import importlib.util
import re
import sys
from dataclasses import dataclass
from pathlib import Path

from streamlift.errors import ConfigError, NotReady

__all__ = ["Accelerator", "accelerators", "free_memory", "resolve_device"]

_DRIVER_NODES = ("/dev/nvidiactl", "/dev/nvhost-ctrl", "/dev/dxg")


@dataclass(frozen=True, slots=True)
class Accelerator:
    """One CUDA device: torch's name for it, its product name, and its memory in bytes."""

    device: str
    name: str
    memory_bytes: int


def accelerators() -> tuple[Accelerator, ...]:
    """The CUDA devices torch can use; empty without torch or without a GPU."""
    # Importing torch costs a second and 200 MB: not on a machine that has no NVIDIA driver.
    driver = any(Path(node).exists() for node in _DRIVER_NODES) or sys.platform != "linux"
    if not driver or importlib.util.find_spec("torch") is None:
        return ()
    import torch

    if not torch.cuda.is_available():
        return ()
    return tuple(
        Accelerator(
            f"cuda:{index}",
            torch.cuda.get_device_name(index),
            torch.cuda.get_device_properties(index).total_memory,
        )
        for index in range(torch.cuda.device_count())
    )


def free_memory(device: str) -> int | None:
    """Bytes free on a CUDA device now; None for the CPU, whose memory is not rationed.

    What torch keeps for later use counts as free: it is given out before the driver's.
    """
    if not device.startswith("cuda"):
        return None
    import torch

    free, _ = torch.cuda.mem_get_info(device)
    kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return int(free + kept)


def resolve_device(wanted: str, present: tuple[Accelerator, ...]) -> str:
    """Turn "cpu", "cuda", "cuda:1" or a pattern such as "H100|H200" into a torch device name.

    Raises NotReady when no such device is here, ConfigError for a pattern that is no pattern.
    """
    if wanted == "cpu":
        return "cpu"
    if wanted == "cuda" and present:
        return present[0].device
    for accelerator in present:
        if wanted == accelerator.device:
            return accelerator.device
    if not re.fullmatch(r"cuda(:\d+)?", wanted):
        try:
            pattern = re.compile(wanted, re.IGNORECASE)
        except re.error as error:
            raise ConfigError(
                f"device {wanted!r} is neither cpu, cuda:N nor a pattern: {error}", found=wanted
            ) from error
        for accelerator in present:
            if pattern.search(accelerator.name):
                return accelerator.device
    names = [a.name for a in present] or ["cpu only"]
    raise NotReady(
        f"no such device: {wanted} (here: {', '.join(names)})", found=names, expected=wanted
    )
