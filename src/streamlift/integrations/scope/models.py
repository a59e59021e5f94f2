"""The upscalers a user of Scope can choose: loaded when chosen, beside the running stream."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from streamlift.errors import StreamliftError
from streamlift.upscalers import Upscaler, create_upscaler

if TYPE_CHECKING:
    from streamlift.upscalers.flashvsr.upscaler import FlashVsr

__all__ = ["PLAIN", "Models", "choose_device", "create"]

log = logging.getLogger(__name__)

PLAIN = ("bicubic", "off")
"""Choices that need no model."""

REALESRGAN_FILE = "UPscaler/RealESRGAN_x2plus.pth"
"""Where Scope puts the artifact of `RealEsrganConfig`; the loader checks its digest."""

Create = Callable[[str, torch.device], Upscaler]


class Models:
    """Weights by choice, for all sessions. Loading happens on a thread of its own.

    A choice that cannot be loaded is said once in the log and then *missing*: bicubic takes its
    place until `retry`.
    """

    def __init__(self, create: Create, device: torch.device) -> None:
        self.device = device
        self._create = create
        self._lock = threading.Lock()
        self._loaded: dict[str, Upscaler] = {}
        self._missing: dict[str, Exception] = {}
        self._loading: dict[str, threading.Thread] = {}

    def get(self, choice: str) -> Upscaler | None:
        """The upscaler, or None while it is not there; the first call starts loading it."""
        with self._lock:
            if choice in self._loaded or choice in self._missing or choice in self._loading:
                return self._loaded.get(choice)
            thread = threading.Thread(
                target=self._load, args=(choice,), name=f"load-{choice}", daemon=True
            )
            self._loading[choice] = thread
        thread.start()
        return None

    def missing(self, choice: str) -> Exception | None:
        """Why a choice cannot be used; None while nothing is known against it."""
        with self._lock:
            return self._missing.get(choice)

    def wait(self, choice: str) -> None:
        """Load `choice` now, if it is not loaded yet, and wait for it."""
        if choice not in PLAIN and self.get(choice) is None:
            thread = self._loading.get(choice)
            if thread is not None:
                thread.join()

    def give_up(self, choice: str, error: Exception) -> None:
        """Forget the weights of a model that failed, and give their memory back."""
        with self._lock:
            self._loaded.pop(choice, None)
            self._missing[choice] = error
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def retry(self) -> None:
        """Missing models may be tried again."""
        with self._lock:
            self._missing.clear()

    def _load(self, choice: str) -> None:
        made: Upscaler | Exception
        try:
            made = self._create(choice, self.device)
        except StreamliftError as error:
            log.warning("model %s cannot be used, bicubic takes its place: %s", choice, error)
            made = error
        except Exception as error:  # a model's loader may raise anything; the stream goes on
            log.exception("model %s failed to load, bicubic takes its place", choice)
            made = error
        with self._lock:
            if isinstance(made, Exception):
                self._missing[choice] = made
            else:
                self._loaded[choice] = made
            del self._loading[choice]


def choose_device(wanted: object) -> torch.device:
    """The device of that name if it can be used, else the first GPU, else the CPU."""
    if isinstance(wanted, str) and wanted:
        try:
            device = torch.device(wanted)
        except RuntimeError:
            log.warning("device %r is no device torch knows; choosing one", wanted)
        else:
            if device.type != "cuda" or (device.index or 0) < torch.cuda.device_count():
                return device
            log.warning("device %s is not there; choosing another", wanted)
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def create(choice: str, device: torch.device) -> Upscaler:
    """Build the chosen upscaler. Its files are looked for where Scope downloads them, too.

    Raises what `create_upscaler` raises.
    """
    if choice == "flashvsr" and (decoder := _in_scope("FlashVSR-v1.1/TCDecoder.ckpt")) is not None:
        return _flashvsr_from(decoder.parent.parent, device)
    if choice == "realesrgan-x2" and (file := _in_scope(REALESRGAN_FILE)) is not None:
        return _realesrgan_from(file, device)
    settings = {}
    if choice == "swiftvr" and (file := _in_scope("SwiftVR/reae.safetensors")) is not None:
        settings["path"] = str(file.parent)
    return create_upscaler(choice, device=str(device), settings=settings)


def _in_scope(name: str) -> Path | None:
    """A file in Scope's folder of models, if it is there."""
    try:
        from scope.core.config import get_model_file_path
    except ImportError:  # Scope is not installed
        return None
    file = Path(get_model_file_path(name))
    return file if file.is_file() else None


def _realesrgan_from(file: Path, device: torch.device) -> Upscaler:
    from streamlift.upscalers.realesrgan.checkpoint import load_net
    from streamlift.upscalers.realesrgan.upscaler import RealESRGAN
    from streamlift.upscalers.weights import check_digest, digest_of, find_checkpoints

    (checkpoint,) = find_checkpoints("realesrgan-x2")
    check_digest(checkpoint, file, digest_of(file), checkpoint.sha256)
    return RealESRGAN(load_net(file), name="realesrgan-x2", device=device, scale=None)


def _flashvsr_from(models: Path, device: torch.device) -> FlashVsr:
    # Scope checks no digest; load_model does.
    from streamlift.upscalers.flashvsr.config import flashvsr
    from streamlift.upscalers.flashvsr.loading import Files, load_model
    from streamlift.upscalers.flashvsr.settings import Settings
    from streamlift.upscalers.flashvsr.upscaler import FlashVsr, dtype_for

    settings = Settings()
    prompt = models / "posi_prompt" / "posi_prompt.pth"
    files = Files.in_folder(models / "FlashVSR-v1.1", full=False, prompt=prompt)
    model = load_model(files, flashvsr(), device, dtype_for(settings.precision, device))
    return FlashVsr("flashvsr", model, settings)
