"""The FastAPI application: its routes, its gate, its page."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from importlib import resources

from fastapi import FastAPI
from fastapi.responses import FileResponse
from fastapi.staticfiles import StaticFiles

from streamlift import __version__
from streamlift.api.about import about
from streamlift.api.events import events
from streamlift.api.files import files
from streamlift.api.forwarded import Forwarded
from streamlift.api.gate import Gate
from streamlift.api.health import health
from streamlift.api.links import links
from streamlift.api.outputs import outputs
from streamlift.api.peers import Peers, peer_sessions
from streamlift.api.problems import install_problems
from streamlift.api.pulls import pulls
from streamlift.api.schema import PROBLEMS, complete_schema
from streamlift.api.streams import streams
from streamlift.api.weights import weights
from streamlift.api.whip_whep import whip_whep, whip_whep_open
from streamlift.config import Config

__all__ = ["create_api"]

_ABOUT = (
    "Real-time upscaling of live WebRTC video: publish by WHIP, watch by WHEP, control by REST. "
    "Errors are application/problem+json (RFC 9457)."
)


def create_api(
    config: Config, lifespan: Callable[[FastAPI], AbstractAsyncContextManager[None]]
) -> FastAPI:
    """`lifespan` starts the service and puts it at `app.state.service`."""
    # FastAPI's own pages load their scripts from elsewhere; ours work without a network.
    app = FastAPI(
        title="streamlift",
        version=__version__,
        description=_ABOUT,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        # It would keep every prefix that any proxy told.
        root_path_in_servers=False,
        responses=PROBLEMS,
    )
    complete_schema(app)
    install_problems(app)
    app.state.peers = Peers(config.cluster.peers)
    for router in (
        peer_sessions,
        whip_whep,
        whip_whep_open,
        streams,
        links,
        events,
        health,
        pulls,
        outputs,
        weights,
        files,
        about,
    ):
        app.include_router(router)
    web = resources.files("streamlift") / "web"
    with resources.as_file(web) as folder:
        app.mount("/static", StaticFiles(directory=folder), name="static")

        @app.get("/", include_in_schema=False)
        async def page(view: str = "") -> FileResponse:
            name = "clean.html" if view == "clean" else "index.html"
            return FileResponse(folder / name, headers={"Cache-Control": "no-cache"})

        @app.get("/docs", include_in_schema=False)
        async def docs() -> FileResponse:
            return FileResponse(folder / "docs.html")

    app.add_middleware(Gate, config=config)
    app.add_middleware(Forwarded, config=config)
    return app
