"""What a command's exit code says."""

from __future__ import annotations

__all__ = ["FAILED", "INTERRUPTED", "NO_FRAME", "OK", "TERMINATED", "USAGE"]

OK, FAILED, USAGE, NO_FRAME = 0, 1, 2, 3

INTERRUPTED, TERMINATED = 130, 143
"""After Ctrl-C and SIGTERM, of a command that would have ended by itself: 128 and the signal."""
