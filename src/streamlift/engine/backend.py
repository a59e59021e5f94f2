"""A backend in this process: a named upscaler on an engine, with its slots."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Mapping
from functools import partial
from typing import Any

from streamlift.clock import Clock
from streamlift.engine.capacity import SLOT_PPS, Capacity, Need
from streamlift.engine.chain import UpscaleChain
from streamlift.engine.costs import known_costs
from streamlift.engine.cpu_budget import CpuBudget, usable_cores
from streamlift.engine.cuda_stream import CudaPriority, take_stream
from streamlift.engine.devices import Accelerator, free_memory, resolve_device
from streamlift.engine.engine import LEEWAY_S, Engine
from streamlift.engine.ladder import Rung
from streamlift.engine.lane import EngineLane
from streamlift.engine.padding import padded_size
from streamlift.engine.plan import Plan, make_plan
from streamlift.engine.probe import PROBE_SIZE, SMALL_PROBE, lit_noise, measure_fps, use_up
from streamlift.errors import NoCapacity, NotReady, StreamliftError, UpscalerHung
from streamlift.frames import (
    BackendInfo,
    BackendState,
    LaneOptions,
    Size,
    Stabilise,
    Target,
)
from streamlift.upscalers import Upscaler, create_upscaler
from streamlift.upscalers.base import WorksIn
from streamlift.upscalers.compact import Precision

__all__ = ["EngineBackend"]

logger = logging.getLogger(__name__)

_HEADROOM = 0.8
_MAX_SLOTS = 64
_LONG_PROBE_FRAMES = 64
"""As many as a stream shows in its first seconds: what fails after a while is to fail here."""
_STUCK_S = 1.0
_LONGEST_STEP_S = 4.0
"""A chunk of the slowest model, and the steps of lanes that come first."""
_REPORT_S = 0.2
EXIT_STUCK = 70


class EngineBackend:
    """Fits `routing.ports.Backend`. Call `start()` once; the model loads on the engine thread."""

    def __init__(
        self,
        name: str,
        upscaler: str,
        *,
        device: str = "cpu",
        slots: int | None = None,
        settings: Mapping[str, Any],
        preset: str,
        max_age_s: float,
        clock: Clock,
        present: tuple[Accelerator, ...] = (),
        default_stabilise: Stabilise | None = None,
        backlog_age_s: float | None = None,
        exits_when_stuck: bool = False,
        budget: CpuBudget | None = None,
        cuda_priority: CudaPriority = CudaPriority.DEFAULT,
        scale: float | None = None,
    ) -> None:
        """`slots`: its capacity, instead of what it measures; `backlog_age_s`: how old a frame
        may be that a failed lane owed and this backend is to show, as fallback. `cuda_priority`: of
        the stream that all its work on a GPU is launched on. `scale`: how many times larger
        pictures come out where a stream asks for no size; None is the model's own.

        `exits_when_stuck`: for a process that does nothing else. When the model hangs, all lanes
        end with `UpscalerHung` and the process exits with status 70, so that the device's memory
        comes back; otherwise the thread is left behind with what it holds.
        """
        self.name = name
        self._upscaler_name = upscaler
        self._wanted_device = device
        self._fixed_slots = slots
        self._settings = settings
        self._preset = preset
        self._max_age_s = max_age_s
        self._clock = clock
        self._present = present
        self._default_stabilise = default_stabilise
        self._backlog_age_s = backlog_age_s
        self._exits_when_stuck = exits_when_stuck
        self._budget = budget
        self._cuda_priority = cuda_priority
        self._own = None if scale is None else Target(scale=scale)
        self._engine = Engine(name, clock)
        self._device = device
        self._upscaler: Upscaler | None = None
        self._state = BackendState.LOADING
        self._reason = "loading"
        self._fps: float | None = None
        self._plan: Plan | None = None
        self._lanes: set[EngineLane] = set()
        self._capacity = Capacity(0.0 if slots is None else slots * SLOT_PPS)

    async def start(self) -> None:
        """Load and measure. A failure is a state with a reason, never an exception.

        Again where that failed: what lacked may have come.
        """
        if self._state is BackendState.READY:
            return
        self._state, self._reason = BackendState.LOADING, "loading"
        self._engine.start()
        try:
            self._device = resolve_device(self._wanted_device, self._present)
            loaded = await asyncio.wrap_future(self._engine.run(self._load))
        except StreamliftError as error:
            self._state, self._reason = BackendState.UNAVAILABLE, str(error)
            logger.warning("backend %s is unavailable: %s", self.name, error)
            return
        except Exception as error:  # a model's loader may raise anything
            self._state, self._reason = BackendState.UNAVAILABLE, f"failed to load: {error}"
            logger.exception("backend %s failed to load", self.name)
            return
        self._upscaler, self._fps = loaded
        if self._fixed_slots is None:
            measured_pps = _HEADROOM * self._fps * PROBE_SIZE.pixels
            self._capacity.total_pps = min(max(measured_pps, SLOT_PPS), _MAX_SLOTS * SLOT_PPS)
        self._state, self._reason = BackendState.READY, ""
        logger.info(
            "backend %s ready on %s: %.0f fps at 512x512", self.name, self._device, self._fps
        )

    def info(self) -> BackendInfo:
        return BackendInfo(
            name=self.name,
            upscaler=self._upscaler_name,
            device=self._device,
            state=self._state,
            reason=self._reason,
            fps=self._fps,
            slots=self._capacity.slots,
            plan=None if self._plan is None else self._plan.info(),
        )

    async def open_lane(self, size: Size, options: LaneOptions) -> EngineLane:
        if self._upscaler is None or self._state is not BackendState.READY:
            raise NotReady(
                f"backend {self.name} is {self._state}: {self._reason}",
                found=self._state.value,
                expected="ready",
            )
        self._must_fit(size)
        spec = self._upscaler.spec
        need = Need(spec.scale, own=self._own, codes=self._device == "cpu")
        need.wanted = next((r.target for r in options.renditions), None)
        try:
            pps = need.pps(size, options.fps)
            share = self._capacity.take(pps, stands_in=options.stands_in, guest=options.guest)
        except NoCapacity as error:
            raise NoCapacity(
                f"backend {self.name} is full: {error}", found=error.found, expected=error.expected
            ) from None
        try:
            lane = EngineLane(
                self._engine,
                self._upscaler,
                self._device,
                options,
                preset=self._preset,
                max_age_s=self._max_age_s if not spec.chunked else max(1.2, self._max_age_s),
                backlog_age_s=self._backlog_age_s,
                clock=self._clock,
                stabilise=options.stabilise or self._default_stabilise or Stabilise.OFF,
                share=share,
                on_close=self._lane_closed,
                begin=Rung.FULL if self._plan is None else self._plan.rung,
                budget=self._budget,
                need=need,
            )
        except BaseException:
            share.release()  # a thread that cannot be started must not cost a slot
            raise
        self._lanes.add(lane)
        return lane

    async def probe(self) -> None:
        if self._upscaler is None or self._state is not BackendState.READY:
            raise NotReady(f"backend {self.name} is {self._state}: {self._reason}")
        chain = UpscaleChain(self._upscaler, self._device, Stabilise.OFF, clock=self._clock)
        # A job for each, so that lanes have their turns between.
        for lit in lit_noise(SMALL_PROBE, _LONG_PROBE_FRAMES):
            work = asyncio.wrap_future(self._engine.run(partial(use_up, chain.push, lit)))
            try:
                async with asyncio.timeout(_STUCK_S + _LONGEST_STEP_S):
                    await work
            except TimeoutError:
                if self._engine.busy_s >= _STUCK_S:
                    self._leave_thread()
                raise
        await asyncio.wrap_future(self._engine.run(partial(use_up, chain.finish)))

    def lane_hung(self, lane: object) -> None:
        """Nothing to do where only its encoder is slow, or the model works for another lane."""
        if not (self._engine.steps(lane) or self._engine.abandoned):
            return
        if self._device == "cpu":
            self._leave_thread()
        else:
            # Streams may share a captured graph on a GPU, which two threads must not replay at
            # once: there the thread gets a second to show that it was only slow.
            self._look_again(_STUCK_S)

    async def aclose(self) -> None:
        if not await asyncio.to_thread(self._engine.stop):
            logger.warning(
                "backend %s: the model has been busy for %.1f s; its thread was left behind",
                self.name,
                self._engine.busy_s,
            )

    def _must_fit(self, size: Size) -> None:
        """Refuse now rather than run out of memory in mid-stream, which would harm the others."""
        assert self._upscaler is not None
        free = free_memory(self._device)
        padded = padded_size(size, self._upscaler.spec.multiple)
        needed = self._upscaler.session_bytes(padded)
        if isinstance(self._upscaler, WorksIn):
            needed += self._upscaler.workspace_bytes(padded)
        if free is not None and needed > free:
            raise NoCapacity(
                f"backend {self.name} has no memory for another stream of {size}",
                found=f"{free / 1e9:.1f} GB free",
                expected=f"{needed / 1e9:.1f} GB",
            )

    def _lane_closed(self, lane: EngineLane) -> None:
        self._lanes.discard(lane)
        if self._engine.abandoned:
            # Most often it is only slow: it may finish its step. Nobody would notice a hang now.
            # A guest may be sent away during its first step, which records and compiles.
            first = lane.guest and not lane.upscaled
            self._look_again(_STUCK_S + _LONGEST_STEP_S if first else _STUCK_S)

    def _look_again(self, stuck_s: float) -> None:
        asyncio.get_running_loop().call_later(stuck_s, self._look_for_hang, stuck_s)

    def _look_for_hang(self, stuck_s: float) -> None:
        if self._engine.abandoned and self._engine.busy_s >= stuck_s:
            self._leave_thread()

    def _leave_thread(self) -> None:
        if self._exits_when_stuck:
            self._exit()
            return
        logger.warning(
            "backend %s: the model hangs for %.1f s; its thread is left behind",
            self.name,
            self._engine.busy_s,
        )
        self._engine.leave_behind()

    def _exit(self) -> None:
        logger.critical(
            "backend %s: the model hangs for %.1f s; this process ends",
            self.name,
            self._engine.busy_s,
        )
        for lane in tuple(self._lanes):
            lane.fail(UpscalerHung(f"upscaler {self._upscaler_name} does not return"))
        # What the lanes' readers send of it goes out first; nothing here can end in order.
        asyncio.get_running_loop().call_later(_REPORT_S, os._exit, EXIT_STUCK)

    def _load(self) -> tuple[Upscaler, float]:
        self._take_device()
        settings = self._settings
        if self._upscaler_name == "compact" and settings.get("tier", "auto") == "auto":
            self._plan = self._make_plan(settings)
            threads = {"threads": self._plan.threads} if "threads" not in settings else {}
            settings = {**settings, "tier": self._plan.tier, **threads}
        upscaler = create_upscaler(self._upscaler_name, device=self._device, settings=settings)
        # A slow model's probe must not outlive a service that is told to end meanwhile.
        engine = self._engine
        # On a GPU the stabiliser shares the device with the model; on a CPU it is the first thing
        # that a stream does without under load.
        calmed = self._default_stabilise if self._device != "cpu" else None
        return upscaler, measure_fps(
            upscaler,
            self._device,
            stabilise=calmed or Stabilise.OFF,
            ends=lambda: engine.stopping,
        )

    def _take_device(self) -> None:
        """On a GPU lanes only launch, and the most urgent goes first: see `Engine`."""
        if self._device == "cpu":
            return
        self._engine.leeway_s = LEEWAY_S
        self._engine.prepare = partial(take_stream, self._device, self._cuda_priority)
        self._engine.prepare()

    def _make_plan(self, settings: Mapping[str, Any]) -> Plan:
        """This machine's; streams begin on its rung."""
        named = settings.get("precision", "auto")
        precision = Precision(named) if named in set(Precision) else Precision.INT8
        plan = make_plan(
            known_costs(self._preset, precision),
            cores=usable_cores(),
            preset=self._preset,
            stabilised=self._default_stabilise not in (None, Stabilise.OFF),
            scale=None if self._own is None else self._own.scale,
        )
        logger.info("backend %s: the plan is %s", self.name, plan.words())
        return plan
