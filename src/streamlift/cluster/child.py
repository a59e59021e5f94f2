"""One worker process of this machine: started, fed, watched, killed when it hangs, restarted."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from streamlift.cluster.link import Link
from streamlift.errors import StreamliftError, WorkerExited

__all__ = ["EXIT_HANG", "Child"]

logger = logging.getLogger(__name__)

EXIT_HANG = 70
FIRST_WAIT_S, LONGEST_WAIT_S = 0.5, 30.0
WINDOW_S, MOST_EXITS = 60.0, 3
LINES_A_SECOND = 100
KEPT_LINES = 50
END_S = 5.0
_KNOWN_SOON_S = 0.1
_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40, "critical": 50}


class Child:
    """Runs `streamlift worker` on a Unix socket in a directory of its own.

    Its configuration goes in as the first line of stdin, so that no secret is on a command line.
    stdin stays open: its end tells the worker that this process is gone. `environment` is added to
    our own.
    """

    def __init__(
        self,
        name: str,
        configuration: Mapping[str, Any],
        make_link: Callable[[Child, str], Link],
        *,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        self.restarts: Counter[str] = Counter()
        self._configuration = dict(configuration)
        self._environment = dict(environment or {})
        self._directory = Path(tempfile.mkdtemp(prefix="streamlift-"))  # mode 0700
        self._socket = self._directory / "worker.sock"
        self._process: asyncio.subprocess.Process | None = None
        self._listens = asyncio.Event()
        self._exited = asyncio.Event()
        self._reason = ""
        self._lines: deque[str] = deque(maxlen=KEPT_LINES)
        self._exits_s: deque[float] = deque(maxlen=MOST_EXITS)
        self._ending = False
        self._renewing = False
        self.link = make_link(self, f"unix:{self._socket}")
        self.link.restarts = self.restarts

    @property
    def pid(self) -> int | None:
        process = self._process
        return None if process is None or process.returncode is not None else process.pid

    async def run(self) -> None:
        """Keep a process running; ends by `aclose` or cancellation."""
        wait_s = FIRST_WAIT_S
        while True:
            started_s = time.monotonic()
            failed = ""
            try:
                await self._live()
            except (OSError, RuntimeError) as error:
                # No memory, process, file or thread is left; that may pass.
                failed = f"cannot be started: {error}"
            if self._ending:
                return
            if self._renewing:
                self._renewing, self._reason = False, "started anew"
                self._exited.set()
                continue
            self._reason = failed or self._last_words()
            self.restarts[_kind(self._returncode)] += 1
            logger.error("worker %s has ended: %s", self.name, self._reason)
            now_s = time.monotonic()
            self._exits_s.append(now_s)
            self._exited.set()
            if now_s - started_s > WINDOW_S:
                wait_s = FIRST_WAIT_S
            often = len(self._exits_s) == MOST_EXITS and now_s - self._exits_s[0] < WINDOW_S
            wait_s = LONGEST_WAIT_S if often else wait_s
            self.link.say(f"{self._reason}; started again in {wait_s:g} s")
            await asyncio.sleep(wait_s)
            wait_s = min(2 * wait_s, LONGEST_WAIT_S)

    async def aclose(self) -> None:
        """End the process: close its stdin, then kill it after 5 s."""
        self._ending = True
        await self._end_process()
        await asyncio.to_thread(shutil.rmtree, self._directory, ignore_errors=True)

    async def renew(self) -> None:
        """End the process in order and start another one at once. Its lanes end with WorkerExited;
        it is no failure, and no restart is counted."""
        if self.pid is not None:
            self._renewing = True
            await self._end_process()

    def kill(self) -> None:
        """SIGKILL; for one that does not answer."""
        process = self._process
        if process is not None and process.returncode is None:
            with suppress(ProcessLookupError):
                process.kill()

    def silent(self) -> None:
        """It has not answered for 3 s: no second worker is started while it is there."""
        logger.error("worker %s does not answer; it is killed", self.name)
        self.link.say("the device does not answer: waiting for the process to go")
        self.kill()

    async def listens(self) -> None:
        """Wait until the process can be dialled."""
        await self._listens.wait()

    async def why_lost(self) -> StreamliftError | None:
        """How the process ended, if it did."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_KNOWN_SOON_S):
                await self._exited.wait()
        return WorkerExited(self._reason) if self._exited.is_set() else None

    # ---- one life of the process ----

    async def _end_process(self) -> None:
        """Close its stdin, then kill it after 5 s."""
        process = self._process
        if process is None or process.returncode is not None:
            return
        if process.stdin is not None:
            process.stdin.close()
        try:
            async with asyncio.timeout(END_S):
                await process.wait()
        except TimeoutError:
            self.kill()
            with suppress(TimeoutError):
                async with asyncio.timeout(END_S):
                    await process.wait()

    async def _live(self) -> None:
        self._process = None
        self._lines.clear()
        self._socket.unlink(missing_ok=True)
        if not self._directory.exists():
            return
        environment = {**os.environ, "PYTHONFAULTHANDLER": "1", **self._environment}
        self._process = process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "streamlift.cli", "worker", "--log-format", "json"),
            *("--listen", f"unix:{self._socket}", "--lifeline"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is for the service, which then ends its workers
            env=environment,
        )
        self._exited.clear()
        assert process.stdin is not None
        reading = (
            asyncio.create_task(self._read_state(process)),
            asyncio.create_task(self._read_log(process)),
        )
        try:
            with suppress(ConnectionError):
                process.stdin.write(json.dumps(self._configuration).encode() + b"\n")
                await process.stdin.drain()
            await process.wait()
            with suppress(TimeoutError):
                async with asyncio.timeout(0.02):
                    await asyncio.gather(*reading)
        finally:
            self._listens.clear()
            if process.returncode is None:
                self.kill()
                await process.wait()
            for task in reading:
                task.cancel()
            process.stdin.close()

    async def _read_state(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        while True:
            try:
                line = await process.stdout.readline()
            except ValueError:
                continue  # longer than the reader's limit, so none of ours
            if not line:
                return
            if line.startswith(b"listening "):
                self._listens.set()

    async def _read_log(self, process: asyncio.subprocess.Process) -> None:
        """Its lines become ours, a hundred a second at most."""
        assert process.stderr is not None
        second, lines, left_out = 0, 0, 0
        while True:
            try:
                line = (await process.stderr.readline()).decode("utf-8", "replace").rstrip()
            except ValueError:
                continue  # longer than the reader's limit; the rest follows as lines of its own
            if not line and process.stderr.at_eof():
                return
            level, text = _log_line(line)
            self._lines.append(text)
            if second != (second := int(time.monotonic())):
                lines = 0
                if left_out:
                    logger.warning("worker %s: %d lines were left out", self.name, left_out)
                    left_out = 0
            lines += 1
            if lines > LINES_A_SECOND:
                left_out += 1
            else:
                logger.log(level, "worker %s: %s", self.name, text)

    @property
    def _returncode(self) -> int:
        code = None if self._process is None else self._process.returncode
        return 0 if code is None else code

    def _last_words(self) -> str:
        """How it ended: the signal or the exit code, and its last line."""
        code = self._returncode
        if code < 0:
            try:
                how = f"killed by {signal.Signals(-code).name}"
            except ValueError:
                how = f"killed by signal {-code}"
        else:
            how = f"exit {code}" + (": hang" if code == EXIT_HANG else "")
        last = self._lines[-1] if self._lines and code not in (-signal.SIGTERM, 0) else ""
        return f"{how} ({last:.200})" if last and code != -_SIGKILL else how


_SIGKILL = 9


def _kind(code: int) -> str:
    return "hang" if code == EXIT_HANG else "signal" if code < 0 else "exit"


def _log_line(line: str) -> tuple[int, str]:
    """Level and text of a line of JSON, or of any other line."""
    with suppress(ValueError):
        record = json.loads(line)
        if isinstance(record, dict) and "event" in record:
            text = str(record["event"])
            if "traceback" in record:
                text += "\n" + str(record["traceback"])
            return _LEVELS.get(str(record.get("level")), logging.INFO), text
    return logging.INFO, line
