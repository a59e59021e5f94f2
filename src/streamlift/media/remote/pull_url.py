"""Pulling a URL: RTSP, RTMP, HTTP (HLS, MPEG-TS, MP4), UDP or a file, read by a child process.

FFmpeg's demuxers and decoders meet what strangers made, so they run in a process of their own for
each pull: confined, without our secrets, killed when it is silent, and never believed (`wire`).
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import sys
import threading
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, BinaryIO
from urllib.parse import urlsplit

import numpy as np

from streamlift.clock import Clock
from streamlift.codec.decoder import size_problem
from streamlift.codec.motion import bridged
from streamlift.errors import MediaError, StreamliftError
from streamlift.frames import CodedAudio, Frame, IngestCounts
from streamlift.mailbox import Mailbox
from streamlift.media.remote.pull import SourceEnded, SourceLost, SourceRefused
from streamlift.media.remote.url.rules import UrlRules, hidden, stream_key
from streamlift.media.remote.url.wire import (
    HEADER,
    Kind,
    Shown,
    Why,
    most_bytes,
    read_counts,
    read_picture,
    read_reason,
    read_sound,
)
from streamlift.tasks import to_its_end

__all__ = ["UrlSource"]

logger = logging.getLogger(__name__)

FIRST_FRAME_S = 25.0
SILENT_S = 10.0
NO_PICTURE_S = 5.0
_END_S = 1.0
_START_S = 10.0
"""What Python itself may take to start, on a busy machine."""
_LOOK_S = 0.5
_QUEUED = 32
_SOUND_QUEUED = 256
_LOG_LINES = 40
_KEPT = re.compile(
    r"(PATH|HOME|LANG|LC_.*|TZ|TMPDIR|TEMP|TMP|SYSTEMROOT|VIRTUAL_ENV|PYTHON(PATH|HOME)"
    r"|(LD|DYLD)_LIBRARY_PATH|SSL_CERT_(FILE|DIR))"
)
"""What of our environment the child gets: none of our tokens."""


class UrlSource:
    """Fits `pull.Source`: a URL that FFmpeg can read."""

    kind = "url"
    first_frame_s = FIRST_FRAME_S
    stall_s = SILENT_S

    def __init__(
        self,
        stream: str,
        url: str,
        *,
        loop: bool,
        hosts: Sequence[str],
        listen: Sequence[str],
        directories: Sequence[str],
        max_side: int,
        clock: Clock,
    ) -> None:
        """Raises ConfigError when the URL must not be opened."""
        UrlRules(hosts, listen, directories).check(url)
        self._stream = stream
        self._url = url
        self._loop = loop
        self._order = {
            "url": url,
            "loop": loop,
            "hosts": list(hosts),
            "listen": list(listen),
            "directories": list(directories),
            "max_side": max_side,
        }
        self._max_side = max_side
        self._clock = clock
        self._pictures: UrlPictures | None = None
        self._found: tuple[str | None, str | None] = (None, None)

    @property
    def doing(self) -> str:
        return "" if self._pictures is None else self._pictures.doing

    def describe(self) -> Mapping[str, Any]:
        if self._pictures is not None and self._pictures.found is not None:
            self._found = self._pictures.found
        video, sound = self._found
        return {"url": hidden(self._url), "loop": self._loop, "video": video, "sound": sound}

    @asynccontextmanager
    async def open(self) -> AsyncIterator[UrlPictures]:
        """A child that reads it. Raises StreamliftError when none can be started."""
        pictures = UrlPictures(
            self._stream, max_side=self._max_side, secrets=_secrets(self._url), clock=self._clock
        )
        try:
            await pictures.start(self._order)
            self._pictures = pictures
            yield pictures
        finally:
            self.describe()  # what was found stays to be told
            self._pictures = None
            await to_its_end(pictures.aclose())


class UrlPictures:
    """Fits `pull.Pictures`: one child, from its start to its end."""

    def __init__(self, stream: str, *, max_side: int, secrets: Sequence[str], clock: Clock) -> None:
        self.doing = ""
        self.found: tuple[str | None, str | None] | None = None
        """Codecs of video and sound, once it has been looked at."""
        self._stream = stream
        self._max_side = max_side
        self._secrets = secrets
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._counts = IngestCounts()
        self._frames: Mailbox[Frame] = Mailbox(_QUEUED, bridge=bridged)
        self._sound: Mailbox[CodedAudio] = Mailbox(_SOUND_QUEUED)
        self._process: asyncio.subprocess.Process | None = None
        self._shown_s = clock.now_s()
        self._heard_s = self._shown_s + _START_S
        self._over = asyncio.Event()
        """Set when the pipe has ended: nothing will come any more."""
        self._reader: threading.Thread | None = None

    # ---- pull.Pictures ----

    @property
    def counts(self) -> IngestCounts:
        stale = self._frames.dropped
        if not stale:
            return self._counts
        dropped = dict(self._counts.dropped)
        dropped["stale"] = dropped.get("stale", 0) + stale
        return IngestCounts(self._counts.received, self._counts.decoded, dropped)

    @property
    def absence(self) -> str | None:
        if self._clock.now_s() - self._shown_s > NO_PICTURE_S:
            return f"no picture has come for {NO_PICTURE_S:g} s"
        return None

    @property
    def sound(self) -> AsyncIterator[CodedAudio]:
        return self._sound

    def __aiter__(self) -> AsyncIterator[Frame]:
        return self._frames

    def request_keyframe(self) -> None:
        """Nobody can be asked: the source sends them in its own time."""

    async def attend(self) -> None:
        """Kill a child that says nothing; its log lines are ours."""
        process = self._process
        assert process is not None
        async with asyncio.TaskGroup() as tasks:
            logging_ = tasks.create_task(self._read_log(process))
            while not self._over.is_set():
                with suppress(TimeoutError):
                    async with asyncio.timeout(_LOOK_S):
                        await self._over.wait()
                if self._clock.now_s() - self._heard_s > SILENT_S:
                    logger.warning("stream %s: the process that reads it hangs", self._stream)
                    self._frames.end(SourceLost(f"its reader was silent for {SILENT_S:g} s"))
                    self._kill()
                    break
            await process.wait()
            logging_.cancel()
            self._frames.end(SourceLost(_how(process.returncode)))

    # ---- the child ----

    async def start(self, order: Mapping[str, Any]) -> None:
        """Raises MediaError when no process can be had."""
        reading, writing = os.pipe()
        try:
            self._process = process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "streamlift.media.remote.url.child"),
                stdin=asyncio.subprocess.PIPE,
                stdout=writing,
                stderr=asyncio.subprocess.PIPE,
                start_new_session=True,  # Ctrl-C is for the service, which then ends it
                env=_environment(),
            )
        except OSError as error:
            os.close(reading)
            raise MediaError(f"the process that reads it cannot be started: {error}") from error
        except BaseException:
            os.close(reading)
            raise
        finally:
            os.close(writing)
        self._reader = threading.Thread(
            target=self._read, args=(os.fdopen(reading, "rb", buffering=0),), daemon=True
        )
        self._reader.name = f"pull-{self._stream}"
        self._reader.start()
        assert process.stdin is not None
        with suppress(ConnectionError):
            process.stdin.write(json.dumps(order).encode() + b"\n")
            await process.stdin.drain()

    async def aclose(self) -> None:
        """End the child: its lifeline first, then by force; returns when nothing of it is left."""
        process = self._process
        if process is None:
            return
        if process.stdin is not None:
            process.stdin.close()
        with suppress(TimeoutError):
            async with asyncio.timeout(_END_S):
                await process.wait()
        self._kill()
        await process.wait()
        with suppress(TimeoutError):
            async with asyncio.timeout(_END_S):
                await self._over.wait()
                await self._read_log(process)  # to its end, so that the pipe is closed
        self._frames.end()
        self._sound.end()

    def _kill(self) -> None:
        process = self._process
        if process is not None and process.returncode is None:
            with suppress(ProcessLookupError):
                process.kill()

    async def _read_log(self, process: asyncio.subprocess.Process) -> None:
        """The first lines of what it writes; a child that is in strange hands fills no log."""
        assert process.stderr is not None
        lines = 0
        while True:
            try:
                line = await process.stderr.readline()
            except ValueError:
                continue  # longer than the reader's limit
            if not line:
                return
            lines += 1
            if lines <= _LOG_LINES:
                text = read_reason(line.rstrip()[:1000])
                logger.warning("stream %s: its reader says: %s", self._stream, self._hidden(text))

    def _hidden(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, "...")
        return text

    # ---- on the reader's thread ----

    def _read(self, pipe: BinaryIO) -> None:
        try:
            with pipe:
                while (message := _next_message(pipe, self._max_side)) is not None:
                    self._take(*message)
        except (MediaError, OSError) as error:
            self._post(self._broken, str(error))
        self._post(self._over.set)

    def _take(self, kind: Kind, data: np.ndarray) -> None:
        """Raises MediaError for what no child of ours would send."""
        if kind is Kind.PICTURE:
            shown = read_picture(data, self._max_side)
            if problem := size_problem(shown.planes.size, self._max_side):
                raise MediaError(f"the child sent a picture that cannot be: {problem}")
            self._post(self._deliver, shown)
        elif kind is Kind.SOUND:
            self._post(self._let_hear, *read_sound(data.tobytes()))
        elif kind is Kind.COUNTS:
            self._post(self._count, read_counts(data.tobytes()))
        else:
            self._post(self._hear, kind, read_reason(data.tobytes()))

    def _post(self, call: Callable[..., None], *args: object) -> None:
        # After the loop is gone there is nobody to tell; it may go between a look and the call.
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(call, *args)

    # ---- back on the loop ----

    def _deliver(self, shown: Shown) -> None:
        now_s = self._heard_s = self._shown_s = self._clock.now_s()
        self.doing = ""
        self._frames.put(
            Frame(
                pts=shown.pts,
                size=shown.planes.size,
                planes=shown.planes,
                colour=shown.colour,
                arrived_s=now_s,
                coded=shown.coded,
                decode_s=shown.decode_s,
                motion=shown.motion,
            )
        )

    def _let_hear(self, pts: int, opus: bytes) -> None:
        self._heard_s = self._clock.now_s()
        self._sound.put(CodedAudio(pts, opus, self._heard_s))

    def _count(self, counts: IngestCounts) -> None:
        self._heard_s = self._clock.now_s()
        self._counts = counts

    def _hear(self, kind: Kind, text: str) -> None:
        self._heard_s = self._clock.now_s()
        if kind is Kind.DOING:
            self.doing = self._hidden(text)
        elif kind is Kind.OPENED:
            video, _, sound = text.partition(" ")
            self.found = (video[:20] or None, None if sound in ("", "-") else sound[:20])
        elif kind is Kind.ERROR:
            self._frames.end(_error(text[:1], self._hidden(text[1:])))

    def _broken(self, reason: str) -> None:
        logger.warning("stream %s: %s; its reader is ended", self._stream, reason)
        self._frames.end(SourceLost(reason))
        self._kill()


def _next_message(pipe: BinaryIO, max_side: int) -> tuple[Kind, np.ndarray] | None:
    """None at the end of the pipe. Raises MediaError."""
    head = _exactly(pipe, HEADER.size)
    if head is None:
        return None
    number, length = HEADER.unpack(head.data)
    try:
        kind = Kind(number)
    except ValueError:
        raise MediaError("the child sent what is no message", found=number) from None
    if length > most_bytes(kind, max_side):
        raise MediaError(f"the child sent a {kind.name} that is too long", found=length)
    data = _exactly(pipe, length)
    return None if data is None else (kind, data)


def _exactly(pipe: BinaryIO, length: int) -> np.ndarray | None:
    data = np.empty(length, np.uint8)
    view, at = data.data, 0
    while at < length:
        count = pipe.readinto(view[at:])  # type: ignore[attr-defined]
        if not count:
            return None
        at += count
    return data


def _error(kind: str, text: str) -> StreamliftError:
    text = text or "its reader ended without a word"
    if kind == Why.REFUSED:
        return SourceRefused(text)
    return SourceEnded(text) if kind == Why.ENDED else SourceLost(text)


def _how(code: int | None) -> str:
    if code is not None and code < 0:
        return f"the process that read it was ended by signal {-code}"
    return f"the process that read it has ended (exit {code})"


def _environment() -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if _KEPT.fullmatch(key)}
    return kept | {"PYTHONFAULTHANDLER": "1"}


def _secrets(url: str) -> tuple[str, ...]:
    """Parts of a URL that no message may repeat."""
    parts = urlsplit(url)
    user = parts.netloc.rpartition("@")[0]
    found = (url, user, user.partition(":")[2], parts.query, stream_key(url))
    return tuple(part for part in found if len(part) > 2)
