"""Prometheus and Grafana: every series and label they ask for is one that /metrics renders."""

from __future__ import annotations

import ast
import json
import re
import shutil
import subprocess
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families
from tests.docker.manifests import DOCKER, ROOT, read_json, read_yaml
from tests.serving import light

from streamlift.api.health import _worker_metrics
from streamlift.config import BackendConfig
from streamlift.frames import Slots, WorkerInfo

SOURCE = ROOT / "src" / "streamlift"
DASHBOARDS = sorted((DOCKER / "grafana" / "dashboards").glob("*.json"))
ALERTS = DOCKER / "prometheus" / "alerts.yml"
GIVEN_BY_PROMETHEUS = {"instance", "job", "le"}
SERIES = re.compile(r"\b(streamlift_\w+|up)\b(?:\{([^}]*)\})?")
GROUPED = re.compile(r"\bby \(([^)]*)\)")


def alerts() -> list[dict[str, Any]]:
    return [rule for group in read_yaml(ALERTS)["groups"] for rule in group["rules"]]


def asked() -> list[Any]:
    """Every PromQL expression of the alerts and the dashboards."""
    found = [pytest.param(rule["expr"], id=rule["alert"]) for rule in alerts()]
    for path in DASHBOARDS:
        for panel in read_json(path)["panels"]:
            found += [
                pytest.param(target["expr"], id=f"{panel['title']}-{target['refId']}")
                for target in panel["targets"]
            ]
    return found


def counted() -> Iterator[tuple[str, str, set[str]]]:
    """`count` or `observe`, name and labels of each series that the source names itself."""
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr in ("count", "observe")
                and "metrics" in ast.unparse(node.func.value)
                and node.args
                and isinstance(node.args[0], ast.Constant)
            ):
                labels = [word.arg for word in node.keywords]
                if None not in labels:  # **labels: see INDIRECT
                    yield node.func.attr, str(node.args[0].value), set(filter(None, labels))


INDIRECT = [
    # Names and labels that are values where they are counted: each with the file that has it.
    ("count", "backend_switch_total", {"from", "to", "result"}, "routing/journal.py"),
    ("count", "frames_dropped_total", {"stage", "reason"}, "routing/counts.py"),
    ("observe", "failover_gap_seconds", set(), "routing/journal.py"),
    ("observe", "backend_switch_gap_seconds", set(), "routing/journal.py"),
]


def test_what_is_listed_as_indirect_is_in_its_file() -> None:
    for _, name, labels, file in INDIRECT:
        text = (SOURCE / file).read_text(encoding="utf-8")
        assert f'"{name}"' in text
        assert all(label in text for label in labels)


WORKER = WorkerInfo(
    name="w",
    address="10.0.0.6:8600",
    state="ready",
    reason="",
    device="NVIDIA H100",
    fps=41.0,
    slots=Slots(1, 0),
    rtt_s=0.001,
    restarts={"signal": 1},
    bytes={"in": 1, "out": 1},
)


@pytest.fixture
async def rendered(call: Callable[..., Any]) -> dict[str, set[str]]:
    """Series -> labels, as /metrics renders them once everything has happened at least once."""
    http = await call(light(backends=(BackendConfig("bicubic", "bicubic"),)))
    service = http._transport.app.state.service
    everything = [*counted(), *((how, name, labels) for how, name, labels, _ in INDIRECT)]
    assert len(everything) > 15, "the source counts nothing: has it been found?"
    for how, name, labels in everything:
        given = dict.fromkeys(labels, "x")
        if how == "count":
            service.metrics.count(name, 1, **given)
        else:
            service.metrics.observe(name, 0.01, **given)
    found: dict[str, set[str]] = defaultdict(set)
    for family in text_string_to_metric_families((await http.get("/metrics")).text):
        # Of sessions and outputs there are none now: their families say what there would be.
        found[family.name] |= set()
        for sample in family.samples:
            found[sample.name] |= set(sample.labels)
    found["streamlift_sessions_active"] |= {"role", "state"}
    found["streamlift_outputs_state"] |= {"type", "state"}
    for family in _worker_metrics([("ai", WORKER)]):
        for sample in family.samples:
            found[sample.name] |= set(sample.labels)
    found["up"] = set()
    return found


