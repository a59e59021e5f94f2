"""What daydream's own browser SDK and OBS plugin expect of a WHIP and WHEP server."""

from __future__ import annotations

import re

import httpx
import pytest
from aiortc import RTCPeerConnection, RTCRtpSender, RTCSessionDescription
from aiortc.mediastreams import AudioStreamTrack
from tests.clips import coded_clip
from tests.peers import publishing
from tests.serving import Served, serving

from streamlift.config import BackendConfig, Config

pytestmark = pytest.mark.peer

PAGE = "https://daydream.example"
SDP = {"Content-Type": "application/sdp", "Origin": PAGE}
CONFIG = Config(default_backend="bicubic", backends=(BackendConfig("bicubic", "bicubic"),))


async def offer_of(video: str, audio: str) -> tuple[RTCPeerConnection, str]:
    """An offer with H264 only and audio, complete with candidates, as those clients send it."""
    connection = RTCPeerConnection()
    codecs = RTCRtpSender.getCapabilities("video").codecs
    transceiver = connection.addTransceiver("video", direction=video)
    transceiver.setCodecPreferences([c for c in codecs if c.mimeType == "video/H264"])
    kind = AudioStreamTrack() if audio == "sendonly" else "audio"
    connection.addTransceiver(kind, direction=audio)
    await connection.setLocalDescription(await connection.createOffer())
    return connection, connection.localDescription.sdp


async def post(served: Served, path: str, sdp: str) -> httpx.Response:
    async with served.http() as http:
        return await http.post(path, content=sdp, headers=SDP)


def allowing_the_page() -> Config:
    from dataclasses import replace

    return replace(CONFIG, server=replace(CONFIG.server, allowed_origins=(PAGE,)))


async def test_a_whip_answer_says_where_the_upscaled_stream_plays() -> None:
    async with serving(allowing_the_page()) as served:
        connection, sdp = await offer_of("sendonly", "sendonly")
        response = await post(served, "/whip/mine", sdp)
        await connection.close()
        assert response.status_code == 201
        assert response.headers["livepeer-playback-url"] == served.whep("mine")
        assert response.headers["location"].startswith("/sessions/")
        assert response.headers["content-type"].startswith("application/sdp")
        exposed = {h.strip() for h in response.headers["access-control-expose-headers"].split(",")}
    assert {"Location", "ETag", "Link", "Livepeer-Playback-URL"} <= exposed


async def test_audio_that_is_offered_never_gets_port_zero_when_publishing() -> None:
    async with serving(allowing_the_page()) as served:
        connection, sdp = await offer_of("sendonly", "sendonly")
        answer = (await post(served, "/whip/mine", sdp)).text
        await connection.setRemoteDescription(RTCSessionDescription(answer, "answer"))
        await connection.close()
    assert "m=audio" in answer
    assert not re.search(r"^m=audio 0 ", answer, re.MULTILINE)


async def test_audio_without_any_in_the_stream_is_answered_inactive_not_port_zero() -> None:
    async with (
        serving(allowing_the_page()) as served,
        publishing(served.whip("mine"), coded_clip()),
    ):
        await served.live("mine")
        connection, sdp = await offer_of("recvonly", "recvonly")
        response = await post(served, "/whep/mine", sdp)
        await connection.setRemoteDescription(RTCSessionDescription(response.text, "answer"))
        await connection.close()
    assert response.status_code == 201
    audio = response.text[response.text.index("m=audio") :]
    assert "a=inactive" in audio
    assert not audio.startswith("m=audio 0 ")


async def test_the_players_early_tries_are_told_to_come_again() -> None:
    async with serving(allowing_the_page()) as served:
        connection, sdp = await offer_of("recvonly", "recvonly")
        response = await post(served, "/whep/mine", sdp)
        await connection.close()
    assert response.status_code in (404, 409)
    assert response.headers["retry-after"] == "1"


@pytest.mark.parametrize("path", ["/whip/mine", "/whep/mine"])
async def test_a_browsers_preflight_is_answered(path: str) -> None:
    async with serving(allowing_the_page()) as served, served.http() as http:
        response = await http.options(
            path,
            headers={
                "Origin": PAGE,
                "Access-Control-Request-Method": "POST",
                "Access-Control-Request-Headers": "authorization,content-type",
            },
        )
    assert response.status_code == 204
    assert response.headers["access-control-allow-origin"] == PAGE
    assert "POST" in response.headers["access-control-allow-methods"]
    assert "authorization" in response.headers["access-control-allow-headers"].lower()
