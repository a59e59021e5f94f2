"""`GET /api/v1/events`: what happens, as server-sent events (WHATWG HTML, section 9.2)."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Header, Query
from fastapi.responses import StreamingResponse

from streamlift.api import answers
from streamlift.api.door import TheService
from streamlift.api.rights import GuardedRoute, Scope, TheCaller, needs
from streamlift.api.schema import EVENTS
from streamlift.config import NAME_PATTERN
from streamlift.errors import TooMany
from streamlift.routing import Event
from streamlift.service import Caller, Service

__all__ = ["events"]

ALIVE_S = 15.0
_LOOK_S = 2.0
"""How often a follower's token is looked at again."""
_READERS = (Scope.VIEW, Scope.CONTROL)

events = APIRouter(prefix="/api/v1", tags=["control"], route_class=GuardedRoute)


@events.get(
    "/events",
    response_class=StreamingResponse,
    responses=EVENTS,
    dependencies=[needs(*_READERS)],
)
async def follow(
    service: TheService,
    caller: TheCaller,
    stream: Annotated[str | None, Query(pattern=f"^{NAME_PATTERN}$")] = None,
    last_event_id: Annotated[int | None, Header(ge=0)] = None,
) -> StreamingResponse:
    """Events from now on, or after `Last-Event-ID`; a comment each 15 s keeps it open."""
    service.followers.check(caller)
    return StreamingResponse(
        _feed(service, caller, stream, last_event_id),
        media_type="text/event-stream",
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )


async def _feed(
    service: Service, caller: Caller, stream: str | None, after_seq: int | None
) -> AsyncIterator[str]:
    """Ends with the service, and with the caller's token."""
    grant, clock = caller.grant, service.clock
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(service.followers.following(caller))
        except TooMany:
            return  # others with this token were a moment faster
        subscription = stack.enter_context(service.events.subscribe(stream, after_seq))
        yield ": connected\n\n"
        said_s = clock.now_s()
        while service.grants.holds(grant):
            try:
                async with asyncio.timeout(_LOOK_S):
                    event = await anext(subscription)
            except TimeoutError:
                if clock.now_s() - said_s >= ALIVE_S:
                    said_s = clock.now_s()
                    yield ": alive\n\n"
            except StopAsyncIteration:
                return
            else:
                if not event.stream or grant.allows(_READERS, event.stream):
                    said_s = clock.now_s()
                    yield f"event: {event.kind}\nid: {event.seq}\ndata: {_data(event)}\n\n"


def _data(event: Event) -> str:
    data: answers.Event = {
        "seq": event.seq,
        "time": round(event.time, 3),
        "stream": event.stream,
        "from": event.before,
        "to": event.after,
        "gap_ms": None if event.gap_ms is None else round(event.gap_ms, 1),
        "reason": event.reason,
    }
    return json.dumps(data)
