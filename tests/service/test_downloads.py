"""Weights that a running service fetches: who may, one at a time, resumed, then loaded."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.api.conftest import client_of
from tests.serving import light
from tests.upscalers.weights.shelf import (
    BODY,
    Shelf,
    checkpoint_on,
    serving_shelf,
    store_of,
)
from tests.waiting import until

from streamlift.app import create_app
from streamlift.config import AuthConfig, BackendConfig, TokenConfig, WeightsConfig
from streamlift.service import Service
from streamlift.upscalers import Upscaler
from streamlift.upscalers.toy import Toy
from streamlift.upscalers.weights import WeightStore

WEIGHTS = "/api/v1/backends/ai/weights"
BACKENDS = (BackendConfig("bicubic", "bicubic"), BackendConfig("ai", "toy"))


@pytest.fixture
def shelf() -> Any:
    with serving_shelf() as shelf:
        yield shelf


Start = Callable[..., Any]


@pytest.fixture
def start(shelf: Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Start:
    """A service whose backend `ai` needs a file of the shelf, and its client."""
    store = store_of(tmp_path, checkpoint_on(shelf))

    def factory(device: str, settings: Any) -> Upscaler:
        store.require("toy/net.pth")
        return Toy.from_settings(settings)

    monkeypatch.setitem(_factories(), "toy", factory)
    monkeypatch.setattr("streamlift.service.downloads.LOOK_S", 0.05)

    @asynccontextmanager
    async def started(
        *, download: bool = True, weights: WeightStore = store, **changes: Any
    ) -> AsyncIterator[tuple[httpx.AsyncClient, Service]]:
        config = light(backends=BACKENDS, weights=WeightsConfig(download), **changes)
        app = create_app(config, weights=weights)
        async with app.router.lifespan_context(app), client_of(app) as http:
            await until(lambda: _downloads(app.state.service).lacking("ai"), "ai to lack its file")
            yield http, app.state.service

    return started


def _factories() -> Any:
    from streamlift.upscalers import registry

    return registry._FACTORIES


def _downloads(service: Service) -> Any:
    return service.downloads


async def ai_of(http: httpx.AsyncClient) -> Any:
    listed = (await http.get("/api/v1/backends")).json()["backends"]
    return next(backend for backend in listed if backend["name"] == "ai")


async def becomes_ready(service: Service) -> None:
    await until(lambda: service.router.table.usable("ai"), "ai to be ready")


async def test_what_a_backend_lacks_is_said_with_the_command(start: Start) -> None:
    async with start(download=False) as (http, _):
        ai = await ai_of(http)
        assert ai["state"] == "unavailable"
        assert ai["weights"] == {
            "missing": ["toy/net.pth"],
            "bytes": len(BODY),
            "command": "streamlift weights pull toy",
            "may_download": False,
            "error": "",
        }
        assert ai["download"] is None
        answer = await http.post(WEIGHTS)
        assert answer.status_code == 403
        assert answer.json()["expected"] == "streamlift weights pull toy"


async def test_missing_weights_are_fetched_and_the_backend_is_used_without_a_restart(
    start: Start, shelf: Shelf
) -> None:
    async with start() as (http, service):
        with service.events.subscribe() as events:
            answer = await http.post(WEIGHTS)
            assert answer.status_code == 202
            assert answer.json()["download"] == {"bytes": 0, "total": len(BODY)}
            await becomes_ready(service)
            told = [await anext(events) for _ in range(2)]
        ai = await ai_of(http)
        assert (ai["state"], ai["weights"], ai["download"]) == ("ready", None, None)
        assert [(event.kind, event.before, event.after) for event in told] == [
            ("weights", "ai", "started"),
            ("weights", "ai", "done"),
        ]
        metrics = (await http.get("/metrics")).text
        assert 'streamlift_weight_downloads_total{result="done"} 1.0' in metrics
        assert f"streamlift_weight_download_bytes_total {float(len(BODY))}" in metrics
        assert (await http.post(WEIGHTS)).status_code == 422, "nothing is missing any more"


async def test_one_at_a_time_and_a_cancelled_one_is_resumed(start: Start, shelf: Shelf) -> None:
    shelf.pause_after = 4096
    async with start() as (http, service):
        assert (await http.delete(WEIGHTS)).status_code == 404
        assert (await http.post(WEIGHTS)).status_code == 202
        busy = await http.post(WEIGHTS)
        assert (busy.status_code, busy.json()["found"]) == (409, "ai")
        assert busy.headers["Retry-After"]
        await until(lambda: bool(shelf.ranges), "the server to be asked")
        assert (await http.delete(WEIGHTS)).status_code == 204
        shelf.pause_after = None
        shelf.go_on.set()
        await until(lambda: service.downloads.progress("ai") is None, "the download to end")
        assert not service.router.table.usable("ai")
        assert (await ai_of(http))["weights"]["error"] == ""
        assert (await http.post(WEIGHTS)).status_code == 202
        await becomes_ready(service)
    assert shelf.ranges[0] is None
    assert shelf.ranges[-1] == "bytes=4096-"


async def test_a_download_that_fails_says_why_and_can_be_tried_again(
    start: Start, shelf: Shelf
) -> None:
    good = shelf.files["/net.pth"]
    shelf.files["/net.pth"] = b"x" * len(good)
    async with start() as (http, service):
        assert (await http.post(WEIGHTS)).status_code == 202
        await until(lambda: service.downloads.failed("ai"), "the download to fail")
        assert "sha256" in (await ai_of(http))["weights"]["error"]
        shelf.files["/net.pth"] = good
        assert (await http.post(WEIGHTS)).status_code == 202
        await becomes_ready(service)


async def test_without_room_nothing_is_begun(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streamlift.service.downloads._free_bytes", lambda directory: 100)
    async with start() as (http, _):
        answer = await http.post(WEIGHTS)
        assert (answer.status_code, answer.json()["found"]) == (507, "100 bytes free")


async def test_files_without_a_digest_are_never_fetched(
    start: Start, shelf: Shelf, tmp_path: Path
) -> None:
    unpinned = store_of(tmp_path, checkpoint_on(shelf, pinned=False))
    async with start(weights=unpinned) as (http, _):
        assert (await http.post(WEIGHTS)).status_code == 422
    assert shelf.ranges == []


async def test_a_backend_that_lacks_no_file_or_is_not_there_is_refused(start: Start) -> None:
    async with start() as (http, _):
        answer = await http.post("/api/v1/backends/bicubic/weights")
        assert answer.status_code == 422
        assert "it is ready" in answer.json()["detail"]
        assert (await http.post("/api/v1/backends/none/weights")).status_code == 404
        assert (await http.delete("/api/v1/backends/none/weights")).status_code == 404


async def test_only_a_control_token_for_all_streams_may(start: Start) -> None:
    some = TokenConfig("some", streams=("a",))
    auth = AuthConfig(publish=("p",), view=("v",), control=("c", some))
    async with start(auth=auth) as (http, service):
        for token, status in (("v", 403), ("some", 403), ("c", 202)):
            answer = await http.post(WEIGHTS, headers={"Authorization": f"Bearer {token}"})
            assert answer.status_code == status
        await becomes_ready(service)


async def test_weights_that_come_by_another_way_are_used_too(start: Start, tmp_path: Path) -> None:
    async with start(download=False) as (_, service):
        (tmp_path / "weights" / "toy").mkdir(parents=True)
        (tmp_path / "weights" / "toy" / "net.pth").write_bytes(BODY)
        await becomes_ready(service)


async def test_a_service_that_ends_does_not_wait_for_a_silent_server(
    start: Start, shelf: Shelf
) -> None:
    shelf.pause_after = 4096
    async with asyncio.timeout(20):
        async with start() as (http, service):
            assert (await http.post(WEIGHTS)).status_code == 202
            await until(lambda: bool(shelf.ranges), "the server to be asked")
        assert service.downloads.progress("ai") is None
    shelf.go_on.set()
