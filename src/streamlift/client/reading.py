"""JSON to values of `shapes`, checked: what does not fit is said with its place."""

from __future__ import annotations

import types
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from streamlift.errors import StreamliftError

__all__ = ["UnexpectedAnswer", "read"]

T = TypeVar("T")


class UnexpectedAnswer(StreamliftError):
    """The service answered with something else than this client knows."""


def read(shape: type[T], data: object, where: str = "the answer") -> T:
    """`data`, as JSON gave it, as a value of this dataclass. Fields it does not know are left out.

    Raises UnexpectedAnswer when a field is missing or of another type.
    """
    value: T = _read(shape, data, where)
    return value


@cache
def _hints(shape: type) -> dict[str, Any]:
    return get_type_hints(shape)


def _read(wanted: Any, data: object, where: str) -> Any:
    origin = get_origin(wanted)
    if origin in (Union, types.UnionType):
        return _read_optional(wanted, data, where)
    if wanted is Any:
        return data
    if origin is Literal:
        # Its words are what was known when this was written; a newer service may have others.
        wanted = str
    if is_dataclass(wanted):
        return _read_fields(wanted, data, where)
    if origin is tuple and isinstance(data, list):
        parts = get_args(wanted)
        if parts[-1] is Ellipsis:
            parts = (parts[0],) * len(data)
        if len(parts) == len(data):
            read_all = (_read(part, d, where) for part, d in zip(parts, data, strict=True))
            return tuple(read_all)
    if origin is Mapping and isinstance(data, dict):
        part = get_args(wanted)[1]
        return {str(key): _read(part, value, f"{where}.{key}") for key, value in data.items()}
    if wanted is float and isinstance(data, int) and not isinstance(data, bool):
        return float(data)
    if isinstance(wanted, type) and type(data) is wanted:
        return data
    raise UnexpectedAnswer(
        f"{where} is not what this client knows: is the service of another version?",
        found=data,
        expected=str(wanted),
    )


def _read_optional(wanted: Any, data: object, where: str) -> Any:
    """`X | None`, the only unions there are."""
    if data is None:
        return None
    (part,) = (arg for arg in get_args(wanted) if arg is not types.NoneType)
    return _read(part, data, where)


def _read_fields(wanted: Any, data: object, where: str) -> Any:
    if not isinstance(data, dict):
        raise UnexpectedAnswer(f"{where} is no object", found=data, expected=wanted.__name__)
    values = {}
    for field in fields(wanted):
        name = field.metadata.get("json", field.name)
        if name in data:
            values[field.name] = _read(_hints(wanted)[field.name], data[name], f"{where}.{name}")
        elif field.default is MISSING:
            raise UnexpectedAnswer(
                f"{where} has no {name}: is the service of another version?",
                found=sorted(data),
                expected=name,
            )
    return wanted(**values)
