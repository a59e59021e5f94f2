"""When pictures and sound of a file are due, in virtual time."""

from __future__ import annotations

import os
import time

from streamlift.clock import ManualClock
from streamlift.media.remote.url.pace import LEAD_S, MOST_DUE, Outbox, Pace
from streamlift.media.remote.url.wire import HEADER


def pace(clock: ManualClock, *, paced: bool = True) -> Pace:
    return Pace(paced=paced, now_s=clock.now_s, wait=lambda s: clock.advance(max(0.0, s)))


def test_a_file_is_read_a_second_ahead_and_shown_at_its_own_rate() -> None:
    clock = ManualClock(100.0)
    ours = pace(clock)
    due = [ours.picture_due(number * 0.04) for number in range(100)]
    assert [round(d - due[0], 6) for d in due] == [round(n * 0.04, 6) for n in range(100)]
    assert due[-1] - clock.now_s() <= LEAD_S + 1e-9
    assert ours.jumps == 0


def test_a_jump_of_over_a_second_counts_as_now_and_nothing_is_shown_out_of_order() -> None:
    clock = ManualClock(100.0)
    ours = pace(clock)
    before = [ours.picture_due(number * 0.04) for number in range(50)]
    after = [ours.picture_due(9000 + number * 0.04) for number in range(50)]
    back = [ours.picture_due(number * 0.04) for number in range(50)]
    assert ours.jumps == 2
    line = before + after + back
    assert line == sorted(line)
    assert line[-1] - line[0] < 150 * 0.04 + 0.2


def test_a_source_that_stood_still_goes_on_from_now() -> None:
    clock = ManualClock(100.0)
    ours = pace(clock)
    ours.picture_due(0.0)
    clock.advance(30.0)
    assert ours.picture_due(0.04) == clock.now_s()
    assert ours.jumps == 1


def test_sound_is_due_with_its_picture_and_never_moves_the_clock() -> None:
    clock = ManualClock(100.0)
    ours = pace(clock)
    pictures = [ours.picture_due(number * 0.04) for number in range(25)]
    assert ours.sound_due(0.5) == pictures[0] + 0.5
    assert ours.sound_due(7000.0) == clock.now_s()
    assert ours.picture_due(25 * 0.04) == pictures[0] + 25 * 0.04
    assert ours.jumps == 0


def test_what_comes_in_its_own_time_is_due_when_it_comes() -> None:
    clock = ManualClock(100.0)
    ours = pace(clock, paced=False)
    assert ours.picture_due(5000.0) == ours.sound_due(0.0) == 100.0


def test_pictures_that_nobody_takes_are_dropped_oldest_first_and_counted() -> None:
    reading, writing = os.pipe()
    box = Outbox(writing)
    stuck = bytes(1 << 20)  # more than a pipe holds
    now_s = time.monotonic()
    box.put(now_s - 1, [HEADER.pack(6, len(stuck)), stuck])
    deadline_s = now_s + 5
    while box._waiting and time.monotonic() < deadline_s:
        time.sleep(0.01)  # the thread has taken it, and is stuck with it
    for number in range(20):
        box.put(now_s + number * 1e-6, [b"%02d" % number], picture=True)
    assert box.stale == 20 - MOST_DUE
    taken = b""
    while len(taken) < HEADER.size + len(stuck) + 2 * MOST_DUE:
        taken += os.read(reading, 1 << 20)
    assert taken[HEADER.size + len(stuck) :] == b"16171819"
    box.finish([b"end"], 5.0)
    os.close(writing)
    assert os.read(reading, 10) == b"end"
    os.close(reading)
