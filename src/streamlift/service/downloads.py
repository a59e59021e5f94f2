"""Weights that are fetched while the service runs: one backend's at a time, then it is loaded."""

from __future__ import annotations

import asyncio
import logging
import shutil
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from streamlift.errors import (
    Busy,
    NoRoom,
    NothingUnderWay,
    NoWeights,
    StreamliftError,
    TurnedOff,
    UnknownBackend,
    reason_of,
)
from streamlift.frames import BackendInfo, BackendState
from streamlift.metrics import Metrics
from streamlift.routing import BackendTable, EventKind, EventLog
from streamlift.tasks import supervise
from streamlift.upscalers.weights import (
    Checkpoint,
    FileState,
    WeightStore,
    checkpoints_asked_for,
)

__all__ = ["Downloads", "Lacking"]

logger = logging.getLogger(__name__)

LOOK_S = 5.0
"""How often it is looked whether files that lacked have come by another way."""
_THERE = (FileState.VERIFIED, FileState.UNVERIFIED)


@dataclass(frozen=True, slots=True)
class Lacking:
    """What a backend lacks: files of the table, by name, and the command that fetches them.

    `bytes_left`: as far as sizes are pinned, less what a download that was cut off has left.
    """

    files: tuple[str, ...]
    bytes_left: int
    command: str


class _Cancelled(Exception):
    """Raised in the download's thread at the next block."""


@dataclass(slots=True, eq=False)
class _Download:
    """One that is under way. Its thread writes `done`; all else is the event loop's."""

    backend: str
    files: tuple[Checkpoint, ...]
    done: int = 0
    stop: threading.Event = field(default_factory=threading.Event)

    @property
    def total(self) -> int | None:
        """None while the size of a file is not known."""
        sizes = [file.size for file in self.files]
        return None if None in sizes else sum(size for size in sizes if size is not None)


