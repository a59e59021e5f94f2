"""What the router needs of the rest: publishers, backends and their lanes. Others fit by shape."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Protocol

from streamlift.frames import (
    BackendInfo,
    CodedAudio,
    EncodedFrame,
    Frame,
    IngestCounts,
    LaneOptions,
    Rendition,
    Size,
    Unencoded,
)

__all__ = ["Backend", "IngestCounts", "Lane", "Places", "Publisher"]


class Publisher(Protocol):
    """Where a stream's pictures come from: an async iterator that ends when the peer is gone.

    It drains its source always; what the stream does not take in time is dropped and counted.
    """

    @property
    def audio(self) -> AsyncIterator[CodedAudio] | None: ...

    @property
    def counts(self) -> IngestCounts: ...

    @property
    def absence(self) -> str | None:
        """Why it must count as gone, though its session lasts; None while it is there, and be it
        that it has nothing new to show."""
        ...

    def __aiter__(self) -> AsyncIterator[Frame]: ...

    def request_keyframe(self) -> None:
        """Ask the sender for a keyframe (PLI); never waits, never raises."""
        ...

    async def aclose(self, reason: str) -> None:
        """End the session (for takeover or DELETE); the iterator then ends."""
        ...


class Lane(Protocol):
    """One stream's place on a backend: low-resolution frames in, encoded frames out.

    Iterating ends after `finish` or `aclose`, and raises UpscaleError when the backend failed.
    Each rendition's frames come in pts order.
    """

    @property
    def upscaled(self) -> int:
        """Pictures that came out of the model, whatever became of them."""
        ...

    @property
    def dropped(self) -> Mapping[str, int]:
        """Frames offered but never delivered, by reason, such as `stale` and `overdue`."""
        ...

    @property
    def degraded(self) -> bool:
        """True while the backend gives no more than a plain enlargement, to keep up."""
        ...

    @property
    def can_spend_less(self) -> bool:
        """True while the lane, when it drops frames, has a cheaper way of its own to try."""
        ...

    @property
    def leaving(self) -> bool:
        """True when its place is about to go: it should be followed by another lane on the same
        backend, which that opens elsewhere."""
        ...

    @property
    def stuck_s(self) -> float:
        """How long what it does now has taken, 0 while it waits; infinite if nobody can tell.

        It tells a lane that hangs from one whose machine is busy with other things.
        """
        ...

    def __aiter__(self) -> AsyncIterator[EncodedFrame | Unencoded]: ...

    def offer(self, frame: Frame) -> bool:
        """Hand over a frame; never waits. False means it was dropped at once."""
        ...

    def finish(self) -> None:
        """No more frames will come: deliver all that is owed, then end the iteration."""
        ...

    def set_renditions(self, wanted: frozenset[Rendition]) -> None:
        """What to encode from now on. Without any, pictures are upscaled and come as `Unencoded`;
        a lane that has had none encodes the next frame that is offered, as a keyframe."""
        ...

    def request_keyframe(self) -> None:
        """The next frame of every rendition becomes a keyframe."""
        ...

    def park(self) -> None:
        """No frame will come for a while: move the stream's device memory to the host.

        The next `offer` brings it back by itself. Never waits; what is queued is done before.
        """
        ...

    async def aclose(self) -> None:
        """Drop everything now and free the slot."""
        ...


class Places(Protocol):
    """Where lanes are opened: what a lane needs of its backend."""

    async def open_lane(self, size: Size, options: LaneOptions) -> Lane:
        """Open a lane for one stream at a low-resolution size.

        Raises NoCapacity when too little is free, unless it is to stand in for a lane that failed;
        NotReady when the backend cannot run now.
        """
        ...

    def lane_hung(self, lane: Lane) -> None:
        """This lane of it was found hung; call it before closing the lane. Never waits.

        What hangs is the backend's own duty: one in this process gives its other lanes another
        thread, one in another process ends its worker.
        """
        ...


class Backend(Places, Protocol):
    """A named upscaler on a place it can run: what users switch between."""

    async def start(self) -> None:
        """Load, or find the workers. A failure is a state with a reason, never an exception.

        Called again for one that is unavailable when what it lacked has come.
        """
        ...

    async def aclose(self) -> None:
        """End what runs for it; its lanes are closed before."""
        ...

    def info(self) -> BackendInfo: ...

    async def probe(self) -> None:
        """Upscale pictures of its own beside the open lanes. Raises what a lane would raise, and
        TimeoutError for a hang: a stream fails on it, and this tells whose fault that is."""
        ...
