"""One session of Scope: collects single frames, gives back whole upscaled steps."""

from __future__ import annotations

import logging
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from streamlift.clock import Clock
from streamlift.errors import OutOfMemory
from streamlift.frames import Size, Stabilise
from streamlift.integrations.scope.cadence import Backlog, Playout
from streamlift.integrations.scope.course import Course, ModelCourse, PlainCourse
from streamlift.integrations.scope.models import PLAIN, Models
from streamlift.integrations.scope.note import Note
from streamlift.integrations.scope.pixels import mean_change, size_of, stack
from streamlift.integrations.scope.sound import Sound

if TYPE_CHECKING:
    from streamlift.integrations.scope.calming import Calming

__all__ = ["ScopeSession", "Wish"]

log = logging.getLogger(__name__)

CUT_LEVELS = 24.0
"""Mean change on a coarse grid above which a picture starts a new scene."""

FALLBACK = "bicubic"
_LOG_EVERY_S = 1.0
_STEPS_AHEAD = 2


@dataclass(frozen=True, slots=True)
class Wish:
    """What the user has set now."""

    model: str
    stabilise: Stabilise


class ScopeSession:
    """Belongs to one thread. `uses_model`: without it, it gets by with bicubic.

    `counts`: cuts, restarts, skipped frames, and failures of models.
    """

    def __init__(self, models: Models, clock: Clock, *, uses_model: bool) -> None:
        self.uses_model = uses_model
        self.counts: Counter[str] = Counter()
        self._models = models
        self._clock = clock
        self._course: Course | None = None
        self._playout = Playout()
        self._backlog = Backlog()
        self._collected: deque[Tensor] = deque()
        self._owed: deque[Tensor] = deque()
        self._made: deque[Tensor] = deque()
        self._taken = 0
        self._sound = Sound()
        self._note = Note()
        self._told: str | None = None
        self._size: Size | None = None
        self._coarse: Tensor | None = None
        self._wanted: str | None = None
        self._bridging: int | None = None
        self._calming: Calming | None = None
        self._stabilise = Stabilise.OFF
        self._fresh_before = False
        self._logged_s = -_LOG_EVERY_S
        self._running: deque[torch.cuda.Event] = deque()

    @torch.no_grad()
    def call(
        self,
        frames: Sequence[Tensor],
        wish: Wish,
        *,
        fresh: bool,
        audio: object = None,
        audio_sample_rate: object = None,
    ) -> dict[str, Any]:
        """One call of Scope's: `frames` are (1, H, W, 3) uint8, `fresh` is its init_cache.

        Returns Scope's dict; its video is None when no step is complete.
        """
        self._backlog.called(len(frames), self._clock.now_s())
        if fresh and not self._fresh_before:
            self._forget()
        self._fresh_before = fresh
        self._set_stabilise(wish.stabilise)
        self._choose(wish.model)
        self._sound.heard(audio, audio_sample_rate, self._taken)
        for frame in frames:
            self._playout.arrived(self._clock.now_s())
            for picture in frame:
                self._take(picture)
        result = self._deliver()
        result.update(self._sound.due(self._passed()))
        self._backlog.returned(self._clock.now_s())
        return result

    def _take(self, picture: Tensor) -> None:
        size = size_of(picture)
        if size != self._size:
            self._pay()
            self._size, self._coarse = size, None
        self._collected.append(picture)
        self._taken += 1
        course = self._current()
        while len(self._collected) >= course.step:
            step = [self._collected.popleft() for _ in range(course.step)]
            if self._backlog.must_skip(len(step), self._clock.now_s()):
                self._count_skipped(len(step))
            else:
                self._run(course, step)
            course = self._current()

    def _run(self, course: Course, step: Sequence[Tensor]) -> None:
        """Push a step's pictures; whatever fails, every one of them comes out."""
        self._owed.extend(step)
        try:
            self._stay_near()
            pictures = stack(step, self._models.device)
            changes, self._coarse = mean_change(pictures, self._coarse)
            for number, change in enumerate(changes):
                if change > CUT_LEVELS:
                    self._cut(course)
                self._keep(course.push(pictures[number : number + 1]))
            self._mark()
        except (OutOfMemory, torch.OutOfMemoryError) as error:
            self._fall_back(course, error)
        except Exception as error:
            # A model may raise anything, and Scope would lose the frames and go on.
            log.exception("model %s failed", course.choice)
            self._fall_back(course, error)

    def _pay(self) -> None:
        """Everything collected and owed goes out; the course then starts anew."""
        course = self._course
        if course is None:
            return
        if self._collected:
            rest = list(self._collected)
            self._collected.clear()
            self._run(course, rest)
        self._finish(self._current())

    def _finish(self, course: Course) -> None:
        try:
            self._keep(course.finish())
        except (OutOfMemory, torch.OutOfMemoryError) as error:
            self._fall_back(course, error)
        except Exception as error:  # as in _run
            log.exception("model %s failed", course.choice)
            self._fall_back(course, error)

    def _keep(self, groups: Iterator[Tensor]) -> None:
        for group in groups:
            taken = list(islice(self._owed, group.shape[0]))
            home = taken[0].device
            if self._calming is not None and group.device.type == self._models.device.type:
                lr = stack(taken, group.device)
                group = self._calming.apply(lr, group)
            if home.type == "cuda" and group.device != home:
                group = group.to(home, non_blocking=True)  # the next stage expects it there
            for _ in taken:
                self._owed.popleft()
            self._made.append(group)

    def _fall_back(self, course: Course, error: Exception) -> None:
        """The model is out; what it owed comes out bicubic, and so does all that follows."""
        self.counts["failures"] += 1
        log.warning(
            "model %s failed, bicubic takes its place until another model or a new session is "
            "chosen: %s",
            course.choice,
            error,
        )
        plain = self._course = PlainCourse(FALLBACK)
        self._calming = None  # what failed may have been in there
        if course.choice not in PLAIN:
            self._models.give_up(course.choice, error)
        for picture in list(self._owed):
            # In host memory: the device may be what has failed.
            self._keep(plain.push(picture[None].cpu()))

    def _choose(self, wanted: str) -> None:
        """Change the course when the model is there and the player can bridge the change."""
        self._bridging = None
        if self._wanted not in (None, wanted):
            self._models.retry()
        self._wanted = wanted
        missing = self._models.missing(wanted)
        self._told = None if missing is None else f"{wanted}: {_first_line(missing)}; bicubic shown"
        choice = wanted if self.uses_model and missing is None else FALLBACK
        if self._course is not None and choice == self._course.choice:
            return
        course = self._open(choice)
        if course is None:
            return
        now_s = self._clock.now_s()
        if self._course is not None:
            later = course.max_owed - self._course.max_owed
            if later > 0 and not self._playout.can_bridge(course.max_owed, now_s):
                self._bridging = course.max_owed
                return
            self._finish(self._course)
            log.info("model %s takes over from %s", choice, self._course.choice)
        self._course = course
        self._playout.taken_over(now_s)

    def _open(self, choice: str) -> Course | None:
        """None while the model is still loading."""
        if choice in PLAIN:
            return PlainCourse(choice)
        upscaler = self._models.get(choice)
        return None if upscaler is None else ModelCourse(choice, upscaler, self._models.device)

    def _current(self) -> Course:
        """The course taken; bicubic until the first model is there."""
        if self._course is None:
            self._course = PlainCourse(FALLBACK)
        return self._course

    def _cut(self, course: Course) -> None:
        self.counts["cuts"] += 1
        if course.restarts_on_cut:
            self._keep(course.finish())
        if self._calming is not None:
            self._calming.reset()

    def _forget(self) -> None:
        """A new session or a cache reset: nothing of before is shown any more."""
        if self._size is None:
            return  # nothing was taken yet
        self.counts["restarts"] += 1
        self._course = None
        for queue in (self._collected, self._owed, self._made):
            queue.clear()
        self._sound.forget()
        self._size = self._coarse = None
        if self._calming is not None:
            self._calming.reset()
        self._models.retry()

    def _deliver(self) -> dict[str, Any]:
        """The groups that are ready, as many as are alike: a change of size waits for a call."""
        groups: list[Tensor] = []
        while self._made and (not groups or _alike(self._made[0], groups[0])):
            groups.append(self._made.popleft())
        if not groups:
            return {"video": None}
        video = torch.cat(groups)
        if self._told is not None:
            self._note.write(video, self._told)
        now_s = self._clock.now_s()
        rate = self._playout.deliver(video.shape[0], now_s, owed=self._bridging)
        # No timestamps: with them Scope's track would not follow the rate, and after a change to a
        # model that runs behind it would show bursts.
        return {"video": video, "frame_rate": rate}

    def _passed(self) -> int:
        """How many of the frames taken have been given back, or skipped."""
        made = sum(group.shape[0] for group in self._made)
        return self._taken - len(self._collected) - len(self._owed) - made

    @property
    def largest_burst(self) -> int:
        """The most frames that came without a pause of late."""
        return self._backlog.largest_burst

    def _set_stabilise(self, wanted: Stabilise) -> None:
        if wanted is self._stabilise:
            return
        self._stabilise = wanted
        self._calming = None
        if wanted is Stabilise.OFF:
            return
        try:
            from streamlift.integrations.scope.calming import calming_for

            self._calming = calming_for(wanted, self._models.device)
        except ImportError as error:
            log.warning(
                "no stabiliser: %s; install opencv-python-headless and av beside Scope", error
            )

    def _stay_near(self) -> None:
        """Queue at most two steps on the GPU: one wait a step, so that slowness can be seen."""
        if len(self._running) >= _STEPS_AHEAD:
            self._running.popleft().synchronize()

    def _mark(self) -> None:
        if self._models.device.type == "cuda":
            done = torch.cuda.Event()  # type: ignore[no-untyped-call]
            done.record(torch.cuda.current_stream(self._models.device))
            self._running.append(done)

    def _count_skipped(self, frames: int) -> None:
        self.counts["skipped"] += frames
        now_s = self._clock.now_s()
        if now_s - self._logged_s >= _LOG_EVERY_S:
            self._logged_s = now_s
            log.warning(
                "the upscaler is slower than the source: %d frames skipped in all; choose a "
                "cheaper model",
                self.counts["skipped"],
            )


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]


def _alike(one: Tensor, other: Tensor) -> bool:
    same_place = one.device == other.device
    return same_place and one.shape[1:] == other.shape[1:]
