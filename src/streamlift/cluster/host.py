"""WorkerHost, the Ray actor: keeps one `streamlift worker` running on its node and tells where.

Only this file and `placer` import ray. The engine is not in the actor: Ray's own loop, signal
handlers and `OMP_NUM_THREADS=1` stay outside, and compose, systemd and Ray run the same program.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

__all__ = ["TOKEN_VARIABLE", "HostedWorker", "WorkerHost", "node_device", "sweep"]

logger = logging.getLogger(__name__)

TOKEN_VARIABLE = "STREAMLIFT_CLUSTER__TOKEN"
"""In the environment of every node: what anchors and workers know each other by."""
DEVICE_VARIABLE = "STREAMLIFT_WORKER_DEVICE"
"""In a node's environment: what its workers run on instead of the GPU that Ray gave them."""
FIRST_WAIT_S, LONGEST_WAIT_S = 0.5, 30.0
CALM_S = 60.0
END_S = 5.0
_DIRECTORY = "streamlift-host-"
_OF_RAY = ("OMP_NUM_THREADS", "RAY_AUTH_TOKEN")
"""What Ray sets for its own and a worker must not take over; and its token is not the worker's."""


class HostedWorker:
    """One worker process: started, restarted when it ends, ended with us by the end of its stdin.

    `command` gets the configuration as its first line of stdin, prints `listening NAME ADDRESS`
    and `ready NAME ADDRESS`, and logs to stderr. Thread-safe; `wait` is for tests.
    """

    def __init__(
        self,
        command: list[str],
        configuration: Mapping[str, Any],
        environment: Mapping[str, str],
        *,
        wait: Callable[[threading.Event, float], bool] = threading.Event.wait,
    ) -> None:
        self._command = command
        self._configuration = json.dumps(dict(configuration)).encode() + b"\n"
        self._environment = dict(environment)
        self._wait = wait
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._ending = threading.Event()
        self._state, self._reason, self._address = "loading", "starting", ""
        self._restarts = 0
        self._last: deque[str] = deque(maxlen=1)
        self._thread = threading.Thread(target=self._keep, name="worker host", daemon=True)
        self._thread.start()

    def status(self) -> dict[str, Any]:
        """`state`: loading, ready or unavailable; `address`: HOST:PORT, or empty."""
        with self._lock:
            process = self._process
            return {
                "state": self._state,
                "reason": self._reason,
                "address": self._address,
                "restarts": self._restarts,
                "pid": None if process is None else process.pid,
            }

    def close(self) -> None:
        """End the worker: its stdin first, SIGKILL after 5 s."""
        self._ending.set()
        with self._lock:
            process = self._process
        if process is not None and process.stdin is not None:
            with suppress(OSError):
                process.stdin.close()
            try:
                process.wait(END_S)
            except subprocess.TimeoutExpired:
                process.kill()
        self._thread.join(END_S)

    def _keep(self) -> None:
        wait_s = FIRST_WAIT_S
        while not self._ending.is_set():
            began_s = time.monotonic()
            reason = self._live()
            if self._ending.is_set():
                return
            if time.monotonic() - began_s > CALM_S:
                wait_s = FIRST_WAIT_S
            logger.error("the worker has ended: %s; started again in %g s", reason, wait_s)
            with self._lock:
                self._state, self._reason, self._address = "unavailable", reason, ""
                self._restarts += 1
            self._wait(self._ending, wait_s)
            wait_s = min(2 * wait_s, LONGEST_WAIT_S)

    def _live(self) -> str:
        """Run it once; returns how it ended."""
        try:
            process = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=self._environment,
                start_new_session=True,
            )
        except OSError as error:
            return str(error)
        with self._lock:
            self._process = process
        logs = threading.Thread(target=self._read_log, args=(process,), daemon=True)
        logs.start()
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(self._configuration)
            process.stdin.flush()
        except OSError as error:  # it has ended already, and says why below
            logger.debug("the worker took no configuration: %s", error)
        with process.stdout:
            for line in process.stdout:
                self._hear(line.decode("utf-8", "replace").split())
        code = process.wait()
        logs.join(1.0)
        with suppress(OSError):
            process.stdin.close()
        last = self._last[-1] if self._last else ""
        return (f"killed by signal {-code}" if code < 0 else f"exit {code}") + (
            f" ({last:.200})" if last else ""
        )

    def _hear(self, words: list[str]) -> None:
        if len(words) != 3 or words[0] not in ("listening", "ready"):
            return
        with self._lock:
            self._address = words[2]
            if words[0] == "ready":
                self._state, self._reason = "ready", ""
            else:
                self._state, self._reason = "loading", "loading its model"

    def _read_log(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stderr is not None
        with process.stderr:
            for line in process.stderr:
                text = line.decode("utf-8", "replace").rstrip()
                self._last.append(text)
                logger.info("worker: %s", text)


class WorkerHost:
    """What the placer makes an actor of; `configuration` as of `streamlift worker --lifeline`.

    The token comes from the node's own environment, never through Ray, whose connections are not
    encrypted; so does nothing secret go the other way: `status` has the certificate's fingerprint.
    """

    def __init__(self, name: str, configuration: Mapping[str, Any]) -> None:
        import ray

        from streamlift.cluster.trust import make_certificate

        self._name = name
        node = ray.util.get_node_ip_address()
        told = dict(configuration)
        sweep(Path(tempfile.gettempdir()))
        # For as long as this process lives; a new one has a new certificate, and says so.
        directory = tempfile.mkdtemp(prefix=f"{_DIRECTORY}{os.getpid()}-")  # mode 0700
        cert, key, self._fingerprint = make_certificate(Path(directory))
        told |= {"cluster.tls_cert": str(cert), "cluster.tls_key": str(key)}
        if token := os.environ.get(TOKEN_VARIABLE):
            told["cluster.token"] = token
        (backend,) = told["backends"]
        device, label = node_device(os.environ, backend["device"], bool(ray.get_gpu_ids()))
        told["backends"] = [{**backend, "device": device}]
        command = [sys.executable, "-m", "streamlift.cli", "worker", "--lifeline"]
        command += ["--listen", f"{node}:0", "--name", name]
        if label:
            command += ["--label", label]
        environment = {k: v for k, v in os.environ.items() if k not in _OF_RAY}
        self._worker = HostedWorker(command, told, environment)

    def status(self) -> dict[str, Any]:
        """Where its worker is and how it does."""
        return {**self._worker.status(), "name": self._name, "fingerprint": self._fingerprint}


def sweep(folder: Path) -> None:
    """Remove what hosts left there that were killed: they had no time for it themselves."""
    if sys.platform != "linux":
        return  # nothing says there who still lives
    for left in folder.glob(f"{_DIRECTORY}*-*"):
        pid = left.name.removeprefix(_DIRECTORY).partition("-")[0]
        if not Path("/proc", pid).exists():
            shutil.rmtree(left, ignore_errors=True)


def node_device(environ: Mapping[str, str], wanted: str, given_gpu: bool) -> tuple[str, str | None]:
    """What the worker is told to run on, and what it is to call that (None: by its own name).

    Ray shows a process only the GPU that it was given, whatever its number on the node.
    """
    if instead := environ.get(DEVICE_VARIABLE):
        return instead, f"{wanted} (tried on {instead})"
    if wanted == "cpu":
        return "cpu", None
    return ("cuda:0" if given_gpu else wanted), None
