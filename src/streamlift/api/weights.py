"""Weights that a backend lacks: have them fetched, or stop that."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Response

from streamlift.api import answers
from streamlift.api.door import TheService
from streamlift.api.problems import Problem
from streamlift.api.rights import GuardedRoute, Scope, TheCaller, must_allow_all, needs
from streamlift.api.shapes import backend_json
from streamlift.config import NAME_PATTERN
from streamlift.errors import UnknownBackend
from streamlift.frames import BackendInfo
from streamlift.service import Service

__all__ = ["weights"]

weights = APIRouter(
    prefix="/api/v1/backends/{backend}/weights", tags=["control"], route_class=GuardedRoute
)

_CONTROL = [needs(Scope.CONTROL)]
BackendName = Annotated[str, Path(pattern=f"^{NAME_PATTERN}$", description="Backend name")]


@weights.post("", status_code=202, dependencies=_CONTROL)
async def fetch_weights(
    backend: BackendName, service: TheService, caller: TheCaller
) -> answers.Backend:
    """Fetch the pinned weights that a backend lacks; returns the Backend, with its `download`.

    One download at a time. When it is done the backend loads, as at the start of the service.
    """
    must_allow_all(caller, Scope.CONTROL)
    _known(service, backend)
    await service.fetch_weights(backend)
    return backend_json(_known(service, backend), service.downloads)


@weights.delete("", status_code=204, dependencies=_CONTROL)
async def stop_fetching(backend: BackendName, service: TheService, caller: TheCaller) -> Response:
    """Stop a download; what came stays, and the next one goes on from there."""
    must_allow_all(caller, Scope.CONTROL)
    _known(service, backend)
    service.downloads.cancel(backend)
    return Response(status_code=204)


def _known(service: Service, backend: str) -> BackendInfo:
    try:
        return service.router.table.info(backend)
    except UnknownBackend as error:
        raise Problem(
            404,
            "unknown-backend",
            "No such backend",
            str(error),
            found=error.found,
            expected=error.expected,
        ) from None
