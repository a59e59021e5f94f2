"""What this service has, and what of it is turned on: for pages and programs that adapt to it."""

from __future__ import annotations

from fastapi import APIRouter

from streamlift import __version__
from streamlift.api import answers
from streamlift.api.door import TheService
from streamlift.api.rights import GuardedRoute, Scope, needs
from streamlift.service import UPSCALERS_OF_FILES

__all__ = ["about"]

about = APIRouter(prefix="/api/v1", tags=["control"], route_class=GuardedRoute)


@about.get("/about", dependencies=[needs(Scope.VIEW, Scope.CONTROL)])
async def read_about(service: TheService) -> answers.About:
    """Doors that are open, and what the control token may do here."""
    config = service.config
    files = config.files
    return {
        "version": __version__,
        "tokens": config.auth.complete,
        "links": config.auth.link_secret is not None,
        "rtsp_port": None if config.rtsp is None else config.rtsp.port,
        "weights_download": config.weights.download,
        "files": None
        if files is None
        else {
            "largest_bytes": files.largest_mb * 1_000_000,
            "upscalers": list(UPSCALERS_OF_FILES),
        },
    }
