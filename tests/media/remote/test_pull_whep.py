"""Pulling by WHEP from a gateway of ours that behaves like livepeer's."""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import pytest
from tests.clips import coded_clip
from tests.media.remote.gateway import Asked, Gateway, Switches, gateway, listening, redirector
from tests.serving import until

from streamlift.clock import MonotonicClock
from streamlift.config import IceConfig, SourcesConfig
from streamlift.frames import Frame, Size
from streamlift.media.remote.pull import PullPublisher, PullState
from streamlift.service.pulls import Pulls
from streamlift.stamp import read_stamp

pytestmark = pytest.mark.peer

Until = Callable[[], bool]


class Pulling:
    """A pull and the frames it gave."""

    def __init__(self, pull: PullPublisher) -> None:
        self.pull = pull
        self.frames: list[Frame] = []
        self.waits: list[float] = []

    @property
    def numbers(self) -> list[int]:
        stamps = [read_stamp(frame.planes.y) for frame in self.frames]
        return [stamp.number for stamp in stamps if stamp is not None]

    async def wait(self, frames: int) -> None:
        await until(lambda: len(self.frames) >= frames, f"{frames} frames", timeout_s=15)


@asynccontextmanager
async def pulling(url: str, token: str | None = None) -> AsyncIterator[Pulling]:
    """Pull from a WHEP address; waits between tries take no time but are remembered."""
    clock = MonotonicClock()
    pulls = Pulls(SourcesConfig(("127.0.0.1",)), IceConfig(), max_side=1280, clock=clock)
    it: Pulling

    async def nap(seconds: float) -> None:
        it.waits.append(seconds)
        await asyncio.sleep(0.02)

    it = Pulling(PullPublisher("live", pulls.whep("live", url, token), clock=clock, sleep=nap))

    async def take() -> None:
        async for frame in it.pull:
            it.frames.append(frame)

    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(it.pull.run())
        tasks.create_task(take())
        try:
            yield it
        finally:
            await it.pull.aclose("test over")
            await asyncio.wait([running])


async def test_it_plays_every_frame_of_a_gateway() -> None:
    async with gateway() as (_, url), pulling(url) as it:
        await it.wait(30)
        assert it.pull.status.state is PullState.LIVE
        assert {(b - a) % 50 for a, b in itertools.pairwise(it.numbers)} == {1}
        spacing = {b.pts - a.pts for a, b in zip(it.frames, it.frames[1:], strict=False)}
        assert spacing == {3600}


async def test_the_offer_is_complete_asks_for_h264_and_audio_and_names_its_type_exactly() -> None:
    async with gateway() as (served, url), pulling(url) as it:
        await it.wait(1)
    asked = served.requests("POST")[0]
    assert asked.headers["content-type"] == "application/sdp"
    assert "m=audio" in asked.body
    assert "a=recvonly" in asked.body
    assert "H264/90000" in asked.body
    assert "VP8" not in asked.body
    assert "profile-level-id=42001f" in asked.body
    assert "profile-level-id=42e01f" in asked.body
    assert "packetization-mode=1" in asked.body
    assert asked.body.count("a=candidate:") > 0


@pytest.mark.parametrize("status", [404, 409, 503])
async def test_nothing_to_show_yet_is_asked_again_every_half_second(status: int) -> None:
    async with (
        gateway(Switches(refusals=deque([status] * 3))) as (served, url),
        pulling(url) as it,
    ):
        await it.wait(1)
    assert it.waits == [0.5] * 3
    assert len(served.requests("POST")) == 4


async def test_too_many_viewers_is_asked_again_every_two_seconds() -> None:
    async with gateway(Switches(refusals=deque([429, 429]))) as (_, url), pulling(url) as it:
        await it.wait(1)
    assert it.waits == [2.0] * 2


@pytest.mark.parametrize("status", [401, 403, 415])
async def test_a_refusal_for_good_is_not_repeated(status: int) -> None:
    async with (
        gateway(Switches(refusals=deque([status] * 9))) as (served, url),
        pulling(url) as it,
    ):
        await until(lambda: it.pull.status.state is PullState.FAILED, "the refusal")
        assert str(status) in it.pull.status.reason
    assert len(served.requests("POST")) == 1


async def test_two_hundred_is_as_good_as_two_hundred_and_one_and_location_may_be_missing() -> None:
    async with (
        gateway(Switches(status=200, location=None)) as (served, url),
        pulling(url) as it,
    ):
        await it.wait(3)
    assert not served.requests("DELETE")


@pytest.mark.parametrize("location", ["/session/{id}", "../session/{id}"])
async def test_the_session_is_deleted_at_its_relative_address(location: str) -> None:
    async with gateway(Switches(location=location)) as (served, url), pulling(url) as it:
        await it.wait(1)
    assert [asked.path for asked in served.requests("DELETE")] == ["/session/0"]


@pytest.mark.parametrize("status", [307, 308, 301, 302])
async def test_a_redirect_to_another_port_is_followed_without_the_token(status: int) -> None:
    passed: list[Asked] = []
    async with gateway() as (served, url):
        parts = urlsplit(url)
        async with (
            listening(redirector(f"http://{parts.netloc}", status, passed)) as front,
            pulling(front + parts.path, token="canary") as it,
        ):
            await it.wait(1)
        assert passed[0].headers["authorization"] == "Bearer canary"
        assert "authorization" not in served.requests("POST")[0].headers
        assert served.requests("POST")[0].body == passed[0].body
        # Relative to the address that answered, not the one asked.
        await until(lambda: bool(served.requests("DELETE")), "the session to be deleted")


