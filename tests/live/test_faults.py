"""What a viewer sees when something fails: publishers, sizes, backends, capacity."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
from tests.machine import in_time
from tests.peers import SDP, make_offer
from tests.serving import Served, light, until
from tests.staged import SLOWEST_GAP_MS, Stage, late, stage, too_long, toy, used
from tests.stamped import Shown, Source, lost, sending, viewing

from streamlift.clock import MonotonicClock
from streamlift.config import BackendConfig
from streamlift.frames import Size

pytestmark = pytest.mark.peer

PLAIN = toy("plain")
BICUBIC = BackendConfig("bicubic", "bicubic", slots=8)
SLATE_S = 2.0
HANG_GAP_MS = 1200.0
"""On a machine that does other things as well; 500 ms on an idle one, 800 ms chunked."""
PER_FRAME_AT, CHUNKED_AT = 75, 130
"""Past what the capacity probe takes, and past the switch to the backend."""
CHUNKS = {"first": 1, "step": 8, "lag": 4}
FAULTS: list[Any] = [
    pytest.param({"fail_at": PER_FRAME_AT}, "raise", id="raises"),
    pytest.param({"oom_at": PER_FRAME_AT}, "oom", id="out-of-memory"),
    pytest.param({"black_at": PER_FRAME_AT}, "nan", id="black-or-nan"),
    pytest.param({"wrong_shape_at": PER_FRAME_AT}, "nan", id="wrong-shape"),
    pytest.param({"fail_at": CHUNKED_AT, **CHUNKS}, "raise", id="chunked-raises"),
    pytest.param({"hang_at": PER_FRAME_AT, "hang_s": 1.5}, "hang", id="hangs"),
    pytest.param({"hang_at": CHUNKED_AT, "hang_s": 2.0, **CHUNKS}, "hang", id="chunked-hangs"),
]


@pytest.mark.parametrize(("knobs", "kind"), FAULTS)
async def test_a_failed_lane_is_replaced_loses_nothing_and_comes_back(
    knobs: dict[str, Any], kind: str
) -> None:
    """Faults 9, 10, 12 and 14; the stream beside it goes on as if nothing had happened."""

    async def run() -> list[str]:
        async with (
            stage(PLAIN, toy("faulty", **knobs), BICUBIC) as on,
            sending(on.service.whip("beside")),
        ):
            await on.service.live("beside")
            async with viewing(on.service.whep("beside")) as beside:
                started_s = MonotonicClock().now_s()
                await on.switched("faulty")
                fault = await _event(on, "fault")
                assert (fault["from"], fault["to"]) == ("faulty", "bicubic")
                assert fault["reason"].startswith(kind)
                await _event(on, "switched", to="bicubic")
                stream = await on.service.stream()
                assert stream["degraded"] or stream["backend"] == "faulty"
                await _event(on, "switched", to="faulty", nth=2)
                await on.settled("faulty")
                on.viewer.assert_unbroken()
                beside.assert_unbroken()
                counted = on.service.parts.metrics.value
                assert counted("backend_faults_total", kind=kind, backend="faulty") == 1
                seen, other = on.viewer.since(started_s), beside.since(started_s)
                longest_ms = HANG_GAP_MS if kind == "hang" else SLOWEST_GAP_MS
                found = too_long(seen, longest_ms) + too_long(other)
                if lost(seen) or lost(other):
                    dropped = (await on.service.stream())["frames"]["dropped"]
                    found.append(f"{lost(seen)} lost here, {lost(other)} beside; {dropped}")
                return found

    await in_time(run)


async def test_three_faults_in_a_minute_quarantine_a_backend() -> None:
    faulty = toy("faulty", fail_at=40, fail_every=1)
    async with stage(PLAIN, faulty, BICUBIC) as on:
        await on.switched("faulty")
        await until(lambda: on.kinds("live").count("fault") == 3, "three faults", timeout_s=30)
        table = on.service.parts.router.table
        await until(lambda: table.info("faulty").state == "quarantined", "its probe to fail")
        backends = (await on.service.read("/api/v1/backends"))["backends"]
        told = {b["name"]: (b["state"], b["reason"]) for b in backends}
        assert told["faulty"][0] == "quarantined"
        assert "toy was told to fail" in told["faulty"][1]
        await on.settled("bicubic")
        assert (await on.service.stream())["degraded"]
        assert (await on.switch(backend="faulty")).status_code == 409
        assert (await on.switch(backend="plain")).status_code == 202
        await on.settled("plain")
        assert not (await on.service.stream())["degraded"]
        on.viewer.assert_unbroken()


async def test_viewers_stay_while_the_publisher_is_gone_and_see_it_come_back() -> None:
    """Fault 1: held picture, slate, and the picture back within a second."""

    async def run() -> list[str]:
        async with stage(PLAIN, BICUBIC) as on:
            on.source.publisher.vanish()  # type: ignore[union-attr]
            slate = await on.viewer.see("a slate", lambda shown: shown.number is None)
            last = [one for one in on.viewer.shown if one.number is not None][-1]
            held_s = slate.at_s - last.at_s
            await until(lambda: "publisher.gone" in on.kinds("live"), "the event")
            await until(
                lambda: _rates(on.service) == (None, None), "no rates while no picture comes"
            )
            async with sending(on.service.whip(), Source(first=5000)):
                connected_s = MonotonicClock().now_s()
                back = await on.viewer.see("its picture", lambda shown: shown.number is not None)
                await until(lambda: "publisher.back" in on.kinds("live"), "the event")
                await on.viewer.more(10)
            on.viewer.assert_unbroken()
            back_s = back.at_s - connected_s
            found = [] if back_s <= 1.5 else [f"back after {back_s:.2f} s"]
            return found + ([] if held_s > 0.9 * SLATE_S else [f"held for {held_s:.2f} s only"])

    await in_time(run)


async def test_a_second_publisher_is_shown_within_a_second() -> None:
    """Fault 2: takeover; the viewer keeps its connection."""

    async def run() -> list[str]:
        async with stage(PLAIN, BICUBIC) as on:
            async with sending(on.service.whip(), Source(first=9000)):
                connected_s = MonotonicClock().now_s()
                seen = await on.viewer.see("the second", lambda shown: (shown.number or 0) >= 9000)
                await on.viewer.more(10)
                assert on.viewer.numbers[-1] >= 9000
            on.viewer.assert_unbroken()
            took_s = seen.at_s - connected_s
            return [] if took_s <= 1.5 else [f"shown after {took_s:.2f} s"]

    await in_time(run)


@pytest.mark.parametrize("backend", [PLAIN, toy("chunked", **CHUNKS)], ids=["plain", "chunked"])
async def test_another_picture_size_is_shown_within_a_second(backend: BackendConfig) -> None:
    """Fault 3: bigger, and back again; nothing that was owed is lost."""

    async def run() -> list[str]:
        async with stage(backend, BICUBIC) as on:
            found = []
            for size in (Size(192, 160), Size(128, 128)):
                changed_s = MonotonicClock().now_s()
                on.source.size = size
                wanted = size.times(2)
                seen = await on.viewer.see(f"{wanted}", _of_size(wanted))
                if seen.at_s - changed_s > 1.5:
                    found.append(f"{size} after {seen.at_s - changed_s:.2f} s")
                await on.viewer.more(10)
            on.viewer.assert_unbroken()
            if lost(on.viewer.shown):
                found.append(f"{lost(on.viewer.shown)} lost")
            return found

    await in_time(run)


async def test_another_frame_rate_is_followed() -> None:
    """Fault 3: half the rate through a chunked backend, shown at half the rate."""
    async with (
        stage(toy("chunked", **CHUNKS), BICUBIC) as on,
        sending(on.service.whip(), Source(first=9000), fps=12.5),
    ):
        await on.viewer.see("the second", lambda shown: (shown.number or 0) >= 9000)

        async def followed() -> bool:
            stream = await on.service.stream()
            rates = stream["publisher"]["fps"], stream["output"]["fps"]
            return all(rate is not None and abs(rate - 12.5) < 1 for rate in rates)

        await until(followed, "both rates to be 12.5")
        await on.viewer.more(10)
        on.viewer.assert_unbroken()


async def test_a_broken_backend_cannot_be_switched_to_and_says_why() -> None:
    """Fault 18: it never got past its start."""
    async with stage(PLAIN, toy("broken", fail_at=0, fail_every=1)) as on:
        answer = await on.switch(backend="broken")
        assert answer.status_code == 409
        assert "toy was told to fail" in answer.json()["detail"]
        await on.viewer.more(5)
        on.viewer.assert_unbroken()


async def test_one_stream_too_many_is_refused_and_the_first_keeps_its_rate() -> None:
    """Fault 30."""

    async def run() -> list[str]:
        async with stage(BackendConfig("single", "toy", slots=1), BICUBIC) as on:
            started_s = MonotonicClock().now_s()
            for _ in range(3):
                answer = await on.http.post(
                    "/whip/other", content=await make_offer("send"), headers=SDP
                )
                assert answer.status_code == 503
                assert int(answer.headers["retry-after"]) > 0
                assert "slots" in answer.json()["detail"]
                await on.viewer.more(10)
            on.viewer.assert_unbroken()
            assert used(on.service, "single") == 1
            seen = on.viewer.since(started_s)
            fps = (len(seen) - 1) / (seen[-1].at_s - seen[0].at_s)
            return await late(on, seen) + ([] if fps >= 24 else [f"{fps:.1f} fps"])

    await in_time(run)


async def test_a_paused_stream_is_back_soon_after_a_viewer_asks(serve: Any) -> None:
    """Without viewers a stream may pause; 300 ms on an idle machine."""

    async def run() -> list[str]:
        service: Served = await serve(light())
        async with sending(service.whip()), service.http() as http:
            await service.live()
            stream = service.parts.router.stream("live")
            stream._tuning.settings = dataclasses.replace(stream.settings, idle_after_s=0.2)
            answer = await http.patch("/api/v1/streams/live", json={"idle": "pause"})
            assert answer.status_code == 200
            await until(lambda: _dropped(service, "idle") > 3, "the stream to pause")
            await until(lambda: used(service, "bicubic") == 0, "its slot to be free")
            posted_s = MonotonicClock().now_s()
            async with viewing(service.whep()) as viewer:
                first_s = viewer.shown[0].at_s - posted_s
                await viewer.more(10)
                viewer.assert_unbroken()
        return [] if first_s < 0.5 else [f"first picture after {first_s:.2f} s"]

    await in_time(run)


async def _event(on: Stage, kind: str, *, to: str | None = None, nth: int = 1) -> dict[str, Any]:
    """Wait for the nth event of a kind about stream `live`, and return it."""

    def found() -> list[dict[str, Any]]:
        events = [e for e in on.events if (e["event"], e["stream"]) == (kind, "live")]
        return [e for e in events if to in (None, e["to"])]

    what = f"event {kind} number {nth}" + (f" to {to}" if to else "")
    await until(lambda: len(found()) >= nth, what, timeout_s=20, show=lambda: on.events)
    return found()[nth - 1]


def _of_size(size: Size) -> Callable[[Shown], bool]:
    return lambda shown: shown.size == size


def _rates(service: Served) -> tuple[float | None, float | None]:
    output = service.parts.router.stream("live").snapshot().output
    return output.fps, output.bitrate_bps


def _dropped(service: Served, reason: str) -> int:
    return service.parts.router.stream("live").snapshot().frames.dropped.get(reason, 0)
