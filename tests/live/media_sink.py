"""A server that one publisher comes to: FFmpeg's own, of RTMP or RTSP, in a process of its own.

Listens until somebody publishes, and prints a line of JSON for each picture (size, time, whether it
begins anew, the number of its stamp) and for each second of sound; ends when its publisher does.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import av
import numpy as np

from streamlift.stamp import read_stamp

OPTIONS = {
    "rtmp": {"listen": "1"},
    # FFmpeg 8 refuses its own default of the time limit.
    "rtsp": {"rtsp_flags": "listen", "listen_timeout": "120"},
}
SOON = {"analyzeduration": "1000000", "probesize": "500000", "fflags": "nobuffer"}


def main(url: str) -> None:
    scheme = url.partition(":")[0]
    try:
        with av.open(url, options={**OPTIONS[scheme], **SOON}) as container:
            tell(tracks=[stream.codec_context.name for stream in container.streams])
            heard, loud = 0, 0.0
            for packet in container.demux():
                for frame in packet.decode():
                    if isinstance(frame, av.AudioFrame):
                        heard += frame.samples
                        loud = max(loud, float(np.abs(frame.to_ndarray()).max()))
                        if heard >= frame.sample_rate // 2:
                            tell(sound=heard, rate=frame.sample_rate, at=frame.time)
                            heard = 0
                    elif isinstance(frame, av.VideoFrame):
                        tell_picture(frame)
    except av.FFmpegError as error:
        tell(error=str(error))


def tell_picture(frame: av.VideoFrame) -> None:
    luma: Any = frame.to_ndarray(format="gray8")
    stamp = read_stamp(luma, scale=2)
    tell(
        size=[frame.width, frame.height],
        at=frame.time,
        key=bool(frame.key_frame),
        number=None if stamp is None else stamp.number,
    )


def tell(**what: object) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1])
