"""What each optional upscaler lacks on this machine, and the one command that gets it."""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass

from streamlift.upscalers.registry import RTX_TERMS
from streamlift.upscalers.weights import CHECKPOINTS, FileState, WeightStore

__all__ = ["OPTIONAL", "Needs", "Presence", "gpu_command", "presence_of"]

_ASK_S = 10.0
_FIRST_ON_A_CARD = "realesrgan-x2"
_NGX = ("libnvidia-ngx.so.1", "libnvidia-ngx.so")
_THERE = (FileState.VERIFIED, FileState.UNVERIFIED)


@dataclass(frozen=True, slots=True)
class Needs:
    """Modules that an upscaler imports, the extra that brings them, and what comes with it."""

    modules: tuple[str, ...]
    extra: str
    terms: str = ""


_TORCH = Needs(("torch", "safetensors"), "torch")
OPTIONAL: dict[str, Needs] = {
    "flashvsr": _TORCH,
    "flashvsr-full": _TORCH,
    "swiftvr": _TORCH,
    "realesrgan-x2": _TORCH,
    "realesrgan-general": _TORCH,
    "realesrgan-anime": _TORCH,
    "basicvsrpp": _TORCH,
    "realbasicvsr": _TORCH,
    "rtx-vsr": Needs(("torch", "nvvfx"), "rtx", RTX_TERMS),
}
"""Upscalers that the base install cannot run. Their checkpoints are those of the table."""


@dataclass(frozen=True, slots=True)
class Presence:
    """Whether everything but a device is here, and a line that says so or what to type."""

    here: bool
    words: str


def presence_of(
    name: str,
    *,
    store: WeightStore | None = None,
    has: Callable[[str], bool] = lambda module: importlib.util.find_spec(module) is not None,
) -> Presence:
    """Look for the packages and files of an upscaler of OPTIONAL; nothing is fetched."""
    needs, store = OPTIONAL[name], store or WeightStore.from_environment(os.environ)
    commands = []
    if not all(has(module) for module in needs.modules):
        commands.append(f"pip install 'streamlift[{needs.extra}]'")
    files = [checkpoint for checkpoint in CHECKPOINTS if name in checkpoint.upscalers]
    if any(store.status(file).state not in _THERE for file in files):
        commands.append(f"streamlift weights pull {name}")
    if commands:
        return Presence(False, f"not here: {' && '.join(commands)}{needs.terms}")
    return Presence(True, _rtx() if name == "rtx-vsr" else "installed")


def gpu_command(store: WeightStore) -> str | None:
    """The command that makes a graphics card useful: of a small model that runs on any card.

    None where a model that wants a card is here already, whole.
    """
    for name in OPTIONAL:
        files = [file for file in store.checkpoints if name in file.upscalers]
        if files and all(store.status(file).state in _THERE for file in files):
            return None
    return f"streamlift weights pull {_FIRST_ON_A_CARD}"


def _rtx() -> str:
    """Package, SDK, driver and the library that its driver must bring."""
    try:
        module = importlib.import_module("nvvfx")
        version = getattr(module, "__version__", "of unknown version")
        ask = getattr(module, "get_sdk_version", None)
        package = f"nvidia-vfx {version}, SDK {ask() if callable(ask) else 'unknown'}"
    except (ImportError, OSError, RuntimeError) as error:
        package = f"nvidia-vfx is installed but cannot be loaded: {error}"
    return f"{package}; {_driver()}{_ngx()}"


def _driver() -> str:
    command = shutil.which("nvidia-smi")
    if command is None:
        return "no NVIDIA driver found"
    ask = [command, "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        told = subprocess.run(ask, capture_output=True, text=True, timeout=_ASK_S, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        return f"nvidia-smi failed: {error}"
    return f"driver {told.stdout.split()[0] if told.stdout.split() else 'unknown'}"


def _ngx() -> str:
    if sys.platform != "linux":
        return ""  # there it is part of the driver
    for name in _NGX:
        try:
            ctypes.CDLL(name)
        except OSError:
            continue
        return f", {name} found"
    return ", libnvidia-ngx.so not found (in a container NVIDIA_DRIVER_CAPABILITIES=all)"