async def test_everything_that_is_asked_for_is_rendered(rendered: dict[str, set[str]]) -> None:
    expressions = [str(parameter.values[0]) for parameter in asked()]
    assert [wrong for e in expressions for wrong in complaints(e, rendered)] == []
    for wrong in ("streamlift_frame_total", 'up{stage="x"}', "sum by (stage) (up)"):
        assert list(complaints(wrong, rendered)), "a wrong expression is told"


def complaints(expression: str, rendered: dict[str, set[str]]) -> Iterator[str]:
    """What the expression asks for that nobody renders."""
    known = set(GIVEN_BY_PROMETHEUS)
    for name, matchers in SERIES.findall(expression):
        if name not in rendered:
            yield f"{name} is not rendered: {expression}"
            continue
        labels = rendered[name] | GIVEN_BY_PROMETHEUS
        if unknown := set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", matchers)) - labels:
            yield f"{name} has no {unknown}: {expression}"
        known |= labels
    for group in GROUPED.findall(expression):
        if unknown := {label.strip() for label in group.split(",")} - known:
            yield f"no series has {unknown}: {expression}"


def test_each_file_asks_for_something() -> None:
    assert len(alerts()) >= 8
    assert all("streamlift_" in panel["targets"][0]["expr"] for panel in panels())


def panels() -> list[dict[str, Any]]:
    return [panel for path in DASHBOARDS for panel in read_json(path)["panels"]]


def test_panels_have_places_of_their_own() -> None:
    for path in DASHBOARDS:
        taken = [
            (x, y)
            for panel in read_json(path)["panels"]
            for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
            for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
        ]
        assert len(taken) == len(set(taken))
        assert max(x for x, _ in taken) < 24


def test_grafana_finds_its_dashboards_and_its_source() -> None:
    provisioning = DOCKER / "grafana" / "provisioning"
    (source,) = read_yaml(provisioning / "datasources" / "prometheus.yml")["datasources"]
    (provider,) = read_yaml(provisioning / "dashboards" / "streamlift.yml")["providers"]
    mounts = read_yaml(DOCKER / "compose.yaml")["services"]["grafana"]["volumes"]
    assert f"./grafana/dashboards:{provider['options']['path']}:ro" in mounts
    used = {t["datasource"]["uid"] for panel in panels() for t in panel["targets"]}
    assert used == {source["uid"]}


