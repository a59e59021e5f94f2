"""Switching backends while real peers watch: what the viewer sees, and what the API says."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import httpx
import pytest
from tests.serving import Served, light, serving, until
from tests.stamped import Shown, Source, StampViewer, lost, max_gap_ms, sending, viewing

from streamlift.clock import MonotonicClock
from streamlift.config import BackendConfig, Config

pytestmark = pytest.mark.peer

SWITCHES = int(os.environ.get("STREAMLIFT_SWITCHES", "12"))
"""50 is the promise as written; CI does as many in a shorter time, at the same pace."""
PACE_S = 1.2
SLOWEST_GAP_MS = 250.0


def _toy(name: str, **knobs: Any) -> BackendConfig:
    return BackendConfig(name, "toy", slots=4, settings=knobs)


PLAIN = _toy("plain")
TWIN = _toy("twin")
CHUNKED = _toy("chunked", first=25, step=8, lag=4)
LATE = _toy("late", lag=5, first=6)
"""Gives each picture five frames late, 200 ms at 25 fps, and holds any rate."""
NEVER = _toy("never", first=120)
"""Its first picture comes after five seconds: see the shorter deadline of its test."""
ONE = BackendConfig("one", "toy", slots=1)
EVENTS = ("switch.started", "switched", "switch.aborted")


@dataclass(slots=True, eq=False)
class Stage:
    """A running service with one stamped stream `live`, its viewer, and its events."""

    service: Served
    http: httpx.AsyncClient
    source: Source
    viewer: StampViewer
    events: list[dict[str, Any]] = field(default_factory=list)

    async def switch(self, **body: Any) -> httpx.Response:
        return await self.http.put("/api/v1/streams/live/backend", json=body)

    async def settled(self, backend: str, timeout_s: float = 15.0) -> None:
        """Wait until the stream is live on this backend."""

        async def there() -> bool:
            stream = await self.service.stream()
            return bool(stream["backend"] == backend and stream["state"] == "live")

        await until(there, f"{backend} to be shown", timeout_s=timeout_s, show=lambda: self.events)

    async def switched(self, backend: str, **body: Any) -> dict[str, Any]:
        """Switch, wait for the event that says it is done, and return that."""
        before = len(self.events)
        answer = await self.switch(backend=backend, **body)
        assert answer.status_code == 202, answer.text
        await until(
            lambda: any(e["event"] == "switched" for e in self.events[before:]),
            f"a switch to {backend}",
            timeout_s=15,
            show=lambda: self.events[before:],
        )
        return next(e for e in self.events[before:] if e["event"] == "switched")


@asynccontextmanager
async def stage(*backends: BackendConfig, fps: float = 25.0) -> AsyncIterator[Stage]:
    """The stream begins on the first backend; all of them are ready."""
    config: Config = light(default_backend=backends[0].name, backends=backends)
    async with serving(config) as service, service.http() as http, _following(http) as events:
        await until(lambda: _ready(service), "all backends to be ready", timeout_s=60)
        async with sending(service.whip(), fps=fps) as source:
            await service.live()
            async with viewing(service.whep()) as viewer:
                await viewer.more(10)
                yield Stage(service, http, source, viewer, events)


async def test_switches_between_equal_delays_lose_and_repeat_nothing() -> None:
    async def run() -> list[str]:
        async with stage(PLAIN, TWIN, BackendConfig("bicubic", "bicubic", slots=4)) as on:
            started_s = MonotonicClock().now_s()
            names = ["twin", "bicubic", "plain"]
            for number in range(SWITCHES):
                answer = await on.switch(backend=names[number % 3])
                assert answer.status_code == 202
                assert answer.json()["state"] == "switching"
                await asyncio.sleep(PACE_S)
            await on.viewer.more(5)
            on.viewer.assert_unbroken()
            assert (await on.service.stream())["viewers"] == 1
            done = [e for e in on.events if e["event"] == "switched"]
            late = []
            if len(done) < SWITCHES:
                late.append(f"{len(done)} of {SWITCHES} switches done")
            return late + await _late(on, on.viewer.since(started_s))

    await _twice(run)


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

    await _twice(run)


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
            late = []
            if len(jumps) > 1 or max(jumps, default=0) > 9:
                late.append(f"jumped by {jumps}")
            if behind_ms - ahead_ms < 100:
                late.append(f"latency from {behind_ms:.0f} to {ahead_ms:.0f} ms")
            return late + _too_long(seen)

    await _twice(run)


async def test_from_fast_to_slow_the_spacing_stretches_and_nothing_is_lost() -> None:
    async def run() -> list[str]:
        async with stage(PLAIN, LATE) as on:
            started_s = MonotonicClock().now_s()
            await on.switched("late")
            await on.viewer.more(15)
            on.viewer.assert_unbroken()
            return await _late(on, on.viewer.since(started_s))

    await _twice(run)


async def test_constant_latency_keeps_the_delay_of_the_slower_one() -> None:
    async def run() -> list[str]:
        async with stage(LATE, PLAIN) as on:
            behind_ms = _median_latency(on.viewer.shown)
            started_s = MonotonicClock().now_s()
            await on.switched("plain", mode="constant_latency")
            await on.viewer.more(30)
            on.viewer.assert_unbroken()
            still_ms = _median_latency(on.viewer.shown[-20:])
            late = await _late(on, on.viewer.since(started_s))
            if behind_ms - still_ms > 80:
                late.append(f"latency from {behind_ms:.0f} to {still_ms:.0f} ms")
            return late

    await _twice(run)


async def test_to_a_chunked_backend_and_back_there_is_no_freeze() -> None:
    async def run() -> list[str]:
        async with stage(PLAIN, CHUNKED) as on:
            started_s = MonotonicClock().now_s()
            await on.switched("chunked")
            await on.viewer.more(30)
            slow = on.viewer.since(started_s)
            late = await _late(on, slow)
            await on.switched("plain")
            await on.viewer.more(15)
            on.viewer.assert_unbroken()
            return late + _too_long(on.viewer.since(slow[-1].at_s))

    await _twice(run)


async def test_through_every_cpu_backend_the_viewer_stays_and_numbers_only_rise() -> None:
    backends = [
        BackendConfig("bicubic", "bicubic", slots=4),
        BackendConfig("compact", "compact", slots=4, settings={"stabilise": "lite"}),
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
            return _too_long(on.viewer.since(started_s), 2 * SLOWEST_GAP_MS)

    await _twice(run)


async def test_many_requests_coalesce_and_the_last_one_wins() -> None:
    async with stage(PLAIN, TWIN, CHUNKED) as on:
        answers = [await on.switch(backend=name) for name in ["twin", "chunked"] * 6 + ["twin"]]
        assert {answer.status_code for answer in answers} == {202}
        await on.settled("twin")
        await on.viewer.more(5)
        on.viewer.assert_unbroken()
        await until(
            lambda: [_used(on.service, name) for name in ("plain", "twin", "chunked")] == [0, 1, 0],
            "all slots but one to be free again",
        )


async def test_a_newcomer_that_never_warms_is_given_up_and_the_old_one_stays(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("streamlift.routing.switchboard.ABORT_S", 1.5)

    async def run() -> list[str]:
        async with stage(PLAIN, NEVER) as on:
            started_s = MonotonicClock().now_s()
            assert (await on.switch(backend="never")).status_code == 202
            await until(lambda: "switch.aborted" in _kinds(on), "the switch to be given up")
            await on.settled("plain")
            await on.viewer.more(5)
            on.viewer.assert_unbroken()
            await until(lambda: _used(on.service, "never") == 0, "its slot to be free again")
            return await _late(on, on.viewer.since(started_s))

    await _twice(run)


async def test_a_switch_is_refused_with_its_reason_while_the_stream_goes_on() -> None:
    absent = BackendConfig("absent", "toy", device="H100")
    async with stage(PLAIN, ONE, absent) as on:
        async with sending(on.service.whip("other")):
            await on.service.live("other")
            taken = await on.http.put("/api/v1/streams/other/backend", json={"backend": "one"})
            assert taken.status_code == 202
            await until(lambda: _used(on.service, "one") == 1, "the only slot to be taken")
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
        assert "switch.started" not in _kinds(on, stream="live")


async def test_a_policy_chooses_and_says_why() -> None:
    async with stage(BackendConfig("bicubic", "bicubic", slots=4), PLAIN) as on:
        answer = await on.switch(policy="quality")
        assert answer.status_code == 202, answer.text
        assert answer.json()["policy"] == "quality"
        await on.viewer.more(5)
        on.viewer.assert_unbroken()


# ---- what all of them share ----


async def _twice(run: Callable[[], Awaitable[list[str]]]) -> None:
    """Lateness may be the machine's: one more try. What is wrong whatever the load raises."""
    first = await run()
    if first:
        second = await run()
        assert not second, f"twice too late at load {os.getloadavg()[0]:.1f}: {first}, {second}"


