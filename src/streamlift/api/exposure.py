"""Where the service may be reached from: without tokens only from this machine."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

from streamlift.config import Config
from streamlift.errors import ConfigError

__all__ = ["check_exposure", "host_allowed", "is_loopback", "origin_allowed"]


def check_exposure(config: Config) -> None:
    """Refuse to serve a public address while a door has no token. Raises ConfigError."""
    auth = config.auth
    if config.rtsp is not None and not auth.view and not is_loopback(config.rtsp.host):
        raise ConfigError(
            f"rtsp.host {config.rtsp.host} is not a loopback address, but auth has no token to "
            "view; set auth.view (STREAMLIFT_AUTH__VIEW=...), or bind to 127.0.0.1",
            found="no auth.view",
            expected="a token to view",
        )
    if auth.complete or is_loopback(config.server.host):
        return
    doors = {"publish": auth.publish, "view": auth.view, "control": auth.control}
    open_doors = [name for name, tokens in doors.items() if not tokens]
    raise ConfigError(
        f"server.host {config.server.host} is not a loopback address, but auth has no token for "
        f"{', '.join(open_doors)}; set auth.publish, auth.view and auth.control "
        "(STREAMLIFT_AUTH__PUBLISH=...), or bind to 127.0.0.1",
        found=open_doors,
        expected="tokens for all three",
    )


def is_loopback(host: str) -> bool:
    """True for localhost, 127.0.0.0/8 and ::1."""
    name = host.strip("[]").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def host_allowed(host_header: str, config: Config) -> bool:
    """Without tokens only names of this machine: a DNS name pointed at 127.0.0.1 is refused."""
    if config.auth.complete:
        return True
    try:
        name = urlsplit(f"//{host_header}").hostname or ""
    except ValueError:
        return False  # such as "[": no name at all
    return is_loopback(name) or name == config.server.host


def origin_allowed(origin: str | None, host_header: str, scheme: str, config: Config) -> bool:
    """Requests without an Origin, from our own page, or from a listed origin; with tokens, any.

    Bearer tokens are never sent by a browser on its own, so with them a foreign page gains nothing.
    """
    if origin is None or origin in config.server.allowed_origins:
        return True
    if config.auth.complete and not config.server.allowed_origins:
        return True
    return origin == f"{scheme}://{host_header}"
