"""The bounded queue between two parts of one event loop."""

from __future__ import annotations

import asyncio

import pytest

from streamlift.mailbox import Full, Mailbox


async def rest(mailbox: Mailbox[int]) -> list[int]:
    async with asyncio.timeout(5):
        return [item async for item in mailbox]


async def test_items_come_out_in_order_and_then_the_end() -> None:
    mailbox: Mailbox[int] = Mailbox(3)
    assert [mailbox.put(n) for n in range(3)] == [True] * 3
    assert len(mailbox) == 3
    mailbox.end()
    assert await rest(mailbox) == [0, 1, 2]
    assert mailbox.dropped == 0


async def test_a_full_one_drops_the_oldest_and_says_so() -> None:
    mailbox: Mailbox[int] = Mailbox(2)
    assert [mailbox.put(n) for n in range(4)] == [True, True, False, False]
    mailbox.end()
    assert await rest(mailbox) == [2, 3]
    assert mailbox.dropped == 2


async def test_a_full_one_may_keep_the_oldest_instead() -> None:
    mailbox: Mailbox[int] = Mailbox(2, Full.DROP_NEW)
    assert [mailbox.put(n) for n in range(4)] == [True, True, False, False]
    mailbox.end()
    assert await rest(mailbox) == [0, 1]
    assert mailbox.dropped == 2


async def test_a_reader_that_waits_is_woken_by_an_item_and_by_the_end() -> None:
    mailbox: Mailbox[int] = Mailbox(2)
    reading = asyncio.create_task(rest(mailbox))
    await asyncio.sleep(0)
    mailbox.put(1)
    await asyncio.sleep(0)
    mailbox.put(2)
    await asyncio.sleep(0)
    assert not reading.done()
    mailbox.end()
    assert await reading == [1, 2]


async def test_an_error_comes_after_what_was_there_and_the_first_one_counts() -> None:
    mailbox: Mailbox[int] = Mailbox(2)
    mailbox.put(1)
    mailbox.end(ValueError("first"))
    mailbox.end(ValueError("second"))
    mailbox.end()
    assert await anext(mailbox) == 1
    for _ in range(2):  # and again, for whoever asks again
        with pytest.raises(ValueError, match="first"):
            await anext(mailbox)


async def test_nothing_is_taken_after_the_end() -> None:
    mailbox: Mailbox[int] = Mailbox(2)
    mailbox.end()
    assert not mailbox.put(1)
    assert await rest(mailbox) == []
    assert mailbox.dropped == 1


async def test_a_reader_that_gives_up_waiting_loses_nothing() -> None:
    mailbox: Mailbox[int] = Mailbox(2)
    reading = asyncio.create_task(rest(mailbox))
    await asyncio.sleep(0)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    mailbox.put(1)
    assert await anext(mailbox) == 1


async def test_what_follows_a_dropped_item_can_be_told_of_it() -> None:
    mailbox: Mailbox[str] = Mailbox(2, bridge=lambda after, dropped: f"{after} after {dropped}")
    for item in "abcd":
        mailbox.put(item)
    mailbox.end()
    assert [item async for item in mailbox] == ["c after b after a", "d"]
