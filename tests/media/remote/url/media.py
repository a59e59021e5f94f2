"""Clips of every kind that is pulled, made on the spot: 128x96 at 25 fps, with a tone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
from av.container import OutputContainer
from tests.offline.media import Clip, Sound, make_clip

__all__ = ["HEIGHT", "WIDTH", "clip", "forged", "hls"]

WIDTH, HEIGHT = 128, 96
_X264 = {"preset": "ultrafast", "g": "12"}


def clip(
    path: Path,
    *,
    frames: int = 50,
    sound: str | None = "aac",
    codec: str = "libx264",
    size: tuple[int, int] = (WIDTH, HEIGHT),
) -> Path:
    """Write a clip; its container is the one of the suffix."""
    options = _X264 if codec == "libx264" else {}
    if path.stem.endswith("-b"):
        options = {"g": "12", "bf": "2"}  # pictures are shown in another order than they are coded
    sounds = () if sound is None else (Sound(sound),)
    plain = Clip(frames=frames, size=size, codec=codec, options=options, sounds=sounds)
    if path.suffix not in (".ts", ".flv"):
        return make_clip(path, plain)
    # Through MP4, so that sound and picture lie beside each other as they do in streams.
    whole = make_clip(path.with_suffix(".tmp.mp4"), plain)
    with av.open(str(path), "w") as target:
        _remux(whole, target)
    return path


def hls(folder: Path, *, frames: int = 75) -> Path:
    """A playlist with segments of half a second; returns its path."""
    whole = clip(folder / "whole.mp4", frames=frames)
    playlist = folder / "live.m3u8"
    options = {"hls_time": "0.48", "hls_list_size": "0", "hls_playlist_type": "vod"}
    with av.open(str(playlist), "w", format="hls", options=options) as target:
        _remux(whole, target)
    return playlist


def forged(path: Path) -> Path:
    """A WebM of 128x96 whose pictures say that they are of 16383x16383 (RFC 6386, 9.1)."""
    clip(path, sound=None, frames=5, codec="libvpx")
    start = b"\x9d\x01\x2a"
    told = start + WIDTH.to_bytes(2, "little") + HEIGHT.to_bytes(2, "little")
    data = path.read_bytes()
    assert told in data
    path.write_bytes(data.replace(told, start + b"\xff\x3f\xff\x3f"))
    return path


def _remux(source: Path, target: OutputContainer) -> None:
    with av.open(str(source)) as container:
        streams = {s.index: target.add_stream_from_template(s) for s in container.streams}
        for packet in _timed(container.demux()):
            packet.stream = streams[packet.stream.index]
            target.mux(packet)


def _timed(packets: Iterator[av.Packet[Any]]) -> Iterator[av.Packet[Any]]:
    return (packet for packet in packets if packet.dts is not None)
