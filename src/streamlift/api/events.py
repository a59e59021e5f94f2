"""`GET /api/v1/events`: what happens, as server-sent events (WHATWG HTML, section 9.2)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Header, Query
from fastapi.responses import StreamingResponse

from streamlift.api.door import TheService
from streamlift.api.rights import GuardedRoute, Scope, needs
from streamlift.config import NAME_PATTERN
from streamlift.routing import Event, EventLog

__all__ = ["events"]

ALIVE_S = 15.0

events = APIRouter(prefix="/api/v1", tags=["control"], route_class=GuardedRoute)


@events.get(
    "/events",
    response_class=StreamingResponse,
    dependencies=[needs(Scope.VIEW, Scope.CONTROL)],
)
async def follow(
    service: TheService,
    stream: Annotated[str | None, Query(pattern=f"^{NAME_PATTERN}$")] = None,
    last_event_id: Annotated[int | None, Header(ge=0)] = None,
) -> StreamingResponse:
    """Events from now on, or after `Last-Event-ID`; a comment each 15 s keeps it open."""
    return StreamingResponse(
        _feed(service.events, stream, last_event_id),
        media_type="text/event-stream",
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )


async def _feed(log: EventLog, stream: str | None, after_seq: int | None) -> AsyncIterator[str]:
    with log.subscribe(stream, after_seq) as subscription:
        yield ": connected\n\n"
        while True:
            try:
                async with asyncio.timeout(ALIVE_S):
                    event = await anext(subscription)
            except TimeoutError:
                yield ": alive\n\n"
            except StopAsyncIteration:
                return
            else:
                yield f"event: {event.kind}\nid: {event.seq}\ndata: {_data(event)}\n\n"


def _data(event: Event) -> str:
    return json.dumps(
        {
            "seq": event.seq,
            "time": round(event.time, 3),
            "stream": event.stream,
            "from": event.before,
            "to": event.after,
            "gap_ms": None if event.gap_ms is None else round(event.gap_ms, 1),
            "reason": event.reason,
        }
    )
