"""Checkpoints: which exist, where they lie, fetching them, loading them safely."""

from streamlift.upscalers.weights.download import Progress
from streamlift.upscalers.weights.load import load_checkpoint, load_state_dict
from streamlift.upscalers.weights.store import FileState, FileStatus, WeightStore
from streamlift.upscalers.weights.table import CHECKPOINTS, Checkpoint, find_checkpoints

__all__ = [
    "CHECKPOINTS",
    "Checkpoint",
    "FileState",
    "FileStatus",
    "Progress",
    "WeightStore",
    "find_checkpoints",
    "load_checkpoint",
    "load_state_dict",
]
