"""Takes from a Python process what Windows or macOS lacks, before any code of ours is imported.

`OTHER_SYSTEM` says which. The interpreter runs a module of this name by itself when its folder is
on the path. The standard library and other people's packages are imported first and stay those of
this machine: what is tried is our own code only.
"""

from __future__ import annotations

import asyncio
import builtins
import importlib
import io
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

SYSTEM = os.environ.get("OTHER_SYSTEM", "")
LACKS = ("fcntl", "resource", "pwd", "grp", "termios", "tty", "pty", "syslog", "uvloop")
LINUX_ONLY = ("sched_getaffinity", "sched_setaffinity", "memfd_create", "pidfd_open")
NOT_ON_WINDOWS = ("fork", "forkpty", "getuid", "geteuid", "getgid", "getegid", "killpg", "setsid")
NOT_IN_SERVER = ("torch", "grpc", "safetensors")
"""Of other extras than `server`."""
NOT_THERE = ("/proc", "/sys", "/dev/nv", "/dev/dxg")


def refuse(*_: Any, **__: Any) -> Any:
    """As the event loops of Windows do."""
    raise NotImplementedError


def without_folders(plain: Callable[..., Any]) -> Callable[..., Any]:
    def opened(file: Any, *arguments: Any, **keywords: Any) -> Any:
        if isinstance(file, str | os.PathLike) and os.fspath(file).startswith(NOT_THERE):
            raise FileNotFoundError(2, "taken away", file)
        return plain(file, *arguments, **keywords)

    return opened


def become_windows() -> None:
    """Its loops know no signals and no Unix sockets, its processes no `preexec_fn`."""
    loop: Any = asyncio.SelectorEventLoop
    asyncio.ProactorEventLoop = loop  # type: ignore[attr-defined]
    for name in ("add_signal_handler", "remove_signal_handler"):
        setattr(loop, name, refuse)
    for name in ("create_unix_server", "create_unix_connection"):
        setattr(loop, name, refuse)
    started = loop.subprocess_exec

    async def subprocess_exec(self: Any, *arguments: Any, **keywords: Any) -> Any:
        for name in ("preexec_fn", "start_new_session", "pass_fds"):
            if keywords.get(name):
                raise ValueError(f"{name} is not supported on Windows platforms")
        return await started(self, *arguments, **keywords)

    loop.subprocess_exec = subprocess_exec
    for name in ("SIGHUP", "SIGUSR1", "SIGUSR2", "SIGALRM", "SIGQUIT"):
        delattr(signal, name)
    take_from_os(NOT_ON_WINDOWS)
    take_modules(LACKS)


def take_modules(names: tuple[str, ...]) -> None:
    """An import fails, and `find_spec` finds nothing."""
    sys.modules.update(dict.fromkeys(names))  # type: ignore[arg-type]


def take_from_os(names: tuple[str, ...]) -> None:
    for name in names:
        if hasattr(os, name):
            delattr(os, name)


if SYSTEM:
    # What looks at `sys.platform` while it is imported.
    import platform

    for package in (
        *("ctypes.util", "multiprocessing", "subprocess", "tempfile"),
        *("aiortc", "av", "cv2", "fastapi", "httpx", "onnxruntime", "uvicorn"),
        "uvicorn.loops.asyncio",
    ):
        importlib.import_module(package)
    platform.processor()  # it asks this machine, once
    take_modules(NOT_IN_SERVER)
    take_from_os(LINUX_ONLY)
    builtins.open = io.open = without_folders(io.open)
    if SYSTEM == "win32":
        become_windows()
    sys.platform = SYSTEM
