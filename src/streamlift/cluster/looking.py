"""What `streamlift doctor` says of workers: each is attached once, and asked how it is."""

from __future__ import annotations

import asyncio

from streamlift.clock import MonotonicClock
from streamlift.cluster.roster import WorkerAddress, link_to
from streamlift.cluster.wire import convert
from streamlift.config import Config
from streamlift.metrics import Metrics

__all__ = ["look_at_workers"]

LOOK_S = 5.0
_SETTLE_S = 0.3
"""For the first answer to an echo, which tells the round trip."""


def look_at_workers(config: Config) -> list[tuple[str, bool, str]]:
    """Backend, whether its worker is well, and in words how it is; for each that is configured."""
    return asyncio.run(_look(config))


async def _look(config: Config) -> list[tuple[str, bool, str]]:
    workers = [WorkerAddress(w.backend, w.address, w.fingerprint) for w in config.cluster.workers]
    return await asyncio.gather(*(_look_at(worker, config) for worker in workers))


async def _look_at(worker: WorkerAddress, config: Config) -> tuple[str, bool, str]:
    link = link_to(worker, config, MonotonicClock(), Metrics())
    task = asyncio.create_task(link.run())
    try:
        async with asyncio.timeout(LOOK_S):
            await link.attached.wait()
        await asyncio.sleep(_SETTLE_S)
    except TimeoutError:
        return worker.backend, False, f"{worker.address}: no answer within {LOOK_S:g} s"
    finally:
        info = link.info()
        task.cancel()
        await asyncio.wait([task])
        await link.aclose()
    if info.state != "ready":
        return worker.backend, info.state == "loading", f"{worker.address}: {info.reason}"
    secured = "TLS" if worker.fingerprint or config.cluster.tls_ca else "no TLS"
    fps = "" if info.fps is None else f"{info.fps:.0f} fps, "
    rtt = "" if info.rtt_s is None else f", {info.rtt_s * 1000:.1f} ms"
    slots = f"{info.slots.total} slot{'' if info.slots.total == 1 else 's'}"
    words = f"{worker.address}, {secured}, protocol {convert.PROTOCOL}, {info.device}, "
    return worker.backend, True, f"{words}{fps}{slots}{rtt}"
