"""AMF0, the values in which RTMP speaks (Action Message Format, Adobe 2007), read with bounds."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from enum import IntEnum
from typing import TypeAlias

from streamlift.errors import MediaError

__all__ = ["Value", "decode", "encode"]

Value: TypeAlias = float | bool | str | Mapping[str, "Value"] | list["Value"] | None


class _Kind(IntEnum):
    NUMBER = 0
    BOOLEAN = 1
    STRING = 2
    OBJECT = 3
    NULL = 5
    UNDEFINED = 6
    ECMA_ARRAY = 8
    END = 9
    STRICT_ARRAY = 10
    DATE = 11
    LONG_STRING = 12


_DEEPEST = 8
_MOST_VALUES = 1000


def encode(*values: Value) -> bytes:
    """Values one after the other; a mapping becomes an object."""
    return b"".join(_encoded(value) for value in values)


def decode(data: bytes) -> list[Value]:
    """All values in `data`. Raises MediaError for what is none, deeper than 8 levels or more than
    1000."""
    reading = _Reading(data)
    values = []
    while not reading.done:
        values.append(reading.value(_DEEPEST))
    return values


def _encoded(value: Value) -> bytes:
    match value:
        case None:
            return bytes([_Kind.NULL])
        case bool():
            return bytes([_Kind.BOOLEAN, value])
        case int() | float():
            return struct.pack("!Bd", _Kind.NUMBER, value)
        case str():
            data = value.encode()
            if len(data) > 0xFFFF:
                return struct.pack("!BI", _Kind.LONG_STRING, len(data)) + data
            return bytes([_Kind.STRING]) + _name(value)
        case list():
            items = b"".join(_encoded(item) for item in value)
            return struct.pack("!BI", _Kind.STRICT_ARRAY, len(value)) + items
        case _:
            items = b"".join(_name(name) + _encoded(item) for name, item in value.items())
            return bytes([_Kind.OBJECT]) + items + _name("") + bytes([_Kind.END])


def _name(text: str) -> bytes:
    data = text.encode()
    return struct.pack("!H", len(data)) + data


class _Reading:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0
        self._left = _MOST_VALUES

    @property
    def done(self) -> bool:
        return self._at >= len(self._data)

    def value(self, room: int) -> Value:
        self._left -= 1
        if room == 0 or self._left < 0:
            raise MediaError("the server's message holds too much")
        kind = self._take(1)[0]
        match kind:
            case _Kind.NUMBER:
                return float(struct.unpack("!d", self._take(8))[0])
            case _Kind.BOOLEAN:
                return bool(self._take(1)[0])
            case _Kind.STRING:
                return self._text(2)
            case _Kind.OBJECT:
                return self._members(room)
            case _Kind.NULL | _Kind.UNDEFINED:
                return None
            case _Kind.ECMA_ARRAY:
                self._take(4)  # a count, which nobody relies on
                return self._members(room)
            case _Kind.STRICT_ARRAY:
                (count,) = struct.unpack("!I", self._take(4))
                return [self.value(room - 1) for _ in range(count)]
            case _Kind.DATE:
                when = struct.unpack("!dh", self._take(10))
                return float(when[0])
            case _Kind.LONG_STRING:
                return self._text(4)
        raise MediaError("the server's message cannot be read", found=f"AMF0 type {kind}")

    def _members(self, room: int) -> dict[str, Value]:
        members: dict[str, Value] = {}
        while True:
            name = self._text(2)
            if not name and self._data[self._at : self._at + 1] == bytes([_Kind.END]):
                self._at += 1
                return members
            members[name] = self.value(room - 1)

    def _text(self, length_bytes: int) -> str:
        length = int.from_bytes(self._take(length_bytes), "big")
        return self._take(length).decode("utf-8", "replace")

    def _take(self, count: int) -> bytes:
        if self._at + count > len(self._data):
            raise MediaError("the server's message ends too soon")
        taken = self._data[self._at : self._at + count]
        self._at += count
        return taken
