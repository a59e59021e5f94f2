"""Outputs of a stream beside its viewers: pushed to other servers, fed to cameras, recorded."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from streamlift.api import answers
from streamlift.api.door import TheService
from streamlift.api.forwarded import outside
from streamlift.api.output_shapes import NewOutput, output_json, push_order
from streamlift.api.pulls import DiscreetRoute
from streamlift.api.rights import Scope, needs
from streamlift.api.shapes import StreamName

__all__ = ["outputs"]

outputs = APIRouter(
    prefix="/api/v1/streams/{stream}/outputs", tags=["outputs"], route_class=DiscreetRoute
)

_CONTROL = [needs(Scope.CONTROL)]


@outputs.post("", status_code=201, response_model=answers.Output, dependencies=_CONTROL)
async def add_output(
    stream: StreamName, body: NewOutput, request: Request, service: TheService
) -> JSONResponse:
    """Send the upscaled stream elsewhere too; tried again and again until it is deleted."""
    output = service.push(stream, push_order(body))
    where = outside(request, f"/api/v1/streams/{stream}/outputs/{output.id}")
    return JSONResponse(output_json(output), status_code=201, headers={"Location": where})


@outputs.get("", dependencies=_CONTROL)
async def list_outputs(stream: StreamName, service: TheService) -> answers.Outputs:
    """Where a stream goes beside its viewers, and how that goes; never a token."""
    service.router.stream(stream)
    return {"outputs": [output_json(output) for output in service.outputs.of(stream)]}


@outputs.get("/{output}", dependencies=_CONTROL)
async def read_output(stream: StreamName, output: str, service: TheService) -> answers.Output:
    """One output."""
    return output_json(service.outputs.get(stream, output))


@outputs.delete("/{output}", status_code=204, dependencies=_CONTROL)
async def end_output(stream: StreamName, output: str, service: TheService) -> Response:
    """End an output: a push deletes its session at the other server, a recording is finished."""
    service.outputs.end(service.outputs.get(stream, output))
    return Response(status_code=204)
