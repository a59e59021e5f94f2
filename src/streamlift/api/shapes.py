"""The JSON of the control API: what bodies may hold, and how streams and sources look."""

from __future__ import annotations

import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any, Literal, Self, cast

from fastapi import Path
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, model_validator

from streamlift.api import answers
from streamlift.codec import encoded_bitrate_bps
from streamlift.config import NAME_PATTERN
from streamlift.frames import BackendInfo, Fit, PlanInfo, Size, Stabilise, Target, WorkerInfo
from streamlift.routing import Change, Idle, StreamSnapshot, SwitchMode
from streamlift.service import Downloads, PullPublisher

__all__ = [
    "DaydreamBody",
    "NewStream",
    "Prompt",
    "ScopeBody",
    "SourceChange",
    "StreamChange",
    "StreamName",
    "StrictBody",
    "Switch",
    "UrlBody",
    "WhepBody",
    "backend_json",
    "prompts_json",
    "source_json",
    "stream_json",
]

StreamName = Annotated[
    str, Path(pattern=f"^{NAME_PATTERN}$", description="Stream name", examples=["demo"])
]

_MOST_PARAMETERS = 100
_DEEPEST = 32


class StrictBody(BaseModel):
    """A body of a request; a key that nobody knows is an error."""

    model_config = ConfigDict(extra="forbid")


# ---- streams ----


class Switch(StrictBody):
    """Exactly one of `backend` and `policy`."""

    backend: str | None = Field(None, pattern=f"^{NAME_PATTERN}$")
    policy: Literal["auto", "quality", "speed"] | None = None
    mode: SwitchMode | None = None

    @model_validator(mode="after")
    def _one_of_two(self) -> Self:
        if (self.backend is None) == (self.policy is None):
            raise ValueError("give exactly one of backend and policy")
        return self


EvenSide = Annotated[int, Field(ge=64, le=8192, multiple_of=2)]


class NewTarget(StrictBody):
    """Exactly one of `scale`, of the publisher's sides, and `size`, which may come with `fit`."""

    scale: float | None = Field(None, ge=1, le=4)
    size: Annotated[list[EvenSide], Field(min_length=2, max_length=2)] | None = None
    fit: Fit | None = None

    @model_validator(mode="after")
    def _one_of_two(self) -> Self:
        if (self.scale is None) == (self.size is None):
            raise ValueError("give exactly one of scale and size")
        if self.fit is not None and self.size is None:
            raise ValueError("fit goes with size; a scale keeps the aspect")
        return self

    def target(self) -> Target:
        """Raises UnsupportedSize for more than an encoder codes."""
        if self.size is None:
            return Target(scale=self.scale)
        return Target(size=Size(*self.size), fit=self.fit or Fit.CONTAIN)


class StreamChange(StrictBody):
    """What may be changed of a running stream; what is left out stays as it is.

    `target`: the size that its pictures come out in; null for the backend's own.
    """

    bitrate_bps: int | None = Field(None, ge=100_000, le=50_000_000)
    stabilise: Stabilise | None = None
    idle: Idle | None = None
    target: NewTarget | None = None

    def change(self) -> Change:
        """Raises UnsupportedSize for a target of more than an encoder codes."""
        return Change(
            bitrate_bps=self.bitrate_bps,
            stabilise=self.stabilise,
            idle=self.idle,
            retarget="target" in self.model_fields_set,
            target=None if self.target is None else self.target.target(),
        )


def stream_json(stream: StreamSnapshot) -> answers.Stream:
    """The Stream object of the API."""
    publisher, output = stream.publisher, stream.output
    return {
        "name": stream.name,
        "state": stream.state,
        "reason": stream.reason,
        "degraded": stream.degraded,
        "backend": stream.backend,
        "policy": stream.policy,
        "target": None if stream.target is None else _target_json(stream.target),
        "settings": {
            "bitrate_bps": stream.settings.rendition.bitrate_bps,
            "stabilise": stream.settings.stabilise,
            "idle": stream.settings.idle,
        },
        "publisher": None
        if publisher is None
        else {
            "codec": publisher.codec,
            "size": _size(publisher.size),
            "fps": _rounded(publisher.fps),
        },
        "output": {
            "size": None if output.size is None else _size(output.size),
            "fps": _rounded(output.fps),
            "bitrate_bps": None if output.bitrate_bps is None else int(output.bitrate_bps),
            "renditions": [
                {
                    "codec": r.codec,
                    "bitrate_bps": encoded_bitrate_bps(r),
                    "profile": "Thin" if r.thin else r.profile,
                }
                for r in output.renditions
            ],
        },
        "latency_ms": {
            stage: {"p50": round(q.p50, 2), "p95": round(q.p95, 2)}
            for stage, q in stream.latency_ms.items()
        },
        "frames": {
            "received": stream.frames.received,
            "decoded": stream.frames.decoded,
            "upscaled": stream.frames.upscaled,
            "encoded": stream.frames.encoded,
            "dropped": dict(stream.frames.dropped),
        },
        "viewers": stream.viewers,
        "compare": [
            {
                "backend": one.backend,
                "state": one.state,
                "viewers": one.viewers,
                "kept": round(one.kept, 2),
                "size": None if one.size is None else _size(one.size),
                "fps": _rounded(one.fps),
            }
            for one in stream.compare
        ],
    }


def _target_json(target: Target) -> answers.Target:
    if target.size is None:
        return {"scale": target.scale or 1.0}
    return {"size": [target.size.width, target.size.height], "fit": target.fit}


