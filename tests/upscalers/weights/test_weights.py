"""The weights store against a local HTTP server and crafted files; no internet."""

from __future__ import annotations

import hashlib
import os
import pickle
import struct
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from streamlift.errors import ConfigError, WeightsError
from streamlift.upscalers.weights import (
    CHECKPOINTS,
    Checkpoint,
    FileState,
    WeightStore,
    find_checkpoints,
    load_checkpoint,
    load_state_dict,
)

BODY = bytes(range(256)) * 40


@dataclass
class Shelf:
    """What the server hands out, and what it was asked."""

    files: dict[str, bytes] = field(default_factory=dict)
    ranges: list[str | None] = field(default_factory=list)
    cut_after: int | None = None  # bytes after which the connection breaks
    can_resume: bool = True
    wrong_start: bool = False
    url: str = ""


@pytest.fixture
def shelf() -> Iterator[Shelf]:
    shelf = Shelf()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked = self.headers.get("Range")
            shelf.ranges.append(asked)
            body = shelf.files.get(self.path)
            if body is None:
                self.send_error(404)
                return
            start = int(asked[6:-1]) if asked and shelf.can_resume else 0
            if start >= len(body):
                self.send_error(416)
                return
            self.send_response(206 if start else 200)
            if start:
                told = start + 1 if shelf.wrong_start else start
                self.send_header("Content-Range", f"bytes {told}-{len(body) - 1}/{len(body)}")
            self.send_header("Content-Length", str(len(body) - start))
            self.end_headers()
            self.wfile.write(body[start : shelf.cut_after])

        def log_message(self, format: str, *args: object) -> None:
            del format, args

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        shelf.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield shelf
        finally:
            server.shutdown()
            thread.join()


def checkpoint_on(shelf: Shelf, *, pinned: bool = True, body: bytes = BODY) -> Checkpoint:
    shelf.files["/net.pth"] = body
    return Checkpoint(
        name="toy/net.pth",
        source=f"{shelf.url}/net.pth",
        size=len(BODY) if pinned else None,
        sha256=hashlib.sha256(BODY).hexdigest() if pinned else None,
        licence="none",
        net="toy",
        upscalers=("toy",),
    )


def store_of(tmp_path: Path, *checkpoints: Checkpoint, offline: bool = False) -> WeightStore:
    return WeightStore(tmp_path / "weights", offline=offline, checkpoints=checkpoints)


def test_pull_fetches_checks_and_renames(shelf: Shelf, tmp_path: Path) -> None:
    checkpoint = checkpoint_on(shelf)
    store = store_of(tmp_path, checkpoint)
    told: list[tuple[int, int | None]] = []

    path = store.pull(checkpoint, progress=lambda c, done, total: told.append((done, total)))

    assert path.read_bytes() == BODY
    assert told[-1] == (len(BODY), len(BODY))
    assert store.status(checkpoint).state is FileState.VERIFIED
    assert not path.with_name("net.pth.part").exists()


def test_a_good_file_is_not_fetched_again(shelf: Shelf, tmp_path: Path) -> None:
    checkpoint = checkpoint_on(shelf)
    store = store_of(tmp_path, checkpoint)
    store.pull(checkpoint)
    store.pull(checkpoint)

    assert len(shelf.ranges) == 1


def test_a_file_put_there_by_hand_is_accepted_after_hashing(shelf: Shelf, tmp_path: Path) -> None:
    checkpoint = checkpoint_on(shelf)
    store = store_of(tmp_path, checkpoint)
    store.path(checkpoint).parent.mkdir(parents=True)
    store.path(checkpoint).write_bytes(BODY)
    assert store.status(checkpoint).state is FileState.UNVERIFIED

    store.pull(checkpoint)

    assert shelf.ranges == []
    assert store.status(checkpoint).state is FileState.VERIFIED


