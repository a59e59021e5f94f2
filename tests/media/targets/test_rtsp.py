"""Pushing by RTSP to servers that refuse, sign in, ask and send rubbish; good ones are FFmpeg's."""

from __future__ import annotations

import asyncio
import hashlib
import re
import time
from base64 import b64decode

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.media.targets.feeding import Feed, Wait, line, pictures, pushing, serving, waits_of
from tests.waiting import until

from streamlift.clock import MonotonicClock
from streamlift.errors import ConfigError
from streamlift.frames import CodedAudio
from streamlift.media.outgoing.packetizer import Packetizer
from streamlift.media.remote.push import Push, PushState
from streamlift.media.targets.rtsp import RtspAddress, RtspPush, authorization, read_rtsp_url

PASSWORD = "canary-password-4711"


class Rtsp:
    """A server that records; `refusals` are answered first, each with its further headers."""

    def __init__(self, *refusals: str) -> None:
        self.refusals = list(refusals)
        self.requests: list[str] = []
        self.packets: list[tuple[int, bytes]] = []
        self.writers: list[asyncio.StreamWriter] = []

    @property
    def methods(self) -> list[str]:
        return [request.partition(" ")[0] for request in self.requests]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.append(writer)
        while True:
            first = await reader.readexactly(1)
            if first == b"$":
                head = await reader.readexactly(3)
                packet = await reader.readexactly(int.from_bytes(head[1:], "big"))
                self.packets.append((head[0], packet))
                continue
            request = (first + await reader.readuntil(b"\r\n\r\n")).decode()
            length = re.search(r"Content-Length: (\d+)", request)
            body = await reader.readexactly(int(length[1]) if length else 0)
            self.requests.append(request + body.decode())
            cseq = re.search(r"CSeq: \d+", request)
            assert cseq is not None
            answer = self.refusals.pop(0) if self.refusals else "200 OK"
            writer.write(
                f"RTSP/1.0 {answer}\r\n{cseq[0]}\r\nSession: s1;timeout=60\r\n\r\n".encode()
            )


def push_to(url: str, token: str | None = None, tries: int = 1000) -> tuple[Push, list[Wait]]:
    parts = {"open_line": line, "packetizer": Packetizer(), "unix_s": time.time}
    return waits_of(RtspPush, url, token, tries=tries, **parts)


def test_user_and_password_are_no_part_of_what_is_shown_or_asked() -> None:
    where = read_rtsp_url("rtsp://me:p%40ss@h:8554/live?x=secret", None)
    assert where == RtspAddress("rtsp://h:8554/live?x=secret", "me", "p@ss")
    assert where.shown == "rtsp://h:8554/live"
    assert "p@ss" not in repr(where)
    assert read_rtsp_url("rtsp://me@h/live", "other").password == "other"
    assert read_rtsp_url("rtsp://h/live", None).user == ""
    for bad in ("rtsp://a%0d%0aX@h/live", "rtsp://a%22@h/live", "rtsp://[::1/live"):
        with pytest.raises(ConfigError):
            read_rtsp_url(bad, None)


async def test_a_stream_is_announced_set_up_and_recorded_with_its_sound() -> None:
    feed, server = Feed(), Rtsp()
    feed.put(pictures(5))
    now_s = MonotonicClock().now_s()
    feed.hear([CodedAudio(n * 960, b"opus", now_s) for n in range(3)])
    async with serving(server.serve) as at:
        push, _ = push_to(f"rtsp://127.0.0.1:{at.port}/live")
        async with pushing(push, feed, sound=True):
            await until(lambda: len(markers(server)) == 5, "five pictures")
            await until(lambda: sum(channel == 2 for channel, _ in server.packets) == 3, "sound")
            assert push.state is PushState.LIVE
        await until(lambda: "TEARDOWN" in server.methods, "its end")
    assert server.methods[:4] == ["ANNOUNCE", "SETUP", "SETUP", "RECORD"]
    announced = server.requests[0]
    assert "sprop-parameter-sets=" in announced
    assert "opus/48000/2" in announced
    assert "interleaved=2-3;mode=record" in server.requests[2]
    assert "Session: s1" in server.requests[3]
    reports = [packet for channel, packet in server.packets if channel == 1]
    assert reports[0][1] == 200  # a sender report ties the times together from the beginning


def markers(server: Rtsp) -> list[bytes]:
    return [packet for channel, packet in server.packets if channel == 0 and packet[1] & 0x80]


