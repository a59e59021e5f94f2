"""Work that goes to its end though its owner is cancelled."""

from __future__ import annotations

import asyncio

import pytest

from streamlift.tasks import to_its_end


class Work:
    """Waits until it may end; `ended` once it has."""

    def __init__(self) -> None:
        self.may_end = asyncio.Event()
        self.ended = False

    async def run(self) -> str:
        await self.may_end.wait()
        self.ended = True
        return "done"


async def started(work: Work) -> asyncio.Task[str]:
    task = asyncio.create_task(to_its_end(work.run()))
    await asyncio.sleep(0)
    return task


async def test_its_result_is_given_back() -> None:
    work = Work()
    work.may_end.set()
    assert await to_its_end(work.run()) == "done"


async def test_its_error_is_raised() -> None:
    async def fail() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await to_its_end(fail())


async def test_a_cancellation_waits_for_the_end_however_often_it_comes() -> None:
    work = Work()
    task = await started(work)
    for _ in range(3):
        task.cancel()
        await asyncio.sleep(0)
    assert not task.done()
    work.may_end.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert work.ended


async def test_a_deadline_around_it_is_told_when_it_has_ended() -> None:
    work = Work()
    asyncio.get_running_loop().call_later(0.05, work.may_end.set)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await to_its_end(work.run())
    assert work.ended


async def test_an_error_after_the_cancellation_is_not_left_for_the_collector() -> None:
    may_fail = asyncio.Event()

    async def fail() -> None:
        await may_fail.wait()
        raise ZeroDivisionError

    told: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
    task = asyncio.create_task(to_its_end(fail()))
    await asyncio.sleep(0)
    task.cancel()
    may_fail.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert told == []
