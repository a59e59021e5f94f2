"""WHIP (RFC 9725) and WHEP (draft-ietf-wish-whep): offers in, answers out, sessions to end."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query, Request, Response

from streamlift.api.auth import Scope, authorise
from streamlift.api.door import service_of
from streamlift.api.problems import Problem
from streamlift.codec import THIN
from streamlift.config import NAME_PATTERN, IceConfig
from streamlift.errors import (
    NotReady,
    StreamliftError,
    UnknownStream,
    UnsupportedOffer,
)
from streamlift.frames import Codec
from streamlift.media.incoming.whip_publisher import WhipPublisher
from streamlift.media.outgoing.whep_viewer import WhepViewer
from streamlift.media.rtc.sdp import MAX_CANDIDATES, Role, read_fragment, read_offer
from streamlift.media.rtc.turn import ice_link, ice_servers
from streamlift.routing import Cursor, View, supervise
from streamlift.service import Service, Session

__all__ = ["StreamName", "has_sound", "ice_now", "signalling"]

MAX_SDP_BYTES = 32 * 1024
_SDP = "application/sdp"
_FRAGMENT = "application/trickle-ice-sdpfrag"
_RETRY_VIEW_S = "1"

signalling = APIRouter(tags=["WHIP and WHEP"])

_ENDPOINT_OPTIONS = {
    "Accept-Post": _SDP,
    "Access-Control-Allow-Methods": "GET, POST, OPTIONS",
    "Access-Control-Allow-Headers": "Authorization, Content-Type, If-Match",
}
_SESSION_OPTIONS = {
    "Accept-Patch": _FRAGMENT,
    "Access-Control-Allow-Methods": "GET, PATCH, DELETE, OPTIONS",
    "Access-Control-Allow-Headers": "Authorization, Content-Type, If-Match",
}

StreamName = Annotated[str, Path(pattern=f"^{NAME_PATTERN}$", description="Stream name")]
TheService = Annotated[Service, Depends(service_of)]


@signalling.post("/whip/{stream}", status_code=201, response_class=Response)
async def publish(stream: StreamName, request: Request, service: TheService) -> Response:
    """Publish: body is an SDP offer, the answer comes back, `Location` names the session."""
    authorise(request, service.config.auth, Scope.PUBLISH)
    _refuse_when_draining(service)
    offer = read_offer(await _read_body(request, _SDP), Role.PUBLISH)
    service.router.admit(stream)
    ice = ice_now(service)
    with service.sessions.answering():
        publisher = WhipPublisher(
            stream,
            ice,
            max_side=service.config.ingest.max_size,
            clock=service.clock,
            metrics=service.metrics,
        )
        answer = await publisher.answer(offer)
    session = service.sessions.open(Role.PUBLISH, stream, publisher, offer.ice_ufrag)
    service.metrics.count("sessions_total", role="publisher", result="answered")
    work = _run_publisher(service, session, publisher)
    service.tasks.create_task(supervise(f"publisher of stream {stream}", work))
    response = _created(session, answer, ice)
    # Players of daydream look for the picture under this name.
    response.headers["Livepeer-Playback-URL"] = str(request.url_for("watch", stream=stream))
    return response


@signalling.post("/whep/{stream}", status_code=201, response_class=Response)
async def watch(
    stream: StreamName,
    request: Request,
    service: TheService,
    view: Annotated[View, Query(description="What to watch")] = View.UPSCALED,
) -> Response:
    """Watch: body is an SDP offer, the answer comes back, `Location` names the session."""
    authorise(request, service.config.auth, Scope.VIEW)
    _refuse_when_draining(service)
    offer = read_offer(await _read_body(request, _SDP), Role.VIEW)
    codecs = _codecs_of(service, stream, view)
    router = service.router
    ice = ice_now(service)
    with service.sessions.answering():
        viewer = WhepViewer(
            stream,
            ice,
            service.packetizer,
            clock=service.clock,
            metrics=service.metrics,
        )
        answer = await viewer.answer(offer, codecs, sound=has_sound(service, stream))
    session = service.sessions.open(Role.VIEW, stream, viewer, offer.ice_ufrag)
    service.metrics.count("sessions_total", role="viewer", result="answered")

    def open_frames(slow: bool) -> AbstractContextManager[Cursor]:
        if view is View.SOURCE:
            return router.watch(stream, view)  # as the publisher sends it, for every link
        return router.watch(stream, view, viewer.codec, THIN if slow else None)

    work = _run_viewer(service, session, viewer, open_frames)
    service.tasks.create_task(supervise(f"viewer of stream {stream}", work))
    return _created(session, answer, ice)


@signalling.get("/whip/{stream}", status_code=204)
async def publish_address(stream: StreamName, request: Request, service: TheService) -> Response:
    """Nothing to get here; says that the address exists and the token fits."""
    authorise(request, service.config.auth, Scope.PUBLISH)
    return Response(status_code=204)


@signalling.get("/whep/{stream}", status_code=204)
async def watch_address(stream: StreamName, request: Request, service: TheService) -> Response:
    """Nothing to get here; says that the address exists and the token fits."""
    authorise(request, service.config.auth, Scope.VIEW)
    return Response(status_code=204)


@signalling.options("/whip/{stream}", status_code=204)
async def publish_options(stream: StreamName, request: Request, service: TheService) -> Response:
    """What can be posted, and with a valid token which ICE servers to use."""
    return _options(service, request, Scope.PUBLISH)


@signalling.options("/whep/{stream}", status_code=204)
async def watch_options(stream: StreamName, request: Request, service: TheService) -> Response:
    """What can be posted, and with a valid token which ICE servers to use."""
    return _options(service, request, Scope.VIEW)


@signalling.options("/sessions/{session_id}", status_code=204)
async def session_options(session_id: str) -> Response:
    """What can be patched; the same for all names, known or not."""
    return Response(status_code=204, headers=_SESSION_OPTIONS)


@signalling.get("/sessions/{session_id}", status_code=204)
async def session_address(session_id: str, request: Request, service: TheService) -> Response:
    """Nothing to get here (RFC 9725 section 4.2); see /api/v1/sessions for figures."""
    session = service.sessions.get(session_id)
    authorise(request, service.config.auth, _door(session))
    return Response(status_code=204)


@signalling.patch("/sessions/{session_id}", status_code=204)
async def trickle(session_id: str, request: Request, service: TheService) -> Response:
    """Add ICE candidates (RFC 8840 fragment). An ICE restart is refused; the session goes on."""
    session = service.sessions.get(session_id)
    authorise(request, service.config.auth, _door(session))
    fragment = read_fragment(await _read_body(request, _FRAGMENT))
    _check_entity_tag(request, session)
    if fragment.ice_ufrag is not None and fragment.ice_ufrag != session.ice_ufrag:
        raise Problem(
            422,
            "ice-restart",
            "ICE restart not supported",
            "the session goes on as it is; to reconnect, delete it and post a new offer",
            found="another ice-ufrag",
            expected="the offer's ice-ufrag, or none",
        )
    session.candidates += len(fragment.candidates)
    if session.candidates > MAX_CANDIDATES:
        raise UnsupportedOffer(
            "too many ICE candidates", found=session.candidates, expected=MAX_CANDIDATES
        )
    await session.peer.add_candidates(fragment.candidates)
    return Response(status_code=204)


@signalling.delete("/sessions/{session_id}")
async def end_session(session_id: str, request: Request, service: TheService) -> Response:
    """End a session; its resources are freed."""
    session = service.sessions.get(session_id)
    authorise(request, service.config.auth, _door(session))
    await session.peer.aclose("ended by the client")
    service.sessions.remove(session)
    return Response(status_code=200)


@signalling.get("/api/v1/sessions/{session_id}", tags=["control"])
async def read_session(session_id: str, request: Request, service: TheService) -> dict[str, Any]:
    """What is known of one session; `rtp_origin` is the RTP timestamp of pts 0."""
    session = service.sessions.get(session_id)
    authorise(request, service.config.auth, _door(session), Scope.CONTROL)
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


async def _run_publisher(service: Service, session: Session, publisher: WhipPublisher) -> None:
    """The life of a publisher: its connection beside its place in the stream."""
    try:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(publisher.run())
            # Only a publisher that really sends takes a stream over.
            if await publisher.wait_live():
                with _relaying(service, session.stream, publisher, tasks):
                    try:
                        await service.router.publish(session.stream, publisher)
                    except StreamliftError as error:
                        await publisher.aclose(str(error))
                    else:
                        await publisher.aclose("stream ended")
    finally:
        service.sessions.remove(session)


@contextmanager
def _relaying(
    service: Service, stream: str, publisher: WhipPublisher, tasks: asyncio.TaskGroup
) -> Iterator[None]:
    """Pass the publisher's sound on, or drain it, until the block ends."""
    if publisher.audio is None:
        yield
        return
    with service.audio.use(stream) as relay:
        relaying = tasks.create_task(relay.run(publisher.audio))
        try:
            yield
        finally:
            relaying.cancel()


