"""Merging of keyframe requests."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from streamlift.routing.keyframes import KeyframeRequests


def test_the_first_request_is_met_at_once() -> None:
    assert KeyframeRequests().ask(12.0)


def test_a_request_inside_the_window_is_deferred_not_lost() -> None:
    requests = KeyframeRequests()
    requests.ask(0.0)
    assert not requests.ask(0.1)
    assert not requests.due(0.4)
    assert requests.due(0.5)
    assert not requests.due(2.0)


def test_75_requests_in_five_seconds_make_at_most_eleven_keyframes() -> None:
    requests = KeyframeRequests()
    made = 0
    for n in range(150):  # 25 frames a second for six seconds, 15 requests a second for five
        now_s = n / 25
        made += requests.due(now_s)
        for ask in range(75):
            if n / 25 <= ask / 15 < (n + 1) / 25:
                made += requests.ask(ask / 15)
    assert 9 <= made <= 11


@given(st.lists(st.floats(0, 20), min_size=1).map(sorted))
def test_no_two_keyframes_are_closer_than_half_a_second(asked: list[float]) -> None:
    requests = KeyframeRequests()
    made = [now_s for now_s in asked if requests.ask(now_s)]
    assert all(b - a >= 0.499 for a, b in itertools.pairwise(made))


@given(st.lists(st.floats(0, 20), min_size=1).map(sorted))
def test_every_request_is_followed_by_a_keyframe_within_half_a_second(asked: list[float]) -> None:
    requests = KeyframeRequests()
    made = []
    for now_s in asked:
        if requests.ask(now_s):
            made.append(now_s)
        elif requests.due(now_s + 0.5):
            made.append(now_s + 0.5)
            break  # time must not run backwards in the next turn
    last = [a for a in asked if a <= made[-1]][-1]
    assert any(last <= m <= last + 0.5001 for m in made)
