"""A client for Python: the control API, publishing and watching with numpy frames.

Needs the extra `client`: `pip install 'streamlift[client]'`. Names are looked up when they are
asked for: only what needs PyAV or aiortc imports it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from streamlift.client.problems import ApiError
    from streamlift.client.publishing import Publication, publish
    from streamlift.client.reading import UnexpectedAnswer
    from streamlift.client.service import Client
    from streamlift.client.watching import Picture, Watching, watch
    from streamlift.errors import StreamliftError
    from streamlift.media.remote.http import Refused, Unreachable

__all__ = [
    "ApiError",
    "Client",
    "Picture",
    "Publication",
    "Refused",
    "StreamliftError",
    "UnexpectedAnswer",
    "Unreachable",
    "Watching",
    "publish",
    "watch",
]

_HOMES = {
    "ApiError": "streamlift.client.problems",
    "Client": "streamlift.client.service",
    "Picture": "streamlift.client.watching",
    "Publication": "streamlift.client.publishing",
    "Refused": "streamlift.media.remote.http",
    "StreamliftError": "streamlift.errors",
    "UnexpectedAnswer": "streamlift.client.reading",
    "Unreachable": "streamlift.media.remote.http",
    "Watching": "streamlift.client.watching",
    "publish": "streamlift.client.publishing",
    "watch": "streamlift.client.watching",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(importlib.import_module(home), name)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] in ("httpx", "aiortc", "aioice", "av"):
            raise ModuleNotFoundError(
                f"streamlift.client needs {error.name}: pip install 'streamlift[client]'",
                name=error.name,
            ) from error
        raise
