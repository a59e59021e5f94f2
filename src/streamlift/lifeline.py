"""A child process' tie to whoever started it: the pipe on stdin, first an order, then its end."""

from __future__ import annotations

import os
import threading
from contextlib import suppress

__all__ = ["first_line", "watch_lifeline"]


def first_line() -> bytes:
    """The first line of stdin, and not a byte more: what follows is the lifeline's."""
    line = b""
    while (byte := os.read(0, 1)) not in (b"", b"\n"):
        line += byte
    return line


def watch_lifeline() -> None:
    """End this process at once when stdin ends: whoever started it is gone."""

    def watch() -> None:
        with suppress(OSError, ValueError):
            while os.read(0, 4096):
                pass
        os._exit(0)

    threading.Thread(target=watch, name="lifeline", daemon=True).start()
