"""The source view: every unit once, in the order in which they are decoded."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st
from tests.routing.fakes import frame
from tests.routing.virtual_time import LoopClock, in_virtual_time

from streamlift.routing.broadcast import Broadcast, Cursor
from streamlift.routing.source import REORDERED_UNITS, SourceView

STEP = 3600


def opened() -> tuple[SourceView, Cursor]:
    broadcast = Broadcast(LoopClock(), lambda: None)
    return SourceView(broadcast), broadcast.cursor()


def taken(cursor: Cursor) -> list[int]:
    """The pts of all that went out, in frame times."""
    out = []
    while (one := cursor.take()) is not None:
        out.append(one.pts // STEP)
    return out


def show(view: SourceView, shown: int, number: int, *, keyframe: bool = False) -> None:
    """The frame that is shown at this place comes, and its upscaled one goes out."""
    view.keep(frame(shown * STEP, keyframe=keyframe, number=number))
    view.release(shown * STEP)


@in_virtual_time
async def test_units_go_out_with_their_upscaled_frames() -> None:
    view, cursor = opened()
    for n in range(6):
        view.keep(frame(n * STEP, keyframe=n == 0, number=n))
    view.release(2 * STEP)
    assert taken(cursor) == [0, 1, 2]
    view.release(5 * STEP)
    assert taken(cursor) == [3, 4, 5]


@in_virtual_time
async def test_reordered_units_go_out_as_they_are_decoded() -> None:
    view, cursor = opened()
    # Decoded I0 P3 B1 B2 P6 B4 B5, shown 0 1 2 3 4 5 6.
    decoded = [0, 3, 1, 2, 6, 4, 5]
    for shown in range(7):
        show(view, shown, decoded.index(shown), keyframe=shown == 0)
    assert taken(cursor) == decoded


@in_virtual_time
async def test_a_unit_that_never_comes_holds_up_the_others_only_once() -> None:
    view, cursor = opened()
    for n in (0, 1, 3, 4, 5):
        show(view, n, n, keyframe=n == 0)
    assert taken(cursor) == [0, 1]
    for n in range(6, 3 + REORDERED_UNITS):
        show(view, n, n)
    assert taken(cursor) == list(range(3, 3 + REORDERED_UNITS))
    show(view, 9, 9)  # 7 and 8 are missing, and nobody waits for them any more
    assert taken(cursor) == [9]


@in_virtual_time
async def test_a_source_that_counts_anew_is_shown_at_once() -> None:
    view, cursor = opened()
    for n in range(3):
        show(view, n, n, keyframe=n == 0)
    show(view, 3, 0, keyframe=True)
    show(view, 4, 1)
    assert taken(cursor) == [0, 1, 2, 3, 4]


@given(st.lists(st.integers(0, 3), min_size=1, max_size=12), st.randoms(use_true_random=False))
def test_whatever_the_order_of_coding_nothing_is_lost_or_repeated(
    groups: list[int], chance: random.Random
) -> None:
    @in_virtual_time
    async def play() -> None:
        view, cursor = opened()
        decoded, place = [0], 1
        for bframes in groups:  # an anchor, then the pictures that are shown before it
            between = list(range(place, place + bframes))
            chance.shuffle(between)
            decoded += [place + bframes, *between]
            place += bframes + 1
        for shown in range(place):
            show(view, shown, decoded.index(shown), keyframe=shown == 0)
        assert taken(cursor) == decoded

    play()
