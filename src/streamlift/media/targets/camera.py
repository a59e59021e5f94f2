"""A stream as a camera of this machine: decoded once, written to a Video4Linux output device."""

from __future__ import annotations

import asyncio
import os
import stat
import sys
from collections.abc import Callable
from typing import Any

import av
from av.codec.context import Flags
from av.container import OutputContainer
from av.video.codeccontext import VideoCodecContext
from av.video.stream import VideoStream

from streamlift.errors import MediaError
from streamlift.frames import EncodedFrame, Size
from streamlift.media.remote.push import Ended, Listen, Push, PushRefused, PushState, Watch
from streamlift.media.targets.thread import OwnThread

__all__ = ["CameraPush", "open_device"]

STUCK_S = 10.0

OpenDevice = Callable[[str], OutputContainer]


def open_device(path: str) -> OutputContainer:
    """Raises PushRefused where there can be no such device, MediaError where there is none now."""
    if sys.platform != "linux":
        raise PushRefused("cameras can be fed on Linux only")
    try:
        kind = os.stat(path).st_mode
    except OSError as error:
        raise MediaError(f"{path}: {error.strerror}; is v4l2loopback loaded?") from error
    if not stat.S_ISCHR(kind):  # to open a pipe would wait for its reader
        raise MediaError(f"{path} is no device")
    try:
        return av.open(path, "w", format="v4l2")
    except ValueError as error:
        raise PushRefused("this build of PyAV cannot write to Video4Linux devices") from error


class CameraPush(Push):
    """While the device is slow, pictures are left out up to a keyframe (`frames_skipped`). Another
    picture size opens the device anew."""

    kind = "v4l2"

    def __init__(
        self, stream: str, device: str, *, open_device: OpenDevice = open_device, **parts: Any
    ) -> None:
        """`parts`: those of `Push`."""
        super().__init__(stream, (device, None), **parts)
        self.device = device
        self.frames_written = 0
        self._open_device = open_device

    @property
    def shown_url(self) -> str:
        return self.device

    async def _once(self, watch: Watch, listen: Listen, with_sound: bool) -> Ended:
        with watch() as frames:
            self._take(frames)
            try:
                frame = first = await anext(frames)
            except StopAsyncIteration:
                return Ended.STREAM
            thread = OwnThread(f"camera-{self.stream}")
            camera = _Camera(self.device, first.size, self._open_device)
            try:
                await self._wait_for(thread, camera.open)
                self._live()
                while frame.size == first.size:
                    self.frames_written += await self._wait_for(thread, camera.write, frame)
                    try:
                        frame = await anext(frames)
                    except StopAsyncIteration:
                        return Ended.STREAM
                return Ended.SIZE
            finally:
                thread.close(camera.close)

    async def _wait_for(self, thread: OwnThread, call: Callable[..., int], *arguments: Any) -> int:
        """A device that stands still is waited for: another thread would stand there as well."""
        asked = asyncio.ensure_future(thread.do(call, *arguments))
        try:
            done, _ = await asyncio.wait([asked], timeout=STUCK_S)
            if not done:
                self._be(PushState.WAITING, f"{self.device} takes nothing")
                await asyncio.wait([asked])
                raise MediaError(f"{self.device} took nothing for more than {STUCK_S:g} s")
        finally:
            asked.cancel()
        return asked.result()


class _Camera:
    """The device with a decoder before it; lives on one thread."""

    def __init__(self, device: str, size: Size, open_device: OpenDevice) -> None:
        self._device = device
        self._size = size
        self._open_device = open_device
        self._container: OutputContainer | None = None
        self._track: VideoStream
        self._decoder: VideoCodecContext
        self._written = 0

    def open(self) -> int:
        try:
            self._container = self._open_device(self._device)
            track = self._container.add_stream("rawvideo", rate=25)
            assert isinstance(track, VideoStream)
            track.width, track.height = self._size.width, self._size.height
            track.pix_fmt = "yuv420p"
            self._container.start_encoding()
        except (av.FFmpegError, OSError) as error:
            raise MediaError(f"{self._device} cannot be used: {_reason(error)}") from error
        self._track = track
        decoder = av.CodecContext.create("h264", "r")
        assert isinstance(decoder, VideoCodecContext)
        decoder.thread_count = 1  # more would hold frames back
        decoder.flags |= Flags.low_delay
        self._decoder = decoder
        return 0

    def write(self, frame: EncodedFrame) -> int:
        """How many pictures were written."""
        assert self._container is not None
        before = self._written
        try:
            for picture in self._decoder.decode(av.Packet(frame.data)):
                shown = (
                    picture
                    if picture.format.name == "yuv420p"
                    else picture.reformat(format="yuv420p")
                )
                shown.pts, shown.time_base = self._written, self._track.codec_context.time_base
                for packet in self._track.encode(shown):
                    self._container.mux(packet)
                self._written += 1
        except (av.FFmpegError, OSError) as error:
            raise MediaError(f"{self._device} takes no more: {_reason(error)}") from error
        return self._written - before

    def close(self) -> None:
        container, self._container = self._container, None
        if container is not None:
            try:
                container.close()
            except (av.FFmpegError, OSError):
                return  # the device has gone before


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
