"""Files that are no checkpoint: said by what they are, from their first bytes."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
from tests.upscalers.weights.shelf import Shelf, checkpoint_on, store_of

from streamlift.errors import WeightsError
from streamlift.upscalers.weights import load_checkpoint, load_state_dict
from streamlift.upscalers.weights.forms import Form, form_of

PAGE = b"\n <!DOCTYPE html><html><body>Sign in</body></html>"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 67040989\n"

WRONG = {
    b"": "an empty file",
    PAGE: "a web page",
    b"<HTML><head></head></HTML>": "a web page",
    b'<?xml version="1.0"?><html xmlns="x">': "a web page",
    POINTER: "a Git LFS pointer",
    b'{"error": "Repository not found"}': "a server's answer",
    b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>": "a server's answer",
    b'{"metadata": {"total_size": 9}, "weight_map": {"a.weight": "m-1-of-2.safetensors"}}': (
        "the index of a checkpoint in several parts"
    ),
    b"GGUF\x03\0\0\0": "a GGUF file",
    gzip.compress(b"x", mtime=0): "a packed archive",
    b"7z\xbc\xaf\x27\x1c": "a packed archive",
    b"\x08\x07\x12\x07pytorch\x1a": "an ONNX graph",
}


@pytest.mark.parametrize("suffix", [".pth", ".safetensors", ".ckpt"])
@pytest.mark.parametrize(("content", "said"), WRONG.items())
def test_what_is_no_checkpoint_is_named(
    content: bytes, said: str, suffix: str, tmp_path: Path
) -> None:
    path = tmp_path / f"net{suffix}"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=rf"net\{suffix} cannot be loaded: found {said}"):
        load_checkpoint(path)


@pytest.mark.parametrize("body", [PAGE, POINTER])
def test_a_download_that_is_no_checkpoint_never_gets_its_name(
    body: bytes, shelf: Shelf, tmp_path: Path
) -> None:
    checkpoint = checkpoint_on(shelf, pinned=False, body=body)
    store = store_of(tmp_path, checkpoint)
    with pytest.raises(WeightsError, match=r"is not toy/net\.pth: found a (web page|Git LFS)"):
        store.pull(checkpoint, allow_unpinned=True)
    assert list(store.path(checkpoint).parent.iterdir()) == []


def test_the_name_does_not_say_the_form(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    from safetensors.torch import save_file

    tensors = {"a": torch.arange(6.0).view(2, 3)}
    save_file(tensors, tmp_path / "really-safe.pth")
    torch.save(tensors, tmp_path / "really-torch.safetensors")
    assert form_of(tmp_path / "really-safe.pth") is Form.SAFETENSORS
    for path in tmp_path.iterdir():
        assert torch.equal(load_state_dict(path)["a"], tensors["a"])


def test_old_torch_files_are_known(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    path = tmp_path / "old.pth"
    torch.save({"a": torch.ones(2)}, path, _use_new_zipfile_serialization=False)
    assert form_of(path) is Form.TORCH
    assert load_state_dict(path)["a"].sum() == 2


def test_no_message_advises_to_turn_the_safe_reader_off(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    torch.save({"params": tmp_path}, tmp_path / "path.pth")  # a class that is not on torch's list
    torch.save({"a": torch.ones(100)}, tmp_path / "cut.pth")
    (tmp_path / "cut.pth").write_bytes((tmp_path / "cut.pth").read_bytes()[:300])
    for path, said in (
        (tmp_path / "path.pth", "code or objects"),
        (tmp_path / "cut.pth", "cut-off"),
    ):
        with pytest.raises(WeightsError, match=said) as caught:
            load_checkpoint(path)
        assert "weights_only" not in str(caught.value)