def test_a_broken_download_is_resumed_where_it_stopped(shelf: Shelf, tmp_path: Path) -> None:
    checkpoint = checkpoint_on(shelf)
    store = store_of(tmp_path, checkpoint)
    shelf.cut_after = 1000
    with pytest.raises(WeightsError, match=r"streamlift weights pull toy/net\.pth"):
        store.pull(checkpoint)
    assert store.status(checkpoint).state is FileState.PARTIAL
    shelf.cut_after = None

    path = store.pull(checkpoint)

    assert shelf.ranges == [None, "bytes=1000-"]
    assert path.read_bytes() == BODY


def test_a_server_that_cannot_resume_sends_the_whole_file(shelf: Shelf, tmp_path: Path) -> None:
    checkpoint = checkpoint_on(shelf)
    store = store_of(tmp_path, checkpoint)
    shelf.cut_after = 1000
    with pytest.raises(WeightsError):
        store.pull(checkpoint)
    shelf.cut_after, shelf.can_resume = None, False

    assert store.pull(checkpoint).read_bytes() == BODY


def test_a_server_that_resumes_elsewhere_is_not_believed(shelf: Shelf, tmp_path: Path) -> None:
    checkpoint = checkpoint_on(shelf)
    store = store_of(tmp_path, checkpoint)
    shelf.cut_after = 1000
    with pytest.raises(WeightsError):
        store.pull(checkpoint)
    shelf.cut_after, shelf.wrong_start = None, True
    with pytest.raises(WeightsError, match="begin anew"):
        store.pull(checkpoint)

    assert store.pull(checkpoint).read_bytes() == BODY


def test_a_download_with_the_wrong_digest_never_gets_its_name(shelf: Shelf, tmp_path: Path) -> None:
    checkpoint = checkpoint_on(shelf, body=BODY[:-1] + b"!")
    store = store_of(tmp_path, checkpoint)

    with pytest.raises(WeightsError, match=str(checkpoint.sha256)) as caught:
        store.pull(checkpoint)

    assert caught.value.expected == checkpoint.sha256
    assert list(store.path(checkpoint).parent.iterdir()) == []


def test_a_download_of_another_size_is_refused_before_it_starts(
    shelf: Shelf, tmp_path: Path
) -> None:
    checkpoint = checkpoint_on(shelf, body=BODY + b"more")
    store = store_of(tmp_path, checkpoint)

    with pytest.raises(WeightsError, match="another size") as caught:
        store.pull(checkpoint)

    assert caught.value.found == f"{len(BODY) + 4} bytes"


def test_a_missing_file_on_the_server_is_named_with_its_address(
    shelf: Shelf, tmp_path: Path
) -> None:
    checkpoint = checkpoint_on(shelf)
    shelf.files.clear()

    with pytest.raises(WeightsError, match=r"http://127.*net\.pth: HTTP 404"):
        store_of(tmp_path, checkpoint).pull(checkpoint)


def test_an_unpinned_file_needs_leave(shelf: Shelf, tmp_path: Path) -> None:
    checkpoint = checkpoint_on(shelf, pinned=False)
    store = store_of(tmp_path, checkpoint)
    with pytest.raises(WeightsError, match="--allow-unpinned"):
        store.pull(checkpoint)

    path = store.pull(checkpoint, allow_unpinned=True)

    assert store.require("toy/net.pth") == path


def test_an_unpinned_file_that_changed_after_the_pull_is_refused(
    shelf: Shelf, tmp_path: Path
) -> None:
    checkpoint = checkpoint_on(shelf, pinned=False)
    store = store_of(tmp_path, checkpoint)
    path = store.pull(checkpoint, allow_unpinned=True)
    path.write_bytes(b"other")

    with pytest.raises(WeightsError, match="found sha256"):
        store.require("net.pth")


def test_offline_mode_never_asks_the_server(shelf: Shelf, tmp_path: Path) -> None:
    checkpoint = checkpoint_on(shelf)

    with pytest.raises(WeightsError, match="offline mode is on"):
        store_of(tmp_path, checkpoint, offline=True).pull(checkpoint)

    assert shelf.ranges == []