@pytest.mark.parametrize("kind", ["Basic", "Digest", "both"])
async def test_it_signs_in_as_the_server_asks(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    offers = {
        "Basic": 'WWW-Authenticate: Basic realm="r"',
        "Digest": 'WWW-Authenticate: Digest realm="r", nonce="n"',
    }
    asked = "\r\n".join(offers.values() if kind == "both" else [offers[kind]])
    feed, server = Feed(), Rtsp(f"401 Unauthorized\r\n{asked}")
    feed.put(pictures(2))
    async with serving(server.serve) as at:
        url = f"rtsp://127.0.0.1:{at.port}/live"
        push, _ = push_to(url.replace("//", "//me@"), PASSWORD)
        async with pushing(push, feed):
            await until(lambda: len(markers(server)) == 2, "the pictures")
    assert server.methods[:4] == ["ANNOUNCE", "ANNOUNCE", "SETUP", "RECORD"]
    assert "Authorization" not in server.requests[0]
    said = re.search("Authorization: (.*)\r", server.requests[1])
    assert said is not None
    if kind == "Basic":
        assert b64decode(said[1].removeprefix("Basic ")).decode() == f"me:{PASSWORD}"
    else:
        one, other = md5(f"me:r:{PASSWORD}"), md5(f"ANNOUNCE:{url}")
        assert f'response="{md5(f"{one}:n:{other}")}"' in said[1]
        assert PASSWORD not in "".join(server.requests)
    assert PASSWORD not in push.shown_url + push.reason + caplog.text


def md5(text: str) -> str:
    return hashlib.md5(text.encode()).hexdigest()


def test_a_server_that_counts_requests_gets_the_longer_answer() -> None:
    challenge = 'Digest realm="r", nonce="n", qop="auth", opaque="o"'
    said = authorization(challenge, RtspAddress("rtsp://h/x", "me", "p"), "SETUP", "rtsp://h/x", 7)
    own = re.search('cnonce="([^"]+)"', said)
    assert own is not None
    one, other = md5("me:r:p"), md5("SETUP:rtsp://h/x")
    assert f'response="{md5(f"{one}:n:00000007:{own[1]}:auth:{other}")}"' in said
    assert 'opaque="o"' in said


@pytest.mark.parametrize("status", [401, 403, 405, 461])
async def test_what_another_try_would_not_change_is_final(status: int) -> None:
    feed, server = Feed(), Rtsp(*[f'{status} No\r\nWWW-Authenticate: Basic realm="r"'] * 3)
    feed.put(pictures(2))
    async with serving(server.serve) as at:
        push, waits = push_to(f"rtsp://me:{PASSWORD}@127.0.0.1:{at.port}/live")
        async with pushing(push, feed):
            await until(lambda: push.state is PushState.REFUSED, "the refusal")
    assert str(status) in push.reason
    assert PASSWORD not in push.reason
    assert waits == []
    assert len(server.requests) == (2 if status == 401 else 1)


async def test_other_answers_and_an_ended_session_are_tried_again() -> None:
    feed, server = Feed(), Rtsp("404 Not Found", "200 OK", "500 Oh")
    feed.put(pictures(10))
    async with serving(server.serve) as at:
        push, waits = push_to(f"rtsp://127.0.0.1:{at.port}/live")
        async with pushing(push, feed):
            await until(lambda: push.state is PushState.LIVE, "a good session")
            server.writers[-1].write(b"TEARDOWN rtsp://h/live RTSP/1.0\r\nCSeq: 1\r\n\r\n")
            await until(lambda: len(waits) >= 3, "the end of it")
    assert ["404" in waits[0].reason, "500" in waits[1].reason] == [True, True]
    assert "ended the session" in waits[2].reason


async def test_a_picture_lost_there_is_asked_for_here() -> None:
    feed, server = Feed(), Rtsp()
    feed.put(pictures(2))
    async with serving(server.serve) as at:
        push, _ = push_to(f"rtsp://127.0.0.1:{at.port}/live")
        async with pushing(push, feed):
            await until(lambda: len(markers(server)) == 2, "the pictures")
            server.writers[-1].write(b"$\x01\x00\x0c" + b"\x81\xce\x00\x02" + bytes(8))
            await until(lambda: feed.keyframes_asked == 1, "the request")


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.binary(max_size=400)
    | st.lists(
        st.sampled_from(
            [
                b"RTSP/1.0 200 OK\r\n",
                b"\r\n",
                b"Content-Length: 99999\r\n",
                b"$\x00\xff\xff",
                b": \r\n",
            ]
        )
    ).map(b"".join),
    st.booleans(),
)
def test_no_bytes_of_a_server_do_more_than_end_their_connection(data: bytes, late: bool) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if late:
            writer.write(b"RTSP/1.0 200 OK\r\nSession: 1\r\n\r\n" * 3)
        writer.write(data)
        writer.write_eof()
        await reader.read(-1)

    async def run() -> None:
        feed = Feed()
        feed.put(pictures(50))
        async with serving(serve) as at:
            push, waits = push_to(f"rtsp://127.0.0.1:{at.port}/live", tries=1)
            async with pushing(push, feed):
                await until(lambda: bool(waits) or push.state is PushState.REFUSED, "the end of it")
            assert not any("an error in this service" in wait.reason for wait in waits)

    asyncio.run(run())
