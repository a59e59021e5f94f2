"""The schema that editors read says what the loader says."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator
from scripts.config_schema import SCHEMA, schema

from streamlift.config import load_config
from streamlift.errors import ConfigError

ROOT = Path(__file__).parents[1]
FILES = sorted([*ROOT.glob("configs/*.yaml"), ROOT / "docker/streamlift.yaml"])
FILES += sorted(ROOT.glob("docker/cluster/*.yaml"))


@pytest.fixture(scope="module")
def editor() -> Draft202012Validator:
    found = json.loads(SCHEMA.read_text())
    Draft202012Validator.check_schema(found)
    return Draft202012Validator(found)


def test_the_schema_is_in_step_with_the_tree() -> None:
    assert json.loads(SCHEMA.read_text()) == json.loads(schema()), (
        "run python -m scripts.config_schema"
    )


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_configuration_fits_it_and_names_it(path: Path, editor: Draft202012Validator) -> None:
    editor.validate(yaml.safe_load(path.read_text()))
    named = re.match(r"# yaml-language-server: \$schema=(.*)\n", path.read_text())
    assert named
    assert (path.parent / named[1]).resolve() == SCHEMA


@pytest.mark.parametrize(
    "text",
    [
        "sever: {}",
        "server: {prot: 1}",
        "server: {port: '80'}",
        "server: {port: true}",
        "auth: {publish: {streams: [a]}}",
        "auth: {publish: [{streams: [a]}]}",
        "backends: [{name: a, upscaler: toy, slot: 1}]",
        "backends: [{upscaler: toy}]",
        "backends: [{name: a, upscaler: toy, stabilise: strongest}]",
        "backends: toy",
        "ice: {ports: [a, b]}",
        "limits: {head_s: soon}",
        "cluster: {workers: [{backend: a}]}",
    ],
)
def test_it_refuses_what_the_loader_refuses(
    text: str, editor: Draft202012Validator, tmp_path: Path
) -> None:
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(ConfigError):
        load_config(tmp_path / "c.yaml", {})
    assert not editor.is_valid(yaml.safe_load(text))


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        "auth: {publish: one, view: [one, {token: t, streams: [a]}]}",
        "server: {allowed_origins: https://a.example}",
        "limits: {head_s: 3, body_s: 2.5}",
        (
            "backends: [{name: a, upscaler: toy, stabilise: off, settings: {any: [1, {x: y}]}}]\n"
            "default_backend: a"
        ),
        "backends: null",
        "ice: {servers: [{urls: 'stun:a.example:3478'}]}",
    ],
)
def test_it_takes_what_the_loader_takes(
    text: str, editor: Draft202012Validator, tmp_path: Path
) -> None:
    (tmp_path / "c.yaml").write_text(text)
    load_config(tmp_path / "c.yaml", {})
    found: Any = yaml.safe_load(text)
    editor.validate(found)
