"""A stream of another service: the viewer's offer goes there, and so does all that follows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import pytest
from tests.peers import SDP, make_offer
from tests.serving import Served, light
from tests.stamped import sending, viewing

from streamlift.api.peers import PASSED_ON
from streamlift.config import AuthConfig, ClusterConfig
from streamlift.errors import ConfigError

Serve = Callable[..., Any]


def towards(*peers: str, **changes: Any) -> Any:
    return light(cluster=ClusterConfig(peers=peers), **changes)


@pytest.mark.peer
async def test_a_viewer_here_sees_what_is_published_there(serve: Serve) -> None:
    there: Served = await serve()
    here: Served = await serve(towards(there.url))
    async with sending(there.whip()):
        await there.live()
        async with viewing(here.whep()) as viewer:
            await viewer.more(5)
            viewer.assert_unbroken()
            assert len(list(here.parts.sessions)) == 0
            roles = sorted(str(s.role) for s in there.parts.sessions)
            assert len(roles) == 2
        # The DELETE at its end went the same way.
        assert len(list(there.parts.sessions)) == 1


@pytest.mark.peer
async def test_one_that_is_published_here_is_watched_here(serve: Serve) -> None:
    there: Served = await serve()
    here: Served = await serve(towards(there.url))
    async with sending(there.whip()), sending(here.whip()):
        await there.live()
        await here.live()
        async with viewing(here.whep()) as viewer:
            await viewer.more(2)
            assert len(list(here.parts.sessions)) == 2


async def test_a_stream_that_nobody_has_is_missing_as_without_peers(serve: Serve) -> None:
    there: Served = await serve()
    here: Served = await serve(towards(there.url, "http://127.0.0.1:9"))
    alone: Served = await serve()
    offer = await make_offer("view")
    answers = []
    for served in (here, alone):
        async with served.http() as http:
            answers.append(await http.post("/whep/live", content=offer, headers=SDP))
    assert answers[0].status_code == answers[1].status_code == 409
    assert answers[0].json() == answers[1].json()


async def test_what_was_passed_on_goes_no_further(serve: Serve) -> None:
    first: Served = await serve()
    second: Served = await serve(towards(first.url))
    async with second.http() as http:
        headers = {**SDP, PASSED_ON: "1"}
        answer = await http.post("/whep/live", content=await make_offer("view"), headers=headers)
    assert answer.status_code == 409


async def test_a_session_of_an_unknown_peer_is_unknown_and_a_token_is_needed(serve: Serve) -> None:
    auth = AuthConfig(publish=("p",), view=("v",), control=("c",))
    here: Served = await serve(towards("http://127.0.0.1:9", auth=auth))
    (name,) = here.app.state.peers._urls
    async with here.http() as http:
        assert (await http.delete(f"/sessions/{name}.x")).status_code == 401
        token = {"Authorization": "Bearer v"}
        assert (await http.delete("/sessions/00000000.x", headers=token)).status_code == 404
        assert (await http.delete(f"/sessions/{name}.x", headers=token)).status_code == 502
        assert (await http.delete("/sessions/x", headers=token)).status_code == 404


def test_peers_are_addresses_of_services() -> None:
    from streamlift.config.checks import check

    with pytest.raises(ConfigError, match=r"cluster\.peers"):
        check(towards("anchor-2"))


async def test_the_peer_gets_the_token_of_the_viewer(serve: Serve) -> None:
    auth = AuthConfig(publish=("p",), view=("v",), control=("c",))
    there: Served = await serve(light(auth=auth))
    here: Served = await serve(towards(there.url, auth=auth))
    peers = here.app.state.peers
    (name,) = peers._urls

    async def answer(authorization: str | None) -> Any:
        async with await peers._client(1.0, {"authorization": authorization or ""}) as http:
            return await http.get(f"{there.url}/api/v1/streams/live")

    assert isinstance(await answer("Bearer v"), httpx.Response)
    assert (await answer("Bearer v")).status_code == 404
    assert (await answer("Bearer wrong")).status_code == 401
    assert await peers.owner("live", "Bearer v") is None
    assert len(name) == 8
