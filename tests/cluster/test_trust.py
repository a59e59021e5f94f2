"""Who may talk over a link: certificates, fingerprints, tokens, and strangers' bytes."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.waiting import until

pytest.importorskip("grpc", reason="needs the extra cluster")

import grpc
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.cluster.served import TOKEN, Reader, frames_now, serving_worker, wanted
from tests.engine.frames import SMALL

from streamlift.cluster.looking import look_at_workers
from streamlift.cluster.process import check_worker_exposure
from streamlift.cluster.trust import (
    Trust,
    fingerprint_of,
    is_local,
    make_certificate,
    server_credentials,
)
from streamlift.config import BackendConfig, ClusterConfig, Config, WorkerConfig
from streamlift.errors import ConfigError
from streamlift.frames import BackendState

Worker = Callable[..., Any]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, str]:
    return make_certificate(tmp_path_factory.mktemp("pair") / "made")


def credentials(pair: tuple[Path, Path, str]) -> Any:
    return server_credentials(ClusterConfig(tls_cert=str(pair[0]), tls_key=str(pair[1])))


def test_a_made_certificate_has_the_printed_fingerprint_and_a_key_for_its_owner_only(
    pair: tuple[Path, Path, str],
) -> None:
    certificate, key, fingerprint = pair
    assert fingerprint_of(certificate.read_bytes()) == fingerprint
    assert key.stat().st_mode & 0o777 == 0o600
    with pytest.raises(ConfigError, match="is there already"):
        make_certificate(certificate.parent)


async def test_the_pinned_certificate_is_trusted_and_carries_lanes(
    worker: Worker, pair: tuple[Path, Path, str]
) -> None:
    served = await worker("bicubic", credentials=credentials(pair))
    backend = await served.linked(served.link(Trust(TOKEN, fingerprint=pair[2])))
    await until(lambda: backend.info().state is BackendState.READY, "it", show=backend.info)
    lane = await backend.open_lane(SMALL, wanted())
    reader = Reader(lane)
    for frame in frames_now(0, 3):
        lane.offer(frame)
    await reader.has(3)
    await backend.aclose()


@pytest.mark.parametrize("pinned", ["sha256:" + 64 * "0", None], ids=["another", "a CA"])
async def test_another_certificate_is_not_talked_to(
    worker: Worker, pair: tuple[Path, Path, str], pinned: str | None, certificate: tuple[Path, Path]
) -> None:
    served = await worker("bicubic", credentials=credentials(pair))
    # The other case trusts a CA that has not signed it.
    trust = Trust(TOKEN, pinned, tls_ca=None if pinned else str(certificate[0]))
    link = served.link(trust)
    backend = await served.linked(link)
    assert link.state == "unavailable"
    if pinned:
        assert "another certificate than the pinned one" in link.info().reason
    assert served.service._door.refused == 0
    await backend.aclose()


async def test_a_worker_that_asks_anchors_for_a_certificate_takes_no_other(
    worker: Worker, pair: tuple[Path, Path, str], tmp_path: Path
) -> None:
    """Mutual TLS: `cluster.tls_ca` of the worker has signed the anchor's certificate."""
    ours, key, _ = make_certificate(tmp_path / "anchor")
    asks = ClusterConfig(tls_cert=str(pair[0]), tls_key=str(pair[1]), tls_ca=str(ours))
    served = await worker("bicubic", credentials=server_credentials(asks))
    stranger = served.link(Trust(TOKEN, fingerprint=pair[2]))
    backend = await served.linked(stranger)
    assert stranger.state == "unavailable"
    assert served.service._door.refused == 0, "it did not come as far as its token"
    await backend.aclose()
    known = Trust(TOKEN, fingerprint=pair[2], tls_cert=str(ours), tls_key=str(key))
    backend = await served.linked(served.link(known))
    await until(lambda: backend.info().state is BackendState.READY, "it", show=backend.info)
    await backend.aclose()


