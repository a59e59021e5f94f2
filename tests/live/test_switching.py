"""Switching backends while real peers watch: what the viewer sees, and what the API says."""

from __future__ import annotations

import asyncio
import importlib.util
import os
from itertools import pairwise
from typing import Any

import pytest
from tests.machine import in_time
from tests.serving import until
from tests.staged import SLOWEST_GAP_MS, late, stage, too_long, toy, used
from tests.stamped import Shown, sending

from streamlift.clock import MonotonicClock
from streamlift.config import BackendConfig

pytestmark = pytest.mark.peer

SWITCHES = int(os.environ.get("STREAMLIFT_SWITCHES", "12"))
"""50 is the promise as written; CI does as many in a shorter time, at the same pace."""
PACE_S = 1.2

PLAIN = toy("plain")
TWIN = toy("twin")
CHUNKED = toy("chunked", first=25, step=8, lag=4)
LATE = toy("late", lag=5, first=6)
"""Gives each picture five frames late, 200 ms at 25 fps, and holds any rate."""
NEVER = toy("never", first=120)
"""Its first picture comes after five seconds: see the shorter deadline of its test."""
ONE = BackendConfig("one", "toy", slots=1)
EVENTS = ("switch.started", "switched", "switch.aborted")


async def test_switches_between_equal_delays_lose_and_repeat_nothing() -> None:
    async def run() -> list[str]:
        async with stage(PLAIN, TWIN, BackendConfig("bicubic", "bicubic", slots=4)) as on:
            started_s = MonotonicClock().now_s()
            names = ["twin", "bicubic", "plain"]
            for number in range(SWITCHES):
                due_s = started_s + (number + 1) * PACE_S
                await on.switched(names[number % 3])
                await asyncio.sleep(due_s - MonotonicClock().now_s())
            took_s = MonotonicClock().now_s() - started_s
            await on.viewer.more(5)
            on.viewer.assert_unbroken()
            assert (await on.service.stream())["viewers"] == 1
            found = await late(on, on.viewer.since(started_s))
            if took_s > SWITCHES * PACE_S + 1:
                found.append(f"{SWITCHES} switches took {took_s:.0f} s")
            return found

    await in_time(run)


async def test_a_switch_is_told_by_events_with_the_measured_gap() -> None:
    async def run() -> list[str]:
        async with stage(PLAIN, TWIN) as on:
            told = await on.switched("twin")
            assert [e["event"] for e in on.events if e["event"] in EVENTS] == [
                "switch.started",
                "switched",
            ]
            assert (told["stream"], told["from"], told["to"]) == ("live", "plain", "twin")
            assert isinstance(told["gap_ms"], float)
            stream = await on.service.stream()
            assert (stream["state"], stream["backend"]) == ("live", "twin")
            return [] if told["gap_ms"] <= SLOWEST_GAP_MS else [f"a gap of {told['gap_ms']} ms"]

    await in_time(run)


async def test_from_slow_to_fast_the_picture_jumps_forward_once() -> None:
    async def run() -> list[str]:
        async with stage(LATE, PLAIN) as on:
            behind_ms = _median_latency(on.viewer.shown)
            started_s = MonotonicClock().now_s()
            await on.switched("plain")
            await on.viewer.more(30)
            on.viewer.assert_unbroken()
            seen = on.viewer.since(started_s)
            ahead_ms = _median_latency(on.viewer.shown[-20:])
            jumps = [b.number - a.number for a, b in _numbered(seen) if b.number - a.number > 1]
            found = []
            if len(jumps) > 1 or max(jumps, default=0) > 9:
                found.append(f"jumped by {jumps}")
            if behind_ms - ahead_ms < 100:
                found.append(f"latency from {behind_ms:.0f} to {ahead_ms:.0f} ms")
            return found + too_long(seen)

    await in_time(run)


async def test_from_fast_to_slow_the_spacing_stretches_and_nothing_is_lost() -> None:
    async def run() -> list[str]:
        async with stage(PLAIN, LATE) as on:
            started_s = MonotonicClock().now_s()
            await on.switched("late")
            await on.viewer.more(15)
            on.viewer.assert_unbroken()
            return await late(on, on.viewer.since(started_s))

    await in_time(run)


async def test_constant_latency_keeps_the_delay_of_the_slower_one() -> None:
    async def run() -> list[str]:
        async with stage(LATE, PLAIN) as on:
            behind_ms = _median_latency(on.viewer.shown)
            started_s = MonotonicClock().now_s()
            await on.switched("plain", mode="constant_latency")
            await on.viewer.more(30)
            on.viewer.assert_unbroken()
            still_ms = _median_latency(on.viewer.shown[-20:])
            found = await late(on, on.viewer.since(started_s))
            if behind_ms - still_ms > 80:
                found.append(f"latency from {behind_ms:.0f} to {still_ms:.0f} ms")
            return found

    await in_time(run)


