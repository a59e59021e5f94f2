"""`streamlift` as a source of pictures in Scope: any stream of a service, by WHEP."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import logging
import os
import queue
import threading
import urllib.error
import urllib.parse
import urllib.request
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from streamlift.frames import Frame
    from streamlift.integrations.scope.standin import InputSource, InputSourceInfo
else:
    try:
        from scope.core.inputs.interface import InputSource, InputSourceInfo
    except ImportError:  # our own tests, where Scope is not installed
        from streamlift.integrations.scope.standin import InputSource, InputSourceInfo

__all__ = ["StreamliftInput"]

log = logging.getLogger(__name__)

SERVICE = "http://127.0.0.1:8080"
_CONNECT_S = 15.0
_NEEDED = ("aiortc", "av", "httpx")
_MOST_STREAMS_BYTES = 1 << 20


class StreamliftInput(InputSource):
    """The identifier is a WHEP address; STREAMLIFT_URL names the service whose streams are listed,
    STREAMLIFT_VIEW_TOKEN its token. The newest picture counts: one that nobody took is let go."""

    source_id: ClassVar[str] = "streamlift"
    source_name: ClassVar[str] = "streamlift"
    source_description: ClassVar[str] = "A stream of a streamlift service, by WHEP."

    def __init__(self) -> None:
        self._newest: queue.Queue[Frame] = queue.Queue(1)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._watching: asyncio.Task[None] | None = None
        self._thread: threading.Thread | None = None

    @classmethod
    def is_available(cls) -> bool:
        """Whether what speaks WebRTC is installed, as it is with Scope."""
        return all(importlib.util.find_spec(name) is not None for name in _NEEDED)

    def list_sources(self, timeout_ms: int = 5000) -> list[Any]:
        """The streams of the service; none, with a line in the log, when it does not answer."""
        base = os.environ.get("STREAMLIFT_URL", SERVICE).rstrip("/")
        request = urllib.request.Request(f"{base}/api/v1/streams")  # noqa: S310  checked below
        if token := _token_for(base):
            # Not among the headers that are sent again where a redirect leads to.
            request.add_unredirected_header("Authorization", f"Bearer {token}")
        try:
            if urllib.parse.urlsplit(base).scheme not in ("http", "https"):
                raise ValueError(f"STREAMLIFT_URL is {base!r}, expected http:// or https://")
            with urllib.request.urlopen(request, timeout=timeout_ms / 1000) as answer:  # noqa: S310  http(s) by the check
                streams = json.loads(answer.read(_MOST_STREAMS_BYTES))["streams"]
            names = [str(stream["name"]) for stream in streams]
        except (OSError, urllib.error.URLError, ValueError, KeyError, TypeError) as error:
            log.warning("no streams from %s: %s", base, error)
            return []
        return [InputSourceInfo(name=name, identifier=f"{base}/whep/{name}") for name in names]

    def connect(self, identifier: str) -> bool:
        """Watch that WHEP address; False, with a line in the log, when it cannot be watched."""
        self.disconnect()
        ready: queue.Queue[BaseException | None] = queue.Queue(1)
        self._thread = threading.Thread(
            target=self._run, args=(identifier, ready), name="streamlift-input", daemon=True
        )
        self._thread.start()
        try:
            error = ready.get(timeout=_CONNECT_S)
        except queue.Empty:
            error = TimeoutError(f"no connection within {_CONNECT_S:g} s")
        if error is None:
            return True
        log.warning("cannot watch %s: %s", identifier, error)
        self.disconnect()
        return False

    def receive_frame(self, timeout_ms: int = 100) -> Any:
        """The newest picture as (H, W, 3) uint8 RGB, or None if none came in time."""
        from streamlift.engine.yuv import planes_to_rgb
        from streamlift.integrations.scope.pixels import pack

        try:
            frame = self._newest.get(timeout=timeout_ms / 1000)
        except queue.Empty:
            return None
        return pack(planes_to_rgb(frame.planes, frame.colour))[0].numpy()

    def disconnect(self) -> None:
        loop, watching, thread = self._loop, self._watching, self._thread
        self._loop = self._watching = self._thread = None
        if loop is not None and watching is not None and not loop.is_closed():
            loop.call_soon_threadsafe(watching.cancel)
        if thread is not None:
            thread.join(_CONNECT_S)
        if not self._newest.empty():
            self._newest.get_nowait()

    def _run(self, url: str, ready: queue.Queue[BaseException | None]) -> None:
        asyncio.run(self._watch(url, ready))

    async def _watch(self, url: str, ready: queue.Queue[BaseException | None]) -> None:
        from streamlift.clock import MonotonicClock
        from streamlift.errors import StreamliftError
        from streamlift.media.remote.client import watch_whep

        self._loop, self._watching = asyncio.get_running_loop(), asyncio.current_task()
        try:
            async with watch_whep(url, _token_for(url), clock=MonotonicClock()) as (video, _):
                ready.put(None)
                async for frame in video:
                    self._put(frame)
                log.warning("%s has ended", url)
        except (StreamliftError, OSError) as error:
            if ready.empty():
                ready.put(error)
            log.warning("%s: %s", url, error)
        except asyncio.CancelledError:
            log.debug("no longer watching %s", url)

    def _put(self, frame: Frame) -> None:
        if self._newest.full():
            try:
                self._newest.get_nowait()
            except queue.Empty:
                log.debug("taken just now")
        self._newest.put_nowait(frame)


def _token_for(url: str) -> str | None:
    """The token is for the service of STREAMLIFT_URL; whoever else is watched must not see it."""
    ours = urllib.parse.urlsplit(os.environ.get("STREAMLIFT_URL", SERVICE))
    theirs = urllib.parse.urlsplit(url)
    if (theirs.scheme, theirs.netloc) != (ours.scheme, ours.netloc):
        return None
    return os.environ.get("STREAMLIFT_VIEW_TOKEN")
