"""Time-limited TURN credentials."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import hmac

from streamlift.config import IceConfig, IceServer

__all__ = ["ice_servers"]


def ice_servers(ice: IceConfig, unix_s: float) -> tuple[IceServer, ...]:
    """The configured servers; with `turn_secret`, TURN servers get credentials made now.

    As in draft-uberti-behave-turn-rest: the user name is the Unix time of expiry, the password
    the base64 of its HMAC-SHA1 under the secret shared with the TURN server.
    """
    if ice.turn_secret is None:
        return ice.servers
    username = f"{int(unix_s) + ice.turn_ttl_s}:streamlift"
    digest = hmac.digest(ice.turn_secret.encode(), username.encode(), hashlib.sha1)
    credential = base64.b64encode(digest).decode()
    return tuple(
        dataclasses.replace(server, username=username, credential=credential)
        if server.urls.startswith("turn")
        else server
        for server in ice.servers
    )
