"""What a command's exit code says."""

from __future__ import annotations

__all__ = ["FAILED", "NO_FRAME", "OK", "USAGE"]

OK, FAILED, USAGE, NO_FRAME = 0, 1, 2, 3
