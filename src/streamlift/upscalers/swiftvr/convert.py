"""Writing the tensors that run to one safetensors file, as they come, and going on where it ended.

The published denoiser has 20 GB in float32. Tensors are folded one by one and appended, so that no
more than a block is ever in memory; the file is written beside its name and renamed when whole.
"""

from __future__ import annotations

import json
import logging
import os
import struct
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor

from streamlift.errors import WeightsError

__all__ = ["Layout", "Progress", "log_progress", "write_resumable"]

_log = logging.getLogger(__name__)

Progress = Callable[[int, int], None]
"""Bytes written, bytes in all."""

_NAMES = {torch.bfloat16: "BF16", torch.float32: "F32", torch.float16: "F16"}
_ALIGNMENT = 8  # of the header, as the format's own writer does it


@dataclass(frozen=True, slots=True)
class Layout:
    """What the file will hold: shape and kind of each tensor in the order they are written."""

    tensors: Mapping[str, tuple[tuple[int, ...], torch.dtype]]
    metadata: Mapping[str, str]

    def ends(self) -> dict[str, int]:
        """Where each tensor's bytes end, counted from the header's end."""
        ends, done = {}, 0
        for name, (shape, kind) in self.tensors.items():
            done += torch.Size(shape).numel() * kind.itemsize
            ends[name] = done
        return ends

    def header(self) -> bytes:
        """The head of a safetensors file: its length, then names, kinds, shapes and places."""
        head: dict[str, object] = {"__metadata__": dict(self.metadata)}
        start = 0
        for name, end in self.ends().items():
            shape, kind = self.tensors[name]
            head[name] = {
                "dtype": _NAMES[kind],
                "shape": list(shape),
                "data_offsets": [start, end],
            }
            start = end
        text = json.dumps(head, separators=(",", ":")).encode()
        text += b" " * (-len(text) % _ALIGNMENT)
        return struct.pack("<Q", len(text)) + text


def write_resumable(
    path: Path,
    layout: Layout,
    fold: Callable[[frozenset[str]], Iterable[tuple[str, Tensor]]],
    progress: Progress | None = None,
) -> None:
    """Write the file; what an earlier try left beside it is kept if it is of this very layout.

    fold: gives the tensors in the layout's order, or any part of them that leaves out no tensor
    but those it is told are there. Raises OSError, and WeightsError if a tensor is not as told.
    """
    part, header, ends = path.with_name(path.name + ".part"), layout.header(), layout.ends()
    total = next(reversed(ends.values()), 0)
    done = _whole(part, header, ends)
    there = frozenset(name for name, end in ends.items() if end <= done)
    with part.open("r+b" if done else "wb") as file:
        if done:
            _log.info("going on with %s: %d of %d tensors are there", part, len(there), len(ends))
        else:
            file.write(header)
        file.truncate(len(header) + done)
        file.seek(len(header) + done)
        missing = [name for name in ends if name not in there]
        if progress is not None:
            progress(done, total)
        for name, tensor in fold(there):
            if name in there:
                continue
            if not missing or name != missing.pop(0):
                raise WeightsError(
                    f"{name} does not come in its turn", found=name, expected=missing[:1]
                )
            _append(file, name, tensor, layout)
            if progress is not None:
                progress(ends[name], total)
        if missing:
            raise WeightsError("tensors are missing", found="none", expected=missing[:6])
        file.flush()
        os.fsync(file.fileno())
    os.replace(part, path)


def log_progress(what: str) -> Progress:
    """Say every tenth part in the log."""
    said = -1

    def progress(done: int, total: int) -> None:
        nonlocal said
        tenth = 10 * done // total if total else 10
        if tenth > said:
            said = tenth
            _log.info("%s: %d %% of %.2f GB", what, 10 * tenth, total / 1e9)

    return progress


def _append(file: BinaryIO, name: str, tensor: Tensor, layout: Layout) -> None:
    shape, kind = layout.tensors[name]
    if tuple(tensor.shape) != shape:
        raise WeightsError(f"{name} has another shape", found=tuple(tensor.shape), expected=shape)
    raw = tensor.detach().to(kind).contiguous().flatten().view(torch.uint8)
    file.write(raw.numpy().data)


def _whole(part: Path, header: bytes, ends: Mapping[str, int]) -> int:
    """Bytes of whole tensors in an earlier try; the last of them is not trusted, see below."""
    try:
        with part.open("rb") as file:
            if file.read(len(header)) != header:
                return 0
        size = part.stat().st_size - len(header)
    except FileNotFoundError:
        return 0
    # A machine that stops may leave the end of a file unwritten: the last tensor is done again.
    whole = [end for end in ends.values() if end <= size]
    return whole[-2] if len(whole) > 1 else 0
