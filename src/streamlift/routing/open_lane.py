"""One lane of a stream from its opening to its end, and the frames that it owes."""

from __future__ import annotations

import asyncio
import dataclasses
from collections import Counter, deque
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass

from streamlift.clock import VIDEO_CLOCK_HZ
from streamlift.errors import NoCapacity, UpscaleError
from streamlift.frames import EncodedFrame, Frame, LaneOptions, Rendition, Size, Unencoded
from streamlift.routing.pacing import Offsets
from streamlift.routing.ports import Lane, Places
from streamlift.routing.watchdog import Watchdog

__all__ = ["Delivered", "OpenLane", "Purpose"]

OWED_FRAMES = 64
"""Bound of the frames kept for replay; a lane itself holds at most 32 waiting ones."""
HELD_FRAMES = 256
REPLAY_WINDOW = 4
"""Frames of a replay that the fallback has at a time: it upscales faster than it encodes."""
FALLBACK_SILENCE_S = 3.0
"""Nothing replaces the fallback but itself, which a busy machine does not make faster."""
SLOT_WAIT_S = 2.0
"""How long a lane on the same backend may take to drain and free its slot for its successor."""
CLOSING_S = 2.0
CALM_FRAMES = 3
"""What a lane that keeps up with its publisher may owe, beside a chunked model's own share."""


@dataclass(frozen=True, slots=True)
class Purpose:
    """What a lane is opened for.

    `slate`: it carries the still picture of a stream without publisher. `admission`: it is the
    first lane of a publisher, who is turned away when there is no slot. `replaces`: it stands in
    for a lane that failed, and is given what that one owed. `proving`: it has to show that it
    keeps up before anything is encoded. `after_s`: time to let pass first.
    """

    slate: bool = False
    admission: bool = False
    replaces: bool = False
    proving: bool = False
    after_s: float = 0.0


@dataclass(frozen=True, slots=True, eq=False)
class Delivered:
    """A frame that a lane gave back; `leads`: it is of the default rendition, whose timing all
    other renditions of the same picture follow."""

    encoded: EncodedFrame
    lane: OpenLane
    leads: bool

    @property
    def pts(self) -> int:
        return self.encoded.pts


