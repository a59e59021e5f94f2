"""Health, readiness and metrics."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
from prometheus_client.parser import text_string_to_metric_families
from tests.serving import light, until

from streamlift.config import AuthConfig, BackendConfig


async def test_healthz_answers_with_the_version(http: httpx.AsyncClient) -> None:
    answer = (await http.get("/healthz")).json()
    assert answer["status"] == "ok"
    assert answer["version"]


async def test_readyz_is_ready_with_one_ready_backend(http: httpx.AsyncClient) -> None:
    answer = await http.get("/readyz")
    assert answer.status_code == 200
    assert answer.json() == {"ready": True, "reasons": [], "backends": {}}


async def test_readyz_says_why_a_backend_is_not_ready(call: Callable[..., Any]) -> None:
    gpu = BackendConfig("gpu", "toy", device="cuda:7")
    plain = BackendConfig("bicubic", "bicubic")
    http = await call(light(default_backend="gpu", backends=(gpu, plain)))
    answer = (await http.get("/readyz")).json()
    assert answer["ready"] or answer["reasons"]
    assert "cuda:7" in answer["backends"]["gpu"]


async def test_readyz_tells_strangers_no_paths(call: Callable[..., Any]) -> None:
    auth = AuthConfig(("p",), ("v",), ("c",))
    lost = BackendConfig("lost", "realesrgan-x2", settings={"weights": "/secret/place.safetensors"})
    gpu = BackendConfig("gpu", "toy", device="cuda:7")
    plain = BackendConfig("bicubic", "bicubic")
    http = await call(light(auth=auth, default_backend="bicubic", backends=(plain, lost, gpu)))

    async def loaded() -> bool:
        return "loading" not in (await http.get("/readyz")).json()["backends"].values()

    await until(loaded, "all backends to be tried")
    for headers in ({}, {"Authorization": "Bearer p"}):
        answer = await http.get("/readyz", headers=headers)
        assert answer.status_code == 200
        assert set(answer.json()["backends"].values()) <= {"unavailable", "failed", "loading"}
        assert "/" not in answer.text
        assert "cuda" not in answer.text
    told = (await http.get("/readyz", headers={"Authorization": "Bearer v"})).json()
    assert "cuda:7" in told["backends"]["gpu"]


async def test_readyz_is_503_while_the_service_shuts_down(call: Callable[..., Any]) -> None:
    http = await call()
    http._transport.app.state.service.draining = True
    answer = await http.get("/readyz")
    assert answer.status_code == 503
    assert "shutting down" in answer.json()["reasons"]


async def test_while_it_shuts_down_new_things_are_asked_to_come_back(
    call: Callable[..., Any],
) -> None:
    http = await call()
    http._transport.app.state.service.draining = True
    source = {"kind": "whep", "url": "https://a.example/whep"}
    sdp = {"Content-Type": "application/sdp"}
    for answer in (
        await http.post("/whip/live", content="v=0", headers=sdp),
        await http.post("/whep/live", content="v=0", headers=sdp),
        await http.post("/api/v1/streams/live/outputs", json={"type": "whip", "url": "https://a"}),
    ):
        assert answer.status_code == 503, answer.text
        assert answer.json()["type"] == "urn:streamlift:problem:shutting-down"
        assert answer.headers["retry-after"] == "5"
    assert (await http.post("/api/v1/streams", json={"name": "a", "source": source})).is_error


async def test_metrics_are_prometheus_text_with_one_prefix(call: Callable[..., Any]) -> None:
    http = await call()
    service = http._transport.app.state.service
    service.metrics.count("frames_total", stage="encoded")
    service.metrics.observe("stage_duration_seconds", 0.003, stage="encode")
    answer = await http.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    families = {f.name: f for f in text_string_to_metric_families(answer.text)}
    assert all(name.startswith("streamlift_") for name in families)
    assert {
        "streamlift_frames",
        "streamlift_stage_duration_seconds",
        "streamlift_sessions_active",
        "streamlift_handshakes_pending",
        "streamlift_slots",
        "streamlift_slots_used",
        "streamlift_backend_state",
        "streamlift_build_info",
    } <= set(families)
    states = families["streamlift_backend_state"].samples
    assert [s.labels["state"] for s in states if s.value == 1] == ["ready"]


async def test_a_histograms_buckets_are_cumulative(call: Callable[..., Any]) -> None:
    http = await call()
    service = http._transport.app.state.service
    for seconds in (0.0004, 0.003, 0.003, 5.0):
        service.metrics.observe("stage_duration_seconds", seconds, stage="encode")
    text = (await http.get("/metrics")).text
    (family,) = (
        f
        for f in text_string_to_metric_families(text)
        if f.name == "streamlift_stage_duration_seconds"
    )
    buckets = [s.value for s in family.samples if s.name.endswith("_bucket")]
    assert buckets == sorted(buckets)
    assert buckets[-1] == 4
    assert next(s.value for s in family.samples if s.name.endswith("_count")) == 4
