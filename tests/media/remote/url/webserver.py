"""A web server for tests: files with ranges, redirects, and answers as bad as the test wants."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

__all__ = ["Site", "website"]

Answer = Callable[[BaseHTTPRequestHandler], None]


@dataclass
class Site:
    """What is served: bytes, a file, or a function that answers. `asked`: paths, in order."""

    pages: dict[str, bytes | Path | Answer] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    url: str = ""

    def serve(self, folder: Path) -> None:
        """All files of a folder."""
        self.pages |= {f"/{path.name}": path for path in folder.iterdir()}

    def redirect(self, path: str, to: str, status: int = 302) -> None:
        def answer(request: BaseHTTPRequestHandler) -> None:
            request.send_response(status)
            request.send_header("Location", to)
            request.send_header("Content-Length", "0")
            request.end_headers()

        self.pages[path] = answer


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    site: Site

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        self.site.asked.append(path)
        self.site.headers.append({k.lower(): v for k, v in self.headers.items()})
        page = self.site.pages.get(path)
        try:
            if callable(page):
                page(self)
            else:
                self._send(page.read_bytes() if isinstance(page, Path) else page)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def _send(self, body: bytes | None) -> None:
        status, wanted = 200 if body is not None else 404, self.headers.get("Range", "")
        body = body or b""
        total = len(body)
        if (match := re.fullmatch(r"bytes=(\d+)-(\d*)", wanted)) and status == 200:
            begin, end = int(match[1]), int(match[2] or total - 1)
            status, body = 206, body[begin : end + 1]
        self.send_response(status)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(len(body)))
        if status == 206:
            self.send_header("Content-Range", f"bytes {begin}-{begin + len(body) - 1}/{total}")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """The test looks at `asked`."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A reader that hangs up in the middle is what some tests are about."""


@contextmanager
def website() -> Iterator[Site]:
    site = Site()
    handler = type("Handler", (_Handler,), {"site": site})
    server = _Server(("127.0.0.1", 0), handler)
    site.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield site
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