class OpenLane:
    """A place on a backend, and every frame given to it that it has not yet given back.

    Frames offered while it is being opened wait here, so that it starts at the frame that was
    asked of it. `held` are its frames while another lane is shown, the first a keyframe.
    """

    def __init__(self, name: str, backend: Places, size: Size, purpose: Purpose) -> None:
        self.backend = name
        self.size = size
        self.purpose = purpose
        self.owed: deque[Frame] = deque()  # oldest first
        self.held: deque[Delivered] = deque()
        self.held_since_s = 0.0  # when the first of them came
        self.offsets = Offsets()
        self.due_offset: float | None = None  # of the last frame: when it was due, minus its pts
        self.finished = False  # it was told that no more frames come
        self.alive = True  # neither failed nor given up
        self.task: asyncio.Task[None] | None = None
        self._on = backend
        self._lane: Lane | None = None
        self._unsent: deque[Frame] = deque()  # the last of `owed`, not yet with the lane
        self._parked = False
        self._proving = purpose.proving  # it encodes nothing yet
        self._dropped_before: Counter[str] = Counter()  # while it was
        self._passed_over = 0  # frames before one that it gave back: it dropped them for good
        self._replayed: Counter[str] = Counter()  # it dropped them, but another lane gets them
        self._watchdog = self._new_watchdog()

    # Its life, in the order in which it is lived.

    async def open(
        self, options: Callable[[], LaneOptions], predecessor: OpenLane | None, within_s: float
    ) -> None:
        """Have the backend open it. Raises NoCapacity, NotReady, TimeoutError, or what a backend
        may raise.

        `predecessor`: a lane of the stream on the same backend, whose slot this one may inherit.
        """
        await asyncio.sleep(self.purpose.after_s)
        async with asyncio.timeout(within_s + SLOT_WAIT_S):
            try:
                self._lane = await self._on.open_lane(self.size, self._asked(options()))
            except NoCapacity:
                former = None if predecessor is None else predecessor.task
                if former is None or former.done():
                    raise
                await asyncio.wait([former], timeout=SLOT_WAIT_S)
                self._lane = await self._on.open_lane(self.size, self._asked(options()))
        self.set_renditions(options().renditions)  # they may have changed meanwhile

    async def frames(
        self, now_s: Callable[[], float]
    ) -> AsyncGenerator[EncodedFrame | Unencoded, None]:
        """Hand over what waited, then what it delivers, to its end. Raises UpscaleError."""
        lane = self._lane
        assert lane is not None  # opened before
        whole = self.finished or not self.purpose.replaces
        self._hand_over(len(self._unsent) if whole else REPLAY_WINDOW, now_s())
        if self.finished:
            lane.finish()
        async for encoded in lane:
            yield encoded
        if not self.finished:
            raise UpscaleError("the lane ended before it was told to finish")

    async def close(self) -> None:
        """Free its place on the backend. Read `upscaled` and `dropped` before it, not after."""
        self.alive = False
        lane, self._lane = self._lane, None
        if lane is not None:
            async with asyncio.timeout(CLOSING_S):
                await lane.aclose()

    # What it is given.

    def offer(self, frame: Frame, now_s: float) -> bool:
        """Hand a frame to the lane, or keep it until the lane is open.

        False when too many are kept: then the oldest was given up, and no lane ever saw it.
        """
        if self._parked:
            self._parked, self._watchdog = False, self._new_watchdog()
        self.due_offset = frame.late_after_s - frame.pts / VIDEO_CLOCK_HZ
        self.owed.append(frame)
        self._unsent.append(frame)
        kept = True
        if len(self.owed) > OWED_FRAMES:
            dropped = self.owed.popleft()
            if self._unsent[0] is dropped:
                self._unsent.popleft()
                kept = False
        # Two for each new one: a replay ends even if the lane drops all of it without a word.
        self._hand_over(2, now_s)
        return kept

    def finish(self, now_s: float) -> None:
        """No more frames: the lane delivers what it owes, then its iteration ends."""
        if not self.finished:
            self.finished = True
            self._hand_over(len(self._unsent), now_s)
            if self._lane is not None:
                self._lane.finish()

    def park(self) -> None:
        """No frames come for a while: what it holds on the device can make room for others."""
        if self._lane is not None and not self._parked:
            self._parked = True
            self._lane.park()

    def retire(self) -> None:
        """Nothing more is wanted of this lane: its task closes it."""
        self.alive = False
        self.finished = True
        if self.task is not None and self.task is not asyncio.current_task():
            self.task.cancel()

    def give_up(self) -> list[Frame]:
        """Retire a lane that failed; returns what it owed, for the lane that replaces it."""
        owed = list(self.owed)
        self._replayed = self._dropped_of_owed()
        self.owed.clear()
        self.retire()
        return owed

    def set_renditions(self, wanted: frozenset[Rendition]) -> None:
        if self._lane is not None and not self._proving:
            self._lane.set_renditions(wanted)

    def encode(self, wanted: frozenset[Rendition]) -> None:
        """It has proved itself: the next frame offered is its first keyframe."""
        self._proving = False
        if self._lane is not None:
            self._dropped_before, self._passed_over = Counter(self._lane.dropped), 0
        self.set_renditions(wanted)

    def request_keyframe(self) -> None:
        if self._lane is not None:
            self._lane.request_keyframe()

    def takes(self, size: Size, slate: bool) -> bool:
        """Whether frames of this sort can still be given to it."""
        return not self.finished and self.size == size and self.purpose.slate == slate

    # What it gives back.

    def returned(self, pts: int, now_s: float, encode_s: float = 0.0) -> None:
        """The lane gave back this frame; earlier ones that it did not give back, it dropped.

        `encode_s`: what encoding would have added, if it was not encoded.
        """
        while self.owed and self.owed[0].pts <= pts:
            self._passed_over += self.owed.popleft().pts != pts
        self.offsets.observe(pts, now_s + encode_s)
        self._watchdog.answered(now_s)
        self._hand_over(REPLAY_WINDOW - len(self.owed) + len(self._unsent), now_s)

    def hold(self, one: Delivered, now_s: float) -> None:
        """Keep a frame until this lane is shown."""
        if not self.held:
            self.held_since_s = now_s
        at = len(self.held)
        while one.leads and at > 0 and self.held[at - 1].pts >= one.pts:
            at -= 1  # other renditions of the same picture follow the leading one
        self.held.insert(at, one)
        if len(self.held) > HELD_FRAMES:
            self.held.popleft()

    def first_key(self, after: int | None, now_s: float) -> int | None:
        """The pts of the first held keyframe after `after`; forgets all that is before it."""
        while self.held:
            first = self.held[0]
            if first.encoded.keyframe and first.leads and (after is None or first.pts > after):
                return first.pts
            self.held.popleft()
            self.held_since_s = now_s
        return None

    def release_held(self) -> deque[Delivered]:
        """What was held, now that this lane is shown."""
        held, self.held = self.held, deque()
        return held

    # How it is.

    def owes_between(self, after: int | None, before: int) -> bool:
        """Whether the lane will still deliver a frame with after < pts < before."""
        if not self.alive:
            return False
        return any(f.pts < before and (after is None or f.pts > after) for f in self.owed)

    def hung(self, now_s: float) -> bool:
        """Whether it has been silent for longer than it ever needed, and is stuck in one thing.

        One that goes on, late, is merely slow: a fault would not make its machine any faster.
        """
        lane = self._lane
        if lane is None or not self.alive or self._parked or not self._watchdog.hung(now_s):
            return False
        return lane.stuck_s > self._watchdog.silence_s

    def tell_hung(self) -> None:
        """Leave it to the backend to get its place free again."""
        if self._lane is not None:
            self._on.lane_hung(self._lane)

    @property
    def leaving(self) -> bool:
        """Whether another lane on the same backend should follow it soon."""
        return self._lane is not None and self._lane.leaving

    @property
    def calm(self) -> bool:
        """Whether it keeps up with its publisher: nothing is left over of a replay or a stall."""
        return len(self.owed) <= CALM_FRAMES + self._watchdog.step

    @property
    def chunked(self) -> bool:
        """Whether it has lately taken several frames at once."""
        return self._watchdog.step > 1

    @property
    def strained(self) -> str | None:
        """Why it gives less than its backend can, if it does."""
        if self._lane is None or not self._lane.degraded:
            return None
        return f"{self.backend} enlarges plainly: the machine is too slow for more"

    @property
    def can_spend_less(self) -> bool:
        """Whether it has a cheaper way of its own to keep up."""
        return self._lane is not None and self._lane.can_spend_less

    @property
    def upscaled(self) -> int:
        """Pictures that came out of the model so far; as for `dropped`."""
        return 0 if self._lane is None else self._lane.upscaled

    @property
    def dropped(self) -> Counter[str]:
        """What it has dropped so far, by reason; nothing before it is open and once it closes.

        What it dropped while it had to prove itself does not count: viewers saw the other lane's.
        Nor does what another lane got again after this one failed: that counts it, if it drops it.
        """
        if self._lane is None or self._proving:
            return Counter()
        return Counter(self._lane.dropped) - self._dropped_before - self._replayed

    def _dropped_of_owed(self) -> Counter[str]:
        """What the lane dropped of the frames that it still owes; which, it does not tell."""
        dropped = self.dropped
        del dropped["over_share"]  # of these none is owed
        left = min(dropped.total() - self._passed_over, len(self.owed) - len(self._unsent))
        replayed: Counter[str] = Counter()
        for reason, count in dropped.items():
            replayed[reason] = max(0, min(count, left))
            left -= replayed[reason]
        return replayed

    def _asked(self, options: LaneOptions) -> LaneOptions:
        options = dataclasses.replace(options, stands_in=self.purpose.replaces)
        return dataclasses.replace(options, renditions=frozenset()) if self._proving else options

    def _new_watchdog(self) -> Watchdog:
        return Watchdog(FALLBACK_SILENCE_S) if self.purpose.replaces else Watchdog()

    def _hand_over(self, count: int, now_s: float) -> None:
        if self._lane is None:
            return
        for _ in range(min(count, len(self._unsent))):
            frame = self._unsent.popleft()
            if self._lane.offer(frame):
                self._watchdog.offered(now_s)
            else:
                self.owed.remove(frame)