class Downloads:
    """Fetches pinned files only, in a thread of its own, as `streamlift weights pull` does.

    A download that was cut off or cancelled is resumed by the next one. Backends whose files come
    by another way, such as that command, are loaded as well.
    """

    def __init__(
        self,
        store: WeightStore,
        table: BackendTable,
        *,
        allowed: bool,
        metrics: Metrics,
        events: EventLog,
        tasks: asyncio.TaskGroup,
        elsewhere: frozenset[str] = frozenset(),
    ) -> None:
        """`elsewhere`: backends on other machines, where a file of this one is of no use."""
        self.allowed = allowed
        self._store = store
        self._table = table
        self._metrics = metrics
        self._events = events
        self._tasks = tasks
        self._elsewhere = elsewhere
        self._now: _Download | None = None
        self._task: asyncio.Task[None] | None = None
        self._lacking: dict[str, Lacking] = {}
        self._failed: dict[str, str] = {}

    def lacking(self, backend: str) -> Lacking | None:
        """What the backend lacked when it was last looked at."""
        return self._lacking.get(backend)

    def failed(self, backend: str) -> str:
        """Why its last download failed; empty if it did not."""
        return self._failed.get(backend, "")

    def progress(self, backend: str) -> tuple[int, int | None] | None:
        """Bytes done, and in all if that is known, of a download that is under way."""
        now = self._now
        return (now.done, now.total) if now is not None and now.backend == backend else None

    async def start(self, backend: str) -> None:
        """Begin to fetch what a backend lacks; returns at once.

        Raises UnknownBackend, TurnedOff, Busy, NoWeights when nothing pinned is missing, NoRoom.
        """
        info = self._table.info(backend)
        if not self.allowed:
            raise TurnedOff(
                "this service fetches no weights; set weights.download: true "
                "(STREAMLIFT_WEIGHTS__DOWNLOAD=true), or run the command on its machine",
                found="weights.download: false",
                expected=self._command(info),
            )
        self._must_be_idle()
        files = self._files_of(info)
        missing, needed, room = await asyncio.to_thread(self._look, files)
        self._must_be_idle()  # another request may have been faster
        if not missing or not all(file.pinned for file in files):
            raise NoWeights(
                f"backend {backend} lacks no weights that could be fetched: it is {info.state}"
                + (f": {info.reason}" if info.reason else ""),
                found=[file.name for file in missing],
                expected="missing files of the table, with a sha256",
            )
        if needed > room:
            raise NoRoom(
                f"no room for the weights of {backend} in {self._store.directory}; make room, or "
                "set STREAMLIFT_WEIGHTS_DIR",
                found=f"{room} bytes free",
                expected=f"{needed} bytes free",
            )
        self._failed.pop(backend, None)
        self._now = _Download(backend, files)
        self._task = self._tasks.create_task(
            supervise(f"weights of backend {backend}", self._run(self._now))
        )

    def cancel(self, backend: str) -> None:
        """End a download at its next block; what came stays for the next one.

        Raises UnknownBackend, NothingUnderWay.
        """
        self._table.info(backend)
        if self._now is None or self._now.backend != backend:
            raise NothingUnderWay(
                f"no weights of backend {backend} are being fetched",
                found=None if self._now is None else self._now.backend,
                expected=backend,
            )
        self._now.stop.set()

    async def attend(self) -> None:
        """Look what backends lack, and load those that lack it no longer; never ends itself."""
        while True:
            try:
                await self.look_again()
            except (StreamliftError, OSError) as error:  # the next look may find it otherwise
                logger.warning("what weights are here cannot be told: %s", reason_of(error))
            await asyncio.sleep(LOOK_S)

    async def look_again(self) -> None:
        """One look at every backend that is not ready."""
        for info in self._table.infos():
            before = self._lacking.get(info.name)
            if info.state is not BackendState.UNAVAILABLE:
                self._lacking.pop(info.name, None)
                continue
            files = self._files_of(info)
            missing, left, _ = await asyncio.to_thread(self._look, files)
            if missing:
                self._lacking[info.name] = Lacking(
                    tuple(file.name for file in missing), left, self._command(info)
                )
            else:
                self._lacking.pop(info.name, None)
                if before is not None and self.progress(info.name) is None:
                    await self._load(info.name)

    def end(self) -> None:
        """Stop what is under way; its thread ends at its next block and keeps nobody waiting."""
        if self._now is not None:
            self._now.stop.set()
        if self._task is not None:
            self._task.cancel()

    # ---- one download ----

    async def _run(self, download: _Download) -> None:
        self._tell(download, "started", "")
        result, reason = "failed", "the service is shutting down"
        try:
            await _in_a_thread(lambda: self._fetch(download))
            result, reason = "done", ""
        except _Cancelled:
            result, reason = "cancelled", ""
        except (StreamliftError, OSError) as error:
            reason = self._failed[download.backend] = reason_of(error)
            logger.warning("weights of backend %s: %s", download.backend, reason)
        finally:
            download.stop.set()
            self._now = None
            self._metrics.count("weight_downloads_total", result=result)
            self._metrics.count("weight_download_bytes_total", download.done)
            self._tell(download, result, reason)
        if result == "done":
            self._lacking.pop(download.backend, None)
            await self._load(download.backend)

    def _fetch(self, download: _Download) -> None:
        """In its thread. Raises _Cancelled, WeightsError."""
        before = 0

        def progress(file: Checkpoint, done: int, total: int | None) -> None:
            if download.stop.is_set():
                raise _Cancelled
            download.done = before + done

        for file in download.files:
            if download.stop.is_set():
                raise _Cancelled
            path = self._store.pull(file, progress=progress)
            before += file.size or path.stat().st_size
            download.done = before

    async def _load(self, backend: str) -> None:
        with suppress(UnknownBackend):  # it was removed meanwhile
            await self._table[backend].start()

    def _tell(self, download: _Download, state: str, reason: str) -> None:
        self._events.add(EventKind.WEIGHTS, before=download.backend, after=state, reason=reason)

    # ---- what lacks ----

    def _files_of(self, info: BackendInfo) -> tuple[Checkpoint, ...]:
        """All that a backend needs, if its reason is that one of them is not there."""
        if info.state is not BackendState.UNAVAILABLE or info.name in self._elsewhere:
            return ()
        return checkpoints_asked_for(info.reason, info.upscaler, self._store.checkpoints)

    def _command(self, info: BackendInfo) -> str:
        names = [file.name for file in self._files_of(info) if info.upscaler not in file.upscalers]
        return f"streamlift weights pull {' '.join(names) or info.upscaler}"

    def _look(self, files: tuple[Checkpoint, ...]) -> tuple[list[Checkpoint], int, int]:
        """Those that are not there, the bytes to fetch, and the bytes that are free."""
        missing, left = [], 0
        for file in files:
            status = self._store.status(file)
            if status.state not in _THERE:
                missing.append(file)
                have = status.size if status.state is FileState.PARTIAL else 0
                left += max(0, (file.size or 0) - have)
        return missing, left, _free_bytes(self._store.directory)

    def _must_be_idle(self) -> None:
        if self._now is not None:
            raise Busy(
                f"the weights of backend {self._now.backend} are being fetched; wait or cancel",
                found=self._now.backend,
                expected="no download under way",
            )


def _free_bytes(directory: Path) -> int:
    """Where the directory is, or will be made."""
    while not directory.exists() and directory != directory.parent:
        directory = directory.parent
    return shutil.disk_usage(directory).free


async def _in_a_thread(work: Callable[[], None]) -> None:
    """Run `work` in a thread that an interpreter which ends does not wait for.

    One of the loop's own pool could hold up the end of the service for as long as a server keeps
    silent.
    """
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[None] = loop.create_future()

    def settle(error: BaseException | None) -> None:
        if ended.done():
            return
        if error is None:
            ended.set_result(None)
        else:
            ended.set_exception(error)

    def run() -> None:
        error: BaseException | None = None
        try:
            work()
        except BaseException as failure:  # noqa: BLE001  handed to whoever waits
            error = failure
        with suppress(RuntimeError):  # the loop has ended: nobody waits any more
            loop.call_soon_threadsafe(settle, error)

    threading.Thread(target=run, name="weights", daemon=True).start()
    await ended
