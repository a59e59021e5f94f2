"""How a route gets at the running service."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request

from streamlift.service import Service

__all__ = ["TheService", "service_of"]


async def service_of(request: Request) -> Service:
    """FastAPI dependency: the running service. Async, or each request would take a thread."""
    service = request.app.state.service
    assert isinstance(service, Service)
    return service


TheService = Annotated[Service, Depends(service_of)]
