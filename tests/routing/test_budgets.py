"""Error budgets."""

from __future__ import annotations

from streamlift.errors import UnsupportedSize
from streamlift.frames import BackendInfo, BackendState, Slots
from streamlift.routing.budgets import (
    BackendFaults,
    ErrorBudget,
    FaultKind,
    fault_kind,
    info_within,
)


def test_a_backend_may_be_tried_again_after_a_second_then_two() -> None:
    budget = ErrorBudget()
    assert budget.may_try(0.0)
    budget.fault(10.0, "x")
    assert (budget.may_try(10.9), budget.may_try(11.0)) == (False, True)
    budget.fault(11.0, "x")
    assert (budget.may_try(12.9), budget.may_try(13.0)) == (False, True)


def test_the_third_fault_in_a_minute_quarantines() -> None:
    budget = ErrorBudget()
    for now_s in (0.0, 20.0, 50.0):
        budget.fault(now_s, "lost the device")
    assert budget.quarantined
    assert budget.reason == "lost the device"
    assert (budget.may_try(79.0), budget.may_try(80.0)) == (False, True)


def test_a_crash_with_several_streams_is_one_fault() -> None:
    budget = ErrorBudget()
    for stream in range(5):
        budget.fault(10.0 + stream * 0.1, "the worker died")
    assert not budget.quarantined
    assert (budget.may_try(10.9), budget.may_try(11.0)) == (False, True)
    budget.fault(10.5, "x")  # half a second after the first: another one
    budget.fault(11.1, "x")
    assert budget.quarantined


def test_faults_further_apart_do_not_quarantine() -> None:
    budget = ErrorBudget()
    for now_s in (0.0, 40.0, 80.0, 120.0):
        budget.fault(now_s, "x")
    assert not budget.quarantined


def test_quarantine_doubles_up_to_five_minutes() -> None:
    budget, now_s, lengths = quarantined(), 0.0, list[float]()
    for _ in range(6):
        start_s = now_s
        while not budget.may_try(now_s):
            now_s += 1.0
        lengths.append(now_s - start_s)
        budget.fault(now_s, "x")
    assert lengths == [30, 60, 120, 240, 300, 300]


def test_a_shown_picture_after_quarantine_ends_it() -> None:
    budget = quarantined()
    budget.works(10.0)  # of another stream's older lane: too early to tell
    assert budget.quarantined
    budget.works(31.0)
    assert not budget.quarantined


def test_being_full_or_loading_or_given_what_cannot_be_served_is_no_fault() -> None:
    none = [kind for kind in FaultKind if not kind.counts]
    assert none == ["not_ready", "no_capacity", "draining", "unsupported"]
    assert fault_kind(UnsupportedSize("too large for any level")) is FaultKind.UNSUPPORTED


def test_quarantine_is_over_when_its_time_is_though_nobody_has_tried() -> None:
    budget = quarantined()
    info = BackendInfo("ai", "toy", "cpu", BackendState.READY, "", 100.0, Slots(2, 0))
    states = [info_within(info, budget, now_s).state for now_s in (1.0, 29.0, 30.0, 3600.0)]
    assert states == 2 * [BackendState.QUARANTINED] + 2 * [BackendState.READY]
    budget.fault(31.0, "x")  # the first try failed: longer now
    states = [info_within(info, budget, now_s).state for now_s in (90.0, 91.0)]
    assert states == [BackendState.QUARANTINED, BackendState.READY]


def test_one_streams_faults_are_its_own() -> None:
    faults = BackendFaults()
    for now_s in (0.0, 10.0, 20.0):
        faults.fault(now_s, "black", "dots")
    assert not faults.quarantined
    assert (faults.may_try(21.0, "dots"), faults.may_try(21.0, "other")) == (False, True)
    assert faults.may_try(51.0, "dots"), "as after any quarantine"
    assert faults.suspect, "it may be the backend's fault all the same"


def test_a_probe_that_fails_too_makes_them_the_backends() -> None:
    faults = BackendFaults()
    for now_s in (0.0, 10.0, 20.0):
        faults.fault(now_s, "black", "dots")
    faults.probed(21.0, "raise: no device")
    assert faults.quarantined
    assert faults.shared.reason == "raise: no device"
    assert (faults.may_try(50.0, "other"), faults.may_try(51.0, "other")) == (False, True)
    assert not faults.suspect


def test_a_probe_that_passes_leaves_them_with_the_stream() -> None:
    faults = BackendFaults()
    for now_s in (0.0, 10.0, 20.0):
        faults.fault(now_s, "black", "dots")
    faults.probed(21.0, "")
    assert (faults.quarantined, faults.suspect) == (False, False)
    assert (faults.may_try(21.0, "dots"), faults.may_try(21.0, "other")) == (False, True)


def test_faults_that_two_streams_share_are_the_backends() -> None:
    faults = BackendFaults()
    for now_s, stream in ((0.0, "one"), (10.0, "one"), (20.0, "two")):
        faults.fault(now_s, "lost the device", stream)
    assert faults.quarantined
    assert not faults.may_try(21.0, "three")


def test_faults_of_two_streams_in_different_minutes_are_not_shared() -> None:
    faults = BackendFaults()
    for now_s, stream in ((0.0, "one"), (10.0, "one"), (71.0, "two"), (81.0, "two")):
        faults.fault(now_s, "x", stream)
    assert not faults.quarantined


def test_one_crash_of_several_streams_is_one_fault_of_the_backend() -> None:
    faults = BackendFaults()
    for stream in range(5):
        faults.fault(10.0 + stream * 0.1, "the worker died", str(stream))
    assert not faults.quarantined
    assert faults.may_try(11.5, "0")


def test_nothing_is_kept_of_streams_that_are_long_gone() -> None:
    faults = BackendFaults()
    for number in range(1000):
        faults.fault(number * 10.0, "x", f"stream-{number}")
    assert len(faults._own) < 20


def quarantined() -> ErrorBudget:
    """A budget that is in quarantine since 0."""
    budget = ErrorBudget()
    for now_s in (-2.0, -1.0, 0.0):
        budget.fault(now_s, "x")
    return budget
