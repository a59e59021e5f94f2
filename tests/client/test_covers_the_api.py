"""Every call, parameter and field of our OpenAPI is in the client: a new one fails here."""

from __future__ import annotations

import json
import os
import re
import types
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import httpx
import pytest
from tests.serving import light

from streamlift.app import create_app
from streamlift.client import Client
from streamlift.client.reading import read
from streamlift.client.shapes import Event, EventKind, Target

API: dict[str, Any] = create_app(light()).openapi()
SCHEMAS: dict[str, Any] = API["components"]["schemas"]


@dataclass(frozen=True)
class Call:
    """A method of the client, and keywords for as many calls as it takes to use all of it."""

    method: Callable[..., Any]
    keywords: tuple[dict[str, Any], ...] = ({},)
    arguments: tuple[Any, ...] = field(default=("live",))


CALLS = {
    "GET /api/v1/streams": Call(Client.streams, arguments=()),
    "GET /api/v1/streams/{stream}": Call(Client.stream),
    "PATCH /api/v1/streams/{stream}": Call(
        Client.change,
        (
            {"bitrate_bps": 1_000_000, "stabilise": "off", "idle": "run"},
            {"target": Target(size=(1280, 720), fit="cover")},
            {"target": Target(scale=1.5)},
        ),
    ),
    "PUT /api/v1/streams/{stream}/backend": Call(
        Client.switch, ({"backend": "b", "mode": "low_latency"}, {"policy": "auto"})
    ),
    "DELETE /api/v1/streams/{stream}": Call(Client.close),
    "GET /api/v1/streams/{stream}/snapshot.jpg": Call(Client.snapshot, ({"view": "source"},)),
    "GET /api/v1/backends": Call(Client.backends, arguments=()),
    "POST /api/v1/backends/{backend}/weights": Call(Client.fetch_weights, arguments=("b",)),
    "DELETE /api/v1/backends/{backend}/weights": Call(Client.stop_weights, arguments=("b",)),
    "GET /api/v1/about": Call(Client.about, arguments=()),
    "GET /api/v1/files": Call(Client.files, arguments=()),
    "POST /api/v1/files": Call(
        Client.upload,
        ({"scale": 2.0, "upscaler": "bicubic", "stabilise": "lite"},),
        ("a.mp4", b"file"),
    ),
    "GET /api/v1/files/{job}": Call(Client.file, arguments=("a",)),
    "GET /api/v1/files/{job}/result": Call(Client.save_result, arguments=("a", Path(os.devnull))),
    "DELETE /api/v1/files/{job}": Call(Client.remove_file, arguments=("a",)),
    "POST /api/v1/streams/{stream}/links": Call(Client.add_link, ({"right": "view"},)),
    "DELETE /api/v1/streams/{stream}/links/{link}": Call(
        Client.end_link, arguments=("live", "link")
    ),
    "GET /api/v1/streams/{stream}/source": Call(Client.source),
    "PUT /api/v1/streams/{stream}/source": Call(
        Client.change_source, ({"prompts": ["a", ("b", 2.0)], "parameters": {"paused": True}},)
    ),
    "GET /api/v1/streams/{stream}/outputs": Call(Client.outputs),
    "POST /api/v1/streams/{stream}/outputs": Call(
        Client.add_output,
        ({"url": "https://b", "token": "t"}, {"type": "v4l2", "device": "/dev/video10"}),
    ),
    "GET /api/v1/streams/{stream}/outputs/{output}": Call(Client.output, arguments=("live", "out")),
    "DELETE /api/v1/streams/{stream}/outputs/{output}": Call(
        Client.end_output, arguments=("live", "out")
    ),
    "GET /api/v1/sessions/{session_id}": Call(Client.session, arguments=("s",)),
    "DELETE /sessions/{session_id}": Call(Client.end_session, arguments=("s",)),
    "GET /healthz": Call(Client.health, arguments=()),
    "GET /readyz": Call(Client.ready, arguments=()),
    "GET /metrics": Call(Client.metrics, arguments=()),
}
PULLS = {
    "url": Call(Client.pull_url, ({"url": "rtsp://b", "loop": True},)),
    "whep": Call(Client.pull_whep, ({"url": "https://b", "token": "t"},)),
    "daydream": Call(Client.pull_daydream, ({"stream_id": "str_a"},)),
    "scope": Call(Client.pull_scope, ({"prompts": ["a", ("b", 2.0)]},)),
}
"""POST /api/v1/streams, by the kind of source: each has a body of its own."""
EVENTS = "GET /api/v1/events"
"""An endless answer: see `test_events.py`."""
ELSEWHERE = {
    "POST /whip/{stream}": "publish()",
    "POST /whep/{stream}": "watch()",
    "GET /whip/{stream}": "says only that the address exists",
    "GET /whep/{stream}": "says only that the address exists",
    "OPTIONS /whip/{stream}": "for browsers",
    "OPTIONS /whep/{stream}": "for browsers",
    "OPTIONS /sessions/{session_id}": "for browsers",
    "GET /sessions/{session_id}": "says only that the address exists",
    "PATCH /sessions/{session_id}": "trickle ICE: our offers have all candidates",
    "PATCH /sessions/{peer}.{session_id}": "the same at another service",
    "DELETE /sessions/{peer}.{session_id}": "ended by the name that the service gave",
}


