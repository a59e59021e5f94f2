"""The anchor's side of Ray: runs the placer process, and dials the workers it tells of.

The anchor never imports ray. A placer that ends or falls silent changes nothing for running
streams: the workers that are known stay known, and another placer is started.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from streamlift.clock import Clock
from streamlift.cluster.backend import WorkerBackend
from streamlift.cluster.roster import Roster, WorkerAddress, child_configuration
from streamlift.config import BackendConfig, Config
from streamlift.metrics import Metrics
from streamlift.tasks import supervise

__all__ = ["Placement", "order_for", "placement_by_ray"]

logger = logging.getLogger(__name__)

FIRST_WAIT_S, LONGEST_WAIT_S = 5.0, 60.0
START_S = 180.0
"""To import and join; Ray takes half a minute on a busy machine."""
SILENT_S = 60.0
"""On a busy machine Ray answers that late; it costs nothing to wait."""
END_S = 5.0
LONGEST_LINE = 256 * 1024
PLACER = (sys.executable, "-m", "streamlift.cluster.placer")


def order_for(config: Config, backends: Sequence[BackendConfig]) -> dict[str, Any]:
    """What the placer is told; no secret: nodes have the token in their own environment."""
    return {
        "address": config.cluster.placement,
        "backends": [
            {
                "name": backend.name,
                "device": backend.device,
                "workers": backend.workers,
                "configuration": {
                    **child_configuration(backend.name, backend, config),
                    "cluster.ports": list(config.cluster.ports),
                    "cluster.drain_s": config.cluster.drain_s,
                },
            }
            for backend in backends
        ],
    }


def placement_by_ray(
    config: Config, backends: Mapping[str, object], clock: Clock, metrics: Metrics
) -> Placement:
    """What finds workers for the remote backends by Ray."""
    remote = [backend for backend in config.named_backends if backend.link == "remote"]
    linked = {name: made for name, made in backends.items() if isinstance(made, WorkerBackend)}
    roster = Roster(linked, config, clock=clock, metrics=metrics)
    return Placement(order_for(config, remote), roster, clock=clock)


class Placement:
    """Keeps a placer running and the roster up to what it says. `command`: for tests."""

    def __init__(
        self,
        order: Mapping[str, Any],
        roster: Roster,
        *,
        clock: Clock,
        command: Sequence[str] = PLACER,
        first_wait_s: float = FIRST_WAIT_S,
        silent_s: float = SILENT_S,
    ) -> None:
        self._order = json.dumps(order).encode() + b"\n"
        self._roster = roster
        self._clock = clock
        self._command = tuple(command)
        self._first_wait_s = first_wait_s
        self._silent_s = silent_s
        self._process: asyncio.subprocess.Process | None = None
        self._known: dict[str, WorkerAddress] = {}
        self._waiting: dict[str, str] = {}
        self._trouble = "joining Ray"
        self._since_s = clock.now_s()
        self.starts = 0

    @property
    def reason(self) -> str:
        """What is in the way of new workers; empty when nothing is."""
        if self._trouble:
            return (
                f"no new workers since {self._clock.now_s() - self._since_s:.0f} s: {self._trouble}"
            )
        return "; ".join(f"{name}: {why}" for name, why in sorted(self._waiting.items()))

    @property
    def pid(self) -> int | None:
        process = self._process
        return None if process is None or process.returncode is not None else process.pid

    async def run(self) -> None:
        """Until cancelled, which ends the placer too."""
        wait_s = self._first_wait_s
        while True:
            try:
                heard = await self._live()
            except (OSError, RuntimeError) as error:
                # No memory, process, file or thread is left; that may pass.
                self._fails(f"it cannot be started: {error}")
                heard = False
            if heard:
                wait_s = self._first_wait_s
            logger.warning("the placer has ended: %s; another in %g s", self._trouble, wait_s)
            await asyncio.sleep(wait_s)
            wait_s = min(2 * wait_s, LONGEST_WAIT_S)

    async def _live(self) -> bool:
        """One life of the placer; whether it ever told anything."""
        self.starts += 1
        process = self._process = await asyncio.create_subprocess_exec(
            *self._command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            limit=LONGEST_LINE,
            start_new_session=True,  # Ctrl-C is for the anchor
            env={**os.environ, "RAY_USAGE_STATS_ENABLED": "0"},
        )
        last: list[str] = []
        logs = asyncio.create_task(supervise("the placer's log", _read_log(process, last)))
        heard = False
        try:
            assert process.stdin is not None
            assert process.stdout is not None
            with suppress(ConnectionError):
                process.stdin.write(self._order)
                await process.stdin.drain()
            while True:
                limit_s = self._silent_s if heard else START_S
                try:
                    async with asyncio.timeout(limit_s):
                        line = await process.stdout.readline()
                except TimeoutError:
                    self._fails(f"it has said nothing for {limit_s:g} s")
                    return heard
                except ValueError:
                    self._fails(f"a line is longer than {LONGEST_LINE} bytes")
                    return heard
                if not line:
                    with suppress(TimeoutError):
                        async with asyncio.timeout(END_S):
                            await process.wait()
                    self._fails(last[-1] if last else f"exit {process.returncode}")
                    return heard
                heard = await self._take(line) or heard
        finally:
            await _end(process)
            logs.cancel()
            with suppress(asyncio.CancelledError):
                await logs

    def _fails(self, why: str) -> None:
        if not self._trouble:
            self._since_s = self._clock.now_s()
        self._trouble = why

    async def _take(self, line: bytes) -> bool:
        """Dial what is new. A worker whose address is not known now may be there: it stays."""
        try:
            hosts = json.loads(line)["hosts"]
            told = {
                name: WorkerAddress(host["backend"], host["address"], host["fingerprint"])
                for name, host in hosts.items()
                if host["address"]
            }
            waiting = {
                name: f"{host['state']}: {host['reason']}"
                for name, host in hosts.items()
                if host["state"] != "ready"
            }
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            logger.error("the placer said %.100r: %r", line, error)
            return False
        self._trouble = ""
        for name, why in waiting.items():
            if self._waiting.get(name, "").partition(":")[0] != why.partition(":")[0]:
                logger.info("worker %s of Ray is %s", name, why)
        self._waiting = waiting
        known = {n: w for n, w in self._known.items() if n in hosts} | told
        if known != self._known:
            self._known = known
            await self._roster.update(known.values())
        return True


async def _end(process: asyncio.subprocess.Process) -> None:
    """Close its stdin; SIGKILL after 5 s, or at once for one that is stopped or does not listen."""
    if process.stdin is not None:
        process.stdin.close()
    if process.returncode is None:
        try:
            async with asyncio.timeout(END_S):
                await process.wait()
        except TimeoutError:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()


async def _read_log(process: asyncio.subprocess.Process, last: list[str]) -> None:
    assert process.stderr is not None
    while True:
        try:
            line = (await process.stderr.readline()).decode("utf-8", "replace").rstrip()
        except ValueError:
            continue  # longer than the reader's limit; the rest follows as lines of its own
        if not line and process.stderr.at_eof():
            return
        if line:
            last[:] = [line]
            logger.debug("placer: %s", line)