async def test_the_token_goes_to_the_gateway() -> None:
    async with gateway(Switches(token="canary")) as (_, url), pulling(url, "canary") as it:
        await it.wait(1)


async def test_a_session_that_lies_on_another_origin_is_deleted_without_the_token() -> None:
    asked: list[Asked] = []
    async with listening(redirector("http://127.0.0.1:1", 307, asked)) as elsewhere:
        switches = Switches(token="canary", location=elsewhere + "/session/{id}")
        async with gateway(switches) as (_, url), pulling(url, "canary") as it:
            await it.wait(1)
            await it.pull.aclose("enough")
            await until(lambda: bool(asked), "the session to be deleted")
    assert asked[0].method == "DELETE"
    assert "authorization" not in asked[0].headers


async def test_an_answer_that_rejects_audio_is_asked_for_once_more_without_audio() -> None:
    async with gateway(Switches(reject_audio=True)) as (served, url), pulling(url) as it:
        await it.wait(3)
        assert it.waits == []
    assert [asked.offered_audio for asked in served.requests("POST")] == [True, False]
    assert [asked.path for asked in served.requests("DELETE")] == ["/session/0", "/session/1"]


async def test_what_is_no_sdp_is_an_error_and_tried_again() -> None:
    async with gateway(Switches(body="<html>login</html>")) as (_, url), pulling(url) as it:
        await until(lambda: len(it.waits) >= 2, "the second try")
        assert "did not answer with SDP" in it.pull.status.reason
    assert it.waits[:2] == [1.0, 2.0]


async def test_a_jump_of_pts_is_counted_and_the_line_goes_on() -> None:
    jumps = {10: 90_000 * 3600, 20: -90_000 * 7200}
    async with gateway(Switches(jumps=jumps)) as (_, url), pulling(url) as it:
        await it.wait(35)
        steps = [b.pts - a.pts for a, b in zip(it.frames, it.frames[1:], strict=False)]
        assert it.pull.status.jumps == 2
        assert all(0 < step < 45_000 for step in steps)


async def test_a_change_of_size_in_mid_stream_is_passed_on() -> None:
    larger = coded_clip(Size(320, 256), gop=25)
    async with gateway(Switches(clips={10: larger})) as (_, url), pulling(url) as it:
        await until(lambda: bool(it.frames) and it.frames[-1].size == larger.size, "the new size")
        assert it.frames[0].size == Size(256, 256)


async def test_a_gateway_that_hangs_up_is_connected_to_again() -> None:
    async with gateway() as (served, url), pulling(url) as it:
        await it.wait(5)
        await served.aclose()
        seen = len(it.frames)
        await until(lambda: it.pull.status.connections == 2, "the second connection", timeout_s=15)
        await it.wait(seen + 5)
        assert it.pull.status.state is PullState.LIVE
        assert it.pull.counts.decoded >= seen + 5
        assert [f.pts for f in it.frames] == sorted({f.pts for f in it.frames})


async def test_a_gateway_that_falls_silent_is_left_after_five_seconds() -> None:
    async with gateway(Switches(silent_after=10)) as (served, url), pulling(url) as it:
        await it.wait(5)
        await until(lambda: bool(it.waits), "the stall to be noticed", timeout_s=20)
        assert "no picture for 5 s" in it.pull.status.reason or it.pull.status.connections > 1
    assert served.requests("DELETE")


async def test_ice_servers_on_hosts_that_nobody_allowed_are_not_used() -> None:
    link = '<stun:127.0.0.1:3478>; rel="ice-server", <stun:evil.example:3478>; rel="ice-server"'
    async with gateway(Switches(link=link)) as (_, url), pulling(url) as it:
        await it.wait(1)
        source = it.pull.source
    assert [s.urls for s in source._ice.servers] == ["stun:127.0.0.1:3478"]  # type: ignore[attr-defined]


async def test_after_a_lost_picture_nothing_damaged_is_shown_until_the_next_keyframe() -> None:
    async with gateway() as (served, url), pulling(url) as it:
        await it.wait(5)
        _lose_some(served)
        await it.wait(60)
        lost = it.pull.counts.dropped
        numbers = it.numbers
    assert lost.get("no_keyframe", 0) + lost.get("packet_loss", 0) > 0
    after = next(b for a, b in itertools.pairwise(numbers) if (b - a) % 50 != 1)
    assert after % 25 == 0  # a keyframe; the gateway sends one a second, asked or not


def _lose_some(served: Gateway) -> None:
    """Every packet of 80 ms vanishes, and what is asked for again vanishes too."""
    (peer,) = served.sessions.values()
    transport = next(s.transport for s in peer.connection.getSenders() if s.kind == "video")
    # The headers of SRTP can be read: here is what goes to the network, whoever sends it.
    out: Any = transport.transport._connection._nominated[1].protocol.transport
    send, lost = out.sendto, set[int]()

    def lossy(data: bytes, address: object) -> None:
        sequence = int.from_bytes(data[2:4], "big")
        rtp = data[0] >> 6 == 2 and not 192 <= data[1] <= 223
        media = data[1] & 0x7F not in rtx_types
        if rtp and media and len(lost) < 8:
            lost.add(sequence)
        if rtp and (sequence in lost or not media):
            return
        send(data, address)

    transceiver = next(t for t in peer.connection.getTransceivers() if t.kind == "video")
    rtx_types = {c.payloadType for c in transceiver._codecs if c.mimeType == "video/rtx"}
    out.sendto = lossy