def operations() -> Iterator[tuple[str, dict[str, Any]]]:
    for path, by_method in API["paths"].items():
        for method, operation in by_method.items():
            yield f"{method.upper()} {path}", operation


def test_every_call_is_in_the_client_or_left_out_on_purpose() -> None:
    known = {*CALLS, *ELSEWHERE, EVENTS, "POST /api/v1/streams"}
    assert {name for name, _ in operations()} == known


# ---- what is sent ----


def resolved(schema: dict[str, Any]) -> dict[str, Any]:
    while "$ref" in schema:
        schema = SCHEMAS[schema["$ref"].rpartition("/")[2]]
    return schema


def options(schema: dict[str, Any]) -> list[dict[str, Any]]:
    """The schemas that a value may fit, null left out."""
    schema = resolved(schema)
    several = schema.get("anyOf") or schema.get("oneOf") or [schema]
    found = [resolved(s) for s in several]
    return [s for s in found if s.get("type") != "null"]


def paths_of(schema: dict[str, Any], at: str = "") -> set[str]:
    """Every field that a body may have, such as `source.prompts.weight`."""
    found: set[str] = set()
    for option in options(schema):
        if option.get("type") == "array":
            found |= paths_of(option.get("items", {}), at)
        for name, part in option.get("properties", {}).items():
            found |= {f"{at}{name}"} | paths_of(part, f"{at}{name}.")
    return found


def paths_in(value: object, at: str = "") -> set[str]:
    if isinstance(value, list):
        return {path for part in value for path in paths_in(part, at)}
    if not isinstance(value, dict):
        return set()
    return {f"{at}{name}" for name in value} | {
        path for name, part in value.items() for path in paths_in(part, f"{at}{name}.")
    }


def body_of(operation: dict[str, Any]) -> dict[str, Any]:
    content = operation.get("requestBody", {}).get("content", {})
    schema: dict[str, Any] = content.get("application/json", {}).get("schema", {})
    return schema


async def requests_of(call: Call, answer: httpx.Response) -> tuple[list[httpx.Request], list[Any]]:
    sent: list[httpx.Request] = []

    def take(request: httpx.Request) -> httpx.Response:
        sent.append(request)
        return answer

    async with Client("http://service", transport=httpx.MockTransport(take)) as client:
        results = [await call.method(client, *call.arguments, **k) for k in call.keywords]
    return sent, results


