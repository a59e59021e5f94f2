"""Files that are uploaded, upscaled beside the streams and fetched again: a bounded queue."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import secrets
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from streamlift.clock import Clock
from streamlift.config import FilesConfig
from streamlift.errors import (
    MediaError,
    NoRoom,
    Overloaded,
    TooLarge,
    TurnedOff,
    UnknownFile,
)
from streamlift.metrics import Metrics
from streamlift.tasks import supervise

__all__ = ["UPSCALERS", "FileJob", "FileJobs", "JobState", "Wanted"]

logger = logging.getLogger(__name__)

UPSCALERS = ("compact", "bicubic")
"""Those of the CPU: a second process on a graphics card could take the memory of live streams."""
_WRITE_BYTES = 1 << 20
_LOOK_S = 5.0
_COMMAND = ("-m", "streamlift.cli", "upscale")
_MOST_TIMES = 4
"""As large as the largest file may its result be."""
_MOST_WARNINGS = 8
_SIGNATURES: tuple[tuple[str, re.Pattern[bytes]], ...] = (
    (".mp4", re.compile(rb"....(ftyp|moov|mdat|wide|free|skip)", re.DOTALL)),
    (".mkv", re.compile(rb"\x1a\x45\xdf\xa3")),
    (".avi", re.compile(rb"RIFF....AVI ", re.DOTALL)),
    (".webp", re.compile(rb"RIFF....WEBP", re.DOTALL)),
    (".png", re.compile(rb"\x89PNG\r\n\x1a\n")),
    (".jpg", re.compile(rb"\xff\xd8\xff")),
)
"""How files of each kind begin. Nothing else is opened: FFmpeg reads playlists too, and those name
files of this machine and addresses on its network."""
_HEAD_BYTES = 12
_STILLS = (".png", ".jpg", ".webp")


class JobState(StrEnum):
    """From the end of the upload on."""

    WAITING = "waiting"
    WORKING = "working"
    DONE = "done"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to become of a file."""

    upscaler: str = UPSCALERS[0]
    scale: float | None = None
    stabilise: str = "off"


@dataclass(slots=True, eq=False)
class FileJob:
    """One file; `pictures` of `total`, `fps` pictures a second, while it is worked on."""

    name: str
    wanted: Wanted
    folder: Path
    id: str = field(default_factory=lambda: secrets.token_urlsafe(9))
    suffix: str = ""
    state: JobState = JobState.WAITING
    reason: str = ""
    pictures: int = 0
    total: int | None = None
    fps: float = 0.0
    result_bytes: int | None = None
    warnings: list[str] = field(default_factory=list)
    ended_s: float | None = None
    process: asyncio.subprocess.Process | None = None

    @property
    def source(self) -> Path:
        return self.folder / f"source{self.suffix}"

    @property
    def result(self) -> Path:
        return self.folder / f"result{self.result_suffix}"

    @property
    def result_suffix(self) -> str:
        """Stills stay what they are, videos become MP4."""
        return self.suffix if self.suffix in _STILLS else ".mp4"

    @property
    def result_name(self) -> str:
        """What a user finds the result under."""
        return f"{Path(self.name).stem or 'file'}-upscaled{self.result_suffix}"


