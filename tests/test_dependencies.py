"""What pyproject.toml asks for is what the code imports; what is installed may be used here."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from scripts.licences import installed

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_nothing_is_asked_for_that_nothing_imports(tmp_path: Path) -> None:
    report = tmp_path / "deptry.json"
    done = subprocess.run(
        [sys.executable, "-m", "deptry", "--no-ansi", "-o", report, "src"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert report.exists(), done.stderr
    found = [f"{i['module']}: {i['error']['message']}" for i in json.loads(report.read_text())]
    assert found == []


def test_every_licence_of_what_a_user_installs_is_known() -> None:
    strange = {p.name: p.licence for p in installed() if not p.allowed}
    assert strange == {}, "read the licence, then add it to scripts/licences.py or do without"


@pytest.mark.parametrize("lock", sorted((ROOT / "locks").glob("*.txt")), ids=lambda p: p.name)
def test_the_lock_holds_what_is_asked_for(lock: Path) -> None:
    pinned: dict[str, set[str]] = {}
    lines = lock.read_text().splitlines()
    for line in lines:
        if "==" in line and not line.startswith((" ", "#")):
            requirement = Requirement(line.rstrip(" \\"))
            (pin,) = requirement.specifier
            pinned.setdefault(canonicalize_name(requirement.name), set()).add(pin.version)
    asked = [*PROJECT["dependencies"]]
    for extra in ("server", "cluster", "ray", "test", "train", "docs"):
        asked += PROJECT["optional-dependencies"][extra]
    constraints = (ROOT / "constraints.txt").read_text().splitlines()
    asked += [c for c in constraints if canonicalize_name(Requirement(c).name) in pinned]
    for text in filter(None, (line.split("#")[0].strip() for line in asked)):
        requirement = Requirement(text)
        name = canonicalize_name(requirement.name)
        if name in ("torch", "triton", "streamlift"):
            continue  # of another index; our own extras
        versions = pinned.get(name, set())
        assert versions, f"{name} is missing in {lock.name}; run scripts/lock"
        fits = [requirement.specifier.contains(version) for version in versions]
        assert all(fits), f"{text} against {versions} in {lock.name}; run scripts/lock"
    blocks = lock.read_text().count("--hash=sha256:")
    assert blocks > len(pinned)
