"""The encode thread changes its preset in mid-stream."""

from __future__ import annotations

import threading

from tests.clips import TICKS, picture
from tests.engine.frames import H264, SMALL

from streamlift.clock import ManualClock, MonotonicClock
from streamlift.engine.encode import EncodeThread, Picture
from streamlift.frames import Colour, EncodedFrame, StageTimes, Unencoded


def test_another_preset_begins_with_a_keyframe_and_loses_no_picture() -> None:
    out: list[EncodedFrame | Unencoded] = []
    four, done = threading.Event(), threading.Event()

    def deliver(encoded: EncodedFrame | Unencoded) -> None:
        out.append(encoded)
        if len(out) == 4:
            four.set()

    thread = EncodeThread(
        "test",
        renditions=frozenset({H264}),
        preset="superfast",
        fps=25.0,
        depth=16,
        clock=MonotonicClock(),
        deliver=deliver,
        skip=lambda: None,
        done=lambda error: done.set(),
    )
    for number in range(8):
        if number == 4:
            assert four.wait(20)
            thread.hurry(True)
        now_s = MonotonicClock().now_s()
        shown = picture(SMALL, number)
        assert thread.offer(
            Picture(shown, number * TICKS, Colour(), now_s, now_s, now_s, StageTimes(), SMALL)
        )
    thread.finish()
    assert done.wait(20)
    frames = [frame for frame in out if isinstance(frame, EncodedFrame)]
    assert [frame.pts for frame in frames] == [number * TICKS for number in range(8)]
    assert [frame.keyframe for frame in frames] == [n in (0, 4) for n in range(8)]


def test_a_picture_that_waited_too_long_brings_the_fastest_preset_before_any_is_skipped() -> None:
    clock = ManualClock(100.0)
    out: list[int] = []
    turns: list[tuple[float, bool]] = []
    skipped, done = threading.Semaphore(0), threading.Event()

    def note_turn(overdue_s: float, fastest: bool) -> bool:
        turns.append((overdue_s, fastest))
        return True

    thread = EncodeThread(
        "test",
        renditions=frozenset({H264}),
        preset="superfast",
        fps=25.0,
        depth=16,
        clock=clock,
        deliver=lambda encoded: out.append(encoded.pts // TICKS),
        skip=skipped.release,
        done=lambda error: done.set(),
        turn=note_turn,
    )
    for number, waited_s in enumerate((0.0, 0.7, 0.7, 0.1)):
        since_s = 100.0 - waited_s
        shown = picture(SMALL, number)
        assert thread.offer(
            Picture(shown, number * TICKS, Colour(), since_s, since_s, since_s, StageTimes(), SMALL)
        )
    thread.finish()
    assert done.wait(20)
    assert out == [0, 1, 3]
    assert skipped.acquire(blocking=False)
    assert not skipped.acquire(blocking=False)
    assert [round(overdue_s, 6) for overdue_s, _ in turns] == [0.0, 0.7, 0.7, 0.1]
    assert [fastest for _, fastest in turns] == [False, False, True, True]