def is_json(request: httpx.Request) -> bool:
    return "application/json" in request.headers.get_list("Content-Type")


@pytest.mark.parametrize("name", [*CALLS, *(f"POST /api/v1/streams#{kind}" for kind in PULLS)])
async def test_every_parameter_and_field_can_be_sent(name: str) -> None:
    address, _, kind = name.partition("#")
    operation = dict(operations())[address]
    call = PULLS[kind] if kind else CALLS[address]
    sent, _ = await requests_of(call, answer_of(operation)[0])
    method, path = address.split()
    pattern = re.sub(r"\{[^}]+\}", "[^/]+", path)
    for request in sent:
        assert request.method == method
        assert re.fullmatch(pattern, request.url.path)
    documented = {p["name"] for p in operation.get("parameters", ()) if p["in"] == "query"}
    assert {key for request in sent for key in request.url.params} == documented
    bodies = [json.loads(r.content) for r in sent if is_json(r)]
    schema = body_of(operation)
    if kind:  # of the several kinds of source only this one
        (source,) = (
            s
            for s in options(resolved(schema)["properties"]["source"])
            if s["properties"]["kind"]["const"] == kind
        )
        wanted = {"name", "source"} | paths_of(source, "source.")
    else:
        wanted = paths_of(schema)
    given = {path for body in bodies for path in paths_in(body)}
    # What Scope itself takes has no fields that we know.
    assert {path for path in given if not path.startswith("parameters.")} == wanted


@pytest.mark.parametrize("name", CALLS)
def test_words_that_may_be_sent_are_those_of_the_api(name: str) -> None:
    operation = dict(operations())[name]
    hints = get_type_hints(CALLS[name].method)
    parameters = [(p["name"], p["schema"]) for p in operation.get("parameters", ())]
    for schema in options(body_of(operation)):
        parameters += schema.get("properties", {}).items()
    known: dict[str, set[str]] = {}
    for parameter, schema in parameters:
        words = {word for option in options(schema) for word in words_of(option)}
        known.setdefault(parameter, set()).update(words)
    for parameter, words in known.items():
        if words:
            assert set(literals(hints[parameter])) == words, parameter


def words_of(schema: dict[str, Any]) -> list[str]:
    return [schema["const"]] if "const" in schema else schema.get("enum", [])


def literals(hint: Any) -> list[str]:
    if get_origin(hint) is Literal:
        return list(get_args(hint))
    return [word for part in get_args(hint) for word in literals(part)]


# ---- what is answered ----


def samples(schema: dict[str, Any]) -> list[Any]:
    """Values that fit, with every field, option and word in one of them."""
    schema = resolved(schema)
    for several in ("anyOf", "oneOf"):
        if several in schema:
            return [value for option in schema[several] for value in samples(option)]
    if words := words_of(schema):
        return list(words)
    match schema.get("type"):
        case "null":
            return [None]
        case "string":
            return ["text"]
        case "integer":
            return [7]
        case "number":
            return [1.5]
        case "boolean":
            return [True, False]
        case "array":
            items = samples(schema["items"])
            return [items * 2 if len(items) == 1 else items]
        case "object" if "properties" in schema:
            parts = {name: samples(part) for name, part in schema["properties"].items()}
            count = max(len(values) for values in parts.values())
            return [{k: v[n % len(v)] for k, v in parts.items()} for n in range(count)]
        case "object" if isinstance(schema.get("additionalProperties"), dict):
            return [{"key": value} for value in samples(schema["additionalProperties"])]
    return [{"anything": [1, None, "x"]}]


def answered(operation: dict[str, Any]) -> dict[str, Any] | None:
    """The schema of a good answer, None if it is no JSON."""
    for status in ("200", "201", "202"):
        content = operation["responses"].get(status, {}).get("content", {})
        if "application/json" in content:
            return dict(content["application/json"]["schema"])
    return None