def backend_json(
    backend: BackendInfo,
    downloads: Downloads | None = None,
    settings: Mapping[str, str | None] = MappingProxyType({}),
) -> answers.Backend:
    """The Backend object of the API; `settings` as they are configured."""
    weights = None if downloads is None else _weights_json(backend.name, downloads)
    progress = None if downloads is None else downloads.progress(backend.name)
    return {
        "name": backend.name,
        "upscaler": backend.upscaler,
        "device": backend.device,
        "state": backend.state,
        "reason": backend.reason,
        "fps": _rounded(backend.fps),
        "slots": {"total": backend.slots.total, "used": backend.slots.used},
        "workers": [_worker_json(worker) for worker in backend.workers],
        "plan": None if backend.plan is None else _plan_json(backend.plan),
        "settings": dict(settings),
        "weights": weights,
        "download": None if progress is None else {"bytes": progress[0], "total": progress[1]},
    }


def _weights_json(backend: str, downloads: Downloads) -> answers.MissingWeights | None:
    lacking, error = downloads.lacking(backend), downloads.failed(backend)
    if lacking is None:
        return None
    return {
        "missing": list(lacking.files),
        "bytes": lacking.bytes_left,
        "command": lacking.command,
        "may_download": downloads.allowed,
        "error": error,
    }


def _plan_json(plan: PlanInfo) -> answers.Plan:
    return {
        "words": plan.words,
        "picture": plan.picture,
        "frame_ms": round(plan.frame_ms, 2),
        "budget_ms": round(plan.budget_ms, 2),
        "cores": plan.cores,
        "threads": plan.threads,
    }


def _worker_json(worker: WorkerInfo) -> answers.Worker:
    return {
        "name": worker.name,
        "address": worker.address,
        "state": worker.state,
        "reason": worker.reason,
        "device": worker.device,
        "fps": _rounded(worker.fps),
        "slots": {"total": worker.slots.total, "used": worker.slots.used},
        "rtt_ms": None if worker.rtt_s is None else round(worker.rtt_s * 1000, 2),
        "restarts": sum(worker.restarts.values()),
    }


# ---- pulls ----


def _must_be_json(parameters: dict[str, Any]) -> dict[str, Any]:
    """Python reads more than JSON has: NaN, half surrogate pairs. It could not be passed on."""
    _must_be_shallow(parameters, _DEEPEST)
    json.dumps(parameters, allow_nan=False, ensure_ascii=False).encode()
    return parameters


def _must_be_shallow(value: object, room: int) -> None:
    if room == 0:
        raise ValueError(f"nested deeper than {_DEEPEST} levels")
    below = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for part in below:
        _must_be_shallow(part, room - 1)


Parameters = Annotated[
    dict[str, Any], Field(max_length=_MOST_PARAMETERS), AfterValidator(_must_be_json)
]
"""Scope's own, passed on as they are."""


class Prompt(StrictBody):
    """One of several prompts that are mixed by weight."""

    text: str = Field(max_length=10_000)
    weight: float = Field(default=1.0, allow_inf_nan=False)


class WhepBody(StrictBody):
    """Any WHEP server; the token goes to it as a bearer token."""

    kind: Literal["whep"]
    url: str
    token: SecretStr | None = None


class DaydreamBody(StrictBody):
    """A stream of daydream.live; the key is the operator's, from the environment."""

    kind: Literal["daydream"]
    stream_id: str = Field(pattern=r"^[A-Za-z0-9_-]{1,128}$")


class ScopeBody(StrictBody):
    """A Scope server; its pipeline is loaded and started anew."""

    kind: Literal["scope"]
    url: str = "http://localhost:8000"
    pipeline: str = Field(default="longlive", pattern=r"^[A-Za-z0-9_.-]{1,128}$")
    prompts: list[Prompt | str] = Field(default_factory=list, max_length=20)
    load_params: Parameters = Field(default_factory=dict)
    parameters: Parameters = Field(default_factory=dict)


class UrlBody(StrictBody):
    """Any address that FFmpeg reads and the operator allows; `loop`: a file again and again."""

    kind: Literal["url"]
    url: str = Field(min_length=1, max_length=2048)
    loop: bool = False


class NewStream(StrictBody):
    """A stream and where it comes from."""

    name: str = Field(pattern=f"^{NAME_PATTERN}$")
    source: Annotated[WhepBody | DaydreamBody | ScopeBody | UrlBody, Field(discriminator="kind")]


class SourceChange(StrictBody):
    """Prompts, or any of Scope's own parameters, such as `transition` or `reset_cache`."""

    prompts: list[Prompt | str] | None = Field(default=None, max_length=20)
    parameters: Parameters = Field(default_factory=dict)


def prompts_json(prompts: list[Prompt | str]) -> list[dict[str, Any]]:
    """Prompts as Scope takes them."""
    return [
        {"text": p, "weight": 1.0} if isinstance(p, str) else {"text": p.text, "weight": p.weight}
        for p in prompts
    ]


def source_json(pull: PullPublisher) -> answers.Source:
    """Where a stream is pulled from and how that goes; never a token."""
    status = pull.status
    told: answers.Source = {
        "stream": pull.stream,
        "kind": pull.source.kind,
        "state": status.state,
        "reason": status.reason,
        "connections": status.connections,
        "jumps": status.jumps,
    }
    return cast(answers.Source, {**pull.source.describe(), **told})


def _size(size: Size) -> list[int]:
    return [size.width, size.height]


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 2)
