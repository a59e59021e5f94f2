"""Which backend a stream should use; pure decisions over what the backends say of themselves."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from streamlift.frames import BackendInfo, BackendState, Slots

__all__ = [
    "NEVER_CHOSEN",
    "QUALITY",
    "Choice",
    "MatrixRow",
    "Policy",
    "Stepper",
    "choose",
    "decision_matrix",
]

QUALITY = (
    "flashvsr-full",
    "flashvsr",
    "swiftvr",
    "realesrgan-x2",
    "rtx-vsr",  # provisional: its place rests on no comparison of pictures yet
    "realesrgan-general",
    "realesrgan-anime",
    "compact",
    "bicubic",
    "toy",
)
"""Upscalers, best picture first. One that is not listed ranks as `compact` does."""
NEVER_CHOSEN = ("basicvsrpp", "realbasicvsr")
"""Upscalers for files that a live stream gets only by name: they wait for later frames, and cost
more than what the policies know as best."""
PLAIN = ("bicubic", "toy")
"""Upscalers that add no detail: what is left when no other holds the rate."""
UNCONFIGURED = (
    ("NVIDIA GPU", ("flashvsr", "swiftvr", "realesrgan-x2", "rtx-vsr", "compact", "bicubic")),
    ("CPU", ("compact", "bicubic")),
)
"""The upscalers of a service whose configuration names none, by what the machine has."""
HEADROOM = 1.2
"""A backend holds a rate comfortably if it measured a fifth more than that."""
ASSUMED_FPS = 25.0
"""The publisher's rate until it is measured."""


class Policy(StrEnum):
    """How a stream's backend is chosen."""

    AUTO = "auto"  # the best picture that holds the rate with headroom
    QUALITY = "quality"  # the best picture that holds the rate at all
    SPEED = "speed"  # the fastest that adds detail
    FIXED = "fixed"  # the one that was named


@dataclass(frozen=True, slots=True)
class Choice:
    """A backend and why it was chosen."""

    backend: str
    reason: str


@dataclass(frozen=True, slots=True)
class MatrixRow:
    """One row of the decision matrix: the upscalers that `auto` takes on a kind of device.

    `order`: the first that holds the rate, `condition`, is taken.
    """

    device: str
    order: tuple[str, ...]
    condition: str


def choose(
    policy: Policy,
    backends: Iterable[BackendInfo],
    fps: float | None,
    *,
    current: str | None = None,
    barred: Sequence[str] = (),
) -> Choice | None:
    """The backend for a stream at `fps`; None for `fixed`, or if none is ready with a free slot.

    `current`: the backend that the stream holds a slot of. `barred`: those that overloaded
    lately. If nothing holds the rate, the fastest is taken.
    """
    if policy is Policy.FIXED:
        return None
    rate = fps or ASSUMED_FPS
    usable = [b for b in backends if _usable(b, current) and b.name not in barred]
    if not usable:
        return None
    usable.sort(key=lambda b: (_rank(b.upscaler), b.name))
    if policy is Policy.SPEED:
        return _fastest(usable, rate)
    margin = HEADROOM if policy is Policy.AUTO else 1.0
    for backend in usable:
        if _holds(backend, rate * margin):
            return Choice(backend.name, f"best picture that holds {rate:.3g} fps")
    return Choice(max(usable, key=_capacity).name, f"none holds {rate:.3g} fps; the fastest")


def decision_matrix() -> tuple[MatrixRow, ...]:
    """What `auto` comes to where no backends are configured, found by asking it."""
    holds = f"that measures {HEADROOM:g} x the publisher's rate"
    return tuple(MatrixRow(kind, _order(upscalers), holds) for kind, upscalers in UNCONFIGURED)


def _order(upscalers: Iterable[str]) -> tuple[str, ...]:
    """As `choose` takes them, each when those before it are gone."""
    left = {name: _ample(name) for name in upscalers}
    order = []
    while choice := choose(Policy.AUTO, left.values(), None):
        order.append(choice.backend)
        del left[choice.backend]
    return tuple(order)