def answer_of(operation: dict[str, Any]) -> list[httpx.Response]:
    schema = answered(operation)
    if schema is None or schema == {}:
        return [httpx.Response(200, text="text")]
    return [httpx.Response(200, json=value) for value in samples(schema)]


def plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return {
            f.metadata.get("json", f.name): plain(getattr(value, f.name)) for f in fields(value)
        }
    if isinstance(value, tuple):
        return [plain(part) for part in value]
    if isinstance(value, Mapping):
        return {key: plain(part) for key, part in value.items()}
    return value


def same(mine: Any, told: Any) -> bool:
    """Whether all that was told is there; what was not told is None."""
    if isinstance(told, dict) and isinstance(mine, dict):
        return all(same(mine.get(key, ...), value) for key, value in told.items()) and all(
            value is None for key, value in mine.items() if key not in told
        )
    if isinstance(told, list) and isinstance(mine, list):
        return len(mine) == len(told) and all(map(same, mine, told))
    return bool(mine == told)


def test_a_field_that_is_left_out_is_seen() -> None:
    assert not same({"a": 1}, {"a": 1, "b": 2})
    assert not same({"a": 1, "b": 2}, {"a": 1})
    assert same({"a": [{"b": 1, "c": None}]}, {"a": [{"b": 1}]})


ANSWERING = [name for name, o in operations() if name in CALLS and answered(o)]


@pytest.mark.parametrize("name", [*ANSWERING, "POST /api/v1/streams#whep"])
async def test_every_field_of_an_answer_is_read(name: str) -> None:
    address, _, kind = name.partition("#")
    operation = dict(operations())[address]
    call = PULLS[kind] if kind else CALLS[address]
    answers = answer_of(operation)
    assert answers
    for answer in answers:
        told = answer.json()
        _, (result, *_rest) = await requests_of(call, answer)
        if isinstance(result, tuple):
            (told,) = told.values()
        assert same(plain(result), told), (plain(result), told)


def test_every_field_of_an_event_is_read() -> None:
    assert set(get_args(EventKind)) == set(SCHEMAS["EventKind"]["enum"])
    for told in samples(SCHEMAS["Event"]):
        kind = {"kind": "fault"}
        assert same(plain(read(Event, {**told, **kind})), {**told, **kind})


def test_words_in_answers_are_typed() -> None:
    """A closed set of words in OpenAPI is a Literal in the client, of the same words."""
    seen: list[str] = []
    for name in ANSWERING:
        schema = answered(dict(operations())[name])
        hint = get_type_hints(CALLS[name].method)["return"]
        assert schema is not None
        if get_origin(hint) is tuple:
            (schema,) = resolved(schema)["properties"].values()
        compare(hint, schema, name, seen)
    assert {"enum", "object"} <= set(seen)


def compare(
    hint: Any, schema: dict[str, Any], where: str, seen: list[str], *, one_of: bool = False
) -> None:
    """`one_of`: the schema is part of one of several shapes, which are one class in the client."""
    if get_origin(hint) in (Union, types.UnionType):
        hint = next(part for part in get_args(hint) if part is not types.NoneType)
    several = options(schema)
    one_of = one_of or len(several) > 1
    for option in several:
        if "enum" in option:
            seen.append("enum")
            known, told = set(literals(hint)), set(option["enum"])
            assert known >= told if one_of else known == told, where
        elif option.get("type") == "array":
            compare(get_args(hint)[0], option["items"], f"{where}[]", seen, one_of=one_of)
        elif isinstance(option.get("additionalProperties"), dict) and get_args(hint):
            compare(
                get_args(hint)[1],
                option["additionalProperties"],
                f"{where}{{}}",
                seen,
                one_of=one_of,
            )
        elif "properties" in option and is_dataclass(hint):
            seen.append("object")
            hints = get_type_hints(hint)
            for name, part in option["properties"].items():
                compare(hints[name], part, f"{where}.{name}", seen, one_of=one_of)
