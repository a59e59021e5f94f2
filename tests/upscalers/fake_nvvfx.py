"""A module like NVIDIA's `nvvfx` that asserts how it must be used, and enlarges to nearest."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from enum import IntEnum
from importlib.machinery import ModuleSpec
from types import ModuleType, SimpleNamespace
from typing import Any

import torch
from torch.utils.dlpack import from_dlpack

__all__ = ["FakeNvvfx", "NvVFXError"]


class NvVFXError(Exception):
    """As the package raises."""


_OLD = {
    **{"BICUBIC": 0, "LOW": 1, "MEDIUM": 2, "HIGH": 3, "ULTRA": 4},
    **{f"DENOISE_{n}": 8 + i for i, n in enumerate(("LOW", "MEDIUM", "HIGH", "ULTRA"))},
    **{f"DEBLUR_{n}": 12 + i for i, n in enumerate(("LOW", "MEDIUM", "HIGH", "ULTRA"))},
    **{f"HIGHBITRATE_{n}": 16 + i for i, n in enumerate(("LOW", "MEDIUM", "HIGH", "ULTRA"))},
}
_NEW = {"STREAMING_MEDIUM": 21, "STREAMING_ULTRA": 23}


@dataclass
class FakeNvvfx:
    """Knobs and counts. `fail_at`, `zeros_from`: numbers of runs, over all effects, from 1."""

    sdk: str = "1.3"
    load_code: int | None = None
    fail_at: int = 0
    zeros_from: int = 0
    wrong_shape: bool = False
    half: bool = False
    loads: int = 0
    closes: int = 0
    runs: int = 0
    loading: int = 0
    most_loading: int = 0
    levels: list[Any] = field(default_factory=list)
    effects: list[Any] = field(default_factory=list)

    def module(self) -> ModuleType:
        """What goes into `sys.modules`."""
        module = ModuleType("nvvfx")
        module.__spec__ = ModuleSpec("nvvfx", None)
        levels = IntEnum("QualityLevel", _OLD | (_NEW if self.sdk == "1.3" else {}))  # type: ignore[misc]
        base = _effect_class(self)
        names: dict[str, Any] = {"QualityLevel": levels}
        if self.sdk == "1.3":
            names["strength"] = None
        effect = type("VideoSuperRes", (base,), names)
        vars(module).update(
            NvVFXError=NvVFXError,
            VideoSuperRes=effect,
            effects=SimpleNamespace(QualityLevel=levels),
            get_sdk_version=lambda: self.sdk,
            __version__="0.2.0.0" if self.sdk == "1.3" else "0.1.0.1",
        )
        return module


def _effect_class(fake: FakeNvvfx) -> type:
    lock = threading.Lock()

    class Effect:
        output_width: int | None = None
        output_height: int | None = None

        def __init__(self, quality: Any, device: int) -> None:
            assert isinstance(quality, IntEnum)
            assert isinstance(device, int)
            fake.levels.append(quality)
            fake.effects.append(self)
            self.is_loaded = self.closed = False
            self._buffer: torch.Tensor | None = None
            self._input: tuple[int, ...] | None = None

        def load(self) -> None:
            assert type(self.output_width) is int, "set the size before load()"
            assert type(self.output_height) is int, "set the size before load()"
            assert not self.is_loaded, "loaded twice"
            assert not self.closed
            with lock:
                fake.loading += 1
                fake.most_loading = max(fake.most_loading, fake.loading)
            try:
                threading.Event().wait(0.002)  # so that two that load at once meet
                if fake.load_code is not None:
                    raise NvVFXError(f"NvVFX_Load failed (code {fake.load_code})")
            finally:
                with lock:
                    fake.loading -= 1
            self.is_loaded = True
            fake.loads += 1

        def close(self) -> None:
            assert not self.closed, "closed twice"
            self.closed = True
            fake.closes += self.is_loaded

        def run(self, x: Any, non_blocking: bool = False, stream_ptr: int = 0) -> Any:
            assert self.is_loaded, "run before load()"
            assert not self.closed, "run after close()"
            assert isinstance(stream_ptr, int)
            tensor = from_dlpack(x)
            assert tensor.dtype == torch.float32
            assert tensor.dim() == 3
            assert tensor.shape[0] == 3
            assert tensor.is_contiguous()
            assert float(tensor.min()) >= 0
            assert float(tensor.max()) <= 1
            assert self._input in (None, tuple(tensor.shape)), "another size than before"
            self._input = tuple(tensor.shape)
            fake.runs += 1
            if fake.runs == fake.fail_at:
                raise NvVFXError("NvVFX_Run failed (code -1)")
            assert self.output_width is not None
            assert self.output_height is not None
            scale = self.output_width // tensor.shape[2]
            assert self.output_height == tensor.shape[1] * scale
            large = tensor.repeat_interleave(scale, 1).repeat_interleave(scale, 2)
            if fake.zeros_from and fake.runs >= fake.zeros_from:
                large = torch.zeros_like(large)
            if fake.wrong_shape:
                large = large[:, :-1]
            if fake.half:
                large = large.half()
            if self._buffer is None:
                self._buffer = torch.empty_like(large)
            self._buffer.copy_(large)  # ONE buffer, written again by each run
            return SimpleNamespace(image=self._buffer)

    return Effect