def test_a_mirror_serves_files_by_name(shelf: Shelf, tmp_path: Path) -> None:
    checkpoint = checkpoint_on(shelf)
    shelf.files = {"/mine/toy/net.pth": BODY}
    store = WeightStore(tmp_path, mirror=f"{shelf.url}/mine/", checkpoints=(checkpoint,))

    assert store.pull(checkpoint).read_bytes() == BODY


def test_a_mirror_must_be_a_web_address(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="file:///etc"):
        WeightStore(tmp_path, mirror="file:///etc")


def test_a_missing_file_is_named_with_the_command_that_mends_it(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="streamlift weights pull realesrgan/Real") as caught:
        WeightStore(tmp_path).require("RealESRGAN_x2plus.pth")

    assert str(tmp_path) in str(caught.value.expected)


def test_a_truncated_file_is_damaged_and_pulled_anew(shelf: Shelf, tmp_path: Path) -> None:
    checkpoint = checkpoint_on(shelf)
    store = store_of(tmp_path, checkpoint)
    path = store.pull(checkpoint)
    path.write_bytes(BODY[:500])
    assert store.status(checkpoint).state is FileState.DAMAGED
    with pytest.raises(WeightsError, match=f"found 500 bytes, expected {len(BODY)} bytes"):
        store.require("toy/net.pth")

    store.pull(checkpoint)

    assert store.status(checkpoint).state is FileState.VERIFIED


def test_a_file_with_a_flipped_byte_fails_verification(shelf: Shelf, tmp_path: Path) -> None:
    checkpoint = checkpoint_on(shelf)
    store = store_of(tmp_path, checkpoint)
    path = store.pull(checkpoint)
    path.write_bytes(b"!" + BODY[1:])
    os.utime(path, ns=(1, 1))

    with pytest.raises(WeightsError, match="replaces it"):
        store.verify(checkpoint)


def test_a_checked_file_is_not_hashed_again_until_it_changes(shelf: Shelf, tmp_path: Path) -> None:
    checkpoint = checkpoint_on(shelf)
    store = store_of(tmp_path, checkpoint)
    path = store.pull(checkpoint)
    path.write_bytes(b"!" + BODY[1:])
    os.utime(path, ns=(1, 1))

    assert store.status(checkpoint).state is FileState.UNVERIFIED


def test_a_directory_that_cannot_be_made_is_named(shelf: Shelf, tmp_path: Path) -> None:
    checkpoint = checkpoint_on(shelf)
    (tmp_path / "weights").write_text("a file where the directory should be")

    with pytest.raises(WeightsError, match="STREAMLIFT_WEIGHTS_DIR"):
        store_of(tmp_path, checkpoint).pull(checkpoint)


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


def test_the_environment_sets_directory_mirror_and_offline() -> None:
    store = WeightStore.from_environment(
        {
            "STREAMLIFT_WEIGHTS_DIR": "/srv/w",
            "STREAMLIFT_WEIGHTS_MIRROR": "https://mirror.example",
            "STREAMLIFT_OFFLINE": "1",
        }
    )

    assert (store.directory, store.mirror) == (Path("/srv/w"), "https://mirror.example")
    assert store.offline
    xdg = WeightStore.from_environment({"XDG_DATA_HOME": "/x", "STREAMLIFT_OFFLINE": "false"})
    assert xdg.directory == Path("/x/streamlift/weights")
    assert not xdg.offline


class Malicious:
    """Runs a command when unpickled by a careless reader."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (self.command,)


@pytest.mark.parametrize("zipped", [False, True])
def test_code_in_a_pickle_is_never_run(tmp_path: Path, zipped: bool) -> None:
    torch = pytest.importorskip("torch")
    proof, path = tmp_path / "executed", tmp_path / "evil.pth"
    payload = {"params": Malicious(f"touch {proof}")}
    if zipped:
        torch.save(payload, path)
    else:
        path.write_bytes(pickle.dumps(payload, protocol=2))

    with pytest.raises(WeightsError, match=r"evil\.pth cannot be loaded") as caught:
        load_checkpoint(path)

    assert not proof.exists()
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
