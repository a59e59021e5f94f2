"""Any stream of a service as a source of pictures in Scope."""

from __future__ import annotations

import asyncio
import itertools

import numpy as np
import pytest
from tests.media.remote.gateway import gateway
from tests.serving import serving
from tests.stamped import TINY, sending

from streamlift.integrations.scope.whep_input import StreamliftInput

pytestmark = pytest.mark.peer


async def test_a_stream_is_listed_watched_and_given_as_rgb(monkeypatch: pytest.MonkeyPatch) -> None:
    source = StreamliftInput()
    async with serving() as served, sending(served.whip("gen")):
        await served.live("gen")
        monkeypatch.setenv("STREAMLIFT_URL", served.url)
        (found,) = await asyncio.to_thread(source.list_sources)
        assert (found.name, found.identifier) == ("gen", served.whep("gen"))
        try:
            assert await asyncio.to_thread(source.connect, found.identifier)
            pictures = [await asyncio.to_thread(source.receive_frame, 5000) for _ in range(5)]
        finally:
            await asyncio.to_thread(source.disconnect)
        assert {p.shape for p in pictures} == {(2 * TINY.height, 2 * TINY.width, 3)}
        assert all(p.dtype == np.uint8 for p in pictures)
        assert any((a != b).any() for a, b in itertools.pairwise(pictures))
        assert await asyncio.to_thread(source.receive_frame, 10) is None


async def test_what_cannot_be_watched_is_said_and_refused(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    source = StreamliftInput()
    async with serving() as served:
        assert not await asyncio.to_thread(source.connect, served.url + "/whep/../nothing")
        monkeypatch.setenv("STREAMLIFT_URL", "http://127.0.0.1:9")
        assert await asyncio.to_thread(source.list_sources) == []
    assert "cannot watch" in caplog.text
    assert "no streams from http://127.0.0.1:9" in caplog.text


async def test_the_token_goes_to_the_service_it_is_for_and_to_nobody_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("STREAMLIFT_VIEW_TOKEN", "v" * 20)
    async with gateway() as (served, url):
        for service in (url.removesuffix("/whep/live"), "http://127.0.0.1:9"):
            monkeypatch.setenv("STREAMLIFT_URL", service)
            source = StreamliftInput()
            assert await asyncio.to_thread(source.connect, url)
            await asyncio.to_thread(source.disconnect)
    told = ["authorization" in asked.headers for asked in served.requests("POST")]
    assert told == [True, False]


def test_addresses_that_are_not_http_are_not_opened(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("STREAMLIFT_URL", "file:///etc")
    assert StreamliftInput().list_sources() == []
    assert "expected http:// or https://" in caplog.text
