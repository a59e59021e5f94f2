"""Every error streamlift raises on purpose, as one shallow tree.

StreamliftError                what was found, what was expected, what to do
├── ConfigError                configuration, environment or command line is wrong
├── MediaError                 a peer sent media or SDP that cannot be used
│   ├── MalformedSdp           not SDP at all, or not complete
│   ├── UnsupportedOffer       well-formed SDP that asks for something we do not do
│   │   └── IceRestart          a running session cannot be given another ICE session
│   └── UnsupportedSize        picture size outside the accepted range
├── StreamError                a named stream cannot do what was asked
│   ├── UnknownStream          no such stream, or nothing is published there yet
│   ├── UnknownSession         no such WebRTC session
│   ├── UnknownOutput          the stream has no such output
│   ├── NothingPublished       nobody publishes there now, so there is nothing to watch
│   ├── NoSource               the publisher's own picture cannot be relayed now
│   ├── NoPicture              no picture came in time
│   ├── NoParameters           what is pulled takes no parameters
│   └── StreamTaken            another publisher holds the name
├── BackendError               a backend cannot do what was asked
│   ├── UnknownBackend
│   ├── NotReady               loading, no weights, no such device
│   ├── NoCapacity             all slots taken
│   └── WorkerDraining         the worker is about to end, in order
├── UpscaleError               a model failed on a frame
│   ├── InvalidOutput          what the model gave cannot be right
│   ├── OutOfMemory            the device had no memory left for it
│   ├── UpscalerHung           the model does not return
│   └── WorkerLost             the worker cannot be reached any more
│       └── WorkerExited       its process has ended
├── WeightsError               a checkpoint is missing, damaged, or not what it claims
│   └── NoWeights              nothing is missing that could be fetched
├── TokenError                 a token does not open what it was shown at
│   ├── TokenUnknown           not one of this service
│   └── TokenExpired           a link that has ended
├── ShuttingDown               it takes nothing new; another one, or this one later, does
├── TooMany                    this caller has as much as one may have; others go on
├── TurnedOff                  the operator has not allowed this
├── Busy                       what may be done once at a time is being done
├── NothingUnderWay            there is nothing to cancel
├── NoRoom                     the disk has no room for it
├── TooLarge                   a file is larger than is taken
├── UnknownFile                no such file is here
└── Overloaded                 the service is full; retry later
"""

from __future__ import annotations

__all__ = [
    "BackendError",
    "Busy",
    "ConfigError",
    "IceRestart",
    "InvalidOutput",
    "MalformedSdp",
    "MediaError",
    "NoCapacity",
    "NoParameters",
    "NoPicture",
    "NoRoom",
    "NoSource",
    "NoWeights",
    "NotReady",
    "NothingPublished",
    "NothingUnderWay",
    "OutOfMemory",
    "Overloaded",
    "ShuttingDown",
    "StreamError",
    "StreamTaken",
    "StreamliftError",
    "TokenError",
    "TokenExpired",
    "TokenUnknown",
    "TooLarge",
    "TooMany",
    "TurnedOff",
    "UnknownBackend",
    "UnknownFile",
    "UnknownOutput",
    "UnknownSession",
    "UnknownStream",
    "UnsupportedOffer",
    "UnsupportedSize",
    "UpscaleError",
    "UpscalerHung",
    "WeightsError",
    "WorkerDraining",
    "WorkerExited",
    "WorkerLost",
    "reason_of",
]


class StreamliftError(Exception):
    """Root of the tree. `found` and `expected` are shown to the caller beside the message."""

    def __init__(
        self, message: str, *, found: object | None = None, expected: object | None = None
    ) -> None:
        super().__init__(message)
        self.found = found
        self.expected = expected


class ConfigError(StreamliftError):
    """Configuration, environment or command line is wrong."""


class MediaError(StreamliftError):
    """A peer sent media or SDP that cannot be used."""


class MalformedSdp(MediaError):
    """Not SDP at all, or not complete."""


class UnsupportedOffer(MediaError):
    """Well-formed SDP that asks for something streamlift does not do."""


class IceRestart(UnsupportedOffer):
    """A running session cannot be given another ICE session."""


class UnsupportedSize(MediaError):
    """Picture size outside the accepted range."""


class StreamError(StreamliftError):
    """A named stream cannot do what was asked."""


class UnknownStream(StreamError):
    """No such stream, or nothing is published there yet."""


class UnknownSession(StreamError):
    """No such WebRTC session."""


class UnknownOutput(StreamError):
    """The stream has no output of that name."""


class NothingPublished(StreamError):
    """Nobody publishes there now, so there is nothing to watch."""


class NoSource(StreamError):
    """The publisher's own picture cannot be relayed now."""


class NoPicture(StreamError):
    """No picture came in time."""


class NoParameters(StreamError):
    """What is pulled takes no parameters."""


class StreamTaken(StreamError):
    """Another publisher holds the name."""


class BackendError(StreamliftError):
    """A backend cannot do what was asked."""


class UnknownBackend(BackendError):
    """No backend of that name is configured."""


class NotReady(BackendError):
    """The backend is loading, has no weights, or has no device."""


class NoCapacity(BackendError):
    """All slots of the backend are taken."""


class WorkerDraining(BackendError):
    """The worker is about to end, in order: go to another one."""


class UpscaleError(StreamliftError):
    """A model failed on a frame."""


class InvalidOutput(UpscaleError):
    """What the model gave cannot be right: wrong shape, black, NaN."""


class OutOfMemory(UpscaleError):
    """The device had no memory left."""


class UpscalerHung(UpscaleError):
    """The model does not return; its process ends."""


class WorkerLost(UpscaleError):
    """The worker of a lane cannot be reached any more, or its link cannot carry the stream."""


class WorkerExited(WorkerLost):
    """The process of a worker has ended, and how."""


class WeightsError(StreamliftError):
    """A checkpoint is missing, damaged, or not what it claims to be."""


class NoWeights(WeightsError):
    """Nothing is missing that could be fetched."""


class TokenError(StreamliftError):
    """A token does not open what it was shown at."""


class TokenUnknown(TokenError):
    """Not a token of this service."""


class TokenExpired(TokenError):
    """A link that has ended or was revoked."""


class ShuttingDown(StreamliftError):
    """The service takes nothing new; publish elsewhere or later."""


class TooMany(StreamliftError):
    """This caller has as much as one may have; others go on."""


class TurnedOff(StreamliftError):
    """The operator has not allowed this."""


class Busy(StreamliftError):
    """What may be done once at a time is being done."""


class NothingUnderWay(StreamliftError):
    """There is nothing to cancel."""


class NoRoom(StreamliftError):
    """The disk has no room for it."""


class TooLarge(StreamliftError):
    """A file is larger than is taken."""


class UnknownFile(StreamliftError):
    """No such file is here."""


class Overloaded(StreamliftError):
    """The service is full; retry later."""


def reason_of(error: BaseException) -> str:
    """What an error says, in words: never the name of its class, which tells users nothing."""
    return str(error) or "an error that says nothing more"
