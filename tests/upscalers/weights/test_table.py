"""The pinned table, and what a name means."""

from __future__ import annotations

import pytest

from streamlift.errors import WeightsError
from streamlift.upscalers.weights import (
    CHECKPOINTS,
    Checkpoint,
    find_checkpoints,
)


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "a/../b", ".hidden", "a//b"])
def test_no_name_leaves_the_directory(name: str) -> None:
    with pytest.raises(WeightsError, match="would leave"):
        Checkpoint(name=name, source="", size=None, sha256=None, licence="", net="")
    with pytest.raises(WeightsError, match="no checkpoint is called"):
        find_checkpoints([name])


def test_names_may_be_files_folders_or_upscalers() -> None:
    (x2plus,) = find_checkpoints(["RealESRGAN_x2plus.pth"])
    assert find_checkpoints(["realesrgan-x2"]) == (x2plus,)
    assert x2plus in find_checkpoints(["realesrgan"])
    assert {c.file for c in find_checkpoints(["flashvsr"])} >= {"TCDecoder.ckpt", "posi_prompt.pth"}
    with pytest.raises(WeightsError, match="several"):
        find_checkpoints(["TCDecoder.ckpt"])


def test_every_row_of_the_table_is_complete() -> None:
    assert len({c.name for c in CHECKPOINTS}) == len(CHECKPOINTS)
    for checkpoint in CHECKPOINTS:
        assert checkpoint.source.startswith("https://")
        assert checkpoint.source.endswith(checkpoint.file)
        assert checkpoint.licence
        assert checkpoint.sha256 is None or len(bytes.fromhex(checkpoint.sha256)) == 32