async def _run_viewer(
    service: Service, session: Session, viewer: WhepViewer, open_frames: Any
) -> None:
    try:
        with service.audio.use(session.stream) as relay, relay.listen() as sound:
            await viewer.run(open_frames, sound)
    finally:
        service.sessions.remove(session)


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


def ice_now(service: Service) -> IceConfig:
    """The ICE settings with TURN credentials that are valid from now on."""
    ice = service.config.ice
    return dataclasses.replace(ice, servers=ice_servers(ice, service.unix_s()))


def _created(session: Session, answer: str, ice: IceConfig) -> Response:
    response = Response(answer, 201, {"Location": f"/sessions/{session.id}"}, _SDP)
    response.headers["ETag"] = session.etag
    _add_links(response, ice)
    return response


def _options(service: Service, request: Request, scope: Scope) -> Response:
    response = Response(status_code=204, headers=_ENDPOINT_OPTIONS)
    try:
        authorise(request, service.config.auth, scope)
    except Problem:
        return response  # credentials of a TURN server are for those who may use the service
    _add_links(response, ice_now(service))
    return response


def _add_links(response: Response, ice: IceConfig) -> None:
    for server in ice.servers:
        response.headers.append("Link", ice_link(server))


def has_sound(service: Service, stream: str) -> bool:
    """Whether the stream has Opus at this moment. Raises UnknownStream."""
    publisher = service.router.stream(stream).publisher
    return publisher is not None and publisher.audio is not None


def _codecs_of(service: Service, stream: str, view: View) -> tuple[Codec, ...]:
    """The codecs this view can be sent in, preferred first. Raises Problem 409 when none is."""
    try:
        snapshot = service.router.stream(stream).snapshot()
    except UnknownStream as error:
        raise Problem(
            409,
            "nothing-published",
            "Nothing is published",
            f"nobody publishes to stream {stream!r} now; try again when somebody does",
            found=error.expected,
            expected=stream,
            headers={"Retry-After": _RETRY_VIEW_S},
        ) from error
    if view is View.SOURCE:
        if snapshot.publisher is None or snapshot.publisher.codec is None:
            raise Problem(
                409,
                "no-source",
                "No source picture",
                f"stream {stream!r} has no publisher now whose pictures could be relayed",
                headers={"Retry-After": _RETRY_VIEW_S},
            )
        return (snapshot.publisher.codec,)
    default = Codec(service.config.encode.codec)
    return (default, *(codec for codec in Codec if codec is not default))


def _door(session: Session) -> Scope:
    return Scope.PUBLISH if session.role is Role.PUBLISH else Scope.VIEW


def _refuse_when_draining(service: Service) -> None:
    if service.draining:
        raise NotReady("the service is shutting down", found="draining", expected="ready")
