"""What Hugging Face's own tools honour: an endpoint, files in their cache, offline mode."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from tests.upscalers.weights.shelf import BODY, Shelf

from streamlift.errors import ConfigError, WeightsError
from streamlift.upscalers.weights import Checkpoint, FileState, WeightStore

SOURCE = "https://huggingface.co/someone/nets/resolve/main/sub/net.pth"


def on_hub(*, pinned: bool = True, revision: str = "main") -> Checkpoint:
    return Checkpoint(
        name="toy/net.pth",
        source=SOURCE.replace("/main/", f"/{revision}/"),
        size=len(BODY) if pinned else None,
        sha256=hashlib.sha256(BODY).hexdigest() if pinned else None,
        licence="none",
        net="toy",
    )


def cached(home: Path, body: bytes = BODY) -> None:
    """As hf_hub_download leaves it: a blob, a link to it, a branch that names a commit."""
    folder = home / "hub" / "models--someone--nets"
    for part in ("blobs", "refs", "snapshots/abc123/sub"):
        (folder / part).mkdir(parents=True)
    (folder / "blobs" / "1").write_bytes(body)
    (folder / "refs" / "main").write_text("abc123")
    (folder / "snapshots" / "abc123" / "sub" / "net.pth").symlink_to("../../../blobs/1")


def store(tmp_path: Path, **environ: str) -> WeightStore:
    weights = str(tmp_path / "weights")
    return WeightStore.from_environment({"STREAMLIFT_WEIGHTS_DIR": weights, **environ})


def test_the_endpoint_is_asked_in_place_of_the_hub(shelf: Shelf, tmp_path: Path) -> None:
    shelf.files["/someone/nets/resolve/main/sub/net.pth"] = BODY
    there = store(tmp_path, HF_ENDPOINT=shelf.url + "/", HF_HOME=str(tmp_path))
    assert there.pull(on_hub()).read_bytes() == BODY


def test_our_own_mirror_goes_before_the_endpoint(shelf: Shelf, tmp_path: Path) -> None:
    shelf.files["/toy/net.pth"] = BODY
    there = store(tmp_path, HF_ENDPOINT="http://127.0.0.1:9", STREAMLIFT_WEIGHTS_MIRROR=shelf.url)
    assert there.pull(on_hub()).read_bytes() == BODY


def test_an_endpoint_that_is_no_address_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="HF_ENDPOINT 'mirror'"):
        store(tmp_path, HF_ENDPOINT="mirror")


@pytest.mark.parametrize("revision", ["main", "abc123"])
def test_a_file_in_the_hubs_cache_is_taken_without_the_network(
    revision: str, tmp_path: Path
) -> None:
    cached(tmp_path)
    there = store(tmp_path, HF_HOME=str(tmp_path), HF_HUB_OFFLINE="1")
    checkpoint = on_hub(revision=revision)
    path = there.pull(checkpoint)
    assert path.read_bytes() == BODY
    assert not path.is_symlink()
    assert there.status(checkpoint).state is FileState.VERIFIED


def test_a_file_in_the_cache_with_another_digest_is_not_taken(shelf: Shelf, tmp_path: Path) -> None:
    cached(tmp_path, BODY[:-1] + b"!")
    shelf.files["/someone/nets/resolve/main/sub/net.pth"] = BODY
    there = store(tmp_path, HF_HOME=str(tmp_path), HF_ENDPOINT=shelf.url)
    assert there.pull(on_hub()).read_bytes() == BODY


@pytest.mark.parametrize("value", ["1", "true", "ON", "yes"])
@pytest.mark.parametrize("name", ["HF_HUB_OFFLINE", "STREAMLIFT_OFFLINE"])
def test_offline_modes_are_honoured(name: str, value: str, shelf: Shelf, tmp_path: Path) -> None:
    there = store(tmp_path, HF_ENDPOINT=shelf.url, HF_HOME=str(tmp_path), **{name: value})
    with pytest.raises(WeightsError, match="offline mode is on"):
        there.pull(on_hub())
    assert shelf.ranges == []
