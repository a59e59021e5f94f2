"""Pushing a stream on by WHIP: to a service like ours, and to servers that misbehave."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.clips import coded_clip
from tests.media.scripted import Answer, Scripted, scripted
from tests.peers import publishing, watching
from tests.serving import Served, until

from streamlift.clock import MonotonicClock
from streamlift.codec import is_keyframe
from streamlift.config import (
    AuthConfig,
    BackendConfig,
    Config,
    IceConfig,
    OutputsConfig,
    PushConfig,
)
from streamlift.frames import Codec, EncodedFrame
from streamlift.media.outgoing.packetizer import Packetizer
from streamlift.media.remote.fetch import Fetcher
from streamlift.media.remote.push import PushRefused, PushState
from streamlift.media.remote.push_whip import WhipPush
from streamlift.media.remote.url_safety import HostRules
from streamlift.media.rtc.audio import AudioFeed
from streamlift.media.rtc.connection import Peer
from streamlift.metrics import Metrics
from streamlift.routing import EventKind, StreamState

Serve = Callable[..., Awaitable[Served]]
PLAIN = Config(backends=(BackendConfig("bicubic", "bicubic"),), default_backend="bicubic")
HERE = OutputsConfig(allowed_hosts=("127.0.0.1",))
TOKENS = AuthConfig(publish=("in",), view=("view",), control=("control",))


# ---- servers that misbehave ----


class Pictures:
    """Fits `push.Pictures`; nobody here asks for a keyframe."""

    skipped = 0

    def __init__(self, frames: AsyncIterator[EncodedFrame]) -> None:
        self._frames = frames

    def __aiter__(self) -> AsyncIterator[EncodedFrame]:
        return self._frames

    async def __anext__(self) -> EncodedFrame:
        return await anext(self._frames)

    def request_keyframe(self) -> None:
        raise AssertionError("not in these tests")


class Pushing:
    """A push of an endless picture, whose waits take no time."""

    def __init__(self, url: str, token: str | None = None) -> None:
        self.waits: list[float] = []
        self.frames: list[EncodedFrame] = []
        self.ended = asyncio.Event()
        self.push = WhipPush(
            "live",
            url,
            token,
            ice=IceConfig(),
            fetcher=lambda: Fetcher(HostRules(["127.0.0.1"])),
            packetizer=Packetizer(),
            clock=MonotonicClock(),
            metrics=Metrics(),
            sleep=self._sleep,
        )

    async def _sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        await asyncio.sleep(0)

    async def run(self) -> None:
        await self.push.run(self._watch, self._listen, lambda: False)

    @contextmanager
    def _watch(self) -> Iterator[Pictures]:
        yield Pictures(self._frames())

    async def _frames(self) -> AsyncIterator[EncodedFrame]:
        await self.ended.wait()
        for frame in self.frames:
            yield frame

    @contextmanager
    def _listen(self) -> Iterator[AudioFeed]:
        yield AudioFeed(1)


async def pushed_until(server: Scripted, requests: int) -> Pushing:
    """Push until so many requests have come, then stop."""
    pushing = Pushing(server.url, "secret")
    running = asyncio.create_task(pushing.run())
    await until(lambda: len(server.requests) >= requests, f"{requests} requests")
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    return pushing


@pytest.mark.parametrize("status", [400, 401, 403, 405, 415, 422])
async def test_a_refusal_is_final_and_says_why(status: int) -> None:
    async with scripted(Answer(status)) as server:
        pushing = Pushing(server.url)
        with pytest.raises(PushRefused, match=str(status)):
            await pushing.run()
        assert len(server.requests) == 1
    assert pushing.push.state is PushState.REFUSED
    assert str(status) in pushing.push.reason


@pytest.mark.parametrize("status", [404, 409, 429, 500, 503, 200, 302])
async def test_other_failures_are_tried_again(status: int) -> None:
    async with scripted(*[Answer(status)] * 5) as server:
        pushing = await pushed_until(server, 3)
    assert 0.8 <= pushing.waits[0] <= 1.2
    assert 1.6 <= pushing.waits[1] <= 2.4
    assert pushing.push.state is PushState.CLOSED


async def test_retry_after_is_honoured() -> None:
    later = Answer(503, {"Retry-After": "7"})
    async with scripted(later, later) as server:
        pushing = await pushed_until(server, 2)
    assert pushing.waits[0] == 7


async def test_a_cut_line_and_rubbish_are_tried_again() -> None:
    rubbish = Answer(201, {"Location": "/x"}, "this is no SDP")
    async with scripted(Answer(0), rubbish, Answer(0)) as server:
        pushing = await pushed_until(server, 3)
    assert len(pushing.waits) >= 2


async def test_a_push_that_is_cancelled_while_it_closes_closes_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    closing, closed = asyncio.Event(), asyncio.Event()
    stock = Peer.close

    async def close_slowly(peer: Peer) -> None:
        closing.set()
        await asyncio.sleep(0.05)
        await stock(peer)
        closed.set()

    monkeypatch.setattr(Peer, "close", close_slowly)
    async with scripted(Answer(503)) as server:
        running = asyncio.create_task(Pushing(server.url).run())
        await closing.wait()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
    assert closed.is_set()


async def test_nobody_there_is_tried_again() -> None:
    pushing = Pushing("http://127.0.0.1:9/whip/there")
    running = asyncio.create_task(pushing.run())
    await until(lambda: len(pushing.waits) > 2, "three tries")
    running.cancel()
    await asyncio.wait([running])
    assert "127.0.0.1" in pushing.push.reason or pushing.push.state is PushState.CLOSED


async def test_the_token_goes_to_the_address_given_but_not_to_another_origin() -> None:
    async with scripted(Answer(401)) as other:
        async with scripted(Answer(307, {"Location": other.url})) as server:
            pushing = Pushing(server.url, "secret")
            with pytest.raises(PushRefused):
                await pushing.run()
        assert server.requests[0][2]["authorization"] == "Bearer secret"
        assert server.requests[0][2]["content-type"] == "application/sdp"
        assert "authorization" not in other.requests[0][2]


async def test_an_unusable_answer_deletes_the_session_it_opened() -> None:
    answer = Answer(201, {"Location": "/sessions/1"}, "v=0\r\nrubbish")
    async with scripted(answer, Answer(200), Answer(401)) as server:
        with pytest.raises(PushRefused):
            await Pushing(server.url).run()
        assert server.methods == ["POST", "DELETE", "POST"]
        assert server.requests[1][1] == "/sessions/1"


@pytest.mark.parametrize(
    "line",
    [
        "m=video",
        "m=video 9 UDP/TLS/RTP/SAVPF 96\r\na=mid:0\r\na=rtpmap:96 H264",
        "m=video 9 UDP/TLS/RTP/SAVPF 96\r\na=mid:0",
        "m=video 9 UDP/TLS/RTP/SAVPF 96\r\na=mid:0\r\na=rtpmap:96 H264/90000\r\na=setup:x",
    ],
)
async def test_an_answer_that_cannot_be_read_is_tried_again(line: str) -> None:
    sdp = f"v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\n{line}\r\n"
    async with scripted(Answer(201, {}, sdp), Answer(401)) as server:
        pushing = Pushing(server.url)
        with pytest.raises(PushRefused):
            await pushing.run()
    assert len(pushing.waits) == 1


async def test_a_session_elsewhere_is_deleted_without_the_token() -> None:
    async with scripted(Answer(200)) as other:
        answer = Answer(201, {"Location": other.url}, "v=0\r\nrubbish")
        async with scripted(answer, Answer(401)) as server:
            with pytest.raises(PushRefused):
                await Pushing(server.url, "secret").run()
        assert server.requests[0][2]["authorization"] == "Bearer secret"
        assert other.methods == ["DELETE"]
        assert "authorization" not in other.requests[0][2]


# ---- a service like ours ----


@asynccontextmanager
async def live(served: Served) -> AsyncIterator[None]:
    async with publishing(served.whip(), coded_clip(gop=25)):
        await until(lambda: is_live(served, "live"), "the stream to be live")
        yield


def is_live(served: Served, name: str) -> bool:
    return any(s.name == name and s.state == "live" for s in served.parts.router.streams())


async def call(served: Served, method: str, path: str, body: Any = None) -> Any:
    async with served.http() as http:
        response = await http.request(method, path, json=body)
    assert response.is_success, response.text
    return response.json() if response.content else None


OUTPUTS = "/api/v1/streams/live/outputs"


@pytest.mark.peer
async def test_a_pushed_stream_is_the_same_pictures_and_ends_with_delete(serve: Serve) -> None:
    ours = await serve(replace(PLAIN, outputs=HERE))
    theirs = await serve(replace(PLAIN, auth=TOKENS))
    async with live(ours):
        body = {"type": "whip", "url": theirs.whip("copy"), "token": "in"}
        made = await call(ours, "POST", OUTPUTS, body)
        await until(lambda: is_live(theirs, "copy"), "the copy to be live")
        async with (
            watching(ours.whep()) as here,
            watching(theirs.whep("copy", "source"), token="view") as there,
        ):
            await there.wait_units(20)
            await here.wait_more(20)
            assert is_keyframe(Codec.H264, there.units[0][1])
            sent = {unit for _, unit in here.units}
            shared = sum(unit in sent for _, unit in there.units)
            assert shared > 5, "not the units that our own viewers get"
        (output,) = (await call(ours, "GET", OUTPUTS))["outputs"]
        assert output["state"] == "live"
        assert output["connections"] == 1
        assert output["bytes_sent"] > 0
        assert "in" not in output.values()
        await call(ours, "DELETE", f"{OUTPUTS}/{made['id']}")
        await until(lambda: not len(theirs.parts.sessions), "their session to be gone")
        assert (await call(ours, "GET", OUTPUTS))["outputs"] == []


@pytest.mark.peer
async def test_a_session_ended_by_the_server_is_begun_again(serve: Serve) -> None:
    ours, theirs = await serve(replace(PLAIN, outputs=HERE)), await serve(PLAIN)
    async with live(ours):
        await call(ours, "POST", OUTPUTS, {"type": "whip", "url": theirs.whip("copy")})
        await until(lambda: is_live(theirs, "copy"), "the copy to be live")
        (session,) = theirs.parts.sessions
        await session.peer.aclose("for a test")
        await until(lambda: len(theirs.parts.sessions) == 0, "the end of the session")
        await until(lambda: len(theirs.parts.sessions) == 1, "another session")
        await until(lambda: is_live(theirs, "copy"), "the copy to be live again")
        (output,) = (await call(ours, "GET", OUTPUTS))["outputs"]
        assert output["connections"] == 2
        assert ours.parts.metrics.value("outputs_retries_total", type="whip") == 1
        async with ours.http() as http:
            metrics = (await http.get("/metrics")).text
        assert 'streamlift_outputs_state{state="live",type="whip"} 1.0' in metrics


@pytest.mark.peer
async def test_a_keyframe_asked_for_there_comes_from_here(serve: Serve) -> None:
    ours, theirs = await serve(replace(PLAIN, outputs=HERE)), await serve(PLAIN)
    async with live(ours), watching(ours.whep()) as here:
        await call(ours, "POST", OUTPUTS, {"type": "whip", "url": theirs.whip("copy")})
        await until(lambda: is_live(theirs, "copy"), "the copy to be live")
        await here.wait_more(20)
        before = len(here.units)
        publisher = theirs.parts.router.stream("copy").publisher
        assert publisher is not None
        publisher.request_keyframe()
        await until(
            lambda: any(is_keyframe(Codec.H264, unit) for _, unit in here.units[before:]),
            "a keyframe",
        )


@pytest.mark.peer
async def test_configured_pushes_begin_with_their_stream(serve: Serve) -> None:
    theirs = await serve(PLAIN)
    push = PushConfig("live", theirs.whip("copy"))
    ours = await serve(replace(PLAIN, outputs=replace(HERE, push=(push,))))
    async with live(ours):
        await until(lambda: is_live(theirs, "copy"), "the copy to be live")
    # Without a publisher the copy shows the slate, for as long as the stream is kept.
    await ours.parts.router.close("live")
    await until(lambda: not is_live(theirs, "copy"), "the end of the copy", timeout_s=20)


@pytest.mark.peer
async def test_what_is_not_allowed_is_refused_by_name(serve: Serve) -> None:
    ours = await serve(PLAIN)
    async with live(ours), ours.http() as http:
        url = "https://203.0.113.9/whip/x"
        response = await http.post(OUTPUTS, json={"type": "whip", "url": url, "token": "t0ken"})
        assert response.status_code == 422
        assert "outputs.allowed_hosts" in response.text
        assert "t0ken" not in response.text
        unknown = await http.get(f"{OUTPUTS}/none")
        assert unknown.status_code == 404


async def test_an_output_of_no_stream_is_404(serve: Serve) -> None:
    ours = await serve(replace(PLAIN, outputs=HERE))
    async with ours.http() as http:
        body = {"type": "whip", "url": "http://127.0.0.1:1/whip/x"}
        assert (await http.post(OUTPUTS, json=body)).status_code == 404


async def test_a_stream_with_too_many_outputs_does_not_end_those_of_the_others(
    serve: Serve, tmp_path: Path
) -> None:
    pushes = tuple(PushConfig("full", f"http://127.0.0.1:9/whip/{n}") for n in range(9))
    outputs = replace(HERE, push=pushes, save=str(tmp_path))
    ours = await serve(replace(PLAIN, outputs=outputs))
    await asyncio.sleep(0)  # attended from now on
    for name in ("full", "other"):
        ours.parts.events.add(EventKind.STREAM_STATE, stream=name, after=StreamState.LIVE)
    await until(
        lambda: any(e.kind is EventKind.FAULT for e in ours.parts.events._events),
        "the refusal to be told",
    )
    # There is no such stream, which the recording, once begun, finds out.
    await until(
        lambda: any(e.stream == "other" and e.reason for e in ours.parts.events._events),
        "the other stream's recording to be begun",
    )
