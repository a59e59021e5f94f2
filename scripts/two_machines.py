"""Two machines on one: workers in network namespaces of their own, each behind a veth pair.

For tests and for `scripts/cluster_run`; needs root and iproute2 (`why_not` says if they are
missing).
"""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import yaml

from streamlift.cluster.trust import make_certificate
from streamlift.config import ClusterConfig, WorkerConfig

__all__ = ["TOKEN", "Machine", "Worker", "cluster_of", "machine", "why_not"]

TOKEN = "a token of two machines on one"
PORT = 8600
_STOP_S = 25.0
_numbers = itertools.count()


def why_not() -> str | None:
    """Why there can be no namespaces here; None if there can."""
    if sys.platform != "linux":
        return "network namespaces are Linux's"
    if os.geteuid() != 0:
        return "network namespaces need root"
    if shutil.which("ip") is None or shutil.which("tc") is None:
        return "ip and tc (iproute2) are not installed"
    name = f"sl-try-{os.getpid()}"
    tried = subprocess.run(["ip", "netns", "add", name], capture_output=True, check=False)
    subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)
    return None if tried.returncode == 0 else f"ip netns: {tried.stderr.decode().strip()}"


@dataclass(eq=False)
class Machine:
    """A network namespace; `address` is its own, seen from here through `link`."""

    name: str
    link: str
    address: str

    def down(self) -> None:
        """Pull the cable: nothing comes or goes, and nobody is told."""
        _ip("link", "set", self.link, "down")

    def up(self) -> None:
        _ip("link", "set", self.link, "up")

    def slow(self, rate: str = "1mbit") -> None:
        """Both directions."""
        shape = ["root", "tbf", "rate", rate, "burst", "16kb", "latency", "200ms"]
        _run("tc", "qdisc", "add", "dev", self.link, *shape)
        _run("ip", "netns", "exec", self.name, "tc", "qdisc", "add", "dev", "peer0", *shape)

    def fast(self) -> None:
        _run("tc", "qdisc", "del", "dev", self.link, "root")
        _run("ip", "netns", "exec", self.name, "tc", "qdisc", "del", "dev", "peer0", "root")


@contextmanager
def machine() -> Iterator[Machine]:
    """A namespace with a veth pair to here; gone when the block ends."""
    number = next(_numbers)
    name, link = f"sl-{os.getpid()}-{number}", f"slv{os.getpid() % 100_000}x{number}"
    net = f"10.213.{os.getpid() % 250}.{4 * (number % 60)}"
    here, there = (f"{net.rpartition('.')[0]}.{4 * (number % 60) + n}" for n in (1, 2))
    _ip("netns", "add", name)
    try:
        _ip("link", "add", link, "type", "veth", "peer", "name", "peer0", "netns", name)
        _ip("addr", "add", f"{here}/30", "dev", link)
        _ip("link", "set", link, "up")
        for command in (
            ("addr", "add", f"{there}/30", "dev", "peer0"),
            ("link", "set", "peer0", "up"),
            ("link", "set", "lo", "up"),
        ):
            _ip("-n", name, *command)
        yield Machine(name, link, there)
    finally:
        subprocess.run(["ip", "link", "del", link], capture_output=True, check=False)
        subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)


@dataclass(eq=False)
class Worker:
    """`streamlift worker` with TLS and a token; on a machine, or here on loopback without one."""

    backend: dict[str, Any]
    machine: Machine | None = None
    port: int = PORT
    label: str | None = None
    drain_s: float = 20.0
    fingerprint: str | None = None
    process: subprocess.Popen[bytes] | None = None
    log: Path = field(default_factory=Path)
    _folder: tempfile.TemporaryDirectory[str] | None = None

    @property
    def host(self) -> str:
        return "127.0.0.1" if self.machine is None else self.machine.address

    @property
    def address(self) -> str:
        return f"{self.host}:{self.port}"

    @property
    def config(self) -> WorkerConfig:
        return WorkerConfig(str(self.backend["name"]), self.address, self.fingerprint)

    def __enter__(self) -> Self:
        self._folder = tempfile.TemporaryDirectory(prefix="streamlift-test-")
        folder = Path(self._folder.name)
        certificate, key, self.fingerprint = make_certificate(folder)
        cluster = {
            "token": TOKEN,
            "tls_cert": str(certificate),
            "tls_key": str(key),
            "drain_s": self.drain_s,
        }
        tree = {
            "default_backend": self.backend["name"],
            "backends": [self.backend],
            "cluster": cluster,
        }
        (folder / "worker.yaml").write_text(yaml.safe_dump(tree))
        self.log = folder / "worker.log"
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        assert self._folder is not None
        self._folder.cleanup()

    def start(self) -> None:
        """Start the process; it listens within a second or two."""
        assert self._folder is not None
        inside = [] if self.machine is None else ["ip", "netns", "exec", self.machine.name]
        command = [
            *inside,
            *(sys.executable, "-m", "streamlift.cli", "worker"),
            *("--config", str(Path(self._folder.name) / "worker.yaml")),
            *("--listen", self.address),
            *(() if self.label is None else ("--label", self.label)),
        ]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)

    def wait_ready(self, timeout_s: float = 30.0) -> None:
        until_s = time.monotonic() + timeout_s
        while b"\nready " not in b"\n" + self.log.read_bytes():
            if time.monotonic() > until_s:
                raise TimeoutError(self.log.read_text())
            time.sleep(0.05)

    def send(self, sign: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(sign)

    def kill(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.kill()
            self.process.wait(_STOP_S)


def cluster_of(*workers: Worker, token: str | None = TOKEN) -> ClusterConfig:
    """What an anchor is told of these workers."""
    return ClusterConfig(workers=tuple(w.config for w in workers), token=token, name="anchor-1")


def _ip(*arguments: str) -> None:
    _run("ip", *arguments)


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode:
        raise OSError(f"{' '.join(command)}: {done.stderr.decode().strip()}")
