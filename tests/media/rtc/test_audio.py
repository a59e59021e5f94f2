"""Opus from publisher to viewers: as it came, as late as the picture, and in no one's way."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import pairwise

import httpx
import pytest
from tests.clips import coded_clip
from tests.machine import in_time
from tests.media.loopback import Sent
from tests.media.rtp import rtp_packet
from tests.peers import ClipPublisher, publishing
from tests.serving import Served, until

from streamlift.clock import ManualClock
from streamlift.config import BackendConfig, Config, IceConfig
from streamlift.frames import CodedAudio
from streamlift.media.outgoing.whep_viewer import WhepViewer
from streamlift.media.rtc.audio import (
    AUDIO_CLOCK_HZ,
    AudioReceiver,
    AudioRelay,
    AudioRelays,
    VideoLag,
)
from streamlift.media.rtc.connection import Peer
from streamlift.media.rtc.receiver import ReceiverTap
from streamlift.media.rtc.sender import PayloadTrack, SenderTap

PACKET_S = 0.02
TICKS = round(PACKET_S * AUDIO_CLOCK_HZ)
SDP = {"Content-Type": "application/sdp"}


def packet(number: int, *, pts: int | None = None, arrived_s: float | None = None) -> CodedAudio:
    at_s = number * PACKET_S if arrived_s is None else arrived_s
    return CodedAudio(number * TICKS if pts is None else pts, bytes([number % 256]), at_s)


async def source(*packets: CodedAudio) -> AsyncIterator[CodedAudio]:
    for each in packets:
        yield each


async def test_every_listener_gets_every_packet() -> None:
    relay = AudioRelay()
    with relay.listen() as first, relay.listen() as second:
        await relay.run(source(*map(packet, range(5))))
        for feed in (first, second):
            got = [await anext(feed) for _ in range(5)]
            assert [p.data for p in got] == [bytes([n]) for n in range(5)]


async def test_a_source_is_drained_while_nobody_listens() -> None:
    taken = 0

    async def counted() -> AsyncIterator[CodedAudio]:
        nonlocal taken
        for number in range(1000):
            taken += 1
            yield packet(number)

    await AudioRelay().run(counted())
    assert taken == 1000


async def test_a_listener_that_does_not_listen_has_a_bound_and_harms_nobody() -> None:
    relay = AudioRelay()
    with relay.listen() as asleep, relay.listen() as awake:
        for number in range(1000):
            await relay.run(source(packet(number)))
            assert (await anext(awake)).data == bytes([number % 256])
        assert asleep.dropped == 1000 - 256
        assert (await anext(asleep)).data == bytes([(1000 - 256) % 256])
        assert awake.dropped == 0


async def test_another_publisher_continues_the_timestamps_by_the_time_that_passed() -> None:
    relay = AudioRelay()
    with relay.listen() as feed:
        await relay.run(source(packet(0), packet(1)))
        await relay.run(source(packet(7, pts=0, arrived_s=2.02), packet(8, pts=TICKS)))
        got = [await anext(feed) for _ in range(4)]
    assert [p.pts for p in got] == [0, TICKS, TICKS + 96_000, 2 * TICKS + 96_000]


async def test_an_end_wakes_the_listener() -> None:
    with AudioRelay().listen() as feed:
        waiting = asyncio.ensure_future(anext(feed, None))
        await asyncio.sleep(0)
    assert await waiting is None


@pytest.mark.peer
async def test_a_sender_that_begins_anew_is_heard_again(monkeypatch: pytest.MonkeyPatch) -> None:
    peer, clock = Peer(IceConfig()), ManualClock()
    receiver: object = peer.add("audio", "recvonly").receiver
    audio = AudioReceiver(receiver, clock=clock)
    monkeypatch.setattr(audio._tap, "is_opus", lambda payload_type: True)
    audio._take_packet(rtp_packet(0, 900_000, 0, b"a", ssrc=1))
    clock.advance(2.0)
    for number in range(2):  # another SSRC at once,
        audio._take_packet(rtp_packet(number, 5 + 960 * number, 0, b"b", ssrc=2))
    for number in range(40):  # the same one from behind when it goes on like that
        audio._take_packet(rtp_packet(number, 0xC0000000 + 960 * number, 0, b"c", ssrc=2))
    audio.end()
    heard = [p async for p in audio]
    assert [p.pts for p in heard[:3]] == [0, 96_000, 96_960]
    assert [p.data for p in heard[3:]] == [b"c"] * 15
    assert all(a.pts < b.pts for a, b in pairwise(heard))
    assert audio.dropped == {"late": 25}
    await peer.close()


def test_relays_are_forgotten_when_nobody_uses_them() -> None:
    relays = AudioRelays()
    with relays.use("a") as first:
        with relays.use("a") as second, relays.use("b"):
            assert first is second
            assert len(relays) == 2
        assert len(relays) == 1
    assert len(relays) == 0


def test_the_lag_is_the_median_so_that_one_late_picture_changes_nothing() -> None:
    lag = VideoLag()
    assert lag.seconds == 0
    for seconds in [0.2] * 20 + [3.0]:
        lag.observe(seconds)
    assert lag.seconds == 0.2


@pytest.mark.peer
async def test_what_steps_back_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    peer = Peer(IceConfig())
    receiver: object = peer.add("audio", "recvonly").receiver
    audio = AudioReceiver(receiver, clock=ManualClock())
    monkeypatch.setattr(audio._tap, "is_opus", lambda payload_type: True)
    for timestamp in (0xFFFFFF00, 0x10, 0xFFFFFF80, 0x10, 0x30):
        audio._take_packet(rtp_packet(0, timestamp, 0, b"x"))
    audio.end()
    assert [p.pts async for p in audio] == [0, 0x110, 0x130]
    assert audio.dropped["late"] == 2
    await peer.close()


# ---- with real peers ----


@dataclass
class Heard:
    """What a viewer received: (arrival, payload) of sound, arrival of pictures by timestamp."""

    answer: str
    sound: list[tuple[float, bytes]] = field(default_factory=list)
    pictures: list[tuple[float, int]] = field(default_factory=list)


@asynccontextmanager
async def talking(served: Served) -> AsyncIterator[ClipPublisher]:
    """Publish a clip and, every 20 ms, a packet that holds its own number and time."""
    publisher = ClipPublisher(coded_clip(gop=25), 25.0, lambda _, unit: unit)
    loop = asyncio.get_running_loop()
    start_s = loop.time()
    number = 0

    async def speak() -> Sent:
        nonlocal number
        number += 1
        await asyncio.sleep(start_s + number * PACKET_S - loop.time())
        return Sent(number * TICKS, [struct.pack("!Ld", number, loop.time())])

    peer = Peer(IceConfig())
    video = peer.add("video", "sendonly", publisher.track)
    peer.prefer(video, [publisher.clip.codec])
    SenderTap(video.sender, publisher.restart)
    audio = peer.add("audio", "sendonly", PayloadTrack("audio", speak))
    peer.prefer_opus(audio)
    SenderTap(audio.sender, lambda: None)
    try:
        async with served.http() as http:
            await _connect(http, "/whip/live", peer)
            yield publisher
    finally:
        publisher.ended = True
        await peer.close()


@asynccontextmanager
async def hearing(served: Served) -> AsyncIterator[Heard]:
    heard = Heard("")
    loop = asyncio.get_running_loop()
    peer = Peer(IceConfig())
    video = peer.add("video", "recvonly")
    audio = peer.add("audio", "recvonly")
    ReceiverTap(
        video.receiver,
        lambda p: heard.pictures.append((loop.time(), p.timestamp)) if p.marker else None,
    )
    ReceiverTap(audio.receiver, lambda p: heard.sound.append((loop.time(), p.data)))
    try:
        async with served.http() as http:
            heard.answer = await _connect(http, "/whep/live", peer)
            yield heard
    finally:
        await peer.close()


async def _connect(http: httpx.AsyncClient, path: str, peer: Peer) -> str:
    response = await http.post(path, content=await peer.offer(), headers=SDP)
    assert response.status_code == 201, response.text
    await peer.accept(response.text)
    async with asyncio.timeout(10):
        assert await peer.wait_connected()
    return response.text


def _shown(served: Served) -> Callable[[], bool]:
    return lambda: any(s.state == "live" for s in served.parts.router.streams())


@pytest.mark.peer
async def test_sound_reaches_the_viewer_as_it_was_and_as_late_as_the_picture(
    serve: Callable[..., Awaitable[Served]],
) -> None:
    # Eight frames at once, four of them owed: the picture takes some 0.4 s.
    toy = BackendConfig("toy", "toy", settings={"first": 8, "step": 8, "lag": 4})
    config = Config(backends=(toy,), default_backend="toy")

    async def run() -> list[str]:
        served = await serve(config)
        async with talking(served) as publisher:
            await until(_shown(served), "the stream to be live")
            async with hearing(served) as heard:
                assert heard.answer.split("\r\nm=")[2].count("a=sendonly") == 1
                await until(lambda: len(heard.sound) > 60, "sound", timeout_s=15)
                (session,) = [s for s in served.parts.sessions if s.role == "view"]
                assert isinstance(session.peer, WhepViewer)
                lag_s = session.peer.lag_s
                assert publisher.sent
        numbers = [struct.unpack("!Ld", payload)[0] for _, payload in heard.sound]
        assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
        latest = heard.sound[-30:]
        taken = [arrived_s - struct.unpack("!Ld", payload)[1] for arrived_s, payload in latest]
        assert lag_s > 0.2
        # A busy machine's lag changes while it is measured.
        apart_s = abs(sorted(taken)[15] - lag_s)
        return [] if apart_s <= 0.1 else [f"sound and picture {apart_s:.2f} s apart"]

    await in_time(run)


@pytest.mark.peer
async def test_without_sound_the_section_is_inactive_and_video_flows(
    serve: Callable[..., Awaitable[Served]],
) -> None:
    plain = Config(backends=(BackendConfig("bicubic", "bicubic"),), default_backend="bicubic")
    served = await serve(plain)
    async with publishing(served.whip(), coded_clip(gop=25)):
        await until(_shown(served), "the stream to be live")
        async with hearing(served) as heard:
            assert "a=inactive" in heard.answer.split("\r\nm=")[2]
            await until(lambda: len(heard.pictures) > 5, "pictures")
    assert heard.sound == []