class FileJobs:
    """Takes files, works on one at a time in a process of low priority, and forgets them.

    They lie in a directory of their own for as long as the service runs; a job's files go with it,
    `kept_s` after it ended.
    """

    def __init__(self, config: FilesConfig | None, *, clock: Clock, metrics: Metrics) -> None:
        self.config = config
        self._clock = clock
        self._metrics = metrics
        self._jobs: dict[str, FileJob] = {}
        self._uploads = 0
        self._directory: Path | None = None
        self._news = asyncio.Event()

    @property
    def jobs(self) -> tuple[FileJob, ...]:
        """Oldest first."""
        return tuple(self._jobs.values())

    def get(self, job: str) -> FileJob:
        """Raises UnknownFile."""
        try:
            return self._jobs[job]
        except KeyError:
            raise UnknownFile(
                "no such file; results are kept for a while only",
                found=job,
                expected=list(self._jobs),
            ) from None

    async def take(
        self, name: str, wanted: Wanted, chunks: AsyncIterator[bytes], length: int | None
    ) -> FileJob:
        """Write a file to the disk and queue it; `length` in bytes, if it is told.

        Raises TurnedOff, Overloaded when too many are here, TooLarge, NoRoom, or MediaError when
        it is no video or picture that is taken here. Then nothing of it is left.
        """
        config = self._must_take(length)
        self._uploads += 1
        folder: Path | None = None
        try:
            folder = await asyncio.to_thread(self._new_folder, length)
            job = FileJob(name, wanted, folder)
            try:
                await _receive(job, chunks, config.largest_mb * 1_000_000)
            except OSError as error:
                said = error.strerror or "an error of the disk"
                raise NoRoom(f"the file cannot be written: {said}", found=said) from error
        except BaseException:
            if folder is not None:
                shutil.rmtree(folder, ignore_errors=True)  # a file or two
            raise
        finally:
            self._uploads -= 1
        self._jobs[job.id] = job
        self._news.set()
        return job

    async def remove(self, job: FileJob) -> None:
        """Forget a job and its files; if it is worked on, its process ends."""
        self._jobs.pop(job.id, None)
        if job.process is not None and job.process.returncode is None:
            job.process.kill()
            await job.process.wait()
        await asyncio.to_thread(shutil.rmtree, job.folder, ignore_errors=True)

    async def run(self) -> None:
        """Work on what waits, and forget what is old; never ends itself."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._forget())
            await self._work_off()

    async def _forget(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_S)
            await self.forget_old()

    async def _work_off(self) -> None:
        while True:
            waiting = next((j for j in self.jobs if j.state is JobState.WAITING), None)
            if waiting is not None:
                await supervise(f"file {waiting.name}", self._work(waiting))
                continue
            self._news.clear()
            await self._news.wait()

    async def aclose(self) -> None:
        """End the process that works, and remove every file; call it when `run` was cancelled."""
        for job in self.jobs:
            await self.remove(job)
        if self._directory is not None:
            await asyncio.to_thread(shutil.rmtree, self._directory, ignore_errors=True)

    def _must_take(self, length: int | None) -> FilesConfig:
        config = self.config
        if config is None:
            raise TurnedOff("this service takes no files; configure `files: {}`", found="no files")
        if length is not None and length > config.largest_mb * 1_000_000:
            raise _too_large(config.largest_mb * 1_000_000, length)
        held = len(self._jobs) + self._uploads
        if held >= config.jobs:
            raise Overloaded(
                "as many files are here as are taken; remove one, or wait",
                found=held,
                expected=f"fewer than {config.jobs}",
            )
        return config

    def _new_folder(self, length: int | None) -> Path:
        if self._directory is None:
            assert self.config is not None
            made = tempfile.mkdtemp(prefix="streamlift-files-", dir=self.config.directory)
            self._directory = Path(made)  # mode 0700
        free, needed = shutil.disk_usage(self._directory).free, 2 * (length or 0)
        if free < needed:
            raise NoRoom(
                "the disk has no room for this file and its result",
                found=f"{free} bytes free",
                expected=f"{needed} bytes free",
            )
        return Path(tempfile.mkdtemp(dir=self._directory))

    async def forget_old(self) -> None:
        """Remove what ended longer ago than it is kept."""
        assert self.config is not None
        long_ago_s = self._clock.now_s() - self.config.kept_s
        for job in self.jobs:
            if job.ended_s is not None and job.ended_s < long_ago_s:
                await self.remove(job)

    # ---- one job ----

    async def _work(self, job: FileJob) -> None:
        assert self.config is not None
        job.state = JobState.WORKING
        reason = "it was removed"
        try:
            async with asyncio.timeout(self.config.longest_s):
                reason = await self._upscale(job)
        except TimeoutError:
            reason = f"it took longer than {self.config.longest_s:g} s (files.longest_s)"
        except OSError as error:  # no memory or process is left; the next file may find some
            reason = f"it could not be begun: {error}"
        finally:
            job.ended_s = self._clock.now_s()
            job.state, job.reason = (JobState.FAILED if reason else JobState.DONE), reason
            job.source.unlink(missing_ok=True)
            self._metrics.count("files_total", result=str(job.state))
        if reason:
            logger.warning("file %s was not upscaled: %s", job.id, reason)

    async def _upscale(self, job: FileJob) -> str:
        """Run `streamlift upscale` on it. Returns why it failed; nothing when it did not."""
        assert self.config is not None
        wanted = job.wanted
        scale = [] if wanted.scale is None else ["--scale", f"{wanted.scale:g}"]
        job.process = process = await asyncio.create_subprocess_exec(
            sys.executable,
            *(*_COMMAND, str(job.source), str(job.result)),
            *("--backend", wanted.upscaler, "--stabilise", wanted.stabilise, *scale),
            *("--report", str(_MOST_TIMES * self.config.largest_mb * 1_000_000)),
            stdin=asyncio.subprocess.PIPE,  # its end tells the process that we are gone
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
            env=_environment(),
        )
        try:
            last, _ = await asyncio.gather(_last_line(process), _read_reports(process, job))
            code = await process.wait()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
            if process.stdin is not None:
                process.stdin.close()
        if code == 0 and job.result.is_file():
            job.result_bytes = job.result.stat().st_size
            return ""
        return last.removeprefix("streamlift: ") or f"its process ended with {code}"


def _environment() -> dict[str, str]:
    """Ours but for our settings: those of a service are none of a single file's, and its tokens
    are not for a process that reads what strangers made."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("STREAMLIFT_")}
    return kept | {"OMP_NUM_THREADS": "1"}


