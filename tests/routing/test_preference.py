"""Which backend is to be shown, and when it is tried again."""

from __future__ import annotations

from tests.routing.fakes import FakeBackend

from streamlift.clock import ManualClock
from streamlift.frames import BackendState
from streamlift.routing.backends import BackendTable
from streamlift.routing.preference import LONGEST_RETRY_S, PATIENCE_S, RETRY_S, Preference, Request


def among(*names: str) -> tuple[Preference, BackendTable, ManualClock]:
    """A preference for the first of these backends."""
    clock = ManualClock(100.0)
    known = BackendTable([FakeBackend(clock, name) for name in names], clock=clock)
    return Preference(names[0], known, "cam"), known, clock


def set_state(known: BackendTable, name: str, state: BackendState) -> None:
    backend = known[name]
    assert isinstance(backend, FakeBackend)
    backend.state = state


def test_a_new_lane_is_on_the_wanted_backend_or_on_the_fallback_with_a_reason() -> None:
    preference, known, _ = among("ai", "bicubic")
    assert preference.for_new_lane() == "ai"
    set_state(known, "ai", BackendState.LOADING)
    assert preference.for_new_lane() == "bicubic"
    assert (preference.degraded, preference.why) == (True, "ai is loading: failed just now")


def test_without_a_fallback_the_wanted_backend_is_tried_whatever_it_says() -> None:
    preference, known, _ = among("ai")
    set_state(known, "ai", BackendState.LOADING)
    assert preference.for_new_lane() == "ai"
    assert preference.after_fault("ai", "x") == "ai"
    assert not preference.degraded


def test_the_way_back_waits_until_the_stand_in_is_calm_but_not_for_ever() -> None:
    preference, _, _ = among("ai", "bicubic")
    preference.after_fault("ai", "x")
    assert preference.due("bicubic", True, 100.0)
    assert not preference.due("bicubic", False, 100.0)
    assert not preference.due("bicubic", False, 100.0 + PATIENCE_S)
    assert preference.due("bicubic", False, 100.1 + PATIENCE_S)


def test_a_request_does_not_wait() -> None:
    preference, _, _ = among("ai", "bicubic")
    preference.request = Request("asked", "bicubic")
    assert preference.due("bicubic", False, 100.0)


def test_what_is_shown_already_is_never_due() -> None:
    preference, _, _ = among("ai", "bicubic")
    assert not preference.due("ai", True, 100.0)


def test_attempts_come_at_growing_distances_until_one_succeeds() -> None:
    preference, _, _ = among("ai", "bicubic")
    now_s, waits = 100.0, []
    for _ in range(6):
        preference.gave_up(now_s, None)
        wait_s = 0.0
        while not preference.due("bicubic", True, now_s + wait_s):
            wait_s += 0.5
        waits.append(wait_s)
        now_s += wait_s
    assert waits == [RETRY_S, 4.0, 8.0, 16.0, LONGEST_RETRY_S, LONGEST_RETRY_S]
    preference.shown("ai", now_s)
    preference.gave_up(now_s, None)
    assert preference.due("bicubic", True, now_s + RETRY_S)


def test_a_switch_that_failed_leads_back_to_what_was_wanted() -> None:
    preference, _, _ = among("ai", "other", "bicubic")
    preference.want("other")
    preference.gave_up(100.0, "ai")
    assert preference.wanted == "ai"


def test_the_first_picture_of_the_wanted_backend_ends_the_degraded_state() -> None:
    preference, _, _ = among("ai", "bicubic")
    preference.after_fault("ai", "nan: black")
    assert (preference.degraded, preference.why) == (True, "ai failed: nan: black")
    preference.shown("bicubic", 100.0)
    assert preference.degraded
    preference.shown("ai", 101.0)
    assert not preference.degraded
