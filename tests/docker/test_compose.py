"""The compose files: valid by the specification, hardened, and naming files that are there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from tests.docker.manifests import DATA, DOCKER, read_json, read_yaml

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
            # What the user makes first: docs/docker.md says how.
            assert (DOCKER / source).exists() or source == "./cluster/tls"
        else:
            assert source in named
    if build := service.get("build"):
        assert (DOCKER / build["context"] / build["dockerfile"]).is_file()
        stages = re.findall(r"^FROM \S+ AS (\S+)$", (DOCKER / "Dockerfile").read_text(), re.M)
        assert build["target"] in stages
        assert "BASE" in build["args"]


def test_the_one_box_configuration_and_the_example_of_its_environment_are_read(
    tmp_path: Path,
) -> None:
    config = load_config(DOCKER / "streamlift.yaml", {})
    assert config.server.host == "127.0.0.1"
    lines = (DOCKER / "docker.env.example").read_text().splitlines()
    secret = "0123456789abcdef" * 2
    environ = {}
    for line in lines:
        key, given, value = line.removeprefix("# ").partition("=")
        if given and key.startswith("STREAMLIFT_"):
            environ[key] = value or secret
    opened = load_config(DOCKER / "streamlift.yaml", environ)
    assert opened.auth.complete
    assert opened.server.host == "0.0.0.0"
    assert opened.ice.turn_secret == secret
    assert opened.ice.servers[0].urls.startswith("turn:")