def _ample(upscaler: str) -> BackendInfo:
    slots = Slots(total=1, used=0)
    return BackendInfo(upscaler, upscaler, "", BackendState.READY, "", float("inf"), slots)


class Stepper:
    """Turns sustained overload into a step down and sustained headroom into a step up.

    Fed about once a second. Three overloaded seconds in a row bar the backend, for a minute and
    twice as long each further time; thirty quiet ones allow a step up, so the picture does not go
    to and fro.
    """

    DOWN_AFTER_S = 3.0
    UP_AFTER_S = 30.0
    BAR_S, LONGEST_BAR_S = 60.0, 960.0

    def __init__(self) -> None:
        self._overloaded_since_s: float | None = None
        self._quiet_since_s: float | None = None
        self._bars: dict[str, tuple[float, float]] = {}  # until, length of the next one

    def observe(self, now_s: float, overloaded: bool) -> None:
        """Whether the stream's backend fell behind since the last time."""
        if overloaded:
            self._quiet_since_s = None
            if self._overloaded_since_s is None:
                self._overloaded_since_s = now_s
        else:
            self._overloaded_since_s = None
            if self._quiet_since_s is None:
                self._quiet_since_s = now_s

    def forget(self) -> None:
        """What was seen so far tells neither of overload nor of quiet; bars stay."""
        self._overloaded_since_s = self._quiet_since_s = None

    def step(
        self,
        policy: Policy,
        backends: Sequence[BackendInfo],
        fps: float | None,
        current: str,
        now_s: float,
    ) -> Choice | None:
        """The backend to move to now, if any."""
        if policy is Policy.FIXED:
            return None
        if _since(self._overloaded_since_s, now_s) >= self.DOWN_AFTER_S:
            self._bar(current, now_s)
            reason = f"{current} fell behind for {self.DOWN_AFTER_S:g} s"
        elif _since(self._quiet_since_s, now_s) >= self.UP_AFTER_S:
            reason = f"headroom for {self.UP_AFTER_S:g} s"
        else:
            return None
        barred = tuple(name for name, (until_s, _) in self._bars.items() if now_s < until_s)
        choice = choose(policy, backends, fps, current=current, barred=barred)
        if choice is None or choice.backend == current:
            return None
        self.forget()
        return Choice(choice.backend, f"{reason}: {choice.reason}")

    def _bar(self, backend: str, now_s: float) -> None:
        until_s, length_s = self._bars.get(backend, (0.0, self.BAR_S))
        if now_s >= until_s:
            longer_s = min(2 * length_s, self.LONGEST_BAR_S)
            self._bars[backend] = (now_s + length_s, longer_s)


def _since(start_s: float | None, now_s: float) -> float:
    return 0.0 if start_s is None else now_s - start_s


def _usable(backend: BackendInfo, current: str | None) -> bool:
    free = backend.has_room or backend.name == current
    chosen = backend.upscaler not in NEVER_CHOSEN
    return backend.state is BackendState.READY and free and chosen


def _rank(upscaler: str) -> int:
    return QUALITY.index(upscaler if upscaler in QUALITY else "compact")


def _capacity(backend: BackendInfo) -> float:
    """Measured frames per second; without a measurement only bicubic is trusted."""
    if backend.fps is not None:
        return backend.fps
    return float("inf") if backend.upscaler == "bicubic" else 0.0


def _holds(backend: BackendInfo, fps: float) -> bool:
    return _capacity(backend) >= fps


def _fastest(usable: Sequence[BackendInfo], rate: float) -> Choice:
    detailed = [b for b in usable if b.upscaler not in PLAIN and _holds(b, rate)]
    fastest = max(detailed or usable, key=_capacity)
    return Choice(fastest.name, "the fastest that adds detail" if detailed else "the fastest")
