"""What tests of links share: a worker in this process, and the API called in-process."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest
from tests.api.conftest import call

__all__ = ["call"]


@pytest.fixture
async def worker() -> AsyncIterator[Callable[..., Any]]:
    """`served = await worker(...)`: a worker on a port of loopback; see `served.serving_worker`."""
    pytest.importorskip("grpc", reason="needs the extra cluster")
    from tests.cluster.served import serving_worker

    async with AsyncExitStack() as stack:

        async def start(*args: Any, **kwargs: Any) -> Any:
            return await stack.enter_async_context(serving_worker(*args, **kwargs))

        yield start
