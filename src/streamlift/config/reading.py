"""Reads the configuration once: from YAML, then the environment, then the command line.

An environment variable `STREAMLIFT_SERVER__PORT=9000` overrides `server.port`; its value is read
as YAML, so `true`, `12` and `[a, b]` mean what they mean in a file. Unknown keys fail with their
name.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml

from streamlift.config.checks import KINDS, check, kind_of, shown, wrong
from streamlift.config.tree import Config
from streamlift.errors import ConfigError

__all__ = ["load_config"]

ENVIRONMENT_PREFIX = "STREAMLIFT_"


def load_config(
    path: Path | None,
    environ: Mapping[str, str],
    overrides: Mapping[str, Any] | None = None,
) -> Config:
    """Read the file (if any), then the environment, then `overrides` (dotted keys, from the CLI).

    Raises ConfigError that names the key, what was found and what was expected.
    """
    tree: dict[str, Any] = {}
    if path is not None:
        tree = _read_yaml(path)
    for key, value in environ.items():
        section, _, leaf = key.removeprefix(ENVIRONMENT_PREFIX).lower().partition("__")
        known = {f.name for f in dataclasses.fields(Config)}
        # Other STREAMLIFT_ variables (STREAMLIFT_MEDIA, STREAMLIFT_REQUIRE) belong to scripts.
        if not key.startswith(ENVIRONMENT_PREFIX) or not (leaf or section in known):
            continue
        _put(tree, [section, *leaf.split("__")] if leaf else [section], _scalar(key, value))
    for dotted, value in (overrides or {}).items():
        _put(tree, dotted.split("."), value)
    config = _build(Config, tree, "")
    check(config)
    return config


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"cannot read configuration {path}: {error.strerror}") from error
    try:
        tree = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not valid YAML: {_place(error)}") from None
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise ConfigError(
            f"{path} must hold a mapping at the top", found=kind_of(tree), expected="a mapping"
        )
    return tree


def _scalar(key: str, value: str) -> Any:
    try:
        return yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise ConfigError(
            f"environment variable {key} is not valid YAML: {_place(error)}"
        ) from None


def _place(error: yaml.YAMLError) -> str:
    """What is wrong and where, without the text itself: there may be tokens in it."""
    if not isinstance(error, yaml.MarkedYAMLError) or error.problem_mark is None:
        return "it cannot be read"
    mark = error.problem_mark
    return f"line {mark.line + 1}, column {mark.column + 1}: {error.problem}"


def _put(tree: dict[str, Any], keys: list[str], value: Any) -> None:
    for key in keys[:-1]:
        below = tree.setdefault(key, {})
        if not isinstance(below, dict):
            raise ConfigError(f"{'.'.join(keys)}: {key} is not a section", found=below)
        tree = below
    tree[keys[-1]] = value


T = TypeVar("T")


def _build(cls: type[T], tree: object, where: str) -> T:
    if not isinstance(tree, dict):
        found = shown(where, tree)
        raise ConfigError(
            f"{where or 'configuration'} must be a mapping, found {found!r}", found=found
        )
    hints = typing.get_type_hints(cls)
    fields = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    unknown = sorted(str(key) for key in tree if key not in fields)
    if unknown:
        names = ", ".join(_join(where, key) for key in unknown)
        raise ConfigError(
            f"unknown configuration key {names}; known here: {', '.join(sorted(fields))}",
            found=unknown,
            expected=sorted(fields),
        )
    missing = [
        name
        for name, f in fields.items()
        if name not in tree
        and f.default is dataclasses.MISSING
        and f.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise ConfigError(f"{where} lacks {', '.join(missing)}", found=sorted(map(str, tree)))
    return cls(**{k: _convert(hints[k], v, _join(where, k)) for k, v in tree.items()})


def _convert(hint: Any, value: Any, where: str) -> Any:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in args:
            return None
        inner = [a for a in args if a is not type(None)]
        if len(inner) > 1:  # a plain value, or a mapping that says more
            inner = [a for a in inner if dataclasses.is_dataclass(a) == isinstance(value, dict)]
        return _convert(inner[0], value, where)
    if origin is tuple:
        if isinstance(value, str):
            value = [value]  # one token, one origin: a list of one
        if not isinstance(value, list):
            raise wrong(where, value, "a list")
        return tuple(_convert(args[0], v, f"{where}[{i}]") for i, v in enumerate(value))
    if isinstance(origin, type) and issubclass(origin, Mapping):
        if not isinstance(value, dict):
            raise wrong(where, value, "a mapping")
        return types.MappingProxyType(dict(value))
    if origin is Literal:
        value = "off" if value is False and "off" in args else value  # YAML 1.1 reads off as false
        if value not in args:
            raise wrong(where, value, " | ".join(args))
        return value
    if hint is float and type(value) is int:
        return float(value)
    if dataclasses.is_dataclass(hint):
        return _build(typing.cast(type[Any], hint), value, where)
    if isinstance(value, bool) != (hint is bool) or not isinstance(value, hint):
        raise wrong(where, value, KINDS.get(hint, "another value"))
    return value


def _join(where: str, key: str) -> str:
    return f"{where}.{key}" if where else key
