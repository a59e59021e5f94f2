"""WHIP (RFC 9725) and WHEP (draft-ietf-wish-whep): offers in, answers out, sessions to end."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response

from streamlift.api import answers
from streamlift.api.door import TheService
from streamlift.api.forwarded import outside
from streamlift.api.peers import passed_on
from streamlift.api.problems import Problem
from streamlift.api.rights import (
    GuardedRoute,
    Scope,
    TheCaller,
    allowed,
    must_also_control,
    needs,
    of_session,
)
from streamlift.api.shapes import StreamName
from streamlift.config import NAME_PATTERN, IceConfig, IceServer
from streamlift.routing import View
from streamlift.service import Answered, Compare, Service, Session

__all__ = ["ice_link", "whip_whep", "whip_whep_open"]

MAX_SDP_BYTES = 32 * 1024
_SDP = "application/sdp"
_FRAGMENT = "application/trickle-ice-sdpfrag"

whip_whep = APIRouter(tags=["WHIP and WHEP"], route_class=GuardedRoute)
whip_whep_open = APIRouter(tags=["WHIP and WHEP"])
"""What anybody may ask."""

_PUBLISH = [needs(Scope.PUBLISH)]
_VIEW = [needs(Scope.VIEW)]
_SESSION = [of_session()]

_ANSWERED: dict[int | str, dict[str, Any]] = {
    201: {"content": {_SDP: {"schema": {"type": "string"}}}, "description": "The SDP answer"}
}
_OFFERED = {"requestBody": {"required": True, "content": {_SDP: {"schema": {"type": "string"}}}}}
_TRICKLED = {
    "requestBody": {"required": True, "content": {_FRAGMENT: {"schema": {"type": "string"}}}},
    "parameters": [
        {"name": "If-Match", "in": "header", "required": True, "schema": {"type": "string"}}
    ],
}
_ENDPOINT_OPTIONS = {
    "Accept-Post": _SDP,
    "Access-Control-Allow-Methods": "GET, POST, OPTIONS",
    "Access-Control-Allow-Headers": "Authorization, Content-Type, If-Match, Streamlift-Control",
}
_SESSION_OPTIONS = {
    "Accept-Patch": _FRAGMENT,
    "Access-Control-Allow-Methods": "GET, PATCH, DELETE, OPTIONS",
    "Access-Control-Allow-Headers": "Authorization, Content-Type, If-Match",
}


@whip_whep.post(
    "/whip/{stream}",
    status_code=201,
    response_class=Response,
    dependencies=_PUBLISH,
    responses=_ANSWERED,
    openapi_extra=_OFFERED,
)
async def publish(
    stream: StreamName, request: Request, service: TheService, caller: TheCaller
) -> Response:
    """Publish: body is an SDP offer, the answer comes back, `Location` names the session."""
    answered = await service.publish(stream, await _read_body(request, _SDP), caller)
    response = _created(request, answered)
    # Players of daydream look for the picture under this name.
    response.headers["Livepeer-Playback-URL"] = str(request.url_for("watch", stream=stream))
    return response


@whip_whep.post(
    "/whep/{stream}",
    status_code=201,
    response_class=Response,
    dependencies=_VIEW,
    responses=_ANSWERED,
    openapi_extra=_OFFERED,
)
async def watch(
    stream: StreamName,
    request: Request,
    service: TheService,
    caller: TheCaller,
    view: Annotated[View, Query(description="What to watch")] = View.UPSCALED,
    backend: Annotated[
        str | None,
        Query(description="Another backend to compare with", pattern=f"^{NAME_PATTERN}$"),
    ] = None,
) -> Response:
    """Watch: body is an SDP offer, the answer comes back, `Location` names the session.

    With `backend` the stream goes through that one too, in step with what it shows, until the last
    such viewer has left; it takes a slot there, and the right to control the stream.

    A stream that is published at another service (`cluster.peers`) is watched there.
    """
    if (elsewhere := await passed_on(request, service, stream)) is not None:
        return elsewhere
    compare = None
    if backend is not None:
        if view is View.SOURCE:
            raise Problem(
                422,
                "invalid-request",
                "Invalid request",
                "a view is either the source or a backend's picture",
                found="view=source and backend",
                expected="one of the two",
            )
        compare = Compare(backend, (await must_also_control(request, caller, stream)).grant)
    sdp = await _read_body(request, _SDP)
    answered = await service.watch(stream, sdp, caller, view, compare)
    return _created(request, answered)


@whip_whep.get("/whip/{stream}", status_code=204, dependencies=_PUBLISH)
async def publish_address(stream: StreamName) -> Response:
    """Nothing to get here; says that the address exists and the token fits."""
    return Response(status_code=204)


@whip_whep.get("/whep/{stream}", status_code=204, dependencies=_VIEW)
async def watch_address(stream: StreamName) -> Response:
    """Nothing to get here; says that the address exists and the token fits."""
    return Response(status_code=204)


@whip_whep_open.options("/whip/{stream}", status_code=204)
async def publish_options(stream: StreamName, request: Request, service: TheService) -> Response:
    """What can be posted, and with a valid token which ICE servers to use."""
    return await _options(service, request, Scope.PUBLISH)


@whip_whep_open.options("/whep/{stream}", status_code=204)
async def watch_options(stream: StreamName, request: Request, service: TheService) -> Response:
    """What can be posted, and with a valid token which ICE servers to use."""
    return await _options(service, request, Scope.VIEW)


@whip_whep_open.options("/sessions/{session_id}", status_code=204)
async def session_options(session_id: str) -> Response:
    """What can be patched; the same for all names, known or not."""
    return Response(status_code=204, headers=_SESSION_OPTIONS)


@whip_whep.get("/sessions/{session_id}", status_code=204, dependencies=_SESSION)
async def session_address(session_id: str) -> Response:
    """Nothing to get here (RFC 9725 section 4.2); see /api/v1/sessions for figures."""
    return Response(status_code=204)


@whip_whep.patch(
    "/sessions/{session_id}", status_code=204, dependencies=_SESSION, openapi_extra=_TRICKLED
)
async def trickle(session_id: str, request: Request, service: TheService) -> Response:
    """Add ICE candidates (RFC 8840 fragment). An ICE restart is refused; the session goes on."""
    session = service.sessions.get(session_id)
    fragment = await _read_body(request, _FRAGMENT)
    _check_entity_tag(request, session)
    await service.trickle(session, fragment)
    return Response(status_code=204)


@whip_whep.delete("/sessions/{session_id}", dependencies=_SESSION)
async def end_session(session_id: str, service: TheService) -> Response:
    """End a session; its resources are freed."""
    await service.end(service.sessions.get(session_id), "ended by the client")
    return Response(status_code=200)


@whip_whep.get(
    "/api/v1/sessions/{session_id}", tags=["control"], dependencies=[of_session(Scope.CONTROL)]
)
async def read_session(session_id: str, service: TheService) -> answers.Session:
    """What is known of one session; `rtp_origin` is the RTP timestamp of pts 0."""
    session = service.sessions.get(session_id)
    return {
        "id": session.id,
        "role": session.role,
        "stream": session.stream,
        "state": session.peer.state,
        "codec": session.peer.codec,
        "rtp_origin": session.peer.rtp_origin,
        "bitrate_bps": session.bitrate_bps(service.clock.now_s()),
        "packets_lost": await session.peer.packets_lost(),
    }


async def _read_body(request: Request, expected: str) -> str:
    """The body, at most 32 KiB. Raises Problem 415, 413 or 400."""
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != expected:
        raise Problem(
            415,
            "content-type",
            "Unsupported media type",
            "SDP of another kind is expected",
            found=media_type or "no Content-Type",
            expected=expected,
            headers={"Accept-Patch" if expected == _FRAGMENT else "Accept-Post": expected},
        )
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_SDP_BYTES:
            raise Problem(
                413,
                "sdp-too-large",
                "SDP too large",
                "the offer is larger than any real one",
                found=f"more than {MAX_SDP_BYTES} bytes",
                expected=f"at most {MAX_SDP_BYTES} bytes",
            )
    try:
        return body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Problem(
            400, "malformed-sdp", "Malformed SDP", f"the body is not UTF-8 text: {error.reason}"
        ) from error


def _check_entity_tag(request: Request, session: Session) -> None:
    """RFC 9725 section 4.3: 428 without If-Match, 412 with another session's; `*` fits always."""
    given = request.headers.get("if-match")
    if given is None:
        raise Problem(
            428,
            "if-match-missing",
            "If-Match required",
            "say which ICE session is meant",
            expected="If-Match with the ETag of the 201",
        )
    tags = {tag.strip() for tag in given.split(",")}
    if not tags & {session.etag, "*", '"*"'}:
        raise Problem(
            412,
            "if-match",
            "Another ICE session",
            "the ETag is not that of this session",
            found=given[:80],
            expected="the ETag of the 201, or *",
        )


def _created(request: Request, answered: Answered) -> Response:
    session = answered.session
    where = outside(request, f"/sessions/{session.id}")
    response = Response(answered.sdp, 201, {"Location": where}, _SDP)
    response.headers["ETag"] = session.etag
    _add_links(response, answered.ice)
    return response


async def _options(service: Service, request: Request, scope: Scope) -> Response:
    response = Response(status_code=204, headers=_ENDPOINT_OPTIONS)
    if await allowed(request, scope):
        # Credentials of a TURN server are for those who may use the service.
        _add_links(response, service.ice_now())
    return response


def _add_links(response: Response, ice: IceConfig) -> None:
    for server in ice.servers:
        response.headers.append("Link", ice_link(server))


def ice_link(server: IceServer) -> str:
    """The value of a `Link` header field for this server (RFC 9725 section 4.6)."""
    link = f'<{server.urls}>; rel="ice-server"'
    if server.username is not None and server.credential is not None:
        link += (
            f'; username="{_quoted(server.username)}"; credential="{_quoted(server.credential)}"'
            '; credential-type="password"'
        )
    return link


def _quoted(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')
