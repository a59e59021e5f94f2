"""OpenAPI beyond what routes say of themselves: problems, and the data of events."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from pydantic import TypeAdapter

from streamlift.api import answers
from streamlift.routing import EventKind

__all__ = ["EVENTS", "PROBLEMS", "complete_schema"]

_REFERENCE = "#/components/schemas/"


def _problem(words: str) -> dict[str, Any]:
    content = {"application/problem+json": {"schema": {"$ref": f"{_REFERENCE}Problem"}}}
    return {"description": words, "content": content}


PROBLEMS: dict[int | str, dict[str, Any]] = {
    "4XX": _problem("Refused, with the reason"),
    "5XX": _problem("Not now, with the reason; `Retry-After` says when"),
}
"""What any route may answer instead."""

EVENTS: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "Server-sent events; the data of each is an Event",
        "content": {"text/event-stream": {"schema": {"type": "string"}}},
    }
}


_BESIDE = {"Problem": answers.Problem, "Event": answers.Event, "EventKind": EventKind}


def complete_schema(app: FastAPI) -> None:
    """`app.openapi()` also has the schemas that no route answers with as JSON."""
    make = app.openapi

    def openapi() -> dict[str, Any]:
        made = app.openapi_schema
        if made is None:
            made = make()
            schemas = made["components"]["schemas"]
            for name, shape in _BESIDE.items():
                schema = TypeAdapter[Any](shape).json_schema(ref_template=_REFERENCE + "{model}")
                schemas.update(schema.pop("$defs", {}))
                schemas[name] = schema
        return made

    app.openapi = openapi  # type: ignore[method-assign]
