"""Reading a checkpoint safely: a file is data, and code in a pickle is never run."""

from __future__ import annotations

import itertools
import pickle
import pickletools
import struct
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from streamlift.errors import WeightsError
from streamlift.upscalers.weights.forms import NO_CHECKPOINT, Form, form_of
from streamlift.upscalers.weights.spelling import WRAPPERS, unwrapped, without_prefix

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["load_checkpoint", "load_state_dict"]


def load_checkpoint(path: Path) -> Any:
    """Read a .safetensors file, or a torch file by torch's weights-only reader, onto the CPU.

    Which of the two it is say its first bytes, not its name. Returns what it holds: a dict of
    tensors, or the tensors and containers that were pickled. Raises WeightsError when the file is
    missing, damaged, of another form, or holds anything but data; code in a pickle is never run.
    """
    if not path.is_file():
        raise WeightsError(
            f"no checkpoint at {path}", found="no such file", expected="a .pth or .safetensors file"
        )
    try:
        form = form_of(path)
    except OSError as error:
        raise _unreadable(path, error.strerror or "an error", "a file that may be read") from error
    if form in (*NO_CHECKPOINT, Form.ONNX):
        raise _unreadable(path, form, "a .pth or .safetensors checkpoint")
    if form is Form.SAFETENSORS or (path.suffix == ".safetensors" and form is not Form.TORCH):
        return _load_safetensors(path)
    return _load_pickle(path)


def load_state_dict(path: Path, *, wrappers: tuple[str, ...] = WRAPPERS) -> dict[str, Tensor]:
    """Read a checkpoint and return its tensors by name, out of their wrappers and prefixes.

    Raises WeightsError as `load_checkpoint` does, and when what is there is no dict of tensors.
    """
    import torch

    loaded = load_checkpoint(path)
    loaded = unwrapped(loaded, wrappers)
    if not isinstance(loaded, dict) or not loaded:
        raise _unreadable(path, type(loaded).__name__, "tensors by name")
    for name, tensor in loaded.items():
        if not isinstance(name, str) or not isinstance(tensor, torch.Tensor):
            raise _unreadable(path, f"{name}: {type(tensor).__name__}", "tensors by name")
    return without_prefix(loaded)


def _load_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path, device="cpu")
    except (SafetensorError, OSError) as error:
        raise _unreadable(
            path, "a head that does not fit what follows", "a whole .safetensors file"
        ) from error


def _load_pickle(path: Path) -> Any:
    import torch

    try:
        # By its name torch would take it for another form. Its warnings are for who wrote the file.
        with path.open("rb") as file, warnings.catch_warnings(action="ignore"):
            return torch.load(file, map_location="cpu", weights_only=True)
    except _BAD_PICKLE as error:
        # torch's own words advise to turn its safe reader off: they are not passed on.
        refused = isinstance(error, pickle.UnpicklingError) and "GLOBAL" in str(error)
        refused = refused or _names_objects(path)
        found = "code or objects besides tensors" if refused else "damaged or cut-off data"
        raise _unreadable(
            path, found, "a torch file that holds only tensors and containers"
        ) from error


def _names_objects(path: Path) -> bool:
    """Whether it is a bare pickle whose first object is more than data. Read, never run."""
    try:
        with path.open("rb") as file:
            steps = itertools.islice(pickletools.genops(file), _LOOK_AT)
            return any(step.name in ("GLOBAL", "STACK_GLOBAL", "INST") for step, _, _ in steps)
    except (OSError, ValueError, LookupError, struct.error):
        return False


_LOOK_AT = 1000
"""Steps of a pickle that are looked at."""

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
