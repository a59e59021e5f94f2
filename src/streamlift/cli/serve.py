"""`streamlift serve`: runs the service until a signal."""

from __future__ import annotations

import argparse
import gc
import importlib.util
import logging
import os
import signal
import socket
import ssl
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from streamlift import __version__
from streamlift.cli.arguments import load_given
from streamlift.cli.exit_codes import FAILED, OK
from streamlift.errors import ConfigError, MediaError, StreamliftError
from streamlift.portable import bound_arenas, on_signal

if TYPE_CHECKING:
    from fastapi import FastAPI

    from streamlift.api.listener import Listener
    from streamlift.config import Config

__all__ = ["add_serve"]

logger = logging.getLogger("streamlift")


def add_serve(commands: Any, common: argparse.ArgumentParser) -> None:
    serve = commands.add_parser("serve", parents=[common], help="run the service")
    serve.add_argument("--config", type=Path, help="YAML file, see configs/")
    serve.add_argument("--host", help="address to bind (default 127.0.0.1)")
    serve.add_argument("--port", type=int, help="HTTP port (default 8080)")
    serve.add_argument("--save", metavar="DIR", help="record every stream to a file in DIR")
    serve.add_argument("--backend", help="default backend, by name")
    serve.add_argument(
        "--cluster",
        metavar="PLACEMENT",
        help="where remote backends run: static (cluster.workers), local, or ray://HOST:10001",
    )
    serve.add_argument(
        "--demo",
        nargs="?",
        const="",
        metavar="CLIP",
        help="also publish stream 'demo': CLIP over and over, or a built-in moving scene",
    )
    serve.set_defaults(run=_serve, endless=True)


def _serve(arguments: argparse.Namespace) -> int:
    import uvicorn

    from streamlift.api import check_exposure
    from streamlift.api.server import server_settings
    from streamlift.app import create_app
    from streamlift.demo import Demo
    from streamlift.engine import left_behind

    config = load_given(arguments)
    check_exposure(config)
    _check_ray(config, os.environ)
    if arguments.demo and not Path(arguments.demo).is_file():
        raise ConfigError(f"--demo: no such file: {arguments.demo}", found=arguments.demo)
    server = config.server
    _check_certificate(server.tls_cert, server.tls_key)
    listener = _bind(config)
    port = listener.getsockname()[1]
    scheme = "https" if server.tls_cert else "http"
    demo = None
    if arguments.demo is not None:
        demo = Demo(f"{scheme}://{_local_name(server.host)}:{port}", arguments.demo or None)
    bound_arenas()
    app = create_app(config, demo=demo)
    told_to_end = False

    class Server(uvicorn.Server):
        """Begins to drain at the signal itself, before open responses are waited for."""

        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            # What is here now lives as long as the process. Out of the collector's sight, full
            # collections are short, and come early enough to free ended sessions (cycles).
            gc.collect()
            gc.freeze()

            if hasattr(signal, "SIGHUP"):
                on_signal(signal.SIGHUP, _read_tokens_again, arguments, app)

        def handle_exit(self, sig: int, frame: FrameType | None) -> None:
            nonlocal told_to_end
            told_to_end = True
            if hasattr(app.state, "service"):
                app.state.service.drain()
            super().handle_exit(sig, frame)

    def end(number: int, frame: FrameType | None) -> None:
        nonlocal told_to_end
        told_to_end = web.should_exit = True

    web = Server(server_settings(app, config, listener))
    print(f"streamlift {__version__} at {scheme}://{_local_name(server.host)}:{port}", flush=True)
    if not config.auth.complete:
        logger.warning("no tokens are configured: only this machine can use the service")
    # Before uvicorn listens to signals, and when all is drained and it raises the signal again.
    for sign in (signal.SIGTERM, signal.SIGINT):
        signal.signal(sign, end)
    with listener, suppress(KeyboardInterrupt):
        web.run(sockets=[listener])
    code = OK if web.started or told_to_end else FAILED
    if left_behind():
        # All is closed but a model that does not return; see `left_behind`.
        sys.stdout.flush()
        logging.shutdown()
        os._exit(code)
    return code


def _read_tokens_again(arguments: argparse.Namespace, app: FastAPI) -> None:
    """SIGHUP: take `auth` from the configuration as it is now; all else stays as it was."""
    try:
        config = load_given(arguments)
        app.state.service.take_tokens(config.auth)
    except StreamliftError as error:
        logger.error("the tokens stay as they were: %s", error)
    else:
        logger.info("the tokens were read again; sessions of those that are gone end")


def _check_ray(config: Config, environ: Mapping[str, str]) -> None:
    """Raises ConfigError for what would only show later: a missing package, an open cluster."""
    placement = config.cluster.placement
    if not placement.startswith("ray://"):
        return
    if importlib.util.find_spec("ray") is None:
        raise ConfigError(
            f"cluster.placement {placement} needs ray: pip install 'streamlift[server,ray]'",
            found=placement,
        )
    if not any(backend.link == "remote" for backend in config.named_backends):
        raise ConfigError(
            f"cluster.placement is {placement}, but no backend has link: remote",
            found=[backend.name for backend in config.named_backends],
            expected="link: remote",
        )
    if placement.removeprefix("ray://").rpartition(":")[0] in ("127.0.0.1", "localhost"):
        return
    # Ray runs any code for whoever reaches it.
    if environ.get("RAY_AUTH_MODE") != "token":
        raise ConfigError(
            f"{placement} is joined with a token only: set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN "
            "here and on every node",
            found=environ.get("RAY_AUTH_MODE"),
            expected="RAY_AUTH_MODE=token",
        )
    if config.cluster.token is None:
        raise ConfigError(
            "workers on other machines need cluster.token (STREAMLIFT_CLUSTER__TOKEN), here and on "
            "every node",
            found=None,
            expected="cluster.token",
        )


def _check_certificate(cert: str | None, key: str | None) -> None:
    """Raises ConfigError when the files cannot be read or do not belong together."""
    for path in (cert, key):
        if path is not None and not os.access(path, os.R_OK):
            raise ConfigError(f"cannot read {path}: no such file or no permission", found=path)
    if cert is None:
        return
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(cert, key)
    except ssl.SSLError as error:
        raise ConfigError(
            f"{cert} and {key} are no PEM certificate and its key: {error.reason or error}"
        ) from error


def _bind(config: Config) -> Listener:
    """A listening socket; one clear line when the port is taken or not allowed."""
    from streamlift.api.server import listen

    host, port = config.server.host, config.server.port
    try:
        return listen(config, host, port)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise MediaError(
            f"cannot listen on {host}:{port}: {reason}; choose another --port"
        ) from error


def _local_name(host: str) -> str:
    if host in ("0.0.0.0", "::", ""):  # noqa: S104  it is recognised
        return "127.0.0.1"
    return f"[{host}]" if ":" in host else host
