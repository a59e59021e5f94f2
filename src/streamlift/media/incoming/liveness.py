"""Whether a peer that sends is still there: quiet is not gone, as long as it answers."""

from __future__ import annotations

import asyncio

from streamlift.clock import Clock
from streamlift.media.incoming.video_in import VideoReceiver
from streamlift.media.rtc.connection import Peer

__all__ = ["LOOK_EVERY_S", "Liveness", "attend"]

REST_S = 1.0
"""A peer that has sent nothing for so long is asked whether it is there."""
CHECK_EVERY_S = 1.0
UNANSWERED = 3
LOOK_EVERY_S = 0.2


class Liveness:
    """Judges by what was heard of the peer; the caller brings the time. Pure."""

    def __init__(self, no_picture_s: float) -> None:
        self._no_picture_s = no_picture_s
        self._heard_s: float | None = None
        self._checked_s = float("-inf")
        self._unanswered = 0

    def heard(self, now_s: float) -> None:
        """A packet came that only the peer can have sent."""
        self._heard_s = now_s
        self._unanswered = 0

    def check_due(self, now_s: float) -> bool:
        """Whether to ask now; counts as asked."""
        rests = self._heard_s is not None and now_s - self._heard_s >= REST_S
        if not rests or now_s - self._checked_s < CHECK_EVERY_S - 1e-6:
            return False
        self._checked_s = now_s
        return True

    def checked(self, *, answered: bool) -> bool:
        """The check of before was answered or not; True if the peer is back by that."""
        back = answered and self._unanswered >= UNANSWERED
        self._unanswered = 0 if answered else self._unanswered + 1
        return back

    def absence(self, undecoded_since_s: float | None, now_s: float) -> str | None:
        """Why there are no pictures of it, or None while it is there.

        `undecoded_since_s`: since when media has come of which no picture could be decoded.
        """
        if self._unanswered >= UNANSWERED:
            return "the publisher does not answer"
        if undecoded_since_s is not None and now_s - undecoded_since_s > self._no_picture_s:
            return f"no picture could be decoded for {self._no_picture_s:g} s"
        return None


async def attend(liveness: Liveness, peer: Peer, video: VideoReceiver, clock: Clock) -> None:
    """Keep `liveness` up to date while the peer is connected; the first check measures how far
    away it is."""
    heard = 0
    if (round_trip_s := await peer.check()) is not None:
        video.note_round_trip(round_trip_s)
    while True:
        if peer.guard.authentic > heard:
            heard = peer.guard.authentic
            liveness.heard(clock.now_s())
        elif liveness.check_due(clock.now_s()):
            answered = await peer.check(CHECK_EVERY_S) is not None
            if liveness.checked(answered=answered):
                video.request_keyframe()  # its picture gave way to the slate
            continue
        await asyncio.sleep(LOOK_EVERY_S)
