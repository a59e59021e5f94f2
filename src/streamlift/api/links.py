"""Links that expire: a token of its own for one stream, to be given away."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from streamlift.api import answers
from streamlift.api.door import TheService
from streamlift.api.rights import GuardedRoute, Scope, needs
from streamlift.api.shapes import StreamName
from streamlift.service import LONGEST_LINK_S

__all__ = ["links"]

links = APIRouter(
    prefix="/api/v1/streams/{stream}/links", tags=["control"], route_class=GuardedRoute
)

_CONTROL = [needs(Scope.CONTROL)]


class NewLink(BaseModel):
    """What the link allows, and for how long: what was begun by it ends with it."""

    model_config = ConfigDict(extra="forbid")

    right: Literal["view", "publish"]
    ttl_s: int = Field(default=600, ge=1, le=LONGEST_LINK_S)


@links.post("", status_code=201, dependencies=_CONTROL)
async def add_link(
    stream: StreamName, body: NewLink, request: Request, service: TheService
) -> answers.Link:
    """A link to the page; the token is in its fragment, which browsers send to nobody."""
    link = service.grants.link(stream, Scope(body.right), body.ttl_s)
    page = str(request.url_for("page"))
    return {
        "id": link.id,
        "url": f"{page}?stream={stream}#{body.right}={link.token}",
        "expires": link.expires_s,
    }


@links.delete("/{link}", status_code=204, dependencies=_CONTROL)
async def end_link(stream: StreamName, link: str, service: TheService) -> Response:
    """Take a link back: it opens nothing any more, and what was begun by it ends within 5 s."""
    service.grants.revoke(stream, link)
    return Response(status_code=204)
