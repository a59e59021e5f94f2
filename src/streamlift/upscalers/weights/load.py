"""Reading a checkpoint safely: a file is data, and code in a pickle is never run."""

from __future__ import annotations

import pickle
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any

from streamlift.errors import WeightsError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["load_checkpoint", "load_state_dict"]


def load_checkpoint(path: Path) -> Any:
    """Read a .safetensors file, or a torch file by torch's weights-only reader, onto the CPU.

    Returns what it holds: a dict of tensors, or the tensors and containers that were pickled.
    Raises WeightsError when the file is missing, damaged, or holds anything but data; code in a
    pickle is never run.
    """
    if not path.is_file():
        raise WeightsError(
            f"no checkpoint at {path}", found="no such file", expected="a .pth or .safetensors file"
        )
    return _load_safetensors(path) if path.suffix == ".safetensors" else _load_pickle(path)


def load_state_dict(
    path: Path, *, wrappers: tuple[str, ...] = ("params_ema", "params", "state_dict")
) -> dict[str, Tensor]:
    """Read a checkpoint and return its tensors by name, from the first wrapper key that is there.

    Raises WeightsError as `load_checkpoint` does, and when what is there is no dict of tensors.
    """
    import torch

    loaded = load_checkpoint(path)
    if isinstance(loaded, dict):
        loaded = next((loaded[key] for key in wrappers if key in loaded), loaded)
    if not isinstance(loaded, dict) or not loaded:
        raise _unreadable(path, type(loaded).__name__, "tensors by name")
    for name, tensor in loaded.items():
        if not isinstance(name, str) or not isinstance(tensor, torch.Tensor):
            raise _unreadable(path, f"{name}: {type(tensor).__name__}", "tensors by name")
    return dict(loaded)


def _load_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path, device="cpu")
    except (SafetensorError, OSError) as error:
        raise _unreadable(path, str(error), "a whole .safetensors file") from error


def _load_pickle(path: Path) -> Any:
    import torch

    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except _BAD_PICKLE as error:
        reason = str(error).strip().splitlines()
        # A pickle that asks for a class or function that is not on torch's list lands here too.
        raise _unreadable(
            path,
            reason[0] if reason else type(error).__name__,
            "a torch file that holds only tensors and containers",
        ) from error


# What torch.load is known to let through from a truncated or forged file.
_BAD_PICKLE = (
    pickle.UnpicklingError,
    struct.error,
    RuntimeError,
    OSError,
    EOFError,
    ValueError,
    LookupError,
    AttributeError,
    TypeError,
    ArithmeticError,
    AssertionError,
    MemoryError,
)


def _unreadable(path: Path, found: str, expected: str) -> WeightsError:
    return WeightsError(
        f"{path} cannot be loaded: found {found}; expected {expected}. "
        "`streamlift weights verify` tells whether a listed file is damaged, "
        "`streamlift weights pull NAME` replaces it",
        found=found,
        expected=expected,
    )
