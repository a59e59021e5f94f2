"""The child of a URL pull: `python -m streamlift.media.remote.url.child`.

First line of stdin: the order, as JSON (so that no password is on a command line). After that stdin
is the lifeline. Messages (`wire`) go to stdout. What it opens is in `opening`.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import time
import traceback
from dataclasses import replace
from typing import Any

import av
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.stream import Discard, Disposition
from av.video.stream import VideoStream

from streamlift.clock import VIDEO_CLOCK_HZ
from streamlift.errors import StreamliftError
from streamlift.frames import IngestCounts
from streamlift.lifeline import first_line, watch_lifeline
from streamlift.media.remote.url.ending import Ended, Lost, Refused, why
from streamlift.media.remote.url.opening import Opening, told
from streamlift.media.remote.url.pace import LEAD_S, Outbox, Pace
from streamlift.media.remote.url.rules import UrlRules
from streamlift.media.remote.url.sound import CODECS, RATE_HZ, OpusSound
from streamlift.media.remote.url.video import Decoded, VideoDecoder
from streamlift.media.remote.url.wire import (
    Kind,
    Shown,
    write_counts,
    write_picture,
    write_reason,
    write_sound,
)
from streamlift.portable import bound_arenas, confine

__all__ = ["Play", "main"]

_MEMORY = 256 << 20
_PICTURES_AHEAD = 128
_COUNTS_EVERY_S = 1.0
_LAST_WORDS_S = 3.0
_COLLECT_EVERY = 16
"""Pictures. PyAV's hold themselves by their motion vectors, and Python would not look for long."""


class Play:
    """Plays what a place gives into an outbox, again and again if it is to loop."""

    def __init__(self, opening: Opening, outbox: Outbox, *, max_side: int, loop: bool) -> None:
        self._opening = opening
        self._outbox = outbox
        self._max_side = max_side
        self._loop = loop
        self._paced = opening.place.paced
        self._pace = Pace(paced=self._paced, now_s=time.monotonic, wait=outbox.wait)
        self._base_s = 0.0
        """Where the media's clock stands at the beginning of this round."""
        self._end_s = self._at_s = 0.0
        self._shown = 0
        self._last: tuple[int | None, int] | None = None
        """Of the picture before: its pts, and that on our line."""
        self._past = IngestCounts()
        self._told_s = float("-inf")

    def run(self) -> None:
        """Always ends with an error that says why."""
        while True:
            before = self._past.decoded
            try:
                with self._opening.opened() as container:
                    ends = self._opening.ends(container)
                    self._round(container)
            except Refused as error:
                if self._past.decoded == before:
                    raise
                # It was shown, so that it may be again: a playlist's advert may have led elsewhere.
                raise Lost(str(error)) from error
            if not ends:
                raise Lost(f"{self._opening.name} has ended the stream")
            if self._past.decoded == before:
                raise Lost(f"there is no picture in {self._opening.name} that could be shown")
            if not self._loop:
                raise Ended(f"{self._opening.name} is over")
            self._base_s = self._end_s

    def _round(self, container: InputContainer) -> None:
        video = _video_of(container, self._max_side)
        decoder = VideoDecoder(
            video, max_side=self._max_side, live=not self._paced, first=self._past.received
        )
        streams: list[Any] = [video]
        heard = next((s for s in container.streams.audio if _is_taken(s)), None)
        sound = None if heard is None else OpusSound(heard)
        if heard is not None:
            streams.append(heard)
        for other in container.streams:
            if other not in streams:
                other.discard = Discard.all  # of a playlist, renditions that are not even fetched
        self._tell_found(video, heard)
        offset_s = self._base_s
        if self._paced and container.start_time is not None:
            offset_s -= container.start_time / av.time_base
        past = self._past
        try:
            for packet in container.demux(streams):
                if packet.stream is video:
                    for decoded in decoder.decode(packet):
                        self._show(decoded, decoded.time_s + offset_s)
                        self._end_s = max(self._end_s, self._at_s + decoder.frame_s)
                    self._past = _counted(past, decoder, self._outbox.stale)
                    self._tell_counts()
                elif sound is not None:
                    for time_s, opus in sound.packets(packet):
                        self._let_hear(opus, time_s + offset_s)
        except av.FFmpegError as error:
            raise told(error, self._opening.name) from error
        finally:
            self._told_s = float("-inf")
            self._tell_counts()

    def _show(self, decoded: Decoded, time_s: float) -> None:
        due_s = self._pace.picture_due(time_s)
        self._at_s = time_s
        pts = round((due_s if self._paced else time_s) * VIDEO_CLOCK_HZ)
        motion = decoded.motion
        if motion is not None:
            same = self._last is not None and self._last[0] == motion.follows
            motion = replace(motion, follows=self._last[1]) if same and self._last else None
        self._last = (decoded.raw_pts, pts)
        shown = Shown(pts, decoded.planes, decoded.colour, decoded.decode_s, decoded.coded, motion)
        self._outbox.put(due_s, write_picture(shown), picture=True)
        self._shown += 1
        if self._shown % _COLLECT_EVERY == 0:
            gc.collect()

    def _let_hear(self, opus: bytes, time_s: float) -> None:
        due_s = self._pace.sound_due(time_s)
        pts = round((due_s if self._paced else time_s) * RATE_HZ)
        self._outbox.put(due_s, write_sound(pts, opus))

    def _tell_found(self, video: VideoStream, heard: AudioStream | None) -> None:
        sound = "-" if heard is None else heard.codec_context.codec.name
        words = f"{video.codec_context.codec.name} {sound}"
        self._outbox.put(time.monotonic(), write_reason(Kind.OPENED, words))

    def _tell_counts(self) -> None:
        now_s = time.monotonic()
        if now_s - self._told_s >= _COUNTS_EVERY_S:
            self._told_s = now_s
            self._outbox.put(now_s, write_counts(self._past))


