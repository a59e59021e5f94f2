"""The JSON of outputs: what may be asked for, and how pushes and recordings look."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, SecretStr

from streamlift.api import answers
from streamlift.api.shapes import StrictBody
from streamlift.service import CameraPush, Output, Push, PushOrder

__all__ = ["NewOutput", "output_json", "push_order"]


class WhipOutput(StrictBody):
    """Another server's WHIP address; the token goes to it as a bearer token."""

    type: Literal["whip"]
    url: str
    token: SecretStr | None = None


class RtmpOutput(StrictBody):
    """An RTMP server; the token is the stream key, else that is the last part of the address."""

    type: Literal["rtmp"]
    url: str = Field(description="rtmp:// or rtmps://")
    token: SecretStr | None = None


class RtspOutput(StrictBody):
    """An RTSP server that records; the token is the password."""

    type: Literal["rtsp"]
    url: str = Field(description="rtsp:// or rtsps://, with a user if need be")
    token: SecretStr | None = None


class CameraOutput(StrictBody):
    """A Video4Linux output device of the service's machine, such as one of v4l2loopback."""

    type: Literal["v4l2"]
    device: str = Field(max_length=200)


NewOutput = Annotated[
    WhipOutput | RtmpOutput | RtspOutput | CameraOutput, Field(discriminator="type")
]


def push_order(body: WhipOutput | RtmpOutput | RtspOutput | CameraOutput) -> PushOrder:
    """What is asked for, as the service takes it."""
    if isinstance(body, CameraOutput):
        return PushOrder(body.type, body.device)
    token = None if body.token is None else body.token.get_secret_value()
    return PushOrder(body.type, body.url, token)


def output_json(output: Output) -> answers.Output:
    """A push or a recording and how it goes; never a token, key or password."""
    work = output.work
    if isinstance(work, CameraPush):
        return {
            "id": output.id,
            "type": "v4l2",
            "device": work.device,
            "state": work.state,
            "reason": work.reason,
            "connections": work.connections,
            "frames_written": work.frames_written,
            "frames_skipped": work.frames_skipped,
        }
    if isinstance(work, Push):
        assert work.kind != "v4l2"
        return {
            "id": output.id,
            "type": work.kind,
            "url": work.shown_url,
            "state": work.state,
            "reason": work.reason,
            "connections": work.connections,
            "bytes_sent": work.bytes_sent,
            "frames_skipped": work.frames_skipped,
        }
    return {
        "id": output.id,
        "type": "file",
        "files": [path.name for path in work.paths],
        "state": output.state,
        "reason": output.error,
        "bytes_written": work.bytes_written,
    }
