"""The service pulls: from the request that asks for it to a viewer's picture, and to its end."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import pytest
from tests.media.remote.gateway import Gateway, Switches, gateway
from tests.peers import watching
from tests.serving import Served, serving, until

from streamlift.config import AuthConfig, BackendConfig, Config, SourcesConfig

pytestmark = pytest.mark.peer

BICUBIC = (BackendConfig("bicubic", "bicubic"),)
STREAMS = "/api/v1/streams"


def config(**sources: Any) -> Config:
    return Config(
        sources=SourcesConfig(**{"allowed_hosts": ("127.0.0.1",), **sources}),
        default_backend="bicubic",
        backends=BICUBIC,
    )


@asynccontextmanager
async def pulled(switches: Switches | None = None) -> AsyncIterator[tuple[Served, Gateway, str]]:
    async with gateway(switches) as (served_gateway, url), serving(config()) as served:
        yield served, served_gateway, url


async def post(served: Served, source: dict[str, Any], name: str = "mine") -> Any:
    async with served.http() as http:
        return await http.post(STREAMS, json={"name": name, "source": source})


async def source_of(served: Served, name: str = "mine") -> Any:
    return await served.read(f"{STREAMS}/{name}/source")


async def test_a_pulled_stream_reaches_a_viewer_upscaled_and_delete_ends_it_all() -> None:
    async with pulled() as (served, remote, url):
        response = await post(served, {"kind": "whep", "url": url})
        assert response.status_code == 201
        assert response.json()["name"] == "mine"
        assert response.headers["location"] == f"{STREAMS}/mine"
        await served.live("mine")
        async with watching(served.whep("mine")) as viewer:
            await viewer.wait_units(10)
        stream = await served.stream("mine")
        assert stream["publisher"]["size"] == [256, 256]
        assert stream["output"]["size"] == [512, 512]
        assert (await source_of(served))["state"] == "live"
        async with served.http() as http:
            assert (await http.delete(f"{STREAMS}/mine")).status_code == 204
        await until(lambda: bool(remote.requests("DELETE")), "our session there to be ended")
        assert (await source_of(served))["status"] == 404


async def test_a_stream_whose_gateway_has_nothing_yet_exists_and_waits() -> None:
    async with pulled(Switches(status=404)) as (served, _, url):
        assert (await post(served, {"kind": "whep", "url": url})).status_code == 201
        await until(lambda: _reason(served) != "", "the first try")
        assert (await source_of(served))["state"] == "connecting"
        assert "nothing to show yet" in (await source_of(served))["reason"]
        assert served.state("mine") is not None


async def test_a_refused_token_is_reported_and_not_repeated() -> None:
    async with pulled(Switches(token="right")) as (served, remote, url):
        await post(served, {"kind": "whep", "url": url, "token": "wrong"})
        await until(lambda: _reason(served) != "", "the refusal")
        source = await source_of(served)
    assert source["state"] == "failed"
    assert "401" in source["reason"]
    assert len(remote.requests("POST")) == 1


async def test_the_token_is_never_shown_nor_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with pulled(Switches(token="canary-token")) as (served, _, url):
        response = await post(
            served, {"kind": "whep", "url": f"{url}?key=canary-query", "token": "canary-token"}
        )
        await served.live("mine")
        shown = [response.text]
        async with served.http() as http:
            paths = (STREAMS, f"{STREAMS}/mine", f"{STREAMS}/mine/source", "/metrics")
            shown += [(await http.get(path)).text for path in paths]
    assert "canary-token" not in "".join(shown)
    assert "canary-query" not in "".join(shown)
    ours = [r.getMessage() for r in caplog.records if r.name.startswith("streamlift")]
    assert ours
    assert "canary" not in "".join(ours)


async def test_an_error_in_a_body_does_not_repeat_its_token() -> None:
    async with serving(config()) as served:
        for source in (
            {"kind": "whep", "token": "canary"},
            {"kind": "whep", "url": "x", "token": ["canary"]},
            {"kind": "whep", "url": "x", "token": "t", "extra": "canary"},
            {"kind": "whep", "url": "https://user:canary@example.org/"},
            {"kind": "whep", "url": "http://127.0.0.1/", "token": "canary\r\nX-Header: 1"},
            {"kind": "whep", "url": "http://127.0.0.1/", "token": "canary" * 1000},
        ):
            response = await post(served, source)
            assert response.status_code == 422
            assert "canary" not in response.text


async def test_without_allowed_hosts_nothing_is_pulled() -> None:
    async with serving(Config(default_backend="bicubic", backends=BICUBIC)) as served:
        response = await post(served, {"kind": "whep", "url": "https://example.org/whep"})
    assert response.status_code == 422
    assert "allowed_hosts" in response.json()["detail"]


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.2/whep",
        "http://169.254.169.254/latest/",
        "file:///etc/passwd",
        "http://[::1]/",
    ],
)
async def test_a_url_that_is_not_allowed_opens_no_stream(url: str) -> None:
    async with serving(config()) as served:
        assert (await post(served, {"kind": "whep", "url": url})).status_code == 422
        assert await served.read(STREAMS) == {"streams": []}


async def test_pulling_needs_the_control_token() -> None:
    auth = AuthConfig(publish=("p",), view=("v",), control=("c",))
    guarded = Config(
        auth=auth,
        sources=SourcesConfig(("127.0.0.1",)),
        default_backend="bicubic",
        backends=BICUBIC,
    )
    async with serving(guarded) as served, served.http() as http:
        body = {"name": "mine", "source": {"kind": "whep", "url": "http://127.0.0.1:1/"}}
        answers = {
            token: await http.post(STREAMS, json=body, headers={"Authorization": f"Bearer {token}"})
            for token in ("p", "v", "c")
        }
        read = await http.get(f"{STREAMS}/mine/source", headers={"Authorization": "Bearer v"})
    assert [answers[t].status_code for t in ("p", "v", "c")] == [403, 403, 201]
    assert read.status_code == 403


async def test_a_daydream_stream_is_asked_for_and_played_without_passing_the_key_on() -> None:
    async with gateway(Switches(token="dd-key")) as (service, url):
        parts = urlsplit(url)
        async with gateway() as (player, playback):
            base = f"http://{parts.netloc}"
            dd = config(daydream_url=base, daydream_key="dd-key")
            async with serving(dd) as served:
                response = await post(served, {"kind": "daydream", "stream_id": "str_1"})
                assert response.status_code == 201
                await until(lambda: "does not play yet" in _reason(served), "the first status")
                service.switches.playback = playback
                await served.live("mine")
                source = await source_of(served)
    assert service.requests("GET")[0].path == "/v1/streams/str_1/status"
    assert "authorization" not in player.requests("POST")[0].headers
    assert (source["kind"], source["stream_id"]) == ("daydream", "str_1")
    assert "dd-key" not in str(source)


async def test_without_a_key_a_daydream_stream_is_refused() -> None:
    async with serving(config()) as served:
        response = await post(served, {"kind": "daydream", "stream_id": "str_1"})
    assert response.status_code == 422
    assert "STREAMLIFT_SOURCES__DAYDREAM_KEY" in response.json()["detail"]


async def test_a_service_without_a_free_slot_refuses_to_pull() -> None:
    full = Config(
        sources=SourcesConfig(("127.0.0.1",)),
        default_backend="bicubic",
        backends=(BackendConfig("bicubic", "bicubic", slots=0),),
    )
    async with serving(full) as served:
        response = await post(served, {"kind": "whep", "url": "http://127.0.0.1:1/"})
    assert response.status_code == 503


async def test_a_whep_source_takes_no_parameters() -> None:
    async with pulled(Switches(status=404)) as (served, _, url):
        await post(served, {"kind": "whep", "url": url})
        async with served.http() as http:
            response = await http.put(f"{STREAMS}/mine/source", json={"prompts": ["a fox"]})
    assert response.status_code == 409


async def test_a_publisher_that_takes_the_name_over_ends_the_pull() -> None:
    async with pulled() as (served, remote, url):
        await post(served, {"kind": "whep", "url": url})
        await served.live("mine")
        assert (await post(served, {"kind": "whep", "url": url})).status_code == 201
        await until(lambda: bool(remote.requests("DELETE")), "the first pull to end")
        assert (await source_of(served))["state"] in ("connecting", "live")


def _reason(served: Served, name: str = "mine") -> str:
    return served.parts.pulls.get(name).status.reason


@pytest.mark.parametrize("value", ["NaN", '"\\ud800"', 40 * "[" + 40 * "]"])
async def test_parameters_that_could_not_be_passed_on_are_refused(value: str) -> None:
    source = f'{{"kind": "scope", "url": "http://127.0.0.1:9", "parameters": {{"a": {value}}}}}'
    async with serving(config()) as served, served.http() as http:
        response = await http.post(
            STREAMS,
            content=f'{{"name": "mine", "source": {source}}}',
            headers={"Content-Type": "application/json"},
        )
        assert response.status_code == 422
        assert "parameters" in response.json()["detail"]
        assert await served.read(STREAMS) == {"streams": []}
