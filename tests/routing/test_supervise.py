"""Failures stay where they happen."""

from __future__ import annotations

import asyncio

import pytest

from streamlift.errors import UpscaleError
from streamlift.tasks import supervise


async def fail(error: BaseException) -> None:
    raise error


async def test_a_failing_child_leaves_its_siblings_alone(caplog: pytest.LogCaptureFixture) -> None:
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(supervise("stream a", fail(ValueError("unforeseen"))))
        tasks.create_task(supervise("stream b", fail(UpscaleError("foreseen"))))
        healthy = tasks.create_task(asyncio.sleep(0, "done"))
    assert healthy.result() == "done"
    assert "stream a failed" in caplog.text
    assert "stream b ended: foreseen" in caplog.text


async def test_cancellation_passes_through() -> None:
    with pytest.raises(asyncio.CancelledError):
        await supervise("stream", fail(asyncio.CancelledError()))
