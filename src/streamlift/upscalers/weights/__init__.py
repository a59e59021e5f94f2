"""Checkpoints: which exist, where they lie, fetching them, loading them safely."""

from streamlift.upscalers.weights.download import Progress, checkpoints_asked_for
from streamlift.upscalers.weights.fit import check_fit, wrong_net
from streamlift.upscalers.weights.load import load_checkpoint, load_state_dict
from streamlift.upscalers.weights.spelling import rrdb_names
from streamlift.upscalers.weights.store import (
    FileState,
    FileStatus,
    WeightStore,
    check_digest,
    digest_of,
)
from streamlift.upscalers.weights.table import CHECKPOINTS, Checkpoint, find_checkpoints

__all__ = [
    "CHECKPOINTS",
    "Checkpoint",
    "FileState",
    "FileStatus",
    "Progress",
    "WeightStore",
    "check_digest",
    "check_fit",
    "checkpoints_asked_for",
    "digest_of",
    "find_checkpoints",
    "load_checkpoint",
    "load_state_dict",
    "rrdb_names",
    "wrong_net",
]
