"""The service and its peers as child processes: started, asked, measured, and never left behind."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = [
    "Sample",
    "bound",
    "processor",
    "read",
    "sample",
    "service",
    "stop",
    "streamlift",
    "wait_for",
]

TICKS = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")
STOP_S = 20.0


@dataclass(frozen=True, slots=True)
class Sample:
    """One look at the service's process."""

    at_s: float
    cpu_s: float
    rss_mb: float
    threads: int
    descriptors: int


def bound(*command: str) -> list[str]:
    """The command, to be killed by the kernel when the thread that starts it is gone.

    Start it from the main thread: it is that thread's end which counts (prctl(2),
    PR_SET_PDEATHSIG). Its process id is the command's own. Without util-linux (not on Linux)
    it is the plain command, which a killed parent leaves behind.
    """
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig", "KILL", "--", *command] if setpriv else [*command]


def streamlift(*arguments: str) -> list[str]:
    """The command line of a `streamlift` command, bound to this process."""
    return bound(sys.executable, "-m", "streamlift.cli", *arguments)


@contextlib.contextmanager
def service(config: Path, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """`serve` with this configuration, ready; ended by SIGTERM."""
    server = subprocess.Popen(streamlift("serve", "--config", str(config)))
    try:
        wait_for(lambda: bool(read(f"http://127.0.0.1:{port}/readyz")["ready"]), 60)
        yield server
    finally:
        stop(server)


def stop(child: subprocess.Popen[bytes]) -> None:
    """SIGTERM, and SIGKILL for one that does not end."""
    if child.poll() is None:
        child.send_signal(signal.SIGTERM)
    try:
        child.wait(STOP_S)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


def sample(pid: int) -> Sample:
    stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return Sample(
        at_s=time.monotonic(),
        cpu_s=(int(stat[11]) + int(stat[12])) / TICKS,
        rss_mb=int(stat[21]) * PAGE / 1e6,
        threads=int(stat[17]),
        descriptors=len(os.listdir(f"/proc/{pid}/fd")),
    )


def processor() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return f"{line.partition(':')[2].strip()}, {os.cpu_count()} cores"
    return platform.processor()


def wait_for(ready: Callable[[], object], seconds: float) -> None:
    """Ask again and again; exits when it takes longer, with what was said last."""
    deadline, told = time.monotonic() + seconds, "it never held"
    while True:
        try:
            if ready():
                return
        except (OSError, KeyError) as error:
            told = repr(error)  # not up yet: that is what is waited for
        if time.monotonic() > deadline:
            raise SystemExit(f"the service or its stream did not come up in {seconds:g} s: {told}")
        time.sleep(0.2)


def read(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=5) as answer:
        return json.load(answer)