async def _late(on: Stage, shown: list[Shown]) -> list[str]:
    """Pictures lost, and gaps too long: nothing may be lost but what the machine was late for."""
    late = _too_long(shown)
    if lost(shown):
        late.append(f"{lost(shown)} lost; {(await on.service.stream())['frames']['dropped']}")
    return late


def _too_long(shown: list[Shown], longest_ms: float = SLOWEST_GAP_MS) -> list[str]:
    gap_ms = max_gap_ms(shown)
    return [f"a gap of {gap_ms:.0f} ms"] if gap_ms > longest_ms else []


def _median_latency(shown: list[Shown]) -> float:
    values = sorted(one.latency_ms for one in shown if one.latency_ms is not None)
    return values[len(values) // 2]


def _numbered(shown: list[Shown]) -> list[tuple[Any, Any]]:
    stamped = [one for one in shown if one.number is not None]
    return list(pairwise(stamped))


def _kinds(on: Stage, stream: str | None = None) -> list[str]:
    return [e["event"] for e in on.events if stream in (None, e["stream"])]


def _used(service: Served, name: str) -> int:
    return next(b.slots.used for b in service.parts.router.backends() if b.name == name)


def _ready(service: Served) -> bool:
    return all(b.state != "loading" for b in service.parts.router.backends())


@asynccontextmanager
async def _following(http: httpx.AsyncClient) -> AsyncIterator[list[dict[str, Any]]]:
    """The service's events over HTTP (server-sent events), as they come."""
    events: list[dict[str, Any]] = []
    connected = asyncio.Event()

    async def read() -> None:
        async with http.stream("GET", "/api/v1/events", timeout=None) as answer:
            kind = ""
            async for line in answer.aiter_lines():
                connected.set()
                name, _, value = line.partition(": ")
                if name == "event":
                    kind = value
                elif name == "data":
                    events.append({"event": kind, **json.loads(value)})

    reading = asyncio.create_task(read())
    try:
        await connected.wait()
        yield events
    finally:
        reading.cancel()
        await asyncio.wait([reading])
