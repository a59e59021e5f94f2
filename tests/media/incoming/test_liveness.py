"""Whether a peer that sends is still there."""

from __future__ import annotations

import pytest

from streamlift.media.incoming.liveness import CHECK_EVERY_S, REST_S, UNANSWERED, Liveness


def follow(liveness: Liveness, *, since_s: float, answers: list[bool]) -> list[float]:
    """Let the peer rest from `since_s` on and answer the checks like that; when it was asked."""
    asked: list[float] = []
    for step in range(2000):
        now_s = since_s + step * 0.05
        if len(asked) == len(answers):
            break
        if liveness.check_due(now_s):
            liveness.checked(answered=answers[len(asked)])
            asked.append(now_s)
    return asked


def test_a_peer_that_rests_is_asked_each_second() -> None:
    liveness = Liveness(5.0)
    liveness.heard(100.0)
    asked = follow(liveness, since_s=100.0, answers=[True] * 4)
    expected = [100.0 + REST_S + n * CHECK_EVERY_S for n in range(4)]
    assert asked == pytest.approx(expected, abs=0.06)
    assert liveness.absence(None, 105.0) is None


def test_nobody_is_asked_while_packets_come_or_before_the_first() -> None:
    liveness = Liveness(5.0)
    assert not any(liveness.check_due(n / 10) for n in range(100))
    for turn in range(100):
        liveness.heard(turn / 10)
        assert not liveness.check_due(turn / 10)


def test_three_unanswered_checks_are_an_absence_and_one_answer_ends_it() -> None:
    liveness = Liveness(5.0)
    liveness.heard(0.0)
    follow(liveness, since_s=0.0, answers=[False] * (UNANSWERED - 1))
    assert liveness.absence(None, 3.0) is None
    assert not liveness.checked(answered=False)
    assert liveness.absence(None, 4.0) == "the publisher does not answer"
    assert liveness.checked(answered=True)
    assert liveness.absence(None, 5.0) is None


def test_an_answer_between_begins_the_count_anew() -> None:
    liveness = Liveness(5.0)
    liveness.heard(0.0)
    for answered in [False, False, True] * 5:
        assert not liveness.checked(answered=answered)
        assert liveness.absence(None, 1.0) is None


def test_a_packet_is_an_answer() -> None:
    liveness = Liveness(5.0)
    liveness.heard(0.0)
    follow(liveness, since_s=0.0, answers=[False] * UNANSWERED)
    liveness.heard(10.0)
    assert liveness.absence(None, 10.0) is None


def test_media_without_a_picture_is_an_absence_after_its_time() -> None:
    liveness = Liveness(5.0)
    liveness.heard(0.0)
    assert liveness.absence(10.0, 15.0) is None
    assert liveness.absence(10.0, 15.1) == "no picture could be decoded for 5 s"
    assert liveness.absence(None, 15.1) is None
