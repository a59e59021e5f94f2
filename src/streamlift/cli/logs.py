"""How the commands log: text or JSON, one line a record."""

from __future__ import annotations

import json
import logging
import time
from typing import Any

__all__ = ["set_up_logging"]


def set_up_logging(log_format: str, verbose: bool) -> None:
    output = logging.StreamHandler()
    if log_format == "json":
        output.setFormatter(_JsonFormatter())
    else:
        output.setFormatter(
            logging.Formatter("%(asctime)s %(levelname)-7s %(message)s", "%H:%M:%S")
        )
    logging.basicConfig(level=logging.INFO, handlers=[output], force=True)
    logging.getLogger("streamlift").setLevel(logging.DEBUG if verbose else logging.INFO)
    for noisy in ("aioice", "aiortc", "httpx", "httpcore", "libav", "uvicorn"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


class _JsonFormatter(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "ts": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line)
