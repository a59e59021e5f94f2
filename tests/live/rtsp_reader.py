"""FFmpeg's RTSP reader as a process of its own: PyAV holds the interpreter while it waits.

Prints what it saw as JSON: sizes and times of pictures, ages by their stamps in ms, packets of
sound, and an error instead of all of it when it could not open the address.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import av

from streamlift.stamp import elapsed_ms, read_stamp


def main(url: str, pictures: int) -> None:
    seen: dict[str, object] = {"error": None}
    sizes: list[tuple[int, int]] = []
    times: list[float] = []
    ages: list[float] = []
    sound = 0
    try:
        with av.open(url, options={"rtsp_transport": "tcp"}, timeout=10) as container:
            for packet in container.demux():
                if packet.stream.type == "audio":
                    sound += 1
                    continue
                for frame in packet.decode():
                    assert isinstance(frame, av.VideoFrame)
                    sizes.append((frame.width, frame.height))
                    if frame.time is not None:
                        times.append(frame.time)
                    luma: Any = frame.to_ndarray(format="gray8")
                    stamp = read_stamp(luma, scale=2)
                    if stamp is not None:
                        ages.append(elapsed_ms(stamp, time.monotonic()))
                if len(sizes) >= pictures:
                    break
    except av.FFmpegError as error:
        seen["error"] = str(error)
    seen.update(sizes=sizes, times=times, ages=ages, sound=sound)
    sys.stdout.write(json.dumps(seen))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
