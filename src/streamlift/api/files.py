"""Files instead of streams: upload one, follow how it is upscaled, fetch the result."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import FileResponse, JSONResponse

from streamlift.api import answers
from streamlift.api.door import TheService
from streamlift.api.forwarded import outside
from streamlift.api.problems import Problem
from streamlift.api.rights import GuardedRoute, Scope, TheCaller, must_allow_all, needs
from streamlift.frames import Stabilise
from streamlift.service import FileJob, JobState, Wanted

__all__ = ["files"]

files = APIRouter(prefix="/api/v1/files", tags=["files"], route_class=GuardedRoute)

_CONTROL = [needs(Scope.CONTROL)]
_THE_FILE = {
    "requestBody": {
        "required": True,
        "content": {"application/octet-stream": {"schema": {"type": "string"}}},
    }
}


@files.post(
    "",
    status_code=201,
    response_model=answers.File,
    dependencies=_CONTROL,
    openapi_extra=_THE_FILE,
)
async def upload(
    request: Request,
    service: TheService,
    caller: TheCaller,
    name: Annotated[str, Query(min_length=1, max_length=200)],
    upscaler: Annotated[Literal["compact", "bicubic"], Query()] = "compact",
    scale: Annotated[float | None, Query(ge=1, le=8)] = None,
    stabilise: Annotated[Stabilise, Query()] = Stabilise.OFF,
) -> JSONResponse:
    """The body is the file itself. It waits for its turn and is upscaled beside the streams."""
    must_allow_all(caller, Scope.CONTROL)
    told = request.headers.get("content-length", "")
    wanted = Wanted(upscaler, scale, stabilise)
    length = int(told) if told.isdigit() else None
    job = await service.take_file(name, wanted, request.stream(), length)
    where = outside(request, f"/api/v1/files/{job.id}")
    return JSONResponse(_job_json(job), status_code=201, headers={"Location": where})


@files.get("", dependencies=_CONTROL)
async def list_files(service: TheService, caller: TheCaller) -> answers.Files:
    """All files that are here, oldest first."""
    must_allow_all(caller, Scope.CONTROL)
    return {"files": [_job_json(job) for job in service.files.jobs]}


@files.get("/{job}", dependencies=_CONTROL)
async def read_file(job: str, service: TheService, caller: TheCaller) -> answers.File:
    """How far one is."""
    must_allow_all(caller, Scope.CONTROL)
    return _job_json(service.files.get(job))


@files.get("/{job}/result", dependencies=_CONTROL, response_class=FileResponse)
async def fetch_result(job: str, service: TheService, caller: TheCaller) -> FileResponse:
    """The upscaled file, once it is done."""
    must_allow_all(caller, Scope.CONTROL)
    found = service.files.get(job)
    if found.state is not JobState.DONE:
        raise Problem(
            409,
            "not-done",
            "Not done",
            f"this file is {found.state}" + (f": {found.reason}" if found.reason else ""),
            found=found.state,
            expected=JobState.DONE,
        )
    return FileResponse(
        found.result, filename=found.result_name, headers={"Cache-Control": "no-store"}
    )


@files.delete("/{job}", status_code=204, dependencies=_CONTROL)
async def remove_file(job: str, service: TheService, caller: TheCaller) -> Response:
    """Forget a file and its result; if it is worked on, that ends."""
    must_allow_all(caller, Scope.CONTROL)
    await service.files.remove(service.files.get(job))
    return Response(status_code=204)


def _job_json(job: FileJob) -> answers.File:
    return {
        "id": job.id,
        "name": job.name,
        "state": job.state,
        "reason": job.reason,
        "pictures": job.pictures,
        "total": job.total,
        "fps": round(job.fps, 2),
        "bytes": job.result_bytes,
        "result": job.result_name,
        "warnings": job.warnings,
    }