async def test_doctor_says_how_each_worker_is(worker: Worker, pair: tuple[Path, Path, str]) -> None:
    served = await worker("bicubic", credentials=credentials(pair))
    there = WorkerConfig("ai", served.address, pair[2])
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        gone = WorkerConfig("ai", f"127.0.0.1:{nobody.getsockname()[1]}", pair[2])
        cluster = ClusterConfig(token=TOKEN, workers=(there, gone))
        config = Config(
            cluster=cluster,
            backends=(BackendConfig("ai", "bicubic", link="remote"),),
            default_backend="ai",
        )
        found = await asyncio.to_thread(look_at_workers, config)
    assert [(who, well) for who, well, _ in found] == [("ai", True), ("ai", False)]
    assert "TLS" in found[0][2]
    assert "H100" in found[0][2]
    assert gone.address in found[1][2]


@pytest.mark.parametrize(
    ("address", "local"),
    [
        ("unix:/run/x", True),
        ("127.0.0.1:1", True),
        ("[::1]:1", True),
        ("localhost:1", True),
        ("10.0.0.7:1", False),
        ("0.0.0.0:1", False),
        ("gpu.example.org:1", False),
    ],
)
def test_only_this_machine_is_local(address: str, local: bool) -> None:
    assert is_local(address) is local
    if local:
        check_worker_exposure(address, ClusterConfig())
        return
    with pytest.raises(ConfigError, match=r"cluster.token and cluster.tls_cert"):
        check_worker_exposure(address, ClusterConfig())
    check_worker_exposure(address, ClusterConfig(token="t", tls_cert="c", tls_key="k"))


async def test_wrong_tokens_are_refused_late_then_at_once_and_others_are_not_held_up(
    worker: Worker,
) -> None:
    served = await worker("bicubic")
    good = await served.linked()
    lane = await good.open_lane(SMALL, wanted())
    reader = Reader(lane)

    async def wrong() -> tuple[grpc.StatusCode, float]:
        began_s = time.monotonic()
        async with grpc.aio.insecure_channel(served.address) as channel:
            call = channel.stream_stream("/streamlift.worker.v1.Worker/Attach")(
                metadata=Trust("no token of this worker").metadata
            )
            return await call.code(), time.monotonic() - began_s

    tries = [asyncio.create_task(wrong()) for _ in range(20)]
    for frame in frames_now(0, 3):
        lane.offer(frame)
    await reader.has(3)
    assert not any(task.done() and task.result()[1] > 0.5 for task in tries[:1])
    outcomes = [await task for task in tries]
    codes = [code for code, _ in outcomes]
    assert codes.count(grpc.StatusCode.UNAUTHENTICATED) == 10
    assert codes.count(grpc.StatusCode.RESOURCE_EXHAUSTED) == 10
    late = [s for code, s in outcomes if code is grpc.StatusCode.UNAUTHENTICATED]
    assert min(late) >= 0.5
    assert served.service._door.refused == 20
    await good.aclose()


async def test_no_log_repeats_a_token(worker: Worker, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    served = await worker("bicubic")
    for token in (TOKEN, "a wrong one that is a secret too"):
        backend = await served.linked(served.link(Trust(token)))
        await backend.aclose()
        assert token not in caplog.text
    assert TOKEN not in repr(Trust(TOKEN))
    assert TOKEN not in repr(ClusterConfig(token=TOKEN))


HTTP2 = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


@settings(max_examples=20)
@given(
    st.lists(
        st.one_of(
            st.binary(max_size=400),
            st.binary(max_size=400).map(lambda data: HTTP2 + data),
            st.integers(0, 2**24 - 1).map(
                lambda size: HTTP2 + bytes(9) + size.to_bytes(3, "big") + bytes(60)
            ),
        ),
        min_size=1,
        max_size=5,
    )
)
def test_strangers_bytes_end_their_connection_and_no_other(parts: list[bytes]) -> None:
    async def run() -> None:
        async with serving_worker("bicubic") as served:
            backend = await served.linked()
            lane = await backend.open_lane(SMALL, wanted())
            reader = Reader(lane)
            for part in parts:
                stream, writer = await asyncio.open_connection("127.0.0.1", served.port)
                writer.write(part)
                writer.write_eof()
                async with asyncio.timeout(5):
                    while await stream.read(4096):
                        pass
                writer.close()
            for frame in frames_now(0, 2):
                lane.offer(frame)
            await reader.has(2)
            await backend.aclose()

    asyncio.run(run())
