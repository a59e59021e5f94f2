"""What torch raises while a model runs, as this project's errors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from streamlift.errors import NotReady, OutOfMemory, UpscaleError

__all__ = ["check_device", "torch_faults"]


@contextmanager
def torch_faults(model: str, device: torch.device) -> Iterator[None]:
    """Raise OutOfMemory or UpscaleError, named after `model`, for what torch raises inside.

    CUDA faults are asynchronous: one may show at a later call than the one that caused it.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise _out_of_memory(model, device, error) from error
    except RuntimeError as error:
        # The CPU allocator has no exception type of its own.
        if "allocate memory" in str(error) or "not enough memory" in str(error):
            raise _out_of_memory(model, device, error) from error
        raise UpscaleError(f"{model} failed on {device}: {error}", found=str(error)) from error


def check_device(name: str) -> torch.device:
    """Return the device of that name. Raises NotReady when this machine or torch lacks it."""
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise NotReady(
            f"{name!r} is no device torch knows", found=name, expected="cpu or cuda:0"
        ) from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise NotReady(
            f"device {name} is not there: torch {torch.__version__} sees "
            f"{torch.cuda.device_count()} CUDA devices; use device: cpu, or a CUDA build of torch",
            found=torch.cuda.device_count(),
            expected=name,
        )
    return device


def _out_of_memory(model: str, device: torch.device, error: Exception) -> OutOfMemory:
    return OutOfMemory(
        f"{model} ran out of memory on {device}; use a smaller picture, fewer slots or tiles",
        found=str(error).partition("\n")[0],
        expected="free device memory",
    )
