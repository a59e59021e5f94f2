"""Downloads against a local HTTP server: resumed, bounded, checked; no internet."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.upscalers.weights.shelf import BODY, Shelf, checkpoint_on, store_of

from streamlift.errors import WeightsError
from streamlift.upscalers.weights import (
    CHECKPOINTS,
    FileState,
    WeightStore,
    checkpoints_asked_for,
)


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


def test_a_mirror_serves_files_by_name(shelf: Shelf, tmp_path: Path) -> None:
    checkpoint = checkpoint_on(shelf)
    shelf.files = {"/mine/toy/net.pth": BODY}
    store = WeightStore(tmp_path, mirror=f"{shelf.url}/mine/", checkpoints=(checkpoint,))

    assert store.pull(checkpoint).read_bytes() == BODY


@pytest.mark.parametrize("says_length", [True, False])
def test_a_file_without_a_pinned_size_is_bounded_all_the_same(
    says_length: bool, shelf: Shelf, tmp_path: Path
) -> None:
    checkpoint = checkpoint_on(shelf, pinned=False)
    shelf.says_length = says_length
    store = WeightStore(tmp_path, checkpoints=(checkpoint,), largest_bytes=len(BODY) - 1)
    with pytest.raises(WeightsError, match=r"larger than any checkpoint|more than the"):
        store.pull(checkpoint, allow_unpinned=True)
    assert not store.path(checkpoint).exists()
    left = store.path(checkpoint).with_name("net.pth.part")
    assert not left.exists() or left.stat().st_size < len(BODY)

    fine = WeightStore(tmp_path, checkpoints=(checkpoint,), largest_bytes=len(BODY))
    assert fine.pull(checkpoint, allow_unpinned=True).read_bytes() == BODY


@pytest.mark.parametrize(
    ("reason", "upscaler", "expected"),
    [
        # Loaders name an upscaler or a file; what the backend loads by default comes as a whole.
        ("a; `streamlift weights pull flashvsr` fetches it", "flashvsr-full", "flashvsr-full"),
        (
            "`streamlift weights pull realesrgan/realesr-general-x4v3.pth` fetches",
            "realesrgan-general",
            "realesrgan-general",
        ),
        ("worker a: `streamlift weights pull swiftvr` fetches", "swiftvr", "swiftvr"),
    ],
)
def test_a_reason_asks_for_all_that_the_backend_loads(
    reason: str, upscaler: str, expected: str
) -> None:
    found = checkpoints_asked_for(reason, upscaler, CHECKPOINTS)
    assert set(found) == {c for c in CHECKPOINTS if expected in c.upscalers}
    assert found


def test_a_reason_asks_for_a_file_that_only_a_setting_names() -> None:
    reason = "`streamlift weights pull realesrgan/RealESRGAN_x4plus.pth` fetches it"
    (found,) = checkpoints_asked_for(reason, "realesrgan-x2", CHECKPOINTS)
    assert found.file == "RealESRGAN_x4plus.pth"


@pytest.mark.parametrize(
    "reason", ["no such device: H100", "`streamlift weights pull nothing`", ""]
)
def test_other_reasons_ask_for_nothing(reason: str) -> None:
    assert checkpoints_asked_for(reason, "flashvsr", CHECKPOINTS) == ()
