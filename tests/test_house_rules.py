"""Rules of the house that no linter knows: files and classes stay small enough to be read."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "streamlift"
MOST_LINES = 400
MOST_ATTRIBUTES = 25


def test_no_file_is_longer_than_400_lines() -> None:
    lengths = {str(p.relative_to(SOURCE)): len(p.read_text().splitlines()) for p in _files()}
    assert {name: lines for name, lines in lengths.items() if lines > MOST_LINES} == {}


def test_no_class_has_more_than_25_attributes() -> None:
    counts = {
        f"{path.relative_to(SOURCE)}: {node.name}": len(instance_attributes(node))
        for path in _files()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef)
    }
    assert {name: count for name, count in counts.items() if count > MOST_ATTRIBUTES} == {}


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("a: int\n    b: int = 3", {"a", "b"}),  # a dataclass
        ("def __init__(self):\n        self.a, self._b = 1, 2\n        self.a += 1", {"a", "_b"}),
        ("def f(self, other):\n        other.a = self.b\n        self.c: int = 1", {"c"}),
        ("__slots__ = ('a',)\n    LIMIT = 3", {"a"}),
    ],
)
def test_what_counts_as_an_attribute(body: str, expected: set[str]) -> None:
    (node,) = ast.parse(f"class C:\n    {body}").body
    assert isinstance(node, ast.ClassDef)
    assert instance_attributes(node) == expected


def instance_attributes(node: ast.ClassDef) -> set[str]:
    """Names that an instance holds: fields, slots, and whatever its methods set on `self`."""
    names = {
        part.attr
        for part in ast.walk(node)
        if isinstance(part, ast.Attribute)
        and isinstance(part.ctx, ast.Store)
        and isinstance(part.value, ast.Name)
        and part.value.id == "self"
    }
    for statement in node.body:
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            names.add(statement.target.id)
        elif isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == "__slots__":
            names.update(ast.literal_eval(statement.value))
    return names


TESTS = Path(__file__).parent
TABLES = [TESTS / "README.md", TESTS.parent / "docs" / "security.md", TESTS.parent / "README.md"]
NAMED = re.compile(r"`([\w/]+\.py)::(\w+)`")


@pytest.mark.parametrize("table", TABLES, ids=lambda path: path.parent.name)
def test_every_test_that_a_table_names_exists(table: Path) -> None:
    named = set(NAMED.findall(table.read_text()))
    assert named, "no test is named"
    missing = [
        f"{file}::{name}"
        for file, name in named
        if not (TESTS / file).is_file()
        or not re.search(rf"^(?:async )?def {name}\(", (TESTS / file).read_text(), re.M)
    ]
    assert not missing


def _files() -> list[Path]:
    return sorted(SOURCE.rglob("*.py"))
