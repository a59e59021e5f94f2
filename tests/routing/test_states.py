"""The state table."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from streamlift.routing.states import TABLE, StateMachine, StreamEvent, StreamState

events = st.lists(st.sampled_from(StreamEvent))


def after(*happened: StreamEvent) -> StreamState:
    machine = StateMachine()
    for event in happened:
        machine.apply(event)
    return machine.state


def test_the_table_is_total() -> None:
    assert set(TABLE) == set(StreamState)
    assert all(set(row) == set(StreamEvent) for row in TABLE.values())


def test_a_stream_is_live_at_its_first_picture() -> None:
    assert after(StreamEvent.PUBLISHER) is StreamState.STARTING
    assert after(StreamEvent.PUBLISHER, StreamEvent.PICTURE) is StreamState.LIVE


def test_a_late_picture_of_a_gone_publisher_does_not_make_it_live() -> None:
    machine = [StreamEvent.PUBLISHER, StreamEvent.PICTURE, StreamEvent.GONE, StreamEvent.PICTURE]
    assert after(*machine) is StreamState.WAITING


@given(events)
def test_a_closed_stream_stays_closed(happened: list[StreamEvent]) -> None:
    assert after(StreamEvent.CLOSE, *happened) is StreamState.CLOSED


@given(events)
def test_every_state_can_be_closed_at_once(happened: list[StreamEvent]) -> None:
    assert after(*happened, StreamEvent.CLOSE) is StreamState.CLOSED


@given(events)
def test_a_draining_stream_takes_no_publisher(happened: list[StreamEvent]) -> None:
    if after(*happened) is StreamState.DRAINING:
        assert after(*happened, StreamEvent.PUBLISHER) is StreamState.DRAINING


def test_the_reason_is_that_of_the_last_change() -> None:
    machine = StateMachine()
    assert machine.apply(StreamEvent.PUBLISHER, "came")
    assert not machine.apply(StreamEvent.PUBLISHER, "came again")
    assert machine.reason == "came"
