"""The event log and its readers."""

from __future__ import annotations

import asyncio

from streamlift.routing.events import Event, EventKind, EventLog, Subscription


def log() -> EventLog:
    return EventLog(wall_clock=lambda: 1_700_000_000.0)


async def read(subscription: Subscription, count: int) -> list[Event]:
    return [await anext(subscription) for _ in range(count)]


async def test_readers_get_what_happens_after_they_came() -> None:
    events = log()
    events.add(EventKind.FAULT, stream="a")
    with events.subscribe() as first, events.subscribe() as second:
        reading = asyncio.ensure_future(read(first, 1))
        await asyncio.sleep(0)
        events.add(EventKind.SWITCHED, stream="a", before="x", after="y", gap_ms=41.5)
        (event,) = await reading
        assert (event.seq, event.kind, event.before, event.after) == (2, "switched", "x", "y")
        assert event.time == 1_700_000_000.0
        assert (await read(second, 1)) == [event]


async def test_a_reader_may_ask_for_one_stream() -> None:
    events = log()
    with events.subscribe(stream="b") as subscription:
        events.add(EventKind.FAULT, stream="a")
        events.add(EventKind.FAULT, stream="b")
        (event,) = await read(subscription, 1)
        assert event.stream == "b"


async def test_a_reader_that_returns_goes_on_where_it_stopped() -> None:
    events = log()
    for _ in range(5):
        events.add(EventKind.FAULT)
    with events.subscribe(after_seq=3) as subscription:
        assert [e.seq for e in await read(subscription, 2)] == [4, 5]


async def test_the_log_is_bounded_and_a_late_reader_misses_the_oldest() -> None:
    events = log()
    with events.subscribe() as subscription:
        for _ in range(2500):
            events.add(EventKind.STREAM_STATE)
        assert (await read(subscription, 1))[0].seq == 1501


async def test_closing_ends_all_readers() -> None:
    events = log()
    subscription = events.subscribe()
    waiting = asyncio.ensure_future(anext(subscription, None))
    await asyncio.sleep(0)
    events.close()
    assert await waiting is None
