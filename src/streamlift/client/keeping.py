"""A connection that is kept: made, and made again when it ends, until it is refused or closed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from streamlift.clock import Clock
from streamlift.errors import MediaError, StreamliftError
from streamlift.media.remote.backoff import Retry
from streamlift.media.remote.http import Refused
from streamlift.media.remote.push import STEADY_S, PushState

__all__ = ["Kept", "PushState"]

logger = logging.getLogger(__name__)


class Kept:
    """What is told of one; `run` keeps it."""

    def __init__(
        self,
        name: str,
        *,
        clock: Clock,
        wait: bool,
        reconnect: bool,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.state = PushState.CONNECTING
        self.reason = ""
        self.connections = 0
        self.error: StreamliftError | None = None
        """Why it was given up."""
        self.ended = False
        """Whether that was the end of the session, and no fault."""
        self._finishing = False
        self._name = name
        self._clock = clock
        self._wait = wait
        self._reconnect = reconnect
        self._sleep = sleep
        self._settled = asyncio.Event()

    def live(self) -> None:
        """Media flows."""
        self.connections += 1
        self._be(PushState.LIVE, "")
        self._settled.set()

    async def first(self) -> None:
        """Return when it is live for the first time; raises why it will not be."""
        await self._settled.wait()
        if self.error is not None:
            raise self.error

    def check(self) -> None:
        """Raises why it was given up, if it was."""
        if self.error is not None:
            raise self.error

    async def run(self, once: Callable[[], Awaitable[str]]) -> None:
        """Until it is given up, or cancelled; raises nothing.

        `once` connects, calls `live()` when media flows, and returns why that ended.
        """
        retry = Retry()
        while True:
            began_s, asked_s = self._clock.now_s(), None
            self._be(PushState.CONNECTING, "")
            try:
                reason = await once()
            except Refused as error:
                return self._give_up(PushState.REFUSED, error)
            except StreamliftError as error:
                if not (self._reconnect if self.connections else self._wait):
                    return self._give_up(PushState.CLOSED, error)
                asked_s, reason = getattr(error, "retry_s", None), str(error)
            except Exception as error:
                # Broad on purpose: nobody awaits this task, and whoever sends or reads must hear.
                logger.exception("%s failed", self._name)
                return self._give_up(PushState.CLOSED, MediaError(f"{self._name}: {error}"))
            else:
                if self._finishing:
                    return
                if not self._reconnect:
                    self.ended = True
                    return self._give_up(PushState.CLOSED, MediaError(f"{self._name}: {reason}"))
            if self._clock.now_s() - began_s >= STEADY_S:
                retry.reset()
            wait_s = retry.wait_s(asked_s)
            self._be(PushState.WAITING, f"{reason}; next try in {wait_s:.0f} s")
            await self._sleep(wait_s)

    def finish(self) -> None:
        """This connection is the last one."""
        self._finishing = True

    def close(self) -> None:
        """It was ended on purpose."""
        if self.error is None:
            self._be(PushState.CLOSED, "ended by request")

    def _give_up(self, state: PushState, error: StreamliftError) -> None:
        self.error = error
        self._be(state, str(error))
        self._settled.set()

    def _be(self, state: PushState, reason: str) -> None:
        if (state, reason) != (self.state, self.reason):
            logger.info("%s: %s %s", self._name, state, reason)
        self.state, self.reason = state, reason
