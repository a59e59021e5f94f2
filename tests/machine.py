"""Whether it was the machine that was late: what it had to spare while something was measured."""

from __future__ import annotations

import os
import resource
from pathlib import Path

__all__ = ["OVERLOAD", "Spell"]

OVERLOAD = 3
"""Runnable tasks per core above which lateness is the machine's."""
TO_SPARE = 0.1
"""A machine that was idle for less than this share of the time may be what was late..."""
OTHERS = 0.25
"""...if others than this process had more than this share: what we are slow at is our own fault."""


class Spell:
    """The time since it was made."""

    def __init__(self) -> None:
        self._before = _seconds()

    def overload(self, *, others_share: float = OTHERS) -> str:
        """What the machine was busy with, if that is enough to be late for; else nothing.

        Our own children count as ours; `others_share` 0 is for a test whose peers are such, and
        who say nothing of the service either when they take all there is.
        """
        cores, load = len(os.sched_getaffinity(0)), os.getloadavg()[0]
        total, idle, own = (now - then for now, then in zip(_seconds(), self._before, strict=True))
        others = total - idle - own
        if load > OVERLOAD * cores:
            return f"load {load:.1f}"
        if total > 0 and idle < TO_SPARE * total and others >= others_share * total:
            return f"{idle / total:.0%} idle, {others / total:.0%} others'"
        return ""


def _seconds() -> tuple[float, float, float]:
    """Processor time of all cores, what of it was idle, and what was ours and our children's."""
    fields = [int(f) for f in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    ticks = os.sysconf("SC_CLK_TCK")
    ours = [resource.getrusage(w) for w in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    own = sum(usage.ru_utime + usage.ru_stime for usage in ours)
    return sum(fields) / ticks, (fields[3] + fields[4]) / ticks, own
