"""What kernels ask of the card they run on, and whether there is one at all."""

from __future__ import annotations

import os
from functools import cache

import torch

__all__ = ["LARGE_SHARED", "capability", "emulated", "multiprocessors", "shared_limit"]

LARGE_SHARED = 163_840
"""Bytes of shared memory that data centre cards (sm_80, sm_90) give a block; others give 99 KB."""


@cache
def emulated() -> bool:
    """Whether Triton interprets: its `dot` takes bfloat16 for whole numbers there (3.9)."""
    return os.environ.get("TRITON_INTERPRET", "0") not in ("", "0")


@cache
def capability(device: torch.device) -> tuple[int, int]:
    """As (9, 0) for Hopper; (0, 0) without a card."""
    return torch.cuda.get_device_capability(device) if device.type == "cuda" else (0, 0)


@cache
def multiprocessors(device: torch.device) -> int:
    """How many; 2 without a card, so that programs take several pieces there too."""
    if device.type != "cuda":
        return 2
    return torch.cuda.get_device_properties(device).multi_processor_count


@cache
def shared_limit(device: torch.device) -> int:
    """Bytes of shared memory that one block may have."""
    if device.type != "cuda":
        return LARGE_SHARED
    properties = torch.cuda.get_device_properties(device)
    return int(getattr(properties, "shared_memory_per_block_optin", 101_376))
