"""One stream never harms another: what a greedy or a surplus publisher costs its neighbours."""

from __future__ import annotations

from typing import Any

import pytest
from tests.machine import in_time
from tests.serving import Served, light, serving
from tests.stamped import sending
from tests.waiting import until

from streamlift.config import BackendConfig

pytestmark = pytest.mark.peer

BICUBIC = BackendConfig("bicubic", "bicubic", slots=4)


async def test_a_publisher_of_200_fps_costs_its_neighbour_nothing() -> None:
    """15 ms a frame are 66 frames a second, of which the neighbour needs 25."""
    toy = BackendConfig("toy", "toy", slots=2, settings={"delay_ms": 15})

    async def run() -> list[str]:
        async with serving(light(backends=(toy, BICUBIC), default_backend="toy")) as service:
            async with sending(service.whip("modest")):
                await service.live("modest")
                alone = await _after(service, "modest", 150)
                async with sending(service.whip("greedy"), fps=200.0):
                    await service.live("greedy")
                    beside = await _after(service, "modest", 300)
            backends = (await service.read("/api/v1/backends"))["backends"]
            states = {backend["name"]: backend["state"] for backend in backends}
            assert states == {"toy": "ready", "bicubic": "ready"}
            before_ms, after_ms = (s["latency_ms"]["total"]["p50"] for s in (alone, beside))
            found = [] if after_ms <= 2 * before_ms else [f"{before_ms} to {after_ms} ms"]
            lost = sum(beside["frames"]["dropped"].values())
            return found + ([f"{lost} frames lost"] if lost > 0.05 * 300 else [])

    await in_time(run)


async def test_too_many_streams_cost_frames_not_delay_on_the_fallback_too() -> None:
    """30 ms a frame are 33 frames a second, of which two streams want 50."""
    slow = BackendConfig("bicubic", "toy", slots=4, settings={"delay_ms": 30})

    async def run() -> list[str]:
        async with (
            serving(light(backends=(slow,), default_backend="bicubic")) as service,
            sending(service.whip("one")),
            sending(service.whip("two")),
        ):
            streams = [await _after(service, name, 250) for name in ("one", "two")]
            dropped = [stream["frames"]["dropped"] for stream in streams]
            left_out = [d.get("overdue", 0) + d.get("stale", 0) for d in dropped]
            assert min(left_out) > 20
            queued_ms = [stream["latency_ms"]["queue"]["p95"] for stream in streams]
            return [f"{ms} ms in the queue" for ms in queued_ms if ms > 600]

    await in_time(run)


async def _after(service: Served, name: str, frames: int) -> Any:
    """How a stream is once so many further pictures of it were decoded."""
    wanted = (await service.stream(name))["frames"]["decoded"] + frames

    async def there() -> bool:
        return bool((await service.stream(name))["frames"]["decoded"] >= wanted)

    await until(there, f"{frames} pictures of {name}", timeout_s=60)
    return await service.stream(name)
