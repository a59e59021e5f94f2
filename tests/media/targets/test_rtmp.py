"""Pushing by RTMP to servers that refuse, lie, stand still or send rubbish."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.media.targets.feeding import Feed, line, pictures, pushing, serving, waits_of
from tests.waiting import until

from streamlift.errors import ConfigError
from streamlift.frames import Size
from streamlift.media.remote.push import PushState
from streamlift.media.targets import amf
from streamlift.media.targets.chunks import ChunkReader, Message, cut
from streamlift.media.targets.rtmp import RtmpPush, read_rtmp_url

KEY = "canary-key-4711"
COMMAND, DATA, SOUND, PICTURE = 20, 18, 8, 9


class Stream:
    """An asyncio stream as a chunk reader takes it."""

    def __init__(self, reader: asyncio.StreamReader) -> None:
        self.reader = reader

    async def read(self, count: int) -> bytes:
        return await self.reader.readexactly(count)


class Rtmp:
    """A server as good as it is told to be; `taken` is what it was sent."""

    def __init__(self, *, publish: Sequence[amf.Value] = (), extra: bytes = b"") -> None:
        self.taken: list[Message] = []
        self.commands: list[list[amf.Value]] = []
        self.publish = list(publish)
        self.extra = extra
        self.stands_still = asyncio.Event()
        self.stands_still.set()
        self.cut_off = asyncio.Event()

    def of(self, kind: int) -> list[Message]:
        return [message for message in self.taken if message.kind == kind]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(1 + 1536)
        writer.write(b"\x03" + bytes(1536) + bytes(1536))
        await reader.readexactly(1536)
        chunks = ChunkReader(Stream(reader))
        while not self.cut_off.is_set():
            await self.stands_still.wait()
            message = await chunks.message()
            if message.kind == 1:
                chunks.chunk_bytes = int.from_bytes(message.data, "big")
            elif message.kind == COMMAND:
                self.answer(writer, amf.decode(message.data))
            else:
                self.taken.append(message)

    def answer(self, writer: asyncio.StreamWriter, command: list[amf.Value]) -> None:
        self.commands.append(command)
        name, number = command[0], command[1]
        status: dict[str, amf.Value] = {"level": "status", "code": "NetStream.Publish.Start"}
        if name == "connect":
            writer.write(self.extra)
            self.say(writer, "_result", number, {}, {"code": "NetConnection.Connect.Success"})
        elif name == "createStream":
            self.say(writer, "_result", number, None, 1.0)
        elif name == "publish":
            self.say(writer, *(self.publish or ("onStatus", 0.0, None, status)))

    @staticmethod
    def say(writer: asyncio.StreamWriter, *values: amf.Value) -> None:
        writer.write(cut(Message(COMMAND, 0, 0, amf.encode(*values)), 3, 128))


def refusing(code: str, words: str) -> list[amf.Value]:
    return ["onStatus", 0.0, None, {"level": "error", "code": code, "description": words}]


@pytest.mark.parametrize(
    ("url", "token", "app", "key"),
    [
        ("rtmp://h/live", "k", "live", "k"),
        ("rtmp://h/live/", "k?a=b", "live", "k?a=b"),
        ("rtmp://h:1/live/k", None, "live", "k"),
        ("rtmp://h/app/inst/k?user=u&pass=p", None, "app/inst", "k?user=u&pass=p"),
        ("rtmps://h:443/x?q=1", "k", "x", "k?q=1"),
    ],
)
def test_server_and_key_are_told_apart(url: str, token: str | None, app: str, key: str) -> None:
    where = read_rtmp_url(url, token)
    assert (where.app, where.key) == (app, key)
    assert where.shown.endswith(f"/{app}/...")
    assert where.url.startswith(url.partition("?")[0].partition("/live")[0][:7])


@pytest.mark.parametrize("url", ["rtmp://h", "rtmp://h/", "rtmp://h/only"])
def test_an_address_without_a_key_is_refused_without_being_repeated(url: str) -> None:
    with pytest.raises(ConfigError) as told:
        read_rtmp_url(url, None)
    assert "only" not in str(told.value)


async def test_a_stream_is_announced_and_begins_with_its_header_and_a_keyframe() -> None:
    feed, server = Feed(), Rtmp()
    feed.put(pictures(5))
    async with serving(server.serve) as at:
        push, _ = waits_of(RtmpPush, f"rtmp://127.0.0.1:{at.port}/live", KEY, open_line=line)
        async with pushing(push, feed):
            await until(lambda: len(server.of(PICTURE)) == 6, "header and five pictures")
            assert push.state is PushState.LIVE
            assert push.bytes_sent == sum(len(f.data) for f in pictures(5))
        await until(lambda: ["deleteStream"] in [c[:1] for c in server.commands], "its end")
    names = [command[0] for command in server.commands]
    assert names[:5] == ["connect", "releaseStream", "FCPublish", "createStream", "publish"]
    assert server.commands[4][3:] == [KEY, "live"]
    header, first, *others = server.of(PICTURE)
    assert header.data[:2] == b"\x17\x00"
    assert first.data[:2] == b"\x17\x01"
    assert [m.timestamp for m in (first, *others)] == [0, 40, 80, 120, 160]
    (about,) = server.of(DATA)
    told = amf.decode(about.data)[2]
    assert isinstance(told, dict)
    assert (told["width"], told["height"]) == (256.0, 256.0)


async def test_a_server_that_asks_and_counts_is_answered() -> None:
    ping = cut(Message(4, 0, 0, b"\x00\x06" + b"abcd"), 2)
    window = cut(Message(5, 0, 0, (100).to_bytes(4, "big")), 2)
    bandwidth = cut(Message(6, 0, 0, (1000).to_bytes(4, "big") + b"\x02"), 2)
    feed, server = Feed(), Rtmp(extra=ping + window + bandwidth)
    feed.put(pictures(2))
    async with serving(server.serve) as at:
        push, _ = waits_of(RtmpPush, f"rtmp://127.0.0.1:{at.port}/live", KEY, open_line=line)
        async with pushing(push, feed):
            await until(lambda: len(server.of(PICTURE)) == 3, "the pictures")
    assert [m.data for m in server.of(4)] == [b"\x00\x07abcd"]
    assert [m.data for m in server.of(5)] == [(1000).to_bytes(4, "big")]
    assert server.of(3), "its bytes were not acknowledged"


async def test_another_size_is_another_session_begun_at_once() -> None:
    feed, server = Feed(), Rtmp()
    feed.put([*pictures(3), *pictures(3, Size(128, 128), start=3)])
    async with serving(server.serve) as at:
        push, waits = waits_of(RtmpPush, f"rtmp://127.0.0.1:{at.port}/live", KEY, open_line=line)
        async with pushing(push, feed):
            await until(lambda: feed.watched == 2, "another session")
            # What was read of the new size ended the old session; a keyframe follows on watching.
            feed.put(pictures(3, Size(128, 128), start=9))
            await until(lambda: len(server.of(DATA)) == 2, "the new description")
    assert waits == []
    told = [amf.decode(m.data)[2] for m in server.of(DATA)]
    assert [t["width"] for t in told if isinstance(t, dict)] == [256.0, 128.0]
    assert push.connections == 2


async def test_another_encoder_of_the_same_size_only_sends_its_header() -> None:
    feed, server = Feed(), Rtmp()
    first = pictures(2)
    other = pictures(2, start=2)
    # The same picture, from an encoder whose sequence parameter set says another level.
    data = bytearray(other[0].data)
    at = data.find(b"\x00\x00\x01\x67")
    data[at + 6] ^= 1
    changed = type(other[0])(
        other[0].pts, other[0].size, other[0].rendition, True, bytes(data), other[0].arrived_s
    )
    feed.put([*first, changed])
    async with serving(server.serve) as at_:
        push, _ = waits_of(RtmpPush, f"rtmp://127.0.0.1:{at_.port}/live", KEY, open_line=line)
        async with pushing(push, feed):
            await until(lambda: len(server.of(PICTURE)) == 5, "two headers, three pictures")
    assert [m.data[1] for m in server.of(PICTURE)] == [0, 1, 1, 0, 1]
    assert push.connections == 1


@pytest.mark.parametrize(
    ("code", "final"),
    [("NetStream.Publish.BadName", False), ("NetStream.Publish.Denied", True)],
)
async def test_a_refusal_is_told_without_the_key_and_tried_again_if_that_may_help(
    code: str, final: bool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    feed = Feed()
    server = Rtmp(publish=refusing(code, f"{KEY} is\nnot\x00 ours"))
    async with serving(server.serve) as at:
        push, waits = waits_of(
            RtmpPush, f"rtmp://127.0.0.1:{at.port}/live/{KEY}", None, open_line=line
        )
        feed.put(pictures(5))
        async with pushing(push, feed):
            if final:
                await until(lambda: push.state is PushState.REFUSED, "the refusal")
                assert waits == []
            else:
                await until(lambda: len(waits) > 0, "another try")
            said = push.reason if final else waits[0].reason
            assert code in said
            assert KEY not in said
            assert said.isprintable()
    assert KEY not in push.reason + push.shown_url + caplog.text


async def test_a_server_that_takes_nothing_is_left_and_costs_nobody_a_wait(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("streamlift.media.targets.line.STUCK_S", 0.3)
    feed, server = Feed(), Rtmp()
    feed.put(pictures(1))
    async with serving(server.serve) as at:
        push, waits = waits_of(RtmpPush, f"rtmp://127.0.0.1:{at.port}/live", KEY, open_line=line)
        async with pushing(push, feed):
            await until(lambda: len(server.of(PICTURE)) == 2, "the first picture")
            server.stands_still.clear()
            large = pictures(2)[1]
            for n in range(200):
                data = large.data + b"\x00\x00\x01\x06" + b"\x55" * 60_000
                feed.put([type(large)(n * 3600, large.size, large.rendition, False, data, 0.0)])
            await until(lambda: len(waits) > 0, "it to be left", timeout_s=20)
        server.stands_still.set()
    assert "takes nothing" in waits[0].reason


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=400), st.sampled_from(["at once", "shaken", "connected"]))
def test_no_bytes_of_a_server_do_more_than_end_their_connection(data: bytes, when: str) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if when != "at once":
            writer.write(b"\x03" + bytes(3072))
        if when == "connected":
            Rtmp.say(writer, "_result", 1.0, {}, {})
            Rtmp.say(writer, "_result", 4.0, None, 1.0)
        writer.write(data)
        writer.write_eof()
        await reader.read(-1)

    async def run() -> None:
        feed = Feed()
        feed.put(pictures(50))
        async with serving(serve) as at:
            push, waits = waits_of(
                RtmpPush, f"rtmp://127.0.0.1:{at.port}/live", KEY, open_line=line, tries=1
            )
            async with pushing(push, feed):
                await until(lambda: len(waits) > 0, "another try")
            assert not any("an error in this service" in wait.reason for wait in waits)

    asyncio.run(run())


async def test_who_joins_there_does_not_wait_long_for_a_keyframe() -> None:
    feed, server = Feed(), Rtmp()
    first, *others = pictures(50)
    feed.put([first, *others])  # two seconds without another keyframe, less one picture
    async with serving(server.serve) as at:
        push, _ = waits_of(RtmpPush, f"rtmp://127.0.0.1:{at.port}/live", KEY, open_line=line)
        async with pushing(push, feed):
            await until(lambda: len(server.of(PICTURE)) == 51, "the pictures")
            assert feed.keyframes_asked == 0
            feed.put([replace(one, pts=one.pts + 49 * 3600) for one in others])
            await until(lambda: len(server.of(PICTURE)) == 100, "two seconds more")
            assert feed.keyframes_asked == 1
