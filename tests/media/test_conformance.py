"""WHIP (RFC 9725) and WHEP (draft-ietf-wish-whep-03): one test a line of the checklist."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from tests.clips import coded_clip
from tests.peers import publishing, watching
from tests.serving import Served, until

from streamlift.config import AuthConfig, BackendConfig, Config, IceConfig, IceServer, IngestConfig
from streamlift.media.rtc.connection import Peer

pytestmark = pytest.mark.peer

Serve = Callable[..., Awaitable[Served]]
PLAIN = Config(backends=(BackendConfig("bicubic", "bicubic"),), default_backend="bicubic")
SDP = "application/sdp"
FRAGMENT = "application/trickle-ice-sdpfrag"
CANDIDATE = "a=candidate:1 1 udp 2130706431 127.0.0.1 50000 typ host"
ENDPOINTS = pytest.mark.parametrize("endpoint", ["whip", "whep"])
TOKENS = AuthConfig(publish=("pub",), view=("view",), control=("control",))


def config(**changes: object) -> Config:
    import dataclasses

    return dataclasses.replace(PLAIN, **changes)  # type: ignore[arg-type]


async def make_offer(*media: tuple[str, str]) -> str:
    peer = Peer(IceConfig())
    try:
        for kind, direction in media:
            peer.add(kind, direction)
        return await peer.offer()
    finally:
        await peer.close()


async def whip_offer() -> str:
    return await make_offer(("video", "sendonly"))


async def post(
    served: Served, path: str, body: str, *, kind: str = SDP, token: str | None = None
) -> httpx.Response:
    headers = {"Content-Type": kind}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    async with served.http() as http:
        return await http.post(path, content=body, headers=headers)


async def ask(
    served: Served, method: str, path: str, body: str = "", **headers: str
) -> httpx.Response:
    async with served.http() as http:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return await http.request(method, path, content=body, headers=named)


@pytest.fixture
async def plain(serve: Serve) -> Served:
    return await serve(PLAIN)


@asynccontextmanager
async def live(served: Served) -> AsyncIterator[None]:
    async with publishing(served.whip(), coded_clip(gop=25)):

        def shown() -> bool:
            return any(s.state == "live" for s in served.parts.router.streams())

        await until(shown, "the stream to be live")
        yield


async def session(served: Served) -> httpx.Response:
    response = await post(served, "/whip/a", await whip_offer())
    assert response.status_code == 201, response.text
    return response


# ---- POST ----


async def test_201_with_the_answer_a_location_and_a_strong_etag(plain: Served) -> None:
    first, second = await session(plain), await session(plain)
    assert first.headers["content-type"].split(";")[0] == SDP
    assert first.text.startswith("v=0")
    # RFC 9725: unguessable; 122 bits are 21 letters of base64.
    assert re.fullmatch(r"/sessions/[\w-]{21,}", first.headers["location"])
    assert re.fullmatch(r'"[\w-]+"', first.headers["etag"])
    assert first.headers["location"] != second.headers["location"]
    assert first.headers["etag"] != second.headers["etag"]


async def test_the_content_type_may_have_parameters_and_capitals(plain: Served) -> None:
    kind = "Application/SDP; charset=utf-8"
    assert (await post(plain, "/whip/a", await whip_offer(), kind=kind)).status_code == 201


@pytest.mark.parametrize("kind", ["text/plain", "application/json", ""])
@ENDPOINTS
async def test_another_content_type_is_415(plain: Served, endpoint: str, kind: str) -> None:
    response = await post(plain, f"/{endpoint}/a", await whip_offer(), kind=kind)
    assert response.status_code == 415
    assert response.headers["accept-post"] == SDP


@pytest.mark.parametrize("body", ["", "hello", "v=0\r\nm=video"])
@ENDPOINTS
async def test_what_is_no_sdp_is_4xx(plain: Served, endpoint: str, body: str) -> None:
    response = await post(plain, f"/{endpoint}/a", body)
    assert response.status_code in (400, 422)
    assert response.headers["content-type"] == "application/problem+json"


async def test_more_than_32_kib_is_413(plain: Served) -> None:
    assert (await post(plain, "/whip/a", "v=0\r\n" + "a" * 33_000)).status_code == 413


async def test_the_answer_holds_all_candidates_and_the_end_of_them(plain: Served) -> None:
    answer = (await session(plain)).text
    assert "a=candidate:" in answer
    assert "a=end-of-candidates" in answer
    assert "trickle" not in answer


async def test_a_sendonly_offer_is_answered_recvonly_passive_and_mux_only(plain: Served) -> None:
    answer = (await session(plain)).text
    assert "a=recvonly" in answer
    assert "a=setup:passive" in answer
    assert answer.count("a=rtcp-mux-only") == answer.count("m=video") == 1
    assert "a=group:BUNDLE 0" in answer


@pytest.mark.parametrize("direction", ["recvonly", "inactive"])
async def test_whip_without_anything_to_send_is_4xx(plain: Served, direction: str) -> None:
    offer = await make_offer(("video", direction))
    assert (await post(plain, "/whip/a", offer)).status_code == 422


async def test_whep_without_anything_to_receive_is_4xx(plain: Served) -> None:
    assert (await post(plain, "/whep/a", await whip_offer())).status_code == 422


async def test_two_videos_are_422(plain: Served) -> None:
    offer = await make_offer(("video", "sendonly"), ("video", "sendonly"))
    assert (await post(plain, "/whip/a", offer)).status_code == 422


async def test_two_media_streams_are_422(plain: Served) -> None:
    offer = await make_offer(("video", "sendonly"), ("audio", "sendonly"))
    head, tail = offer.rsplit("a=msid:", 1)
    response = await post(plain, "/whip/a", f"{head}a=msid:another-{tail}")
    assert response.status_code == 422
    assert "MediaStream" in response.json()["detail"]


def checked(served: Served) -> list[Any]:
    """The candidates that the one session checks."""
    (session,) = served.parts.sessions
    peer: Any = session.peer
    transceiver = peer._peer.connection.getTransceivers()[0]
    remotes: list[Any] = transceiver.receiver.transport.transport.getRemoteCandidates()
    return remotes


async def test_of_more_than_64_candidates_the_surplus_is_ignored(plain: Served) -> None:
    lines = [CANDIDATE.replace("50000", str(50_000 + n)) for n in range(100)]
    offer = await whip_offer() + "\r\n".join(lines) + "\r\n"
    assert (await post(plain, "/whip/a", offer)).status_code == 201
    assert len(checked(plain)) == 64


async def test_audio_is_accepted_with_the_video(plain: Served) -> None:
    offer = await make_offer(("video", "sendonly"), ("audio", "sendonly"))
    answer = (await post(plain, "/whip/a", offer)).text
    video, audio = answer.split("\r\nm=")[1:]
    assert "a=recvonly" in video
    assert not audio.startswith("audio 0 ")
    assert "a=recvonly" in audio
    assert "opus/48000" in audio
    assert answer.count("a=rtcp-mux-only") == 2


async def test_audio_that_cannot_be_served_refuses_the_whole_offer(plain: Served) -> None:
    offer = await make_offer(("video", "sendonly"), ("audio", "sendonly"))
    offer = re.sub(r"(?i)(opus|g722|pcmu|pcma)/", "L16/", offer)
    offer = re.sub(r"(m=audio \d+ \S+) .*", r"\1 96", offer).replace("a=rtpmap:96 L16", "a=x")
    assert (await post(plain, "/whip/a", offer)).status_code == 422


async def test_a_datachannel_is_refused(plain: Served) -> None:
    offer = await whip_offer() + "m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\na=mid:9\r\n"
    assert (await post(plain, "/whip/a", offer)).status_code == 422


async def test_whep_while_nobody_publishes_is_409_with_retry_after(plain: Served) -> None:
    response = await post(plain, "/whep/a", await make_offer(("video", "recvonly")))
    assert response.status_code == 409
    assert int(response.headers["retry-after"]) >= 1


async def test_whip_to_a_taken_name_is_409_where_takeover_is_off(serve: Serve) -> None:
    served = await serve(config(ingest=IngestConfig(takeover=False)))
    async with live(served):
        assert (await post(served, "/whip/live", await whip_offer())).status_code == 409


async def test_whep_is_answered_sendonly_of_one_media_stream(plain: Served) -> None:
    async with live(plain):
        offer = await make_offer(("video", "recvonly"), ("audio", "recvonly"))
        response = await post(plain, "/whep/live", offer)
        assert response.status_code == 201
        video, audio = response.text.split("\r\nm=")[1:]
        assert "a=sendonly" in video
        assert not audio.startswith("audio 0 ")  # that would be a refusal
        assert "a=inactive" in audio
        assert len(set(re.findall(r"a=msid:(\S+)", response.text))) <= 1


async def test_too_many_handshakes_of_one_address_are_429_with_retry_after(
    plain: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streamlift.media.rtc.connection.CONNECT_S", 60.0)  # none may end meanwhile
    offer = await whip_offer()
    last = None
    async with plain.http() as http:
        for number in range(70):
            last = await http.post(f"/whip/s{number}", content=offer, headers={"Content-Type": SDP})
            if last.status_code != 201:
                break
    assert last is not None
    assert last.status_code == 429
    assert number == plain.parts.config.limits.handshakes_per_address
    assert int(last.headers["retry-after"]) >= 1


# ---- ICE servers ----

TURN = IceConfig(
    servers=(
        IceServer("stun:stun.example.org:3478"),
        IceServer("turn:turn.example.org:3478?transport=tcp"),
    ),
    turn_secret="north",
    turn_ttl_s=300,
)


def check_links(links: list[str], now_s: float) -> None:
    stun, turn = links
    assert stun == '<stun:stun.example.org:3478>; rel="ice-server"'
    found = re.fullmatch(
        r'<turn:turn\.example\.org:3478\?transport=tcp>; rel="ice-server"; '
        r'username="(\d+):streamlift"; credential="(.+)"; credential-type="password"',
        turn,
    )
    assert found is not None, turn
    assert int(found[1]) == int(now_s) + 300
    digest = hmac.new(b"north", f"{found[1]}:streamlift".encode(), hashlib.sha1).digest()
    assert found[2] == base64.b64encode(digest).decode()


async def test_ice_servers_come_as_links_with_time_limited_credentials(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    served = await serve(config(ice=TURN))
    served.parts.unix_s = lambda: 1_700_000_000.5
    # No such servers here: what is told matters, not what they would answer.
    monkeypatch.setattr("streamlift.media.rtc.connection.RTCIceServer", lambda *_: None)
    monkeypatch.setattr("aiortc.rtcicetransport.connection_kwargs", lambda _: {})
    check_links((await session(served)).headers.get_list("link"), 1_700_000_000)
    options = await ask(served, "OPTIONS", "/whip/a")
    check_links(options.headers.get_list("link"), 1_700_000_000)


async def test_a_preflight_has_no_links(serve: Serve) -> None:
    served = await serve(config(ice=TURN))
    response = await ask(
        served, "OPTIONS", "/whip/a", Origin=served.url, Access_Control_Request_Method="POST"
    )
    assert response.status_code == 204
    assert "link" not in response.headers


async def test_turn_credentials_are_not_for_those_without_a_token(serve: Serve) -> None:
    served = await serve(config(ice=TURN, auth=TOKENS))
    without = await ask(served, "OPTIONS", "/whip/a")
    assert without.status_code == 204
    assert "link" not in without.headers
    having = await ask(served, "OPTIONS", "/whip/a", Authorization="Bearer pub")
    assert len(having.headers.get_list("link")) == 2


# ---- OPTIONS, GET, other methods ----


@ENDPOINTS
async def test_options_needs_no_token_and_tells_what_to_post(serve: Serve, endpoint: str) -> None:
    served = await serve(config(auth=TOKENS))
    response = await ask(served, "OPTIONS", f"/{endpoint}/a")
    assert response.status_code in (200, 204)
    assert response.headers["accept-post"] == SDP


@pytest.mark.parametrize("path", ["/whip/a", "/whep/a", "/sessions/x"])
async def test_a_preflight_allows_what_clients_send(serve: Serve, path: str) -> None:
    served = await serve(config(auth=TOKENS))
    response = await ask(
        served, "OPTIONS", path, Origin="https://app.example", Access_Control_Request_Method="POST"
    )
    assert response.status_code in (200, 204)
    assert response.headers["access-control-allow-origin"] == "https://app.example"
    allowed = response.headers["access-control-allow-methods"].replace(" ", "").split(",")
    assert {"POST", "PATCH", "DELETE", "OPTIONS"} <= set(allowed)
    headers = response.headers["access-control-allow-headers"].lower()
    assert all(name in headers for name in ("authorization", "content-type", "if-match"))


async def test_every_response_exposes_the_headers_that_matter(serve: Serve) -> None:
    served = await serve(config(auth=TOKENS))
    refused = await ask(served, "POST", "/whip/a", Origin="https://app.example")
    assert refused.status_code == 401
    exposed = refused.headers["access-control-expose-headers"]
    assert all(name in exposed for name in ("Location", "ETag", "Link", "Retry-After"))


@ENDPOINTS
async def test_get_on_an_endpoint_is_204(plain: Served, endpoint: str) -> None:
    response = await ask(plain, "GET", f"/{endpoint}/a")
    assert (response.status_code, response.content) == (204, b"")


async def test_get_on_a_session_is_204(plain: Served) -> None:
    location = (await session(plain)).headers["location"]
    assert (await ask(plain, "GET", location)).status_code == 204


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/whip/a", {"GET", "OPTIONS", "POST"}),
        ("/whep/a", {"GET", "OPTIONS", "POST"}),
        ("/sessions/x", {"DELETE", "GET", "OPTIONS", "PATCH"}),
    ],
)
async def test_other_methods_are_405_with_allow(
    plain: Served, path: str, allowed: set[str]
) -> None:
    response = await ask(plain, "PUT", path)
    assert response.status_code == 405
    assert set(response.headers["allow"].split(", ")) == allowed
    assert response.headers["content-type"] == "application/problem+json"


# ---- PATCH ----


async def patch(served: Served, location: str, body: str, **headers: str) -> httpx.Response:
    return await ask(served, "PATCH", location, body, Content_Type=FRAGMENT, **headers)


def fragment(*lines: str) -> str:
    return "\r\n".join(("m=video 9 UDP/TLS/RTP/SAVPF 0", "a=mid:0", *lines)) + "\r\n"


@pytest.mark.parametrize("match", [None, "*", '"*"'])
async def test_candidates_are_204_without_body_and_etag(plain: Served, match: str | None) -> None:
    made = await session(plain)
    response = await patch(
        plain,
        made.headers["location"],
        fragment(CANDIDATE),
        If_Match=match or made.headers["etag"],
    )
    assert (response.status_code, response.content) == (204, b"")
    assert "etag" not in response.headers


@pytest.mark.parametrize(
    "line",
    [
        "a=candidate:1 1 tcp 1 127.0.0.1 9 typ host tcptype active",
        "a=candidate:1 1 udp 1 nowhere.local 5000 typ host",
        "a=candidate:1 1 udp 1 no.such.example 5000 typ host",
        "a=candidate:rubbish",
        "a=candidate:1 1 udp 1 127.0.0.1 5000 typ srflx raddr 0.0.0.0 rport x",
        "a=candidate:1 1 udp 1 127.0.0.1 5000 typ unheard-of",
        "a=end-of-candidates",
    ],
)
async def test_candidates_of_no_use_are_skipped(plain: Served, line: str) -> None:
    location = (await session(plain)).headers["location"]
    assert (await patch(plain, location, fragment(line), If_Match="*")).status_code == 204
    assert (await patch(plain, location, fragment(CANDIDATE), If_Match="*")).status_code == 204


async def test_an_empty_fragment_is_204(plain: Served) -> None:
    location = (await session(plain)).headers["location"]
    assert (await patch(plain, location, "", If_Match="*")).status_code == 204


async def test_patch_without_if_match_is_428(plain: Served) -> None:
    location = (await session(plain)).headers["location"]
    assert (await patch(plain, location, fragment(CANDIDATE))).status_code == 428


async def test_patch_with_another_etag_is_412(plain: Served) -> None:
    location = (await session(plain)).headers["location"]
    response = await patch(plain, location, fragment(CANDIDATE), If_Match='"another"')
    assert response.status_code == 412


@pytest.mark.parametrize("match", ["*", '"*"'])
async def test_an_ice_restart_is_422_and_the_session_lives(plain: Served, match: str) -> None:
    location = (await session(plain)).headers["location"]
    restart = fragment("a=ice-ufrag:anew", "a=ice-pwd:0123456789abcdef012345", CANDIDATE)
    assert (await patch(plain, location, restart, If_Match=match)).status_code == 422
    assert (await patch(plain, location, fragment(CANDIDATE), If_Match="*")).status_code == 204
    assert (await ask(plain, "GET", location)).status_code == 204


async def test_the_offers_own_credentials_are_no_restart(plain: Served) -> None:
    offer = await whip_offer()
    made = await post(plain, "/whip/a", offer)
    own = re.findall(r"a=ice-(?:ufrag|pwd):\S+", offer)
    body = "\r\n".join(own) + "\r\n" + fragment(CANDIDATE)
    assert (await patch(plain, made.headers["location"], body, If_Match="*")).status_code == 204


async def test_patch_of_another_type_is_415_and_of_rubbish_400(plain: Served) -> None:
    location = (await session(plain)).headers["location"]
    answer = await ask(plain, "PATCH", location, "v=0", Content_Type=SDP, If_Match="*")
    assert answer.status_code == 415
    assert (await patch(plain, location, "{}", If_Match="*")).status_code == 400


async def test_patch_of_an_unknown_session_is_404(plain: Served) -> None:
    response = await patch(plain, "/sessions/unknown", fragment(CANDIDATE), If_Match="*")
    assert response.status_code == 404


async def test_candidates_of_one_session_have_a_bound(plain: Served) -> None:
    location = (await session(plain)).headers["location"]
    lines = [CANDIDATE.replace("50000", str(50_000 + n)) for n in range(40)]
    more = [CANDIDATE.replace("50000", str(51_000 + n)) for n in range(40)]
    for batch in (lines, more):
        assert (await patch(plain, location, fragment(*batch), If_Match="*")).status_code == 204
    assert len(checked(plain)) == 64


# ---- DELETE ----


async def test_delete_is_200_and_then_404_and_ignores_etags(plain: Served) -> None:
    location = (await session(plain)).headers["location"]
    assert (await ask(plain, "DELETE", location, If_Match='"no"')).status_code == 200
    assert (await ask(plain, "DELETE", location)).status_code == 404
    assert (await ask(plain, "GET", location)).status_code == 404


async def test_delete_ends_the_media(plain: Served) -> None:
    async with live(plain), watching(plain.whep(), delete=False) as viewer:
        await viewer.wait_units(3)
        http = viewer.resource.http
        assert (await http.delete(viewer.resource.location)).status_code == 200
        await until(lambda: viewer.peer.state == "closed", "the connection to be closed")


# ---- tokens ----


@pytest.mark.parametrize(
    ("token", "status"), [(None, 401), ("wrong", 401), ("view", 403), ("pub", 201)]
)
async def test_publishing_needs_the_right_token(
    serve: Serve, token: str | None, status: int
) -> None:
    served = await serve(config(auth=TOKENS))
    response = await post(served, "/whip/a", await whip_offer(), token=token)
    assert response.status_code == status
    if status == 401:
        assert response.headers["www-authenticate"].startswith("Bearer")


@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "/whep/a"), ("GET", "/whip/a"), ("GET", "/whep/a")],
)
async def test_every_request_but_options_needs_a_token(
    serve: Serve, method: str, path: str
) -> None:
    served = await serve(config(auth=TOKENS))
    assert (await ask(served, method, path)).status_code == 401


@pytest.mark.parametrize("method", ["DELETE", "PATCH", "GET"])
async def test_a_session_is_guarded_like_its_endpoint(serve: Serve, method: str) -> None:
    served = await serve(config(auth=TOKENS))
    made = await post(served, "/whip/a", await whip_offer(), token="pub")
    location = made.headers["location"]
    assert (await ask(served, method, location)).status_code == 401
    viewer = {"Authorization": "Bearer view"}
    assert (await ask(served, method, location, **viewer)).status_code == 403
