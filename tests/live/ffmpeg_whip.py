"""A child process: publishes stamped pictures with FFmpeg's own WHIP muxer, then tells how many."""

from __future__ import annotations

import json
import signal
import sys
import time
from typing import Any

import av
import numpy as np
from av.audio.stream import AudioStream
from av.container import OutputContainer
from av.video.stream import VideoStream
from tests.clips import picture

from streamlift.frames import Size

FPS = 25
RATE_HZ = 48_000


def main(order: dict[str, Any]) -> None:
    stopped: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: stopped.append(number))
    width, height = map(int, order["size"].split("x"))
    size = Size(width, height)
    container = av.open(order["url"], "w", format="whip", options=order["options"])
    stream = container.add_stream("libx264", rate=FPS)
    assert isinstance(stream, VideoStream)
    stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
    stream.bit_rate = 4_000_000
    context = stream.codec_context
    context.profile = "Baseline"
    context.gop_size = 50
    context.max_b_frames = 0
    context.thread_count = 1
    context.options = {"preset": "ultrafast", "tune": "zerolatency"}
    sound = _sound(container) if order.get("sound") else None
    frames = 0
    start_s = None
    while not stopped and frames < order["seconds"] * FPS:
        if start_s is None:
            # The handshake belongs to the first packet; the clock starts after it.
            container.start_encoding()
            start_s = time.monotonic()
        time.sleep(max(0.0, start_s + frames / FPS - time.monotonic()))
        planes = picture(size, frames, now_s=time.monotonic())
        frame = av.VideoFrame.from_ndarray(
            np.concatenate([planes.y.ravel(), planes.u.ravel(), planes.v.ravel()]).reshape(
                height * 3 // 2, width
            ),
            format="yuv420p",
        )
        frame.pts = frames
        for packet in stream.encode(frame):
            container.mux(packet)
        frames += 1
        while sound is not None and sound.seconds < frames / FPS:
            sound.send()
    container.close()
    sys.stdout.write(json.dumps({"frames": frames}))


class _Sound:
    """Silence in Opus, which the muxer writes before the video, whatever the order of streams."""

    def __init__(self, container: OutputContainer, stream: AudioStream) -> None:
        self._container = container
        self._stream = stream
        self._samples = 0

    @property
    def seconds(self) -> float:
        return self._samples / RATE_HZ

    def send(self) -> None:
        """The next 20 ms."""
        samples = RATE_HZ // 50
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 2 * samples), np.int16), layout="stereo")
        frame.sample_rate, frame.pts = RATE_HZ, self._samples
        self._samples += samples
        for packet in self._stream.encode(frame):
            self._container.mux(packet)


def _sound(container: OutputContainer) -> _Sound:
    stream = container.add_stream("libopus", rate=RATE_HZ)
    assert isinstance(stream, AudioStream)
    stream.codec_context.layout = "stereo"
    return _Sound(container, stream)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
