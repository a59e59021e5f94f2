"""How long, and how much, the service reads of a request's body."""

from __future__ import annotations

import asyncio

from starlette.types import Message, Receive

from streamlift.api.problems import BodyTooLarge, BodyTooSlow

__all__ = ["MAX_BODY_BYTES", "patient"]

MAX_BODY_BYTES = 64 * 1024
"""Of any request; an SDP may be half as long."""


def patient(
    receive: Receive, body_s: float, *, most_bytes: int = MAX_BODY_BYTES, each: bool = False
) -> Receive:
    """`receive`, but a body larger than the bound raises BodyTooLarge, a slower one BodyTooSlow.

    The time runs from the first look at the body, or with `each` from each look at it, for bodies
    that may take as long as they like while they come; after its end the peer may stay silent.
    """
    seen = 0
    whole = False
    until_s: float | None = None

    async def receive_patiently() -> Message:
        nonlocal seen, whole, until_s
        if whole:
            return await receive()
        loop = asyncio.get_running_loop()
        if until_s is None or each:
            until_s = loop.time() + body_s
        try:
            async with asyncio.timeout_at(until_s):
                message = await receive()
        except TimeoutError:
            raise BodyTooSlow(body_s) from None
        seen += len(message.get("body", b""))
        whole = not message.get("more_body", False)
        if seen > most_bytes:
            raise BodyTooLarge(seen, most_bytes)
        return message

    return receive_patiently
