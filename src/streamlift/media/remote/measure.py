"""Watching a WHEP stream and measuring it: rate, gaps, latency, lost and repeated frames."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from streamlift.clock import Clock
from streamlift.errors import MediaError
from streamlift.frames import Frame, Size
from streamlift.media.remote.client import watch_whep
from streamlift.stamp import MODULUS, elapsed_ms, read_stamp

__all__ = ["ViewFigures", "measure_whep"]


@dataclass(slots=True)
class ViewFigures:
    """What one viewer saw. Times are monotonic seconds at the end of decoding."""

    size: Size | None = None
    first_frame_ms: float | None = None
    shown_s: list[float] = field(default_factory=list)
    latencies_ms: list[float] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)

    @property
    def frames(self) -> int:
        return len(self.shown_s)

    @property
    def fps(self) -> float:
        if len(self.shown_s) < 2:
            return 0.0
        return (len(self.shown_s) - 1) / (self.shown_s[-1] - self.shown_s[0])

    def note(self, frame: Frame, now_s: float, scale: int) -> None:
        self.size = frame.size
        self.shown_s.append(now_s)
        try:
            stamp = read_stamp(frame.planes.y, scale=scale)
        except MediaError:
            return  # too small to carry one
        if stamp is not None:
            self.numbers.append(stamp.number)
            self.latencies_ms.append(elapsed_ms(stamp, now_s))

    def as_json(self) -> dict[str, Any]:
        """The object that `streamlift watch --json` prints."""
        gaps = [(b - a) * 1000 for a, b in pairwise(self.shown_s)]
        steps = [(b - a) % MODULUS for a, b in pairwise(self.numbers)]
        # A step back by a little is a repeat; a new publisher's numbers are neither.
        return {
            "size": None if self.size is None else [self.size.width, self.size.height],
            "frames": self.frames,
            "fps": round(self.fps, 2),
            "first_frame_ms": self.first_frame_ms and round(self.first_frame_ms, 1),
            "gap_ms": {
                "p50": _quantile(gaps, 0.5),
                "p95": _quantile(gaps, 0.95),
                "max": _quantile(gaps, 1.0),
            },
            "latency_ms": {
                "p50": _quantile(self.latencies_ms, 0.5),
                "p95": _quantile(self.latencies_ms, 0.95),
            }
            if self.latencies_ms
            else None,
            "lost": sum(step - 1 for step in steps if 1 < step < MODULUS // 2),
            "repeated": sum(step == 0 or step >= MODULUS // 2 for step in steps),
        }


async def measure_whep(
    url: str, token: str | None, seconds: float, *, scale: int, clock: Clock
) -> ViewFigures:
    """Watch for `seconds` after the first frame. Raises what `watch_whep` raises.

    `first_frame_ms` counts from just before the POST.
    """
    figures = ViewFigures()
    posted_s = clock.now_s()
    async with watch_whep(url, token, clock=clock) as (video, _):
        try:
            async with asyncio.timeout(seconds + 5) as deadline:
                async for frame in video:
                    now_s = clock.now_s()
                    if figures.first_frame_ms is None:
                        figures.first_frame_ms = (now_s - posted_s) * 1000
                        deadline.reschedule(asyncio.get_running_loop().time() + seconds)
                    figures.note(frame, now_s, scale)
        except TimeoutError:
            return figures
    return figures


def _quantile(values: list[float], q: float) -> float | None:
    ordered = sorted(values)
    if not ordered:
        return None
    return round(ordered[min(len(ordered) - 1, int(q * len(ordered)))], 2)
