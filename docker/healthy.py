"""The health check of the image: asks what process 1 is, and whether that answers.

`serve` by its /healthz, at the port that its own command line, environment and file say;
`worker` by a connection to where it listens. Anything else (`ray start`, a shell) is well as long
as it runs.
"""

from __future__ import annotations

import http.client
import os
import socket
import ssl
import sys
from collections.abc import Sequence
from pathlib import Path

from streamlift.config import load_config

TIMEOUT_S = 3.0


def check(command: Sequence[str]) -> str | None:
    """What is wrong with the process of this command line, or None."""
    try:
        if "serve" in command:
            _ask_service(command)
        elif "worker" in command:
            _knock(_option(command, "--listen") or "")
    except (OSError, http.client.HTTPException) as error:
        return f"{' '.join(command)}: {error!r}"
    return None


def _ask_service(command: Sequence[str]) -> None:
    file, port = _option(command, "--config"), _option(command, "--port")
    server = load_config(Path(file) if file else None, os.environ).server
    host = _option(command, "--host") or server.host
    host = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(host, host)  # noqa: S104  it is recognised
    at = int(port) if port else server.port
    asked: http.client.HTTPConnection
    if server.tls_cert:
        # Whether it lives is asked here, of ourselves; the certificate bears another name.
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        asked = http.client.HTTPSConnection(host, at, timeout=TIMEOUT_S, context=context)
    else:
        asked = http.client.HTTPConnection(host, at, timeout=TIMEOUT_S)
    try:
        asked.request("GET", f"{server.root_path}/healthz")
        status = asked.getresponse().status
    finally:
        asked.close()
    if status != 200:
        raise OSError(f"/healthz answered {status}, expected 200")


def _knock(listens: str) -> None:
    if path := listens.removeprefix("unix:") if listens.startswith("unix:") else "":
        with socket.socket(socket.AF_UNIX) as door:
            door.settimeout(TIMEOUT_S)
            door.connect(path)
        return
    host, _, port = listens.rpartition(":")
    host = {"0.0.0.0": "127.0.0.1", "[::]": "::1"}.get(host, host.strip("[]"))  # noqa: S104  it is recognised
    socket.create_connection((host, int(port or 0)), timeout=TIMEOUT_S).close()


def _option(command: Sequence[str], name: str) -> str | None:
    """`--name VALUE` or `--name=VALUE`; None where it is not given."""
    for at, word in enumerate(command):
        if word == name and at + 1 < len(command):
            return command[at + 1]
        if word.startswith(f"{name}="):
            return word.partition("=")[2]
    return None


def main() -> int:
    command = Path("/proc/1/cmdline").read_bytes().decode().rstrip("\0").split("\0")
    wrong = check(command)
    if wrong:
        sys.stderr.write(f"{wrong}\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
