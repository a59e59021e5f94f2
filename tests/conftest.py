"""What all tests share: strict skips, asyncio's debug mode, a running service, a certificate.

Also how a run ends: SIGTERM ends it as Ctrl-C does, and tests that gave up are counted and shown.
"""

from __future__ import annotations

import datetime
import os
import signal
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from tests.machine import GAVE_UP

# Read when an event loop is made: forgotten awaits and calls from the wrong thread become errors.
os.environ["PYTHONASYNCIODEBUG"] = "1"
# OpenCV and torch would each start a thread per core, beside those of the tests.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# How long an example takes says something of the machine, not of the code. What stands in the way
# of other work (CI names what it requires) tries the same examples each time; everyone else new
# ones.
settings.register_profile(
    "streamlift",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    derandomize="STREAMLIFT_REQUIRE" in os.environ,
)
settings.load_profile("streamlift")

NOT_UNIT = frozenset({"peer", "client", "browser", "soak", "cluster", "gpu", "weights", "scope"})
"""Markers of tests that need more than this process; all others are `unit`."""

REQUIRED = frozenset(filter(None, os.environ.get("STREAMLIFT_REQUIRE", "").split(",")))
"""Markers whose tests must run here: a skip of one of them is a failure."""


def pytest_configure() -> None:
    # With all that Ctrl-C does: what tests opened is closed, and the summary printed.
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if NOT_UNIT.isdisjoint(marker.name for marker in item.iter_markers()):
            item.add_marker(pytest.mark.unit)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    reports = terminalreporter.stats.get("xfailed", [])
    gave_up = [r for r in reports if r.wasxfail.removeprefix("reason: ").startswith(GAVE_UP)]
    if gave_up:
        terminalreporter.section("no verdict: the machine had no time to spare", yellow=True)
        for report in gave_up:
            said = report.wasxfail.removeprefix("reason: ").removeprefix(GAVE_UP)
            terminalreporter.line(f"{report.nodeid}: {said}")
        terminalreporter.line(f"{len(gave_up)} timing tests gave up; run them on an idle machine")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
    report = yield
    owed = REQUIRED.intersection(marker.name for marker in item.iter_markers())
    if report.skipped and owed and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"STREAMLIFT_REQUIRE has {', '.join(sorted(owed))}: {report.longrepr}"
    return report


@pytest.fixture(scope="session", autouse=True)
def _a_cache_of_its_own(tmp_path_factory: pytest.TempPathFactory) -> None:
    """What services measure of this machine is remembered for this run, not in the user's cache."""
    os.environ["STREAMLIFT_CACHE_DIR"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture
async def serve() -> AsyncIterator[Callable[..., Any]]:
    """`served = await serve(config)`: the service on a free port of this loop, closed at the end.

    See `tests.serving.serving` for what it takes and what it gives.
    """
    from tests.serving import serving

    async with AsyncExitStack() as stack:

        async def start(*args: Any, **kwargs: Any) -> Any:
            return await stack.enter_async_context(serving(*args, **kwargs))

        yield start


@pytest.fixture
async def service(serve: Callable[..., Any]) -> Any:
    """The service with the `light` configuration."""
    return await serve()


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Paths of a self-signed P-256 certificate for 127.0.0.1 and of its key, both PEM."""
    import ipaddress

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "streamlift test")])
    now = datetime.datetime.now(datetime.UTC)
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .sign(key, hashes.SHA256())
    )
    folder = tmp_path_factory.mktemp("certificate")
    cert_file, key_file = folder / "cert.pem", folder / "key.pem"
    cert_file.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    key_file.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return cert_file, key_file
