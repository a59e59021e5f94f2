"""The API called in-process: real service, no socket for HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from tests.serving import light

from streamlift.app import create_app
from streamlift.config import Config

BASE = "http://127.0.0.1:8080"


@pytest.fixture
async def call() -> AsyncIterator[Callable[..., Any]]:
    """`http = await call(config)`: a client of a service with that configuration.

    `base_url` is the address the client believes it talks to; `http.app` is the application.
    """
    async with AsyncExitStack() as stack:

        async def start(config: Config | None = None, base_url: str = BASE) -> httpx.AsyncClient:
            app = create_app(config or light())
            await stack.enter_async_context(app.router.lifespan_context(app))
            return await stack.enter_async_context(client_of(app, base_url))

        yield start


@pytest.fixture
async def http(call: Callable[..., Any]) -> httpx.AsyncClient:
    """A client of a service with the `light` configuration."""
    client: httpx.AsyncClient = await call()
    return client


def client_of(app: FastAPI, base_url: str = BASE) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url=base_url)
