"""Still pictures of streams: the newest keyframe as JPEG, made once for all who ask meanwhile."""

from __future__ import annotations

import asyncio
import logging

from streamlift.codec.still import picture_as_jpeg
from streamlift.errors import MediaError, NoPicture, StreamliftError
from streamlift.routing import Router, View

__all__ = ["SNAPSHOT_S", "Snapshots"]

logger = logging.getLogger(__name__)

SNAPSHOT_S = 3.0
_AT_ONCE = 2


class Snapshots:
    """One picture is made for all who ask for the same view while it is being made, and only a
    few are made at once: each decodes and encodes a whole picture."""

    def __init__(self, router: Router, tasks: asyncio.TaskGroup) -> None:
        self._router = router
        self._tasks = tasks
        self._making: dict[tuple[str, View], asyncio.Task[bytes | StreamliftError]] = {}
        self._turn = asyncio.Semaphore(_AT_ONCE)

    async def jpeg(self, stream: str, view: View) -> bytes:
        """Raises UnknownStream, MediaError, or NoPicture when no keyframe comes within 3 s."""
        self._router.stream(stream)
        key = (stream, view)
        making = self._making.get(key)
        if making is None:
            making = self._tasks.create_task(self._make(stream, view))
            self._making[key] = making
            making.add_done_callback(lambda _: self._making.pop(key, None))
        made = await asyncio.shield(making)
        if isinstance(made, StreamliftError):
            raise made
        return made

    async def _make(self, stream: str, view: View) -> bytes | StreamliftError:
        """An error is returned: raised, it would end the group that owns this task."""
        try:
            async with asyncio.timeout(SNAPSHOT_S):
                with self._router.watch(stream, view) as frames:
                    # A viewer's first frame is always a keyframe.
                    keyframe = await anext(frames)
        except (TimeoutError, StopAsyncIteration):
            return NoPicture(f"no keyframe of stream {stream!r} came within {SNAPSHOT_S:g} s")
        except StreamliftError as error:
            return error
        try:
            async with self._turn:
                return await asyncio.to_thread(picture_as_jpeg, keyframe)
        except StreamliftError as error:
            return error
        except Exception:
            # Broad on purpose: what a decoder or cv2 raises on one picture must end no other task.
            logger.exception("stream %s: a snapshot failed", stream)
            return MediaError("the newest picture could not be saved; the log has the details")
