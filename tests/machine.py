"""Whether it was the machine that was late, and what a test does that cannot tell.

What must hold whatever the load (nothing lost uncounted, numbers only rise, states, laws in virtual
time) is asserted plainly. That pictures come in time on this machine can only be seen here, not
proven: `in_time` lets lateness pass once, fails it when the machine had time to spare, and else
gives up, which the end of the run counts and shows.
"""

from __future__ import annotations

import os
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import NoReturn

import pytest

__all__ = ["GAVE_UP", "Late", "Spell", "give_up", "in_time", "in_time_sync"]

GAVE_UP = "gave up: "
"""How the reason of a test begins that says nothing for want of processor time."""
OVERLOAD = 3
"""Runnable tasks per core above which lateness is the machine's."""
TO_SPARE = 0.4
"""A machine that was idle for less than this share of the time may be what was late. That is most
of one core of two: a thread of ours that took all it could get is slow, which is no fault."""


class Late(AssertionError):
    """Something did not come in time; within `in_time` it counts as what that tells."""


class Spell:
    """The time since it was made."""

    def __init__(self) -> None:
        self._before = _seconds()
        self._threads_before, self._began_s = _thread_seconds(), time.monotonic()

    def overload(self) -> str:
        """What took the processor's time, if that is enough to be late for; else nothing.

        It may be ourselves: how fast we are here is a row of the benchmark, not a test.
        """
        cores, load = len(os.sched_getaffinity(0)), os.getloadavg()[0]
        total, idle = (now - then for now, then in zip(_seconds(), self._before, strict=True))
        if load > OVERLOAD * cores:
            return f"load {load:.1f}"
        if total > 0 and idle < TO_SPARE * total:
            return f"the machine was idle for {idle / total:.0%} of the time"
        passed_s = time.monotonic() - self._began_s
        before = self._threads_before
        taken_s = [now - before.get(thread, 0.0) for thread, now in _thread_seconds().items()]
        busiest = max(taken_s) / passed_s if passed_s > 0 else 0.0
        return f"one thread took {busiest:.0%} of a core" if busiest > 1 - TO_SPARE else ""


async def in_time(run: Callable[[], Awaitable[list[str]]]) -> None:
    """Run something that tells what was late, again if anything was; lateness twice is a failure
    unless the machine had no time to spare. What is wrong whatever the load `run` raises itself.
    """
    if first := await _late(run):
        spell = Spell()
        _judge(first, await _late(run), spell)


async def _late(run: Callable[[], Awaitable[list[str]]]) -> list[str]:
    try:
        return await run()
    except Late as late:
        return [str(late)]
    except ExceptionGroup as group:  # from within the task groups of whatever was running
        found, others = group.split(Late)
        if found is None or others is not None:
            raise
        return [f"late: {found.exceptions[0]}"]


def in_time_sync(run: Callable[[], list[str]]) -> None:
    """`in_time` for tests without a loop."""
    if first := run():
        spell = Spell()
        _judge(first, run(), spell)


def give_up(reason: str) -> NoReturn:
    """End the test without a verdict; it is counted and shown at the end of the run."""
    pytest.xfail(GAVE_UP + reason)


def _judge(first: list[str], second: list[str], spell: Spell) -> None:
    if not second:
        return
    verdict = f"twice too late: {first}, {second}"
    if overload := spell.overload():
        give_up(f"{verdict}; {overload}")
    pytest.fail(f"{verdict}; the machine had time to spare")


def _seconds() -> tuple[float, float]:
    """Processor time of all cores, and what of it was idle."""
    fields = [int(f) for f in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    ticks = os.sysconf("SC_CLK_TCK")
    return sum(fields) / ticks, (fields[3] + fields[4]) / ticks


def _thread_seconds() -> dict[str, float]:
    """Processor time of each thread of this process."""
    ticks, found = os.sysconf("SC_CLK_TCK"), {}
    for task in Path("/proc/self/task").iterdir():
        try:
            fields = (task / "stat").read_text().rpartition(")")[2].split()
        except FileNotFoundError:
            continue  # it ended while we looked
        found[task.name] = (int(fields[11]) + int(fields[12])) / ticks
    return found
