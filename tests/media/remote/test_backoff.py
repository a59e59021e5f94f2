"""How long to wait before connecting again."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from streamlift.media.remote.backoff import (
    LONGEST_ASKED_S,
    LONGEST_WAIT_S,
    Retries,
    Retry,
)


def test_a_busy_source_is_asked_as_often_as_it_says_for_thirty_seconds_then_less_and_less() -> None:
    retries, now_s, waits = Retries(), 0.0, []
    for _ in range(68):
        patient, wait_s = retries.failed(0.5, now_s)
        waits.append((patient, wait_s))
        now_s += wait_s
    assert waits[:60] == [(True, 0.5)] * 60
    assert [w for _, w in waits[60:]] == [1, 2, 4, 8, 16, 30, 30, 30]
    assert {patient for patient, _ in waits[60:]} == {False}


def test_a_lost_source_is_tried_again_after_one_two_four_to_thirty_seconds() -> None:
    retries = Retries()
    waits = [retries.failed(None, 0.0)[1] for _ in range(7)]
    assert waits == [1, 2, 4, 8, 16, 30, 30]


def test_a_connection_that_gave_pictures_begins_the_waits_anew() -> None:
    retries = Retries()
    for _ in range(5):
        retries.failed(None, 0.0)
    retries.worked()
    assert retries.failed(None, 0.0) == (False, 1.0)


def test_waits_double_up_to_half_a_minute_and_begin_anew_after_a_reset() -> None:
    retry = Retry(chance=lambda: 0.5)
    assert [retry.wait_s() for _ in range(7)] == [1, 2, 4, 8, 16, 30, 30]
    retry.reset()
    assert retry.wait_s() == 1


@given(chance=st.floats(0, 1), asked=st.none() | st.floats(0, 1e9), tries=st.integers(1, 12))
def test_a_wait_is_near_its_step_and_what_the_server_asks_counts(
    chance: float, asked: float | None, tries: int
) -> None:
    retry = Retry(chance=lambda: chance)
    for _ in range(tries):
        wait_s = retry.wait_s(asked)
        assert wait_s >= min(asked or 0, LONGEST_ASKED_S)
        assert 0.8 <= wait_s <= max(1.2 * LONGEST_WAIT_S, LONGEST_ASKED_S)
