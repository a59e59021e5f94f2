"""The stages that Scope puts behind a generator: one class, three sets of files to begin with."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Any, ClassVar, get_args

from streamlift.clock import Clock, MonotonicClock
from streamlift.frames import Stabilise
from streamlift.integrations.scope.course import LEAST_STEP
from streamlift.integrations.scope.models import Models, choose_device, create
from streamlift.integrations.scope.queues import keeps_only_the_newest
from streamlift.integrations.scope.schema import (
    DEFAULT_STABILISE,
    FlashVsrConfig,
    Model,
    RealEsrganConfig,
    UpscaleConfig,
)
from streamlift.integrations.scope.session import ScopeSession, Wish

if TYPE_CHECKING:
    from streamlift.integrations.scope.standin import Pipeline, Requirements
else:
    try:
        from scope.core.pipelines.interface import Pipeline, Requirements
    except ImportError:  # our own tests, where Scope is not installed
        from streamlift.integrations.scope.standin import Pipeline, Requirements

__all__ = ["Upscale", "UpscaleFlashVsr", "UpscaleRealEsrgan"]

log = logging.getLogger(__name__)

CHOICES: tuple[str, ...] = get_args(Model)
_QUIET_S = 5.0
_MOST_AT_ONCE = 30
"""Frames that Scope's queue is sure to hold."""


class Upscale(Pipeline):
    """One instance serves all sessions of a Scope server, each on its own thread.

    The GPU is one session's at a time: the first has the model until its thread ends or has been
    quiet for 5 s; others get their frames back bicubic.
    """

    create = staticmethod(create)
    """How a choice becomes an upscaler; tests put small ones here."""

    clock: Clock = MonotonicClock()

    config: ClassVar[type[UpscaleConfig]] = UpscaleConfig
    model: ClassVar[str] = "realesrgan-x2"
    """The choice when no parameter names one."""
    must_load: ClassVar[bool] = False
    """Whether the stage is of no use without its model."""

    def __init__(self, **params: Any) -> None:
        """Take whatever Scope passes; of it `device` and the first choice of model are ours.

        That model is loaded here, while Scope shows "loading"; later choices load beside the
        stream. Raises what the loader raised if the stage or a parameter names a model that cannot
        be used: Scope shows it to the user. Without a name the picture tells it.
        """
        self._defaults = Wish(
            _chosen(params.get("upscale_model"), CHOICES, self.model),
            Stabilise(
                _chosen(params.get("upscale_stabilise"), tuple(Stabilise), DEFAULT_STABILISE)
            ),
        )
        self._models = Models(type(self).create, choose_device(params.get("device")))
        wanted = self._defaults.model
        self._models.wait(wanted)
        failure = self._models.missing(wanted)
        if failure is not None and (self.must_load or wanted != self.model):
            raise failure
        self._lock = threading.Lock()
        self._sessions: dict[threading.Thread, _Seat] = {}
        self._newest_only = keeps_only_the_newest()
        if self._newest_only:
            log.warning(
                "this Scope gives a stage that asks for one frame the newest and drops the others; "
                "asking for as many as come at once: their order is kept, some may be lost"
            )

    @classmethod
    def get_config_class(cls) -> type[UpscaleConfig]:
        return cls.config

    def prepare(self, **params: Any) -> Requirements:
        """One frame: for more, Scope samples its backlog and loses the rest.

        A Scope that drains its queue for one frame is asked for as many as a burst has.
        """
        if not self._newest_only:
            return Requirements(input_size=1)
        with self._lock:
            seat = self._sessions.get(threading.current_thread())
        burst = seat.session.largest_burst if seat is not None else 0
        return Requirements(input_size=min(max(burst, LEAST_STEP), _MOST_AT_ONCE))

    def __call__(self, **params: Any) -> dict[str, Any]:
        """`video`: list of (1, H, W, 3) uint8 in; `video` (n, H', W', 3) uint8 or None out.

        `audio` and `audio_sample_rate` come back once, with the frame they came with.
        """
        with self._lock:
            seat = self._seat()
            seat.busy = True
        try:
            return seat.session.call(
                params.get("video") or (),
                self._wish(params),
                fresh=bool(params.get("init_cache")),
                audio=params.get("audio"),
                audio_sample_rate=params.get("audio_sample_rate"),
            )
        finally:
            with self._lock:
                seat.busy = False
                seat.seen_s = self.clock.now_s()

    def _seat(self) -> _Seat:
        """The calling thread's session; ended threads' sessions are let go."""
        thread = threading.current_thread()
        for other in [t for t in self._sessions if not t.is_alive()]:
            del self._sessions[other]
        now_s = self.clock.now_s()
        rivals = [s for t, s in self._sessions.items() if t is not thread and s.has_model(now_s)]
        seat = self._sessions.get(thread)
        if seat is None:
            seat = _Seat(ScopeSession(self._models, self.clock, uses_model=True), now_s)
            self._sessions[thread] = seat
            if rivals:
                log.warning("a second session while the model is taken: its frames come bicubic")
        seat.session.uses_model = not rivals
        return seat

    def _wish(self, params: dict[str, Any]) -> Wish:
        """Fields are among the parameters only if they were ever sent."""
        default = self._defaults
        return Wish(
            _chosen(params.get("upscale_model"), CHOICES, default.model),
            Stabilise(
                _chosen(params.get("upscale_stabilise"), tuple(Stabilise), default.stabilise)
            ),
        )


class UpscaleFlashVsr(Upscale):
    """The stage that comes with FlashVSR's files."""

    config = FlashVsrConfig
    model = "flashvsr"
    must_load = True


class UpscaleRealEsrgan(Upscale):
    """The stage that comes with Real-ESRGAN's file."""

    config = RealEsrganConfig
    must_load = True


class _Seat:
    """A session and when its thread last called."""

    def __init__(self, session: ScopeSession, now_s: float) -> None:
        self.session = session
        self.seen_s = now_s
        self.busy = False

    def has_model(self, now_s: float) -> bool:
        return self.session.uses_model and (self.busy or now_s - self.seen_s < _QUIET_S)


def _chosen(value: object, known: tuple[str, ...], default: str) -> str:
    """Other stages may have fields of the same name with other values."""
    return value if isinstance(value, str) and value in known else default
