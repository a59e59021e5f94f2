"""The shapes of streams and backends, exactly as documented."""

from __future__ import annotations

import httpx

from streamlift.api.shapes import backend_json, stream_json
from streamlift.frames import BackendInfo, BackendState, PlanInfo, Slots, WorkerInfo

STREAM_KEYS = {
    "target",
    "compare",
    "settings",
    "name",
    "state",
    "reason",
    "degraded",
    "backend",
    "policy",
    "publisher",
    "output",
    "latency_ms",
    "frames",
    "viewers",
}


async def test_without_streams_the_list_is_empty(http: httpx.AsyncClient) -> None:
    assert (await http.get("/api/v1/streams")).json() == {"streams": []}


async def test_an_unknown_stream_is_404_and_names_what_there_is(http: httpx.AsyncClient) -> None:
    for method, path in (("GET", ""), ("DELETE", ""), ("GET", "/snapshot.jpg")):
        answer = await http.request(method, f"/api/v1/streams/none{path}")
        assert answer.status_code == 404
        assert (answer.json()["found"], answer.json()["expected"]) == ("none", [])


async def test_the_fallback_backend_is_always_listed_and_ready(http: httpx.AsyncClient) -> None:
    (bicubic,) = (await http.get("/api/v1/backends")).json()["backends"]
    keys = {"name", "upscaler", "device", "state", "reason", "fps", "slots", "workers", "plan"}
    keys |= {"settings", "weights", "download"}
    assert set(bicubic) == keys
    assert bicubic["workers"] == []
    assert bicubic["plan"] is None
    assert (bicubic["name"], bicubic["state"], bicubic["device"]) == ("bicubic", "ready", "cpu")
    assert bicubic["fps"] > 0
    assert bicubic["slots"]["used"] == 0 < bicubic["slots"]["total"]


def test_a_backend_that_was_not_measured_has_no_fps() -> None:
    info = BackendInfo("a", "toy", "cpu", BackendState.LOADING, "loading", None, Slots(0, 0))
    shape: object = backend_json(info)
    assert shape == {
        "name": "a",
        "upscaler": "toy",
        "device": "cpu",
        "state": "loading",
        "reason": "loading",
        "fps": None,
        "slots": {"total": 0, "used": 0},
        "workers": [],
        "plan": None,
        "settings": {},
        "weights": None,
        "download": None,
    }


def test_a_backend_that_chose_for_this_machine_tells_its_plan() -> None:
    plan = PlanInfo("tier xs without stabiliser: ...", "tier xs", 17.287, 18.0, 1, 1)
    info = BackendInfo("a", "compact", "cpu", BackendState.READY, "", 61.2, Slots(1, 0), plan=plan)
    assert backend_json(info)["plan"] == {
        "words": "tier xs without stabiliser: ...",
        "picture": "tier xs",
        "frame_ms": 17.29,
        "budget_ms": 18.0,
        "cores": 1,
        "threads": 1,
    }


def test_each_worker_of_a_backend_is_shown() -> None:
    worker = WorkerInfo(
        "w1", "10.0.0.7:8600", "draining", "draining", "RTX 5090", 41.44, Slots(2, 1), 0.000412,
        restarts={"signal": 2, "hang": 1},
    )  # fmt: skip
    info = BackendInfo("a", "toy", "RTX 5090", BackendState.READY, "", 41.4, Slots(2, 1), (worker,))
    assert backend_json(info)["workers"] == [
        {
            "name": "w1",
            "address": "10.0.0.7:8600",
            "state": "draining",
            "reason": "draining",
            "device": "RTX 5090",
            "fps": 41.44,
            "slots": {"total": 2, "used": 1},
            "rtt_ms": 0.41,
            "restarts": 3,
        }
    ]


def test_a_stream_has_all_documented_keys_before_its_first_picture() -> None:
    import json

    from streamlift.clock import ManualClock
    from streamlift.frames import Codec, Rendition
    from streamlift.metrics import Metrics
    from streamlift.routing import BackendTable, StreamSettings
    from streamlift.routing.stream import Stream

    clock = ManualClock()
    stream = Stream(
        "live",
        BackendTable([], clock=clock),
        "bicubic",
        clock=clock,
        metrics=Metrics(),
        settings=StreamSettings(Rendition(Codec.H264, 6_000_000)),
    )
    shape = json.loads(json.dumps(stream_json(stream.snapshot())))
    assert set(shape) == STREAM_KEYS
    assert shape["publisher"] is None
    assert set(shape["output"]) == {"size", "fps", "bitrate_bps", "renditions"}
    assert set(shape["frames"]) == {"received", "decoded", "upscaled", "encoded", "dropped"}
    assert shape["state"] == "waiting"
