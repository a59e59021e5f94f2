"""Pulling from a Scope server: load, wait, offer with the graph, talk, and connect again."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from tests.media.remote.scope_server import PTS_STEP, ScopeServer, Switches, scope_server
from tests.serving import serving, until

from streamlift.clock import MonotonicClock
from streamlift.config import BackendConfig, Config, IceConfig, IceServer, SourcesConfig
from streamlift.frames import Frame
from streamlift.media.remote.pull import PullPublisher, PullState
from streamlift.media.remote.pull_scope import PROBE_S, ScopeSource
from streamlift.media.remote.pull_whep import permitted
from streamlift.media.remote.url_safety import HostRules
from streamlift.service.pulls import Pulls

pytestmark = pytest.mark.peer

FOX = [{"text": "a fox", "weight": 1.0}]


class Pulling:
    def __init__(self, pull: PullPublisher, source: ScopeSource) -> None:
        self.pull = pull
        self.source = source
        self.frames: list[Frame] = []
        self.reasons: list[str] = []
        self.waits_s: list[float] = []

    async def wait(self, frames: int) -> None:
        await until(lambda: len(self.frames) >= frames, f"{frames} frames", timeout_s=15)


@asynccontextmanager
async def pulling(url: str, **options: Any) -> AsyncIterator[Pulling]:
    """Pull; waits between tries take no time, and each time the reason is noted."""
    clock = MonotonicClock()
    pulls = Pulls(SourcesConfig(("127.0.0.1",)), IceConfig(), max_side=1280, clock=clock)
    wanted: dict[str, Any] = {"load_params": {}, "parameters": {"prompts": FOX}, **options}
    source = pulls.scope("live", url, "longlive", **wanted)
    it: Pulling

    async def nap(seconds: float) -> None:
        it.reasons.append(it.pull.status.reason)
        it.waits_s.append(seconds)
        await asyncio.sleep(0.02)

    it = Pulling(PullPublisher("live", source, clock=clock, sleep=nap), source)

    async def take() -> None:
        async for frame in it.pull:
            it.frames.append(frame)

    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(it.pull.run())
        tasks.create_task(take())
        try:
            yield it
        finally:
            await it.pull.aclose("test over")
            await asyncio.wait([running])


def initial(server: ScopeServer, number: int = -1) -> dict[str, Any]:
    parameters: dict[str, Any] = server.offers[number]["initialParameters"]
    return parameters


async def test_it_loads_the_pipeline_offers_with_the_graph_and_plays() -> None:
    async with scope_server() as (server, url), pulling(url, load_params={"height": 512}) as it:
        await it.wait(16)
        assert it.pull.status.state is PullState.LIVE
        assert {b.pts - a.pts for a, b in zip(it.frames, it.frames[1:], strict=False)} == {PTS_STEP}
    (load,) = server.loads
    assert load["pipelines"] == [
        {"node_id": "longlive", "pipeline_id": "longlive", "load_params": {"height": 512}}
    ]
    assert initial(server)["input_mode"] == "text"
    assert initial(server)["prompts"] == FOX
    graph = initial(server)["graph"]
    assert [node["id"] for node in graph["nodes"]] == ["longlive", "output"]
    assert (graph["edges"][0]["from"], graph["edges"][0]["to_node"]) == ("longlive", "output")


async def test_the_offer_has_h264_only_its_candidates_and_a_channel() -> None:
    async with scope_server() as (server, url), pulling(url) as it:
        await it.wait(1)
    sdp = server.offers[0]["sdp"]
    assert "H264/90000" in sdp
    assert "VP8" not in sdp
    assert "a=candidate:" in sdp
    assert "m=application" in sdp
    assert "a=recvonly" in sdp


async def test_the_session_is_deleted_at_the_end() -> None:
    async with scope_server() as (server, url), pulling(url) as it:
        await it.wait(1)
        await it.pull.aclose("enough")
        await until(lambda: bool(server.deleted), "the session to be deleted")
    assert server.deleted == ["session-1"]


async def test_what_was_loaded_before_is_not_taken_for_what_is_loading() -> None:
    other = {"status": "loaded", "pipeline_id": "krea"}
    loading = {"status": "loading", "pipeline_id": None, "loading_stage": "weights"}
    statuses = deque[dict[str, Any]]([other, other, loading])
    async with scope_server(Switches(statuses)) as (server, url), pulling(url) as it:
        await it.wait(1)
    assert not server.switches.statuses
    assert len(server.loads) == 1


async def test_a_pipeline_that_cannot_be_loaded_is_reported_and_tried_again() -> None:
    statuses = deque[dict[str, Any]](
        [{"status": "not_loaded"}, {"status": "error", "error": "no GPU", "pipeline_id": None}]
    )
    async with scope_server(Switches(statuses)) as (_, url), pulling(url) as it:
        await it.wait(1)
    assert it.reasons == ["Scope cannot load longlive: no GPU"]


async def test_a_scope_that_is_away_is_asked_for_often_and_the_state_says_so() -> None:
    async with scope_server() as (_, url):
        gone = url  # a port that nobody listens on once the server has ended
    async with pulling(gone) as it:
        await until(lambda: len(it.waits_s) >= 8, "eight tries")
        assert it.pull.status.state is PullState.CONNECTING
        assert "Scope does not answer" in it.pull.status.reason
        assert set(it.waits_s) == {PROBE_S}  # and never 1, 2, 4 .. 30 s


async def test_while_scope_loads_the_state_tells_its_stage() -> None:
    loading = {"status": "loading", "pipeline_id": "longlive", "loading_stage": "weights"}
    statuses = deque[dict[str, Any]]([{"status": "not_loaded"}, *[loading] * 4])
    async with scope_server(Switches(statuses)) as (_, url), pulling(url) as it:
        await until(lambda: it.pull.status.reason != "", "a reason", timeout_s=10)
        assert it.pull.status.reason == "Scope loads longlive: weights"
        assert it.pull.status.state is PullState.CONNECTING
        await it.wait(1)
        assert it.pull.status.reason == ""


async def test_an_offer_that_comes_too_early_is_made_again() -> None:
    refused = Switches(refusals=deque([400, 500]))
    async with scope_server(refused) as (server, url), pulling(url) as it:
        await it.wait(1)
    assert len(server.offers) == 3
    assert "not ready" in it.reasons[0]
    assert "told to answer 500" in it.reasons[1]


async def test_parameters_go_over_the_channel_and_the_lasting_ones_into_the_next_offer() -> None:
    async with scope_server() as (server, url), pulling(url) as it:
        await it.wait(1)
        it.source.set_parameters({"prompts": [{"text": "a bear", "weight": 1.0}]})
        it.source.set_parameters({"reset_cache": True, "noise": 0.5})
        await until(lambda: len(server.messages) == 2, "the messages")
        await server.aclose()
        await until(lambda: it.pull.status.connections == 2, "the second connection", timeout_s=15)
    assert server.messages[0] == {"prompts": [{"text": "a bear", "weight": 1.0}]}
    assert server.messages[1] == {"reset_cache": True, "noise": 0.5}
    assert initial(server)["prompts"][0]["text"] == "a bear"
    assert initial(server)["noise"] == 0.5
    assert "reset_cache" not in initial(server)


async def test_what_is_changed_before_the_channel_is_open_is_sent_when_it_is() -> None:
    switches = Switches(may_answer=asyncio.Event())
    async with scope_server(switches) as (server, url), pulling(url) as it:
        await until(lambda: bool(server.offers), "the offer")
        it.source.set_parameters({"noise": 0.5})
        it.source.set_parameters({"reset_cache": True})
        switches.may_answer.set()
        await until(lambda: len(server.messages) == 2, "the messages")
    assert server.messages == [{"noise": 0.5}, {"reset_cache": True}]


async def test_a_transition_leaves_its_target_as_the_prompts() -> None:
    async with scope_server() as (_, url), pulling(url) as it:
        it.source.set_parameters({"transition": {"target_prompts": [{"text": "rain"}]}})
        assert it.source.describe()["parameters"] == {"prompts": [{"text": "rain"}]}


async def test_when_scope_stops_the_stream_its_reason_is_told_and_it_is_started_again() -> None:
    async with scope_server() as (server, url), pulling(url) as it:
        await it.wait(1)
        await until(lambda: bool(server._channels), "the channel")
        server.stop("out of memory")
        await until(lambda: it.pull.status.connections == 2, "the second connection", timeout_s=15)
    assert it.reasons == ["Scope stopped the stream: out of memory"]
    assert len(server.loads) == 1  # what is loaded is not loaded again


async def test_it_plays_without_the_ice_servers_that_nobody_allowed() -> None:
    named = [{"urls": ["stun:evil.example:3478"], "username": None, "credential": None}]
    async with scope_server(Switches(ice_servers=named)) as (_, url), pulling(url) as it:
        await it.wait(1)


def test_ice_servers_are_used_only_if_their_hosts_are_allowed() -> None:
    rules = HostRules(["turn.example.com", "10.0.0.1"])
    named = [
        IceServer("stun:turn.example.com"),
        IceServer("turn:turn.example.com:3478?transport=udp", "user", "secret"),
        IceServer("stun:10.0.0.1:3478"),
        IceServer("stun:10.0.0.2:3478"),
        IceServer("stun:evil.example"),
    ]
    assert permitted(named, rules) == tuple(named[:3])


async def test_through_the_api_prompts_are_changed_while_it_plays() -> None:
    config = Config(
        sources=SourcesConfig(("127.0.0.1",)),
        default_backend="bicubic",
        backends=(BackendConfig("bicubic", "bicubic"),),
    )
    async with scope_server() as (server, url), serving(config) as served, served.http() as http:
        source = {"kind": "scope", "url": url, "prompts": ["a fox"]}
        response = await http.post("/api/v1/streams", json={"name": "gen", "source": source})
        assert response.status_code == 201, response.text
        await served.live("gen")
        await until(lambda: bool(server._channels), "the channel")
        change = {"prompts": [{"text": "a bear", "weight": 0.5}, "rain"]}
        response = await http.put("/api/v1/streams/gen/source", json=change)
        assert response.status_code == 202
        assert response.json()["pipeline"] == "longlive"
        await until(lambda: bool(server.messages), "the message")
    assert server.messages[0]["prompts"] == [
        {"text": "a bear", "weight": 0.5},
        {"text": "rain", "weight": 1.0},
    ]