def promtool(*arguments: str) -> str:
    path = shutil.which("promtool")
    if path is None:
        pytest.skip("no promtool: install the package prometheus")
    done = subprocess.run([path, *arguments], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_promtool_takes_the_configuration_and_the_rules() -> None:
    said = promtool("check", "config", str(DOCKER / "prometheus" / "prometheus.yml"))
    assert f"{len(alerts())} rules found" in said


def test_promtool_reads_every_expression_of_the_dashboards(tmp_path: Path) -> None:
    rules = [
        {"record": f"panel:{number}", "expr": target["expr"].replace("$__rate_interval", "1m")}
        for number, target in enumerate(t for panel in panels() for t in panel["targets"])
    ]
    path = tmp_path / "panels.yml"
    path.write_text(json.dumps({"groups": [{"name": "panels", "rules": rules}]}))
    assert f"{len(rules)} rules found" in promtool("check", "rules", str(path))


def test_each_alert_fires_when_it_should_and_only_then(tmp_path: Path) -> None:
    """Runs the rules over made-up hours, by promtool's own tests of rules."""
    quiet = {
        'up{job="streamlift", instance="a"}': "1x60",
        'streamlift_backend_state{instance="a", backend="b", state="ready"}': "1x60",
        'streamlift_slots{instance="a", backend="b"}': "2x60",
        'streamlift_slots_used{instance="a", backend="b"}': "1x60",
        'streamlift_worker_state{instance="a", worker="w", state="unavailable"}': "0x60",
        'streamlift_worker_restarts_total{instance="a", worker="w", reason="exit"}': "1x60",
        'streamlift_frames_total{instance="a", stage="submitted"}': "0+1500x60",
        'streamlift_frames_dropped_total{instance="a", stage="lane", reason="stale"}': "0+3x60",
        'streamlift_stream_latency_seconds_bucket{instance="a", le="0.04"}': "0+1500x60",
        'streamlift_stream_latency_seconds_bucket{instance="a", le="1.28"}': "0+1500x60",
        'streamlift_stream_latency_seconds_bucket{instance="a", le="+Inf"}': "0+1500x60",
        'streamlift_event_loop_stalls_total{instance="a"}': "1x60",
        'streamlift_auth_failures_total{instance="a", reason="wrong"}': "0+5x60",
        'streamlift_outputs_state{instance="a", type="whip", state="live"}': "1x60",
    }
    troubled = {
        "StreamliftDown": {'up{job="streamlift", instance="a"}': "0x60"},
        "StreamliftBackendNotReady": {
            'streamlift_backend_state{instance="a", backend="b", state="ready"}': "0x60"
        },
        "StreamliftWorkerUnavailable": {
            'streamlift_worker_state{instance="a", worker="w", state="unavailable"}': "1x60"
        },
        "StreamliftWorkerRestarts": {
            'streamlift_worker_restarts_total{instance="a", worker="w", reason="exit"}': "0+1x60"
        },
        "StreamliftBackendFull": {'streamlift_slots_used{instance="a", backend="b"}': "2x60"},
        "StreamliftBackendFaults": {
            'streamlift_backend_faults_total{instance="a", backend="b", kind="hang"}': "0+1x60"
        },
        "StreamliftFramesDropped": {
            'streamlift_frames_dropped_total{instance="a", stage="lane", reason="stale"}': (
                "0+150x60"
            )
        },
        "StreamliftLate": {
            'streamlift_stream_latency_seconds_bucket{instance="a", le="0.04"}': "0+100x60"
        },
        "StreamliftEventLoopStalls": {'streamlift_event_loop_stalls_total{instance="a"}': "0+3x60"},
        "StreamliftRecordingFailed": {
            'streamlift_recording_errors_total{instance="a"}': "_x10 1x50"
        },
        "StreamliftPushRefused": {
            'streamlift_outputs_state{instance="a", type="whip", state="refused"}': "2x60"
        },
        "StreamliftWrongTokens": {
            'streamlift_auth_failures_total{instance="a", reason="wrong"}': "0+60x60"
        },
    }
    assert set(troubled) == {rule["alert"] for rule in alerts()}
    tests = []
    for name, series in (("", {}), *troubled.items()):
        given = quiet | series
        tests.append(
            {
                "name": name or "quiet",
                "interval": "1m",
                "input_series": [{"series": s, "values": v} for s, v in given.items()],
                "promql_expr_test": [
                    {
                        "expr": 'count by (alertname) (ALERTS{alertstate="firing"})',
                        "eval_time": "15m",
                        "exp_samples": [
                            {"labels": f'{{alertname="{name}"}}', "value": 1},
                        ]
                        if name
                        else [],
                    }
                ],
            }
        )
    path = tmp_path / "alerts.test.yml"
    path.write_text(
        yaml.safe_dump(
            {"rule_files": [str(ALERTS)], "evaluation_interval": "30s", "tests": tests},
            sort_keys=False,
        )
    )
    assert "SUCCESS" in promtool("test", "rules", str(path))
