"""Live tests may not leave a traceback in the log, whatever they do to the service."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def no_tracebacks(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    yield
    for phase in ("setup", "call", "teardown"):
        for record in caplog.get_records(phase):
            told = record.exc_info or record.levelno >= logging.ERROR
            assert not told, f"{record.name}: {record.getMessage()} {record.exc_info}"
