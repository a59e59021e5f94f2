"""A WHIP server that answers what it is told to, one answer a request."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Answer", "Scripted", "scripted"]


@dataclass(frozen=True)
class Answer:
    """A whole HTTP answer; status 0 means that the line is cut instead."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: str = ""


@dataclass
class Scripted:
    """`requests` are method, path and headers (lower case), in order."""

    url: str
    answers: list[Answer]
    requests: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    serving: set[asyncio.Task[Any]] = field(default_factory=set)

    @property
    def methods(self) -> list[str]:
        return [method for method, _, _ in self.requests]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.serving.add(task)
        try:
            await self._answer(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            return  # the client went away, as tests have it do
        finally:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()
            self.serving.discard(task)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        first, *lines = head.strip().split("\r\n")
        headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in lines)}
        await reader.readexactly(int(headers.get("content-length", "0")))
        method, path, _ = first.split(" ")
        self.requests.append((method, path, headers))
        answer = self.answers.pop(0) if self.answers else Answer(200)
        if answer.status:
            writer.write(_bytes(answer))
            await writer.drain()


@asynccontextmanager
async def scripted(*answers: Answer) -> AsyncIterator[Scripted]:
    """Serve until the block ends; after the last answer all are 200 without content."""
    server = Scripted("", list(answers))
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    server.url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/whip/there"
    async with listening:
        yield server
        # Whoever still asks is answered before the loop ends: a handler cut off there is an error.
        if server.serving:
            await asyncio.wait(server.serving)


def _bytes(answer: Answer) -> bytes:
    headers = {"Content-Length": str(len(answer.body)), "Connection": "close", **answer.headers}
    lines = [f"HTTP/1.1 {answer.status} X", *(f"{k}: {v}" for k, v in headers.items())]
    return ("\r\n".join(lines) + "\r\n\r\n" + answer.body).encode()
