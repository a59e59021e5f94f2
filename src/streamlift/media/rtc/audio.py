"""Opus from the publisher to the viewers: drained always, held as long as the picture takes."""

from __future__ import annotations

import dataclasses
from collections import Counter, deque
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

from streamlift.clock import Clock
from streamlift.frames import CodedAudio
from streamlift.mailbox import Mailbox
from streamlift.media.rtc.packet import MediaPacket
from streamlift.media.rtc.receiver import ReceiverTap

__all__ = ["AUDIO_CLOCK_HZ", "AudioFeed", "AudioReceiver", "AudioRelay", "AudioRelays", "VideoLag"]

AUDIO_CLOCK_HZ = 48_000
"""RTP clock of Opus, whatever it was sampled with (RFC 7587 section 4.1)."""
_QUEUED = 256
"""Packets kept for one reader: 5 s of the usual 20 ms, more than any upscaler delays."""
_LAG_FRAMES = 64
_MOST_LATE = 25
"""Packets in a row that come from the past: half a second of them is no reordering."""

AudioFeed = Mailbox[CodedAudio]
"""One viewer's queue; full means that the oldest packet goes."""


class AudioReceiver:
    """An async iterator of CodedAudio over one receiver; ends at `end()`.

    Order is kept by dropping what comes late: Opus conceals a lost packet better than a viewer's
    jitter buffer a stream that steps back.
    """

    def __init__(self, receiver: Any, *, clock: Clock) -> None:
        self._clock = clock
        self._tap = ReceiverTap(receiver, self._take_packet)
        self._packets: Mailbox[CodedAudio] = Mailbox(_QUEUED)
        self._ended = False
        self._ssrc: int | None = None
        self._last: tuple[int, float] | None = None
        """Timestamp and arrival of the packet before."""
        self._late = 0
        self._pts = 0
        self.dropped: Counter[str] = Counter()
        """Packets by reason: `late` came after its successor, `stale` was not fetched in time."""

    def __aiter__(self) -> AsyncIterator[CodedAudio]:
        return self._packets

    async def __anext__(self) -> CodedAudio:
        return await anext(self._packets)

    def end(self) -> None:
        """End the iteration after what has arrived; never waits."""
        self._ended = True
        self._packets.end()

    def _take_packet(self, packet: MediaPacket, /) -> None:
        if self._ended or not packet.data or not self._tap.is_opus(packet.payload_type):
            return
        now_s = self._clock.now_s()
        if self._last is not None:
            timestamp, arrived_s = self._last
            step = (packet.timestamp - timestamp) & 0xFFFFFFFF
            backwards = step == 0 or step >= 1 << 31
            if packet.ssrc != self._ssrc or (backwards and self._late >= _MOST_LATE):
                # Another RTP stream, or the sender began anew: it goes on by the time that passed.
                step = max(1, round((now_s - arrived_s) * AUDIO_CLOCK_HZ))
            elif backwards:
                self._late += 1
                self.dropped["late"] += 1
                return
            self._pts += step
        self._ssrc, self._last, self._late = packet.ssrc, (packet.timestamp, now_s), 0
        if not self._packets.put(CodedAudio(self._pts, packet.data, now_s)):
            self.dropped["stale"] += 1


class AudioRelay:
    """One stream's sound for any number of viewers; the source is read whether or not any is."""

    def __init__(self) -> None:
        self._feeds: set[AudioFeed] = set()
        self._last: CodedAudio | None = None

    async def run(self, source: AsyncIterator[CodedAudio]) -> None:
        """Pass on what `source` gives until it ends; another source continues its timestamps."""
        offset: int | None = None
        async for packet in source:
            if offset is None:
                offset = self._continued(packet) - packet.pts
            placed = dataclasses.replace(packet, pts=packet.pts + offset)
            if self._last is not None and placed.pts <= self._last.pts:
                continue  # two publishers during a takeover
            self._last = placed
            for feed in self._feeds:
                feed.put(placed)

    @contextmanager
    def listen(self) -> Iterator[AudioFeed]:
        """One viewer's place, from now on."""
        feed = AudioFeed(_QUEUED)
        self._feeds.add(feed)
        try:
            yield feed
        finally:
            self._feeds.discard(feed)
            feed.end()

    def _continued(self, packet: CodedAudio) -> int:
        """The pts at which a new source's first packet goes on, by the time that has passed."""
        if self._last is None:
            return 0
        passed_s = packet.arrived_s - self._last.arrived_s
        return self._last.pts + max(1, round(passed_s * AUDIO_CLOCK_HZ))


class AudioRelays:
    """The relays of all streams, by name; each lives while somebody uses it."""

    def __init__(self) -> None:
        self._relays: dict[str, tuple[AudioRelay, int]] = {}

    @contextmanager
    def use(self, stream: str) -> Iterator[AudioRelay]:
        relay, users = self._relays.get(stream, (AudioRelay(), 0))
        self._relays[stream] = (relay, users + 1)
        try:
            yield relay
        finally:
            _, users = self._relays[stream]
            if users == 1:
                del self._relays[stream]
            else:
                self._relays[stream] = (relay, users - 1)

    def __len__(self) -> int:
        return len(self._relays)


class VideoLag:
    """How long pictures have taken lately, from arrival to sending: the sound waits as long.

    The median of the last frames, so that one late picture does not make the sound stutter.
    """

    def __init__(self) -> None:
        self._recent: deque[float] = deque(maxlen=_LAG_FRAMES)

    def observe(self, seconds: float) -> None:
        self._recent.append(seconds)

    @property
    def seconds(self) -> float:
        """0 before the first picture."""
        if not self._recent:
            return 0.0
        return sorted(self._recent)[len(self._recent) // 2]
