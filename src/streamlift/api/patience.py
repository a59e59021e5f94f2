"""How long, and how much, the service reads of a request's body."""

from __future__ import annotations

import asyncio

from starlette.types import Message, Receive

from streamlift.api.problems import BodyTooLarge, BodyTooSlow

__all__ = ["MAX_BODY_BYTES", "patient"]

MAX_BODY_BYTES = 64 * 1024
"""Of any request; an SDP may be half as long."""


def patient(receive: Receive, body_s: float) -> Receive:
    """`receive`, but a body larger than the bound raises BodyTooLarge, a slower one BodyTooSlow.

    The time runs from the first look at the body; after its end the peer may stay silent.
    """
    seen = 0
    whole = False
    until_s: float | None = None

    async def receive_patiently() -> Message:
        nonlocal seen, whole, until_s
        if whole:
            return await receive()
        loop = asyncio.get_running_loop()
        if until_s is None:
            until_s = loop.time() + body_s
        try:
            async with asyncio.timeout_at(until_s):
                message = await receive()
        except TimeoutError:
            raise BodyTooSlow(body_s) from None
        seen += len(message.get("body", b""))
        whole = not message.get("more_body", False)
        if seen > MAX_BODY_BYTES:
            raise BodyTooLarge(seen, MAX_BODY_BYTES)
        return message

    return receive_patiently
