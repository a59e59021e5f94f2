"""The soak's verdict: what it finds fault with, and what it lets pass."""

from __future__ import annotations

from typing import Any

import pytest
from scripts.children import Sample
from scripts.soak import accounting, growth, viewing
from scripts.soak_peers import PUBLISHER_STEP, by_publisher

SEEN: dict[str, Any] = {"lost": 3, "repeated": 0, "ended": False}


def sample(at_s: float, *, rss_mb: float = 300, threads: int = 10, descriptors: int = 20) -> Sample:
    return Sample(at_s, at_s / 2, rss_mb, threads, descriptors)


LEVEL = [sample(5.0 * n) for n in range(24)]
IDLE, AFTER = sample(0, descriptors=12), sample(125, descriptors=14)


def counts(received: int, encoded: int, **dropped: int) -> dict[str, Any]:
    return {"received": received, "encoded": encoded, "dropped": dropped}


def test_a_frame_that_nobody_counted_is_found() -> None:
    assert accounting(counts(100, 90, stale=10)) == []
    (found,) = accounting(counts(100, 90, stale=9))
    assert found.startswith("1 frames are neither shown nor counted")


@pytest.mark.parametrize(
    ("changes", "word"),
    [({"lost": 4}, "misses 4"), ({"repeated": 1}, "again"), ({"ended": True}, "connection")],
)
def test_what_a_viewer_may_not_meet_is_found(changes: dict[str, Any], word: str) -> None:
    assert viewing(SEEN, dropped=3) == []
    (found,) = viewing({**SEEN, **changes}, dropped=3)
    assert word in found


def test_what_stays_level_passes_and_sessions_on_their_way_too() -> None:
    busy = [sample(s.at_s, descriptors=20 + n % 7) for n, s in enumerate(LEVEL)]
    assert growth(busy, IDLE, AFTER) == []


@pytest.mark.parametrize("name", ["threads", "descriptors", "rss_mb"])
def test_what_grows_is_found(name: str) -> None:
    each = {"threads": 2, "descriptors": 4, "rss_mb": 60}[name]
    growing: list[Sample] = [
        sample(s.at_s, **{name: getattr(s, name) + each * n}) for n, s in enumerate(LEVEL)
    ]
    (found,) = growth(growing, IDLE, AFTER)
    assert ("memory" if name == "rss_mb" else name) in found


def test_what_is_left_when_all_are_gone_is_found() -> None:
    (found,) = growth(LEVEL, IDLE, sample(125, descriptors=30))
    assert "after all left" in found


def test_lost_and_repeated_are_within_one_publisher_and_the_numbers_wrap() -> None:
    first = [65534, 65535, 0, 2, 2]
    second = [2 + PUBLISHER_STEP + n for n in range(5)]
    assert by_publisher(first + second, set()) == {"lost": 1, "repeated": 1, "publishers": 2}


def test_the_picture_before_a_slate_may_be_shown_again_after_it() -> None:
    assert by_publisher([7, 8, 8, 9], {2}) == {"lost": 0, "repeated": 0, "publishers": 1}
    assert by_publisher([7, 8, 8, 9], set())["repeated"] == 1
