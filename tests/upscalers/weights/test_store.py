"""The weights store: states, digests, unpinned files, mirrors by environment."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from tests.upscalers.weights.shelf import BODY, Shelf, checkpoint_on, store_of

from streamlift.errors import ConfigError, WeightsError
from streamlift.upscalers.weights import (
    FileState,
    WeightStore,
)


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
