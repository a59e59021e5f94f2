"""`doctor` looks and tells; it changes nothing."""

from __future__ import annotations

import json
import socket

import pytest

from streamlift.config import ClusterConfig, Config, IceConfig, RtspConfig, ServerConfig
from streamlift.doctor import Report, examine


def test_a_report_has_one_line_for_each_thing_and_can_be_json() -> None:
    report = examine(Config(server=ServerConfig(port=0)))
    shape = json.loads(json.dumps(report.as_json()))
    assert set(shape) == {"ok", "checks"}
    assert all(set(check) == {"name", "ok", "detail"} for check in shape["checks"])
    assert {"streamlift", "processor", "gpu", "encoders", "http port", "media", "tokens"} <= {
        check["name"] for check in shape["checks"]
    }


def test_everything_is_well_on_a_machine_with_the_server_extra() -> None:
    report = examine(Config(server=ServerConfig(port=0)))
    assert report.ok, [check for check in report.checks if not check.ok]


def test_what_the_nodes_of_ray_need_in_their_environment_is_looked_at(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = Config(
        server=ServerConfig(port=0), cluster=ClusterConfig(placement="ray://10.0.0.5:10001")
    )
    monkeypatch.setattr("importlib.metadata.version", lambda name: "2.60.0")
    for name in ("RAY_AUTH_MODE", "RAY_gcs_rpc_server_reconnect_timeout_s"):
        monkeypatch.delenv(name, raising=False)
    told = _detail(examine(config), "ray")
    assert "RAY_AUTH_MODE=token" in told
    assert "reconnect timeout 60 s" in told
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_gcs_rpc_server_reconnect_timeout_s", "3600")
    assert _detail(examine(config), "ray") == "ray 2.60.0, token auth, reconnect timeout 3600 s"


def test_a_port_in_use_is_found() -> None:
    with socket.create_server(("127.0.0.1", 0)) as busy:
        port = busy.getsockname()[1]
        report = examine(Config(server=ServerConfig(port=port)))
    assert not report.ok
    assert str(port) in _detail(report, "http port")


def test_the_port_of_rtsp_readers_is_looked_at_where_there_is_one() -> None:
    server = ServerConfig(port=0)
    with socket.create_server(("127.0.0.1", 0)) as busy:
        port = busy.getsockname()[1]
        report = examine(Config(server=server, rtsp=RtspConfig(port=port)))
    assert not report.ok
    assert str(port) in _detail(report, "rtsp port")
    free = examine(Config(server=server, rtsp=RtspConfig(port=0)))
    assert free.ok
    assert "is free" in _detail(free, "rtsp port")
    assert "rtsp port" not in {check.name for check in examine(Config(server=server)).checks}


def test_the_announced_addresses_are_told() -> None:
    report = examine(Config(server=ServerConfig(port=0), ice=IceConfig(announce=("192.0.2.7",))))
    assert "192.0.2.7" in _detail(report, "media")
    assert "UDP" in _detail(report, "media")


def test_a_public_address_without_tokens_is_bad() -> None:
    report = examine(Config(server=ServerConfig(host="0.0.0.0", port=0)))
    assert not report.ok
    assert "auth.publish" in _detail(report, "tokens")


def _detail(report: Report, name: str) -> str:
    return next(check.detail for check in report.checks if check.name == name)
