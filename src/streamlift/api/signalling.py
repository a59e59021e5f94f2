"""WHIP (RFC 9725) and WHEP (draft-ietf-wish-whep): offers in, answers out, sessions to end."""

from __future__ import annotations

import asyncio
from contextlib import AbstractContextManager
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query, Request, Response

from streamlift.api.auth import Scope, authorise
from streamlift.api.problems import Problem
from streamlift.api.service import Service, service_of
from streamlift.config import NAME_PATTERN
from streamlift.errors import NotReady, StreamError, StreamliftError, UnknownStream
from streamlift.frames import Codec
from streamlift.media import Role, Session, WhepViewer, WhipPublisher, read_offer
from streamlift.routing import Cursor, View, supervise

__all__ = ["StreamName", "signalling"]

MAX_SDP_BYTES = 32 * 1024
_SDP = "application/sdp"
_RETRY_VIEW_S = "1"

signalling = APIRouter(tags=["WHIP and WHEP"])

StreamName = Annotated[str, Path(pattern=f"^{NAME_PATTERN}$", description="Stream name")]
TheService = Annotated[Service, Depends(service_of)]


@signalling.post("/whip/{stream}", status_code=201, response_class=Response)
async def publish(stream: StreamName, request: Request, service: TheService) -> Response:
    """Publish: body is an SDP offer, the answer comes back, `Location` names the session."""
    authorise(request, service.config.auth, Scope.PUBLISH)
    _refuse_when_draining(service)
    offer = read_offer(await _read_sdp(request), Role.PUBLISH)
    service.router.admit(stream)
    with service.sessions.answering():
        publisher = WhipPublisher(
            stream,
            service.config.ice,
            max_side=service.config.ingest.max_size,
            clock=service.clock,
        )
        answer = await publisher.answer(offer)
    session = service.sessions.open(Role.PUBLISH, stream, publisher)
    service.metrics.count("sessions_total", role="publisher", result="answered")
    work = _run_publisher(service, session, publisher)
    service.tasks.create_task(supervise(f"publisher of stream {stream}", work))
    headers = {
        "Location": f"/sessions/{session.id}",
        # Players of daydream look for the picture under this name.
        "Livepeer-Playback-URL": str(request.url_for("watch", stream=stream)),
    }
    return Response(answer, 201, headers, _SDP)


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
    offer = read_offer(await _read_sdp(request), Role.VIEW)
    codecs = _codecs_of(service, stream, view)
    router = service.router
    with service.sessions.answering():
        viewer = WhepViewer(
            stream,
            service.config.ice,
            service.packetizer,
            clock=service.clock,
            on_keyframe_request=lambda: _pass_keyframe_request(service, stream, view),
        )
        answer = await viewer.answer(offer, codecs)
    session = service.sessions.open(Role.VIEW, stream, viewer)
    service.metrics.count("sessions_total", role="viewer", result="answered")

    def open_frames() -> AbstractContextManager[Cursor]:
        return router.watch(stream, view, None if view is View.SOURCE else viewer.codec)

    work = _run_viewer(service, session, viewer, open_frames)
    service.tasks.create_task(supervise(f"viewer of stream {stream}", work))
    return Response(answer, 201, {"Location": f"/sessions/{session.id}"}, _SDP)


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
                try:
                    await service.router.publish(session.stream, publisher)
                except StreamliftError as error:
                    await publisher.aclose(str(error))
                else:
                    await publisher.aclose("stream ended")
    finally:
        service.sessions.remove(session)


async def _run_viewer(
    service: Service, session: Session, viewer: WhepViewer, open_frames: Any
) -> None:
    try:
        await viewer.run(open_frames)
    finally:
        service.sessions.remove(session)


async def _read_sdp(request: Request) -> str:
    """The body, at most 32 KiB. Raises Problem 415, 413 or 400."""
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != _SDP:
        raise Problem(
            415,
            "content-type",
            "Unsupported media type",
            "an SDP offer is expected",
            found=media_type or "no Content-Type",
            expected=_SDP,
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


def _pass_keyframe_request(service: Service, stream: str, view: View) -> None:
    try:
        found = service.router.stream(stream)
    except StreamError:
        return  # the stream has just ended; its viewers end with it
    if view is View.SOURCE:
        found.request_source_keyframe()
    else:
        found.request_keyframe()


def _door(session: Session) -> Scope:
    return Scope.PUBLISH if session.role is Role.PUBLISH else Scope.VIEW


def _refuse_when_draining(service: Service) -> None:
    if service.draining:
        raise NotReady("the service is shutting down", found="draining", expected="ready")
