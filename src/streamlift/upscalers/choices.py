"""Reading a model's settings out of a configuration file, into its frozen dataclass."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from enum import StrEnum
from typing import Any, TypeVar

from streamlift.config.checks import KINDS
from streamlift.errors import ConfigError

__all__ = ["read_settings", "wrong_setting"]

T = TypeVar("T")


def read_settings(kind: type[T], model: str, mapping: Mapping[str, Any], **defaults: Any) -> T:
    """A `kind`, a dataclass whose fields all have defaults, with the mapping's values.

    model: its name in messages. defaults: in place of the dataclass's own. Raises ConfigError for
    an unknown key, or a value of another kind than the field's default.
    """
    kinds = {item.name: type(item.default) for item in fields(kind)}  # type: ignore[arg-type]
    unknown = sorted(set(mapping) - set(kinds))
    if unknown:
        raise ConfigError(f"unknown {model} setting", found=unknown, expected=sorted(kinds))
    values = {name: _convert(model, name, kinds[name], value) for name, value in mapping.items()}
    return kind(**{**defaults, **values})


def wrong_setting(model: str, name: str, value: Any, expected: object) -> ConfigError:
    """The error for a setting whose value cannot be."""
    return ConfigError(
        f"{model} setting {name} has the wrong value", found=value, expected=expected
    )


def _convert(model: str, name: str, kind: type, value: Any) -> Any:
    if issubclass(kind, StrEnum):
        names = [member.value for member in kind]
        if value in names:
            return kind(value)
        raise wrong_setting(model, name, value, names)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if type(value) is kind:
        return value
    raise wrong_setting(model, name, value, KINDS.get(kind, "another value"))
