"""A backend whose lanes are on workers: fits `routing.ports.Backend`."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable

from streamlift.clock import Clock
from streamlift.cluster.child import Child
from streamlift.cluster.choice import Candidate, in_order
from streamlift.cluster.lane import LinkLane
from streamlift.cluster.link import STATES, Link
from streamlift.errors import NoCapacity, NotReady, StreamliftError, WorkerLost
from streamlift.frames import BackendInfo, BackendState, LaneOptions, Size, Slots, WorkerInfo
from streamlift.tasks import supervise

__all__ = ["WorkerBackend"]

logger = logging.getLogger(__name__)

START_S = 3.0
"""How long `start` waits for a first worker; it may come later, too."""


class WorkerBackend:
    """Its workers may come and go (`add`, `remove`); the sum of the ready ones is what it can do.

    No queue: where no worker has room, NoCapacity. A worker that lost or failed a lane is asked
    last for some time; see `choice`.
    """

    def __init__(
        self, name: str, upscaler: str, *, clock: Clock, children: Iterable[Child] = ()
    ) -> None:
        self.name = name
        self._upscaler = upscaler
        self._clock = clock
        self._links: dict[Link, asyncio.Task[None]] = {}
        self._children = dict.fromkeys(children)
        self._watching: list[asyncio.Task[None]] = []
        self._waiting: list[Link] = []  # added before `start`
        self._started = False
        self._failed_host: str | None = None

    @property
    def links(self) -> tuple[Link, ...]:
        return tuple(self._links) or tuple(self._waiting)

    def add(self, link: Link) -> None:
        """Dial one more worker, from `start` on."""
        if not self._started:
            self._waiting.append(link)
            return
        work = supervise(f"link to worker {link.name}", link.run())
        self._links[link] = asyncio.get_running_loop().create_task(work)

    async def remove(self, link: Link) -> None:
        """Hang up; its lanes end with WorkerLost."""
        task = self._links.pop(link, None)
        if task is not None:
            while not task.done():
                # Again, if it took the first for the end of a call that it had cancelled itself.
                task.cancel()
                await asyncio.wait([task], timeout=1.0)
            await link.aclose()

    # ---- ports.Backend ----

    async def start(self) -> None:
        """Start processes and dial; returns when one worker has said how it is, or after 3 s.

        Again: processes that cannot serve are followed by new ones, which look at the disk anew.
        """
        if self._started:
            failed = [c for c in self._children if c.link.state == "unavailable"]
            await asyncio.gather(*(child.renew() for child in failed))
            return
        self._started = True
        for link in self._waiting:
            self.add(link)
        self._waiting.clear()
        for child in self._children:
            self.add(child.link)
            work = supervise(f"worker {child.name}", child.run())
            self._watching.append(asyncio.get_running_loop().create_task(work))
        seen = [asyncio.create_task(link.attached.wait()) for link in self._links]
        if seen:
            await asyncio.wait(seen, timeout=START_S, return_when=asyncio.FIRST_COMPLETED)
            for task in seen:
                task.cancel()

    async def aclose(self) -> None:
        for link in tuple(self._links):
            await self.remove(link)
        await asyncio.gather(*(child.aclose() for child in self._children))
        for task in self._watching:
            task.cancel()
        await asyncio.gather(*self._watching, return_exceptions=True)
        self._watching.clear()

    def info(self) -> BackendInfo:
        workers = tuple(link.info() for link in self.links)
        now_s = self._clock.now_s()
        attached = [link for link in self.links if link.state == "ready"]
        unharmed = [link for link in attached if not link.strikes.out(now_s)]
        ready = [link.info() for link in unharmed or attached]
        state, reason = (BackendState.READY, "") if ready else self._why_not(workers)
        rates = [worker.fps for worker in ready if worker.fps is not None]
        return BackendInfo(
            name=self.name,
            upscaler=self._upscaler,
            device=_devices(ready or list(workers)),
            state=state,
            reason=reason,
            fps=min(rates) if rates else None,
            slots=Slots(sum(w.slots.total for w in ready), sum(w.slots.used for w in ready)),
            workers=workers,
        )

    async def open_lane(self, size: Size, options: LaneOptions) -> LinkLane:
        now_s = self._clock.now_s()
        by_name = {link.name: link for link in self._links if link.state == "ready"}
        order = in_order(
            (Candidate(k.name, k.host, k.free, k.strikes) for k in by_name.values()),
            now_s,
            self._failed_host,
        )
        full: NoCapacity | None = None
        failed: StreamliftError | None = None
        for candidate in order:
            link = by_name[candidate.name]
            try:
                lane = await link.open_lane(size, options)
            except NoCapacity as error:
                full = error
            except (NotReady, WorkerLost) as error:
                failed = error
                if isinstance(error, WorkerLost) and not options.guest:
                    link.strikes.strike(self._clock.now_s())
            else:
                logger.debug("stream %s: lane on worker %s", options.stream, link.name)
                return lane
        if full is not None:
            raise full
        if isinstance(failed, WorkerLost):
            raise failed
        info = self.info()
        raise NotReady(
            f"backend {self.name} has no worker now: {info.reason or failed}",
            found=info.state.value,
            expected="ready",
        )

    async def probe(self) -> None:
        """On the worker that would get the next lane."""
        for link in self._links:
            if link.state == "ready":
                await link.probe()
                return
        raise NotReady(f"backend {self.name} has no worker now")

    def lane_hung(self, lane: object) -> None:
        """The worker looks whether its model hangs, and ends if so; where it does not even answer,
        the link ends it. It gets no lane first for a while."""
        for link in self._links:
            if lane in link.lanes:
                assert isinstance(lane, LinkLane)
                if not lane.guest:
                    link.strikes.strike(self._clock.now_s())
                    self._failed_host = link.host
                lane.hung()

    def _why_not(self, workers: tuple[WorkerInfo, ...]) -> tuple[BackendState, str]:
        """State and reason of the best worker, for a backend of which none is ready."""
        if not workers:
            return BackendState.UNAVAILABLE, "no worker is known"
        best = min(workers, key=lambda w: STATES.index(w.state))
        reason = f"worker {best.name}: {best.reason or best.state}"
        if best.state == "loading":
            return BackendState.LOADING, reason
        return BackendState.UNAVAILABLE, reason


def _devices(workers: list[WorkerInfo]) -> str:
    names = list(dict.fromkeys(w.device for w in workers if w.device))
    told = ", ".join(names) or "unknown"
    return f"{told} ({len(workers)} workers)" if len(workers) > 1 else told
