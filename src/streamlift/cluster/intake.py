"""A lane's input on the worker: units and pictures become frames, in the order they were sent."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import suppress

from streamlift.clock import Clock
from streamlift.cluster.wire import convert
from streamlift.cluster.wire import worker_pb2 as pb
from streamlift.codec.decoder import MOST_BEHIND_S, TOO_SLOW, CodedPicture, DecodeThread
from streamlift.errors import MediaError
from streamlift.frames import Frame

__all__ = ["Intake", "must_fit"]

MOST_WAITING = 128
MOST_BEHIND = 8
"""Pictures behind units that are not decoded: a decoder may hold one back for those that follow,
and where pictures follow none does."""


class Intake:
    """Decodes units on a thread of their own; what comes after a unit waits for it.

    `offer` gets the frames and `need_source(reason)` is called where the decoder needs a keyframe;
    both on the event loop. Above 128 units (five seconds) what waits longest goes without its
    picture, as do the units in front once more than 8 pictures wait behind them.
    """

    def __init__(
        self,
        stream: str,
        *,
        max_side: int,
        clock: Clock,
        offer: Callable[[Frame], object],
        need_source: Callable[[str], None],
    ) -> None:
        self._stream = stream
        self._max_side = max_side
        self._clock = clock
        self._offer = offer
        self._need_source = need_source
        self._loop = asyncio.get_running_loop()
        self._decoder: DecodeThread | None = None
        self._lost_one = False
        """Whether what is predicted from the unit before would show damage."""
        self._waiting: deque[int | Callable[[], object]] = deque()  # pts of a unit, or what to do

    def unit(self, message: pb.Unit) -> None:
        """Raises MediaError for what cannot be a unit."""
        coded = convert.unit_video(message)
        if self._decoder is None:
            self._decoder = DecodeThread(
                self._stream,
                max_side=self._max_side,
                clock=self._clock,
                deliver=lambda frame: self._post(self._decoded, frame),
                refuse=lambda reason, detail: self._post(self._refused, f"{reason}: {detail}"),
                done=lambda: self._post(self._flush),
                most_behind_s=MOST_BEHIND_S,
            )
        arrived_s = self._clock.now_s() - message.age_s
        if self._lost_one and not coded.keyframe:
            return  # a keyframe was asked for
        self._lost_one = not self._decoder.offer(CodedPicture(message.pts, coded, arrived_s))
        if self._lost_one:
            self._need_source(TOO_SLOW)
            return
        self._waiting.append(message.pts)
        if len(self._waiting) > MOST_WAITING:
            self._forget_first_unit()
            self._advance()

    def picture(self, message: pb.Picture) -> None:
        """Raises MediaError for one that does not fit its size."""
        frame = convert.picture_frame(message, self._clock.now_s(), self._max_side)
        self.do(lambda: self._offer(frame))

    def do(self, what: Callable[[], object]) -> None:
        """Call it when all that came before has become frames."""
        self._waiting.append(what)
        self._advance()
        while sum(not isinstance(entry, int) for entry in self._waiting) > MOST_BEHIND:
            while isinstance(self._waiting[0], int):
                self._waiting.popleft()
            self._advance()

    def finish(self, then: Callable[[], object]) -> None:
        """No more units come; `then` is called after the last frame."""
        self.do(then)
        if self._decoder is not None:
            self._decoder.stop()

    def close(self) -> None:
        self._waiting.clear()
        if self._decoder is not None:
            self._decoder.stop()

    def _decoded(self, frame: Frame) -> None:
        while self._waiting:
            first = self._waiting[0]
            if isinstance(first, int):
                if first > frame.pts:
                    break  # of an earlier unit, which was given up
                self._waiting.popleft()
                if first == frame.pts:
                    self._offer(frame)
                    break
            else:
                self._waiting.popleft()
                first()
        self._advance()

    def _refused(self, reason: str) -> None:
        self._forget_first_unit()
        self._need_source(reason)
        self._advance()

    def _forget_first_unit(self) -> None:
        for entry in self._waiting:
            if isinstance(entry, int):
                self._waiting.remove(entry)
                return

    def _advance(self) -> None:
        while self._waiting and not isinstance(self._waiting[0], int):
            entry = self._waiting.popleft()
            assert not isinstance(entry, int)
            entry()

    def _flush(self) -> None:
        self._waiting = deque(e for e in self._waiting if not isinstance(e, int))
        self._advance()

    def _post(self, call: Callable[..., None], *args: object) -> None:
        with suppress(RuntimeError):  # the loop is gone: there is nobody to tell
            self._loop.call_soon_threadsafe(call, *args)


def must_fit(message: pb.Open, max_side: int) -> None:
    """Raises MediaError for a size that no picture may have."""
    sides = (message.width, message.height)
    if min(sides) < 1 or max(sides) > max_side:
        raise MediaError(
            f"a lane of {message.width}x{message.height}",
            found=max(sides),
            expected=f"1 to {max_side} a side",
        )
