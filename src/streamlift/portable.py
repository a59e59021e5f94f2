"""What Linux, macOS and Windows do differently, in one place; nothing else may be of POSIX only.

A test reads the source for calls that one of them lacks, outside of here and of places that ask.
"""

from __future__ import annotations

import asyncio
import ctypes
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any

__all__ = ["bound_arenas", "confine", "die_with_parent", "go_first", "on_signal", "take_address"]

_PR_SET_PDEATHSIG = 1
_M_ARENA_MAX = -8
_ARENAS = 2
_DESCRIPTORS = 64


def on_signal(sign: signal.Signals, told: Callable[..., Any], *arguments: Any) -> None:
    """Call `told` in the running loop when the signal comes; for the main thread.

    Windows' loops know no signals: there the process's own handler wakes the loop.
    """
    loop = asyncio.get_running_loop()
    try:
        loop.add_signal_handler(sign, told, *arguments)
    except NotImplementedError:
        signal.signal(sign, lambda *_: loop.call_soon_threadsafe(told, *arguments))


def take_address(listener: socket.socket) -> None:
    """So that a service that was just ended can be started again on its port, and never twice.

    On Windows the option that POSIX has for it would let two services share the port.
    """
    exclusive = getattr(socket, "SO_EXCLUSIVEADDRUSE", None)
    if exclusive is not None:
        listener.setsockopt(socket.SOL_SOCKET, exclusive, 1)
    else:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)


def die_with_parent() -> Callable[[], None] | None:
    """For a child's `preexec_fn`: on Linux it ends even when its parent is killed outright.

    None elsewhere, where such a child is left over.
    """
    if sys.platform != "linux":
        return None
    libc = ctypes.CDLL(None)
    return lambda: libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def bound_arenas() -> bool:
    """Let the C library keep memory in two places instead of eight for each core; True if it can.

    Threads here live as long as streams, and hand pictures to each other: what one has freed is of
    no use to the next when each has a place of its own (glibc's M_ARENA_MAX, mallopt(3)). To be
    called before threads begin.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    return mallopt is not None and bool(mallopt(_M_ARENA_MAX, _ARENAS))


def go_first() -> None:
    """Where memory runs out, the system ends this process before any other (Linux, proc(5))."""
    if sys.platform == "linux":
        # A container may forbid it; then the system chooses by size.
        with suppress(OSError), open("/proc/self/oom_score_adj", "w", encoding="ascii") as score:
            score.write("1000")


def confine(more_bytes: int) -> bool:
    """Bind this process for good: its address space grows by no more than that, it writes no file
    and leaves no core dump, and has few descriptors. For one that reads what strangers made.

    True where the system holds it to that: on Linux.
    """
    if sys.platform != "linux":
        return False
    import resource

    with open("/proc/self/statm", encoding="ascii") as statm:
        pages = int(statm.read().split()[0])
    bounds = {
        resource.RLIMIT_AS: pages * resource.getpagesize() + more_bytes,
        resource.RLIMIT_FSIZE: 0,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_NOFILE: _DESCRIPTORS,
    }
    for what, bound in bounds.items():
        resource.setrlimit(what, (bound, bound))
    return True
