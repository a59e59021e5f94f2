"""The real service inside a test: uvicorn on a free port of the test's own event loop."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import uvicorn
from fastapi import FastAPI
from tests.waiting import until

from streamlift.api.listener import Listener
from streamlift.api.server import listen, server_settings
from streamlift.app import create_app
from streamlift.config import BackendConfig, Config
from streamlift.service import Service

__all__ = ["Served", "WebServer", "light", "serving", "until"]


@dataclass(frozen=True, slots=True)
class Served:
    """A running service: its address, and its parts for looking inside."""

    url: str
    app: FastAPI
    listener: Listener

    @property
    def parts(self) -> Service:
        service = self.app.state.service
        assert isinstance(service, Service)
        return service

    def whip(self, stream: str = "live") -> str:
        return f"{self.url}/whip/{stream}"

    def whep(
        self, stream: str = "live", view: str | None = None, backend: str | None = None
    ) -> str:
        query = f"?view={view}" if view else f"?backend={backend}" if backend else ""
        return f"{self.url}/whep/{stream}{query}"

    def http(self, **options: Any) -> httpx.AsyncClient:
        """A client of this service; close it (`async with`)."""
        return httpx.AsyncClient(base_url=self.url, trust_env=False, timeout=15, **options)

    async def read(self, path: str) -> Any:
        """The JSON at a path, whatever its status."""
        async with self.http() as http:
            return (await http.get(path)).json()

    def state(self, stream: str = "live") -> str | None:
        """The stream's state, or None if there is no such stream."""
        return next((s.state for s in self.parts.router.streams() if s.name == stream), None)

    async def live(self, stream: str = "live", timeout_s: float = 15.0) -> None:
        """Wait until the stream gives pictures."""
        await until(
            lambda: self.state(stream) == "live", f"{stream} to be live", timeout_s=timeout_s
        )

    async def stream(self, name: str = "live") -> Any:
        return await self.read(f"/api/v1/streams/{name}")


def light(**changes: Any) -> Config:
    """A configuration whose only backend costs next to nothing, with some fields changed."""
    bicubic = BackendConfig("bicubic", "bicubic")
    plain = Config(default_backend="bicubic", backends=(bicubic,))
    return dataclasses.replace(plain, **changes)


@asynccontextmanager
async def serving(config: Config | None = None, *, tls: bool = False) -> AsyncIterator[Served]:
    """Run the service until the block ends; raises if it cannot start or does not end."""
    config = config or light()
    app = create_app(config)
    with listen(config, "127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
        web = WebServer(server_settings(app, config, listener))
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(web.serve(sockets=[listener]))
            await until(lambda: web.started or running.done(), "the service to start")
            assert web.started, "the service did not start: see its log"
            try:
                yield Served(f"{'https' if tls else 'http'}://127.0.0.1:{port}", app, listener)
            finally:
                web.should_exit = True
                async with asyncio.timeout(15):
                    await asyncio.wait([running])


class WebServer(uvicorn.Server):
    """Leaves signals to pytest: Ctrl-C ends the run, not the service that a test waits for."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield
