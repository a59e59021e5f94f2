"""Datagrams that nobody should send: of every protocol, whole, cut off or absurd."""

from __future__ import annotations

import random
import struct

from aioice.stun import Class, Message, Method

__all__ = ["datagram"]


def _stun(rng: random.Random, attributes: bytes, *, length: int | None = None) -> bytes:
    kind = rng.choice((0x0001, 0x0101, 0x0111, 0x0011, 0x0003, rng.randrange(0x4000)))
    size = len(attributes) if length is None else length
    return struct.pack("!HHI", kind, size & 0xFFFF, 0x2112A442) + rng.randbytes(12) + attributes


def _attribute(rng: random.Random) -> bytes:
    kinds = (0x0006, 0x0008, 0x0009, 0x0020, 0x0024, 0x8028, 0x802A, rng.randrange(1 << 16))
    value = rng.randbytes(rng.choice((0, 1, 2, 4, 8, 20)))
    said = len(value) if rng.random() < 0.7 else rng.randrange(1 << 16)
    return struct.pack("!HH", rng.choice(kinds), said) + value + bytes(-len(value) % 4)


def datagram(rng: random.Random) -> bytes:
    """Of every kind there is, whole, cut off or absurd."""
    length = rng.choice((0, 1, 2, 3, 11, 12, 13, 19, 20, 21, 100, 1200, 1500, 1501, 3000))
    kind = rng.randrange(7)
    if kind == 0:
        return rng.randbytes(length)
    if kind == 1:
        return _stun(rng, b"".join(_attribute(rng) for _ in range(rng.randrange(5))))
    if kind == 2:
        return _stun(rng, rng.randbytes(length), length=rng.choice((None, rng.randrange(1 << 16))))
    if kind == 3:  # an honest check that does not know the secret
        message = Message(Method.BINDING, Class.REQUEST)
        message.attributes["USERNAME"] = "abcd:efgh"
        message.attributes["PRIORITY"] = rng.randrange(1 << 32)
        message.add_message_integrity(rng.randbytes(16))
        return bytes(message)
    first = rng.choice((20, 21, 22, 23, 25, 63, 64, 127, 128, 144, 191, 192, 255))
    second = rng.choice((0, 96, 200, 201, 205, 224, 254))
    return (bytes((first, second)) + rng.randbytes(length))[: max(1, length)]
