"""GIF, animated WebP and APNG: frames with their durations, alpha and number of plays."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path
from typing import Any, Protocol

import av
import numpy as np
from av.container import InputContainer
from av.filter import Graph
from av.video.stream import VideoStream

from streamlift.frames import Size
from streamlift.offline.names import url
from streamlift.offline.steps import Notes, step
from streamlift.offline.stills import Pixels
from streamlift.offline.webp import Moment, Timing, WebpSink, opaque, webp_frames, webp_timing

__all__ = ["AnimationSink", "Moment", "animation_sink", "read_animation", "read_timing"]

_TICK = Fraction(1, 1000)


def read_timing(path: Path, kind: str) -> Timing:
    """Raises MediaError."""
    with step("reading", path):
        head = path.read_bytes()[: 1 << 16]
        if kind == "webp animation":
            return webp_timing(path)
        with av.open(url(path)) as container:
            video = _moving(container)
            base = video.time_base or _TICK
            durations = [p.duration or 0 for p in container.demux(video) if p.size]
    return Timing(len(durations), (durations or [0])[-1] * base, _plays(kind, head))


def read_animation(path: Path, kind: str, notes: Notes) -> Iterator[Moment]:
    """Its frames, each whole. Raises MediaError."""
    if kind == "webp animation":
        yield from webp_frames(path)
        return
    with step("reading", path), av.open(url(path)) as container:
        video = _moving(container)
        if sum(s.frames > 1 for s in container.streams.video) > 1:
            notes.say("transparency of an animated AVIF is left out: the result is opaque")
        for decoded in container.decode(video):
            base = decoded.time_base or _TICK
            yield Moment(decoded.to_ndarray(format="rgba"), (decoded.duration or 0) * base)


def _moving(container: InputContainer) -> VideoStream:
    """The track of an animation: an AVIF has its first picture as a track of its own too."""
    return max(container.streams.video, key=lambda stream: stream.frames)


class AnimationSink(Protocol):
    """Takes RGB or RGBA frames in order."""

    def add(self, pixels: Pixels, duration_s: Fraction) -> None: ...

    def finish(self) -> None: ...

    def close(self) -> None: ...


def animation_sink(
    part: Path, target: Path, size: Size, plays: int, last_s: Fraction
) -> AnimationSink:
    """By the target's suffix: .gif, .apng or .webp, written at `part`."""
    if target.suffix.lower() == ".webp":
        return WebpSink(part, target, size, plays)
    return _AvSink(part, target, size, plays, last_s)


class _AvSink:
    """GIF with a palette a picture, or APNG."""

    def __init__(self, part: Path, target: Path, size: Size, plays: int, last_s: Fraction) -> None:
        self._target, self._size = target, size
        self._gif = target.suffix.lower() == ".gif"
        # GIF counts hundredths of a second, and -1 is one play.
        self._base = Fraction(1, 100 if self._gif else 1000)
        last = round(last_s * (100 if self._gif else 1000))
        if self._gif:
            options = {"loop": str(plays - 1 if plays else 0) if plays != 1 else "-1"}
            options["final_delay"] = str(last or -1)
        else:
            options = {"plays": str(plays), "final_delay": f"{max(1, last)}/1000"}
        self._open = ExitStack()
        with step("writing", target):
            form = "gif" if self._gif else "apng"
            self._output = self._open.enter_context(
                av.open(url(part), "w", format=form, options=options)
            )
            stream: Any = self._output.add_stream(form, rate=25)
        stream.width, stream.height = size.width, size.height
        stream.pix_fmt = "pal8" if self._gif else "rgba"
        stream.codec_context.time_base = self._base
        self._stream = stream
        self._at_s = Fraction(0)
        self._last = -1

    def add(self, pixels: Pixels, duration_s: Fraction) -> None:
        rgba = pixels if pixels.shape[2] == 4 else opaque(pixels)
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(rgba), format="rgba")
        with step("encoding", self._target):
            if self._gif:
                frame = _paletted(frame)
            frame.pts = max(self._last + 1, round(self._at_s / self._base))
            frame.time_base = self._base
            packets = self._stream.encode(frame)
        self._last = frame.pts
        self._at_s += duration_s
        with step("writing", self._target):
            self._output.mux(packets)

    def finish(self) -> None:
        with step("writing", self._target):
            self._output.mux(self._stream.encode(None))
            self._output.close()

    def close(self) -> None:
        self._open.close()


def _plays(kind: str, head: bytes) -> int:
    """How often it is shown, 0 for ever."""
    if kind == "gif":
        at = head.find(b"NETSCAPE2.0\x03\x01")
        if at < 0:
            return 1
        (again,) = struct.unpack_from("<H", head, at + 13)
        return int(again) + 1 if again else 0
    at = head.find(b"acTL")
    return int(struct.unpack_from(">I", head, at + 8)[0]) if at > 0 else 0


def _paletted(frame: av.VideoFrame) -> av.VideoFrame:
    """The best 255 colours of this picture, and one for what is transparent."""
    graph = Graph()
    source = graph.add_buffer(
        width=frame.width, height=frame.height, format=frame.format, time_base=Fraction(1, 100)
    )
    split = graph.add("split")
    palette = graph.add("palettegen", "stats_mode=single:reserve_transparent=1")
    use = graph.add("paletteuse", "new=1:dither=sierra2_4a:alpha_threshold=128")
    sink = graph.add("buffersink")
    source.link_to(split)
    split.link_to(use, 0, 0)
    split.link_to(palette, 1, 0)
    palette.link_to(use, 0, 1)
    use.link_to(sink)
    graph.configure()
    frame.pts = 0
    frame.time_base = Fraction(1, 100)
    graph.push(frame)
    graph.push(None)
    made = graph.pull()
    assert isinstance(made, av.VideoFrame)
    return made