async def _receive(job: FileJob, chunks: AsyncIterator[bytes], most_bytes: int) -> None:
    """From the network to the disk, which is written in a thread: it may be slow."""
    held, written = bytearray(), 0
    part = job.folder / "part"
    with await asyncio.to_thread(part.open, "wb") as file:
        async for chunk in chunks:
            held += chunk
            if written + len(held) > most_bytes:
                raise _too_large(most_bytes, written + len(held))
            if not job.suffix and len(held) >= _HEAD_BYTES:
                job.suffix = _suffix_of(bytes(held[:_HEAD_BYTES]))
            if job.suffix and len(held) >= _WRITE_BYTES:
                await asyncio.to_thread(file.write, held)
                written += len(held)
                held = bytearray()
        if not job.suffix:
            job.suffix = _suffix_of(bytes(held[:_HEAD_BYTES]))
        await asyncio.to_thread(file.write, held)
    part.rename(job.source)


def _suffix_of(head: bytes) -> str:
    for suffix, signature in _SIGNATURES:
        if signature.match(head):
            return suffix
    raise MediaError(
        "this is no file that is taken here",
        found=f"it begins with {head.hex(' ')}" if head else "an empty file",
        expected="MP4, MOV, MKV, WebM, AVI, PNG, JPEG or WebP",
    )


def _too_large(most_bytes: int, found: int) -> TooLarge:
    return TooLarge(
        f"the file is too large; at most {most_bytes // 1_000_000} MB are taken (files.largest_mb)",
        found=f"{found} bytes or more",
        expected=f"at most {most_bytes} bytes",
    )


async def _read_reports(process: asyncio.subprocess.Process, job: FileJob) -> None:
    """Its progress, a line of JSON each time, and its warnings at the end."""
    assert process.stdout is not None
    async for line in process.stdout:
        with suppress(ValueError):
            report = json.loads(line)
            if not isinstance(report, dict):
                continue
            job.pictures = int(report.get("pictures", job.pictures))
            total = report.get("total")
            job.total = None if total is None else int(total)
            job.fps = float(report.get("fps", job.fps))
            job.warnings.extend(str(w)[:200] for w in report.get("warnings", ())[:_MOST_WARNINGS])


async def _last_line(process: asyncio.subprocess.Process) -> str:
    assert process.stderr is not None
    last = ""
    async for line in process.stderr:
        last = line.decode("utf-8", "replace").strip()[:500] or last
    return last
