"""The ring and its cursors."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.routing.fakes import encoded

from streamlift.clock import ManualClock
from streamlift.routing.broadcast import Broadcast, Cursor


class Asked:
    def __init__(self) -> None:
        self.times = 0

    def __call__(self) -> None:
        self.times += 1


def opened() -> tuple[Broadcast, ManualClock, Asked]:
    clock, asked = ManualClock(100.0), Asked()
    return Broadcast(clock, asked), clock, asked


def put(ring: Broadcast, clock: ManualClock, *numbers: int, keyframe_every: int = 1000) -> None:
    """Frames 40 ms apart; number n has pts n."""
    for n in numbers:
        ring.put(encoded(n, keyframe=n % keyframe_every == 0))
        clock.advance(0.04)


def taken(cursor: Cursor) -> list[int]:
    out = []
    while (frame := cursor.take()) is not None:
        out.append(frame.pts)
    return out


def test_a_viewer_starts_at_a_fresh_keyframe() -> None:
    ring, clock, asked = opened()
    put(ring, clock, *range(5))
    assert taken(ring.cursor()) == [0, 1, 2, 3, 4]
    assert asked.times == 0


def test_a_viewer_waits_for_the_next_keyframe_if_the_last_is_old_and_asks_for_it() -> None:
    ring, clock, asked = opened()
    put(ring, clock, *range(20))
    cursor = ring.cursor()
    assert taken(cursor) == []
    assert asked.times == 1
    put(ring, clock, 20, 21, 22, keyframe_every=21)
    assert taken(cursor) == [21, 22]
    assert cursor.skipped == 0  # what came before the viewer is not lost to it


def test_a_viewer_that_reads_on_misses_nothing() -> None:
    ring, clock, _ = opened()
    cursor = ring.cursor()
    got = []
    for n in range(500):
        put(ring, clock, n)
        got += taken(cursor)
    assert got == list(range(500))
    assert cursor.skipped == 0


def test_a_viewer_behind_jumps_to_the_newest_keyframe_and_counts() -> None:
    ring, clock, asked = opened()
    cursor = ring.cursor()
    put(ring, clock, *range(30), keyframe_every=25)
    asked.times = 0
    assert taken(cursor) == [25, 26, 27, 28, 29]
    assert cursor.skipped == 25
    assert asked.times == 0


def test_a_viewer_behind_without_a_fresh_keyframe_asks_and_waits() -> None:
    ring, clock, asked = opened()
    cursor = ring.cursor()
    put(ring, clock, *range(30))
    asked.times = 0
    assert taken(cursor) == []
    assert asked.times == 1
    put(ring, clock, 30, 31, keyframe_every=31)
    assert taken(cursor) == [31]
    assert cursor.skipped == 31


def test_an_unmet_request_is_repeated_once_a_second() -> None:
    ring, clock, asked = opened()
    put(ring, clock, *range(20))
    ring.cursor()
    put(ring, clock, *range(20, 20 + 75))  # three seconds without a keyframe
    assert 3 <= asked.times <= 4


def test_the_ring_stays_bounded_while_nobody_reads() -> None:
    ring, clock, _ = opened()
    ring.cursor()
    put(ring, clock, *range(5000))
    assert len(ring._ring) <= 51
    for n in range(5000):
        ring.put(encoded(n))  # a publisher that is faster than time
    assert len(ring._ring) <= 512


def test_viewers_are_told_of_coming_and_going() -> None:
    changes = Asked()
    ring = Broadcast(ManualClock(), Asked(), changes)
    with ring.cursor():
        assert (ring.viewers, changes.times) == (1, 1)
    assert (ring.viewers, changes.times) == (0, 2)


def test_what_a_slow_viewer_missed_is_counted_for_the_stream() -> None:
    clock, missed = ManualClock(100.0), list[int]()
    ring = Broadcast(clock, Asked(), on_skipped=missed.append)
    cursor = ring.cursor()
    put(ring, clock, *range(30), keyframe_every=25)
    taken(cursor)
    assert missed == [25]


async def test_iteration_waits_for_the_writer() -> None:
    ring, clock, _ = opened()
    with ring.cursor() as cursor:
        waiting = asyncio.ensure_future(anext(cursor))
        await asyncio.sleep(0)
        assert not waiting.done()
        put(ring, clock, 0)
        assert (await waiting).pts == 0


async def test_closing_ends_all_cursors() -> None:
    ring, _clock, _ = opened()
    cursors = [ring.cursor() for _ in range(3)]
    waiting = [asyncio.ensure_future(anext(c, None)) for c in cursors]
    await asyncio.sleep(0)
    ring.close()
    assert await asyncio.gather(*waiting) == [None, None, None]
    assert ring.viewers == 0
    with pytest.raises(StopAsyncIteration):
        await anext(ring.cursor())


steps = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.booleans()),
        st.tuples(st.just("read"), st.integers(1, 30)),
        st.tuples(st.just("pause"), st.floats(0, 3)),
    ),
    max_size=120,
)


@given(steps)
def test_whatever_a_viewer_does_its_frames_rise_and_decode(
    script: list[tuple[str, float]],
) -> None:
    """After each gap comes a keyframe, nothing is repeated, and every frame is accounted for."""
    ring, clock, _ = opened()
    cursor = ring.cursor()
    number, keyframes, got = 0, set[int](), list[int]()
    for what, amount in script:
        if what == "put":
            if amount:
                keyframes.add(number)
            ring.put(encoded(number, keyframe=bool(amount)))
            number += 1
            clock.advance(0.04)
        elif what == "read":
            for _ in range(int(amount)):
                frame = cursor.take()
                if frame is None:
                    break
                got.append(frame.pts)
        else:
            clock.advance(amount)
    keyframes.add(number)
    ring.put(encoded(number, keyframe=True))
    got += taken(cursor)
    for before, now in zip([None, *got], got, strict=False):
        assert now in keyframes or (before is not None and now == before + 1)
    assert cursor.skipped + len(got) == number + 1 - min(keyframes)


def test_a_viewer_asks_for_a_keyframe_by_its_own_cursor() -> None:
    ring, clock, asked = opened()
    put(ring, clock, *range(5))
    cursor = ring.cursor()
    cursor.request_keyframe()
    assert asked.times == 1
    cursor.close()
    cursor.request_keyframe()
    assert asked.times == 1
