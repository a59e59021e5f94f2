"""The compose files: valid by the specification, hardened, and naming files that are there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from tests.docker.manifests import DATA, DOCKER, read_json, read_yaml

from streamlift.cli import _parser
from streamlift.config import load_config

FILES = sorted(DOCKER.glob("compose*.yaml"))
VOLATILE = re.compile(r":(latest|main|master)$")


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.name)
def test_it_is_valid_by_the_compose_specification(path: Path) -> None:
    jsonschema = pytest.importorskip("jsonschema", reason="the package jsonschema")
    schema = read_json(DATA / "compose-spec" / "compose-spec.json")
    compose = read_yaml(path)
    validator = jsonschema.Draft7Validator(schema)
    validator.validate(compose)
    with pytest.raises(jsonschema.ValidationError):  # the schema does look inside
        validator.validate(compose | {"services": {"x": {"imagee": "y"}}})


def services() -> list[Any]:
    return [
        pytest.param(path, name, service, id=f"{path.stem}-{name}")
        for path in FILES
        for name, service in read_yaml(path)["services"].items()
    ]


@pytest.mark.parametrize(("path", "name", "service"), services())
def test_a_service_is_locked_down_and_can_be_pinned(
    path: Path, name: str, service: dict[str, Any]
) -> None:
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in service["security_opt"]
    assert not service.get("privileged")
    # A whole reference comes from the environment, so that it can carry a digest.
    variable, _, default = service["image"].removeprefix("${").removesuffix("}").partition(":-")
    assert variable.isupper()
    assert re.fullmatch(r"[a-z0-9/]+:[\w.-]+", default)
    assert not VOLATILE.search(default)


@pytest.mark.parametrize(("path", "name", "service"), services())
def test_what_it_mounts_and_builds_is_there(path: Path, name: str, service: dict[str, Any]) -> None:
    named = read_yaml(path).get("volumes", {})
    for volume in service.get("volumes", []):
        source, target, *mode = volume.split(":")
        assert target.startswith("/")
        if source.startswith("./"):
            assert mode == ["ro"], f"{name}: what is the user's is mounted read-only"
            assert (DOCKER / source).exists()
        else:
            assert source in named
    if build := service.get("build"):
        assert (DOCKER / build["context"] / build["dockerfile"]).is_file()
        stages = re.findall(r"^FROM \S+ AS (\S+)$", (DOCKER / "Dockerfile").read_text(), re.M)
        assert build["target"] in stages
        assert "BASE" in build["args"]


SECRET = "0123456789abcdef" * 2


def filled_in(name: str, comment: str = "") -> dict[str, str]:
    """An example of an environment with a secret where one is to be put in."""
    environ = {}
    for line in (DOCKER / name).read_text(encoding="utf-8").splitlines():
        key, given, value = line.removeprefix(comment).partition("=")
        if given and key.startswith("STREAMLIFT_"):
            environ[key] = value or SECRET
    return environ


def test_the_anchor_and_its_workers_read_their_configuration() -> None:
    environ = filled_in("cluster.env.example")
    anchor = load_config(DOCKER / "cluster" / "anchor.yaml", environ)
    worker = load_config(DOCKER / "cluster" / "worker.yaml", environ)
    assert anchor.auth.complete
    assert anchor.cluster.token == worker.cluster.token == SECRET
    remote = {backend.name for backend in anchor.named_backends if backend.link == "remote"}
    assert {w.backend for w in anchor.cluster.workers} == remote
    assert remote == {backend.name for backend in worker.named_backends}
    through_ray = {"STREAMLIFT_CLUSTER__PLACEMENT": "ray://10.0.0.5:10001"}
    del environ["STREAMLIFT_CLUSTER__WORKERS"]
    assert load_config(DOCKER / "cluster" / "anchor.yaml", environ | through_ray)


def test_workers_are_started_as_the_command_line_knows_them() -> None:
    compose = read_yaml(DOCKER / "compose.cluster.yaml")
    served = {b.name for b in load_config(DOCKER / "cluster" / "worker.yaml", {}).named_backends}
    for name in ("worker-h100", "worker-5090"):
        arguments = _parser().parse_args(compose["services"][name]["command"])
        assert arguments.backend in served
        assert arguments.listen.endswith(":8600")


def test_all_nodes_of_ray_have_a_token_and_patience_with_their_head() -> None:
    nodes = [
        s for s in read_yaml(DOCKER / "compose.cluster.yaml")["services"].items() if "ray" in s[0]
    ]
    assert len(nodes) == 3
    for _, node in nodes:
        assert node["environment"] == nodes[0][1]["environment"]
        assert node["environment"]["RAY_AUTH_MODE"] == "token"
        assert int(node["environment"]["RAY_gcs_rpc_server_reconnect_timeout_s"]) >= 3600


def test_the_one_box_configuration_and_the_example_of_its_environment_are_read(
    tmp_path: Path,
) -> None:
    config = load_config(DOCKER / "streamlift.yaml", {})
    assert config.server.host == "127.0.0.1"
    opened = load_config(DOCKER / "streamlift.yaml", filled_in("docker.env.example", "# "))
    assert opened.auth.complete
    assert opened.server.host == "0.0.0.0"
    assert opened.ice.turn_secret == SECRET
    assert opened.ice.servers[0].urls.startswith("turn:")
