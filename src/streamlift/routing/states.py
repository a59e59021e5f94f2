"""Stream states as a table.

Two rules. A stream is in exactly one state, and only the events below change it. The table is
total: an event that means nothing in a state is listed there as staying. `degraded` is no state
but a flag beside it: the picture comes from the fallback backend.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

__all__ = ["TABLE", "StateMachine", "StreamEvent", "StreamState"]


class StreamState(StrEnum):
    """Where a named stream is in its life."""

    WAITING = "waiting"  # no publisher; viewers are kept
    STARTING = "starting"  # publisher there, first upscaled picture not yet
    LIVE = "live"
    SWITCHING = "switching"  # live, and a second lane is being opened or warmed
    DRAINING = "draining"  # takes nothing new, delivers what is owed
    CLOSED = "closed"


class StreamEvent(StrEnum):
    """What can happen to a stream."""

    PUBLISHER = "publisher"  # a publisher arrived, came back, or took over
    PICTURE = "picture"  # an upscaled picture went out
    SWITCH = "switch"  # a move to another lane began
    SETTLED = "settled"  # that move was completed or given up
    GONE = "gone"  # the publisher left or fell silent
    DRAIN = "drain"
    CLOSE = "close"


_S, _E = StreamState, StreamEvent

# fmt: off
TABLE: Mapping[StreamState, Mapping[StreamEvent, StreamState]] = {
    _S.WAITING:   {_E.PUBLISHER: _S.STARTING,  _E.PICTURE: _S.WAITING,   _E.SWITCH: _S.WAITING,
                   _E.SETTLED:   _S.WAITING,   _E.GONE:    _S.WAITING,
                   _E.DRAIN:     _S.DRAINING,  _E.CLOSE:   _S.CLOSED},
    _S.STARTING:  {_E.PUBLISHER: _S.STARTING,  _E.PICTURE: _S.LIVE,      _E.SWITCH: _S.SWITCHING,
                   _E.SETTLED:   _S.STARTING,  _E.GONE:    _S.WAITING,
                   _E.DRAIN:     _S.DRAINING,  _E.CLOSE:   _S.CLOSED},
    _S.LIVE:      {_E.PUBLISHER: _S.STARTING,  _E.PICTURE: _S.LIVE,      _E.SWITCH: _S.SWITCHING,
                   _E.SETTLED:   _S.LIVE,      _E.GONE:    _S.WAITING,
                   _E.DRAIN:     _S.DRAINING,  _E.CLOSE:   _S.CLOSED},
    _S.SWITCHING: {_E.PUBLISHER: _S.SWITCHING, _E.PICTURE: _S.SWITCHING, _E.SWITCH: _S.SWITCHING,
                   _E.SETTLED:   _S.LIVE,      _E.GONE:    _S.WAITING,
                   _E.DRAIN:     _S.DRAINING,  _E.CLOSE:   _S.CLOSED},
    _S.DRAINING:  {_E.PUBLISHER: _S.DRAINING,  _E.PICTURE: _S.DRAINING,  _E.SWITCH: _S.DRAINING,
                   _E.SETTLED:   _S.DRAINING,  _E.GONE:    _S.DRAINING,
                   _E.DRAIN:     _S.DRAINING,  _E.CLOSE:   _S.CLOSED},
    _S.CLOSED:    dict.fromkeys(StreamEvent, _S.CLOSED),
}
# fmt: on


class StateMachine:
    """One stream's state and why it is in it."""

    __slots__ = ("reason", "state")

    def __init__(self) -> None:
        self.state = StreamState.WAITING
        self.reason = ""

    def apply(self, event: StreamEvent, reason: str = "") -> bool:
        """Follow the table; True if the state changed, and then `reason` is the new reason."""
        following = TABLE[self.state][event]
        if following is self.state:
            return False
        self.state, self.reason = following, reason
        return True
