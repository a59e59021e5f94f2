"""A local server of checkpoints, and a store that fetches from it."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from streamlift.upscalers.weights import (
    Checkpoint,
    WeightStore,
)

__all__ = ["BODY", "Shelf", "checkpoint_on", "serving_shelf", "store_of"]

BODY = bytes(range(256)) * 40


@dataclass
class Shelf:
    """What the server hands out, and what it was asked."""

    files: dict[str, bytes] = field(default_factory=dict)
    ranges: list[str | None] = field(default_factory=list)
    cut_after: int | None = None  # bytes after which the connection breaks
    can_resume: bool = True
    wrong_start: bool = False
    slow_s: float = 0.0
    says_length: bool = True
    pause_after: int | None = None  # bytes after which nothing comes until `go_on`
    go_on: threading.Event = field(default_factory=threading.Event)
    url: str = ""


@contextmanager
def serving_shelf() -> Iterator[Shelf]:
    """A server on a free port of this machine."""
    shelf = Shelf()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked = self.headers.get("Range")
            shelf.ranges.append(asked)
            body = shelf.files.get(self.path)
            if body is None:
                self.send_error(404)
                return
            start = int(asked[6:-1]) if asked and shelf.can_resume else 0
            if start >= len(body):
                self.send_error(416)
                return
            self.send_response(206 if start else 200)
            if start:
                told = start + 1 if shelf.wrong_start else start
                self.send_header("Content-Range", f"bytes {told}-{len(body) - 1}/{len(body)}")
            if shelf.says_length:
                self.send_header("Content-Length", str(len(body) - start))
            self.end_headers()
            time.sleep(shelf.slow_s)
            if shelf.pause_after is not None:
                self.wfile.write(body[start : shelf.pause_after])
                shelf.go_on.wait(60)
                return
            self.wfile.write(body[start : shelf.cut_after])

        def log_message(self, format: str, *args: object) -> None:
            del format, args

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        shelf.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield shelf
        finally:
            server.shutdown()
            thread.join()


def checkpoint_on(shelf: Shelf, *, pinned: bool = True, body: bytes = BODY) -> Checkpoint:
    shelf.files["/net.pth"] = body
    return Checkpoint(
        name="toy/net.pth",
        source=f"{shelf.url}/net.pth",
        size=len(BODY) if pinned else None,
        sha256=hashlib.sha256(BODY).hexdigest() if pinned else None,
        licence="none",
        net="toy",
        upscalers=("toy",),
    )


def store_of(tmp_path: Path, *checkpoints: Checkpoint, offline: bool = False) -> WeightStore:
    return WeightStore(tmp_path / "weights", offline=offline, checkpoints=checkpoints)
