"""Finding the device a backend is configured for, without needing torch on a CPU machine."""

from __future__ import annotations

import importlib.util
import json
import logging
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from streamlift.errors import ConfigError, NotReady

__all__ = ["Accelerator", "accelerators", "accelerators_apart", "free_memory", "resolve_device"]

logger = logging.getLogger(__name__)

_LOOK_S = 60.0
_DRIVER_NODES = ("/dev/nvidiactl", "/dev/nvhost-ctrl", "/dev/dxg")


@dataclass(frozen=True, slots=True)
class Accelerator:
    """One CUDA device: torch's name for it, its product name, and its memory in bytes."""

    device: str
    name: str
    memory_bytes: int


def _may_have_one() -> bool:
    # Importing torch costs a second and 200 MB: not on a machine that has no NVIDIA driver.
    driver = any(Path(node).exists() for node in _DRIVER_NODES) or sys.platform != "linux"
    return driver and importlib.util.find_spec("torch") is not None


def accelerators_apart() -> tuple[Accelerator, ...]:
    """The same, found by a process of its own: no memory is taken on the devices, and torch is not
    loaded. Empty, with a line in the log, where that process fails."""
    if not _may_have_one():
        return ()
    look = (
        "import json; from streamlift.engine.devices import accelerators as found; "
        "print(json.dumps([[a.device, a.name, a.memory_bytes] for a in found()]))"
    )
    command = [sys.executable, "-c", look]
    try:
        seen = subprocess.run(command, capture_output=True, timeout=_LOOK_S, check=True, text=True)
        return tuple(Accelerator(*row) for row in json.loads(seen.stdout.splitlines()[-1]))
    except (OSError, subprocess.SubprocessError, ValueError, IndexError) as error:
        logger.warning("could not look for GPUs: %s", error)
        return ()


def accelerators() -> tuple[Accelerator, ...]:
    """The CUDA devices torch can use; empty without torch or without a GPU."""
    if not _may_have_one():
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