async def test_to_a_chunked_backend_and_back_there_is_no_freeze() -> None:
    async def run() -> list[str]:
        async with stage(PLAIN, CHUNKED) as on:
            started_s = MonotonicClock().now_s()
            await on.switched("chunked")
            await on.viewer.more(30)
            slow = on.viewer.since(started_s)
            found = await late(on, slow)
            await on.switched("plain")
            await on.viewer.more(15)
            on.viewer.assert_unbroken()
            return found + too_long(on.viewer.since(slow[-1].at_s))

    await in_time(run)


async def test_through_every_cpu_backend_the_viewer_stays_and_numbers_only_rise() -> None:
    backends = [
        BackendConfig("bicubic", "bicubic", slots=4),
        BackendConfig("compact", "compact", slots=4, stabilise="lite"),
    ]
    if importlib.util.find_spec("torch") is not None:
        backends.append(BackendConfig("flashvsr", "flashvsr-tiny-random", slots=4))

    async def run() -> list[str]:
        async with stage(*backends, fps=10) as on:
            started_s = MonotonicClock().now_s()
            for backend in [*backends[1:], backends[0]]:
                await on.switched(backend.name)
                await on.viewer.more(10)
            on.viewer.assert_unbroken()
            # Twice the promise: at 10 fps one frame time is 100 ms.
            return too_long(on.viewer.since(started_s), 2 * SLOWEST_GAP_MS)

    await in_time(run)


async def test_many_requests_coalesce_and_the_last_one_wins() -> None:
    async with stage(PLAIN, TWIN, CHUNKED) as on:
        answers = [await on.switch(backend=name) for name in ["twin", "chunked"] * 6 + ["twin"]]
        assert {answer.status_code for answer in answers} == {202}
        await on.settled("twin")
        await on.viewer.more(5)
        on.viewer.assert_unbroken()
        await until(
            lambda: [used(on.service, name) for name in ("plain", "twin", "chunked")] == [0, 1, 0],
            "all slots but one to be free again",
        )


async def test_a_newcomer_that_never_warms_is_given_up_and_the_old_one_stays(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("streamlift.routing.lanes.ABORT_S", 1.5)

    async def run() -> list[str]:
        async with stage(PLAIN, NEVER) as on:
            started_s = MonotonicClock().now_s()
            assert (await on.switch(backend="never")).status_code == 202
            await until(lambda: "switch.aborted" in on.kinds(), "the switch to be given up")
            await on.settled("plain")
            await on.viewer.more(5)
            on.viewer.assert_unbroken()
            await until(lambda: used(on.service, "never") == 0, "its slot to be free again")
            return await late(on, on.viewer.since(started_s))

    await in_time(run)


async def test_a_switch_is_refused_with_its_reason_while_the_stream_goes_on() -> None:
    absent = BackendConfig("absent", "toy", device="H100")
    async with stage(PLAIN, ONE, absent) as on:
        async with sending(on.service.whip("other")):
            await on.service.live("other")
            taken = await on.http.put("/api/v1/streams/other/backend", json={"backend": "one"})
            assert taken.status_code == 202
            await until(lambda: used(on.service, "one") == 1, "the only slot to be taken")
            answers = {
                "full": await on.switch(backend="one"),
                "absent": await on.switch(backend="absent"),
                "unknown": await on.switch(backend="nowhere"),
                "both": await on.switch(backend="plain", policy="auto"),
                "neither": await on.switch(),
            }
        found = {name: answer.status_code for name, answer in answers.items()}
        assert found == {"full": 503, "absent": 409, "unknown": 422, "both": 422, "neither": 422}
        assert int(answers["full"].headers["retry-after"]) > 0
        assert "H100" in answers["absent"].json()["detail"]
        kind = answers["unknown"].headers["content-type"]
        assert kind.startswith("application/problem+json")
        assert sorted(answers["unknown"].json()["expected"]) == [
            "absent",
            "bicubic",
            "one",
            "plain",
        ]
        await on.viewer.more(5)
        on.viewer.assert_unbroken()
        assert "switch.started" not in on.kinds("live")


async def test_a_policy_chooses_and_says_why() -> None:
    async with stage(BackendConfig("bicubic", "bicubic", slots=4), PLAIN) as on:
        answer = await on.switch(policy="quality")
        assert answer.status_code == 202, answer.text
        assert answer.json()["policy"] == "quality"
        await on.viewer.more(5)
        on.viewer.assert_unbroken()


def _median_latency(shown: list[Shown]) -> float:
    values = sorted(one.latency_ms for one in shown if one.latency_ms is not None)
    return values[len(values) // 2]


def _numbered(shown: list[Shown]) -> list[tuple[Any, Any]]:
    stamped = [one for one in shown if one.number is not None]
    return list(pairwise(stamped))