def main() -> int:
    order = json.loads(first_line())
    out = os.dup(1)
    os.dup2(2, 1)  # what libraries print must not be taken for a message
    bound_arenas()
    gc.freeze()  # what was imported is never garbage
    watch_lifeline()
    max_side: int = order["max_side"]
    confine(_MEMORY + _PICTURES_AHEAD * max_side * max_side * 3 // 2)
    outbox = Outbox(out)
    try:
        rules = UrlRules(order["hosts"], order["listen"], order["directories"])
        opening = Opening(rules, rules.check(order["url"]), outbox, max_side=max_side)
        Play(opening, outbox, max_side=max_side, loop=order["loop"]).run()
    except StreamliftError as error:
        last = why(error) + str(error)
    except MemoryError:
        last = why(Refused("")) + "it needs more memory than a pull may have"
    except Exception:  # noqa: BLE001, see below
        # Broad on purpose: whatever a library raises ends this pull alone; the log has it.
        traceback.print_exc()
        last = why(Lost("")) + "an error in the process that reads it; the log has the details"
    else:
        last = why(Lost("")) + "it ended"
    outbox.finish(write_reason(Kind.ERROR, last), LEAD_S + _LAST_WORDS_S)
    sys.stderr.flush()
    os._exit(0)  # no thread of FFmpeg's is waited for


def _video_of(container: InputContainer, max_side: int) -> VideoStream:
    """The largest picture that is not too large, or the first one, which then says why not."""
    named = [s for s in container.streams.video if not _is_cover(s)]
    if not named:
        raise Refused("found no video in it; expected a picture that moves")
    found = [s for s in named if s.codec_context is not None]
    if not found:
        raise Refused("found video in a codec that FFmpeg does not know")
    fitting = [s for s in found if 0 < max(s.width, s.height) <= max_side]
    return max(fitting, key=lambda s: s.width * s.height, default=found[0])


def _is_cover(stream: VideoStream) -> bool:
    return bool(stream.disposition & Disposition.attached_pic)


def _is_taken(stream: AudioStream) -> bool:
    context = stream.codec_context
    return context is not None and context.codec.name in CODECS


def _counted(past: IngestCounts, decoder: VideoDecoder, stale: int) -> IngestCounts:
    dropped = dict(past.dropped)
    for reason, count in decoder.dropped.items():
        dropped[reason] = dropped.get(reason, 0) + count
    if stale:
        dropped["stale"] = stale
    return IngestCounts(decoder.received, past.decoded + decoder.decoded, dropped)


if __name__ == "__main__":
    sys.exit(main())
