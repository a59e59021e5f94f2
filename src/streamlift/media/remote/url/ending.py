"""How a pull ends, as errors of the child; each becomes its last message."""

from __future__ import annotations

from streamlift.errors import ConfigError, StreamliftError
from streamlift.media.remote.url.wire import Why

__all__ = ["Ended", "Lost", "Refused", "why"]


class Refused(StreamliftError):
    """Asking again is of no use."""


class Ended(StreamliftError):
    """All of it was shown."""


class Lost(StreamliftError):
    """Worth another try."""


def why(error: StreamliftError) -> Why:
    if isinstance(error, (Refused, ConfigError)):
        return Why.REFUSED
    return Why.ENDED if isinstance(error, Ended) else Why.LOST
