"""Reading checkpoints: crafted and broken files are refused, code is never run."""

from __future__ import annotations

import os
import pickle
import struct
from pathlib import Path

import pytest

from streamlift.errors import WeightsError
from streamlift.upscalers.weights import (
    load_checkpoint,
    load_state_dict,
)


class Malicious:
    """Runs a command when unpickled by a careless reader."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (self.command,)


@pytest.mark.parametrize("protocol", [None, *range(pickle.HIGHEST_PROTOCOL + 1)])
def test_code_in_a_pickle_is_never_run(
    tmp_path: Path, protocol: int | None, capfd: pytest.CaptureFixture[str]
) -> None:
    """None is torch's own file, else a bare pickle of that protocol."""
    torch = pytest.importorskip("torch")
    proof, path = tmp_path / "executed", tmp_path / "evil.pth"
    payload = {"params": Malicious(f"touch {proof}")}
    if protocol is None:
        torch.save(payload, path)
    else:
        path.write_bytes(pickle.dumps(payload, protocol=protocol))

    with pytest.raises(WeightsError, match=r"evil\.pth cannot be loaded") as caught:
        load_checkpoint(path)

    assert not proof.exists()
    assert caught.value.found == "code or objects besides tensors"
    assert capfd.readouterr().err == ""
    assert "only tensors" in str(caught.value.expected)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"short",
        struct.pack("<Q", 1 << 60) + b"{}",  # a header longer than any memory
        struct.pack("<Q", 2) + b"[]",
        struct.pack("<Q", 62)
        + b'{"w":{"dtype":"F32","shape":[999999999],"data_offsets":[0,4]}}'
        + b"\0" * 4,
        struct.pack("<Q", 59)
        + b'{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,9999999]}}'[:59],
    ],
)
def test_a_forged_safetensors_file_is_refused(tmp_path: Path, content: bytes) -> None:
    pytest.importorskip("safetensors")
    path = tmp_path / "forged.safetensors"
    path.write_bytes(content)

    with pytest.raises(WeightsError, match=r"forged\.safetensors cannot be loaded"):
        load_checkpoint(path)


@pytest.mark.parametrize("keep", [0, 1, 100, 0.5, 0.99])
def test_a_truncated_torch_file_is_refused(tmp_path: Path, keep: float) -> None:
    torch = pytest.importorskip("torch")
    path = tmp_path / "cut.pth"
    torch.save({"params": {"w": torch.zeros(500)}}, path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(keep * len(whole)) if 0 < keep < 1 else int(keep)])

    with pytest.raises(WeightsError, match=r"cut\.pth cannot be loaded"):
        load_checkpoint(path)


@pytest.mark.parametrize("holds", [[1, 2], {"params": 3}, {"params": {"w": "x"}}, {}])
def test_a_file_without_tensors_by_name_is_no_state_dict(tmp_path: Path, holds: object) -> None:
    torch = pytest.importorskip("torch")
    path = tmp_path / "other.pth"
    torch.save(holds, path)

    with pytest.raises(WeightsError, match="tensors by name"):
        load_state_dict(path)


def test_a_missing_path_is_named(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    with pytest.raises(WeightsError, match=r"no checkpoint at .*nowhere\.pth"):
        load_checkpoint(tmp_path / "nowhere.pth")


def test_both_file_forms_give_the_same_tensors(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    from safetensors.torch import save_file

    tensors = {"a": torch.arange(6.0).view(2, 3), "b": torch.ones(1)}
    torch.save({"params": {"a": torch.zeros(1)}, "params_ema": tensors}, tmp_path / "n.pth")
    save_file(tensors, tmp_path / "n.safetensors")

    for loaded in (load_state_dict(tmp_path / f"n.{s}") for s in ("pth", "safetensors")):
        assert loaded.keys() == tensors.keys()
        assert all(torch.equal(loaded[k], tensors[k]) for k in tensors)
