"""RTMP's chunk stream: messages cut into pieces, and put together (Adobe's RTMP 1.0, section 5)."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import Protocol

from streamlift.errors import MediaError

__all__ = ["FIRST_CHUNK", "OUR_CHUNK", "ChunkReader", "Message", "cut"]

OUR_CHUNK = 4096
"""Bytes of our chunks, once the server is told."""
FIRST_CHUNK = 128
"""Bytes of both sides' chunks, until they say otherwise."""
_MOST_BYTES = 64 * 1024
"""Of a message to one who publishes: those are commands and acknowledgements."""
_MOST_STREAMS = 16
_EXTENDED = 0xFFFFFF


@dataclass(frozen=True, slots=True)
class Message:
    """One message; `kind` as in section 5.4 and 7.1, `timestamp` in ms."""

    kind: int
    stream: int
    timestamp: int
    data: bytes


class Bytes(Protocol):
    """What is read from; a `Line` fits."""

    async def read(self, count: int) -> bytes: ...


def cut(message: Message, channel: int, chunk_bytes: int = OUR_CHUNK) -> bytes:
    """A message as chunks, the first with a whole header; `channel` from 2 to 63."""
    time = message.timestamp & 0xFFFFFFFF
    extended = struct.pack("!I", time) if time >= _EXTENDED else b""
    head = struct.pack("!BI", channel, min(time, _EXTENDED) << 8 | len(message.data) >> 16)
    head += struct.pack("!HB", len(message.data) & 0xFFFF, message.kind)
    head += struct.pack("<I", message.stream) + extended
    pieces = [head + message.data[:chunk_bytes]]
    again = bytes([0xC0 | channel]) + extended
    pieces += [
        again + message.data[at : at + chunk_bytes]
        for at in range(chunk_bytes, len(message.data), chunk_bytes)
    ]
    return b"".join(pieces)


@dataclass(slots=True)
class _Channel:
    """What the last header of a chunk stream said, and the message that is under way."""

    timestamp: int = 0
    delta: int = 0
    length: int = 0
    kind: int = 0
    stream: int = 0
    extended: bool = False
    data: bytearray = field(default_factory=bytearray)


class ChunkReader:
    """Puts messages together; `chunk_bytes` is what the server said last, `read_bytes` counts."""

    def __init__(self, source: Bytes) -> None:
        self.chunk_bytes = FIRST_CHUNK
        self.read_bytes = 0
        self._source = source
        self._channels: dict[int, _Channel] = {}

    def drop(self, channel: int) -> None:
        """The server gives up the message that is under way there."""
        if channel in self._channels:
            self._channels[channel].data.clear()

    async def message(self) -> Message:
        """The next one that is whole. Raises MediaError for what is no RTMP, or too much of it."""
        while True:
            channel = await self._header()
            wanted = min(self.chunk_bytes, channel.length - len(channel.data))
            channel.data += await self._read(wanted)
            if len(channel.data) == channel.length:
                data = bytes(channel.data)
                channel.data.clear()
                return Message(channel.kind, channel.stream, channel.timestamp, data)

    async def _header(self) -> _Channel:
        first = (await self._read(1))[0]
        form, number = first >> 6, first & 0x3F
        if number == 0:
            number = 64 + (await self._read(1))[0]
        elif number == 1:
            number = 64 + int.from_bytes(await self._read(2), "little")
        channel = self._channels.get(number)
        if channel is None:
            if form != 0 or len(self._channels) >= _MOST_STREAMS:
                raise MediaError("this is no RTMP server, or not one for publishers")
            channel = self._channels[number] = _Channel()
        begins = not channel.data
        time = 0
        if form < 3:
            if not begins:
                raise MediaError("the server begins a message before its last one was whole")
            time = int.from_bytes(await self._read(3), "big")
            channel.extended = time == _EXTENDED
        if form < 2:
            channel.length = int.from_bytes(await self._read(3), "big")
            channel.kind = (await self._read(1))[0]
            if channel.length > _MOST_BYTES:
                raise MediaError(
                    "the server's message is too long",
                    found=channel.length,
                    expected=f"at most {_MOST_BYTES} bytes",
                )
        if form == 0:
            channel.stream = int.from_bytes(await self._read(4), "little")
        if channel.extended:
            told = int.from_bytes(await self._read(4), "big")
            time = told if form < 3 else time
        if begins:
            if form == 0:
                channel.timestamp, channel.delta = time, 0
            else:
                channel.delta = time if form < 3 else channel.delta
                channel.timestamp = (channel.timestamp + channel.delta) & 0xFFFFFFFF
        return channel

    async def _read(self, count: int) -> bytes:
        data = await self._source.read(count)
        self.read_bytes += count
        return data
