"""Where a decoded picture says that its chroma samples lie."""

from __future__ import annotations

import re

import av
import av.logging
from av.filter import Graph

__all__ = ["chroma_siting"]


def chroma_siting(frame: av.VideoFrame) -> str | None:
    """FFmpeg's name of the place (left, center, topleft, ...), None where the picture says none.

    PyAV does not hand the field out; FFmpeg's filter `showinfo` writes it to the log.
    """
    graph = Graph()
    source = graph.add_buffer(
        width=frame.width,
        height=frame.height,
        format=frame.format,
        name="in",
        time_base=frame.time_base,
    )
    told, sink = graph.add("showinfo", "checksum=0"), graph.add("buffersink")
    source.link_to(told)
    told.link_to(sink)
    level = av.logging.get_level()
    try:
        av.logging.set_level(av.logging.INFO)
        with av.logging.Capture() as lines:
            graph.configure()
            graph.push(frame)
            graph.pull()
    except av.FFmpegError:  # a form that filters do not take
        return None
    finally:
        av.logging.set_level(level)
    found = re.search(r"\bcl:(\w+)", "".join(text for _, _, text in lines))
    return None if found is None or found[1].startswith("un") else found[1]
