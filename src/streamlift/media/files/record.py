"""Recordings: the encoded stream into fragmented MP4 (VP8: WebM), never encoded again."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, ExitStack
from fractions import Fraction
from pathlib import Path

import av
from av.container import OutputContainer
from av.stream import Stream as ContainerStream

from streamlift.clock import VIDEO_CLOCK_HZ
from streamlift.config import check_name
from streamlift.errors import ConfigError, MediaError
from streamlift.frames import Codec, CodedAudio, EncodedFrame, Size
from streamlift.tasks import to_its_end

__all__ = ["Recorder", "recording_directory"]

logger = logging.getLogger(__name__)

_TIME_BASE = Fraction(1, VIDEO_CLOCK_HZ)
_SOUND_BASE = Fraction(1, 48_000)
"""Opus counts samples at this rate, whatever it was sampled with (RFC 7587 section 4.1)."""
_BATCH = 25
_FORMATS = {
    # A fragment a second, whatever the keyframes do: there may be none for hours. The header is
    # written with the first fragment, when the parameter sets are known.
    Codec.H264: (
        "mp4",
        {
            "movflags": "delay_moov+default_base_moof",
            "frag_duration": "1000000",
            "flush_packets": "1",
        },
    ),
    Codec.VP8: ("webm", {"live": "1", "cluster_time_limit": "1000", "flush_packets": "1"}),
}


class Recorder:
    """Records one stream until it ends, with its sound if it has any when a file begins; a new
    file whenever size or codec changes.

    Files are `STREAM-20261123T020000Z.mp4` in `directory`, `-2` and so on appended where that is
    taken. A file that is broken off can be played up to its last whole fragment.
    """

    def __init__(
        self, stream: str, directory: Path, *, wall_clock: Callable[[], float] = time.time
    ) -> None:
        # The name becomes part of a path; raises ConfigError for anything but letters and digits.
        self.stream = check_name("stream", stream)
        self.paths: list[Path] = []
        self.bytes_written = 0
        self._directory = directory
        self._wall_clock = wall_clock
        self._file: _RecordingFile | None = None

    async def run(
        self,
        watch: Callable[[], AbstractContextManager[AsyncIterator[EncodedFrame]]],
        listen: Callable[[], AbstractContextManager[AsyncIterator[CodedAudio]]] | None = None,
        has_sound: Callable[[], bool] = lambda: False,
    ) -> None:
        """Returns when the stream ends. Raises MediaError when a file cannot be written."""
        batch: list[EncodedFrame] = []
        heard: list[CodedAudio] = []
        listening: asyncio.Task[None] | None = None
        try:
            with ExitStack() as held:
                frames = held.enter_context(watch())
                if listen is not None:
                    sound = held.enter_context(listen())
                    listening = asyncio.create_task(_collect(sound, heard))
                async for frame in frames:
                    batch.append(frame)
                    if len(batch) >= _BATCH or not self.paths:
                        await self._write(batch, heard, has_sound=has_sound())
                        batch = []
            await self._write(batch, heard, has_sound=False)
        finally:
            if listening is not None:
                listening.cancel()
            await to_its_end(asyncio.to_thread(self._close))

    async def _write(
        self, batch: list[EncodedFrame], heard: list[CodedAudio], *, has_sound: bool
    ) -> None:
        sound, heard[:] = list(heard), []
        try:
            # A thread cannot be cancelled: the file would be closed while it still writes.
            await to_its_end(asyncio.to_thread(self._write_now, batch, sound, has_sound))
        except OSError as error:
            raise MediaError(
                f"recording of stream {self.stream} stopped: {error.strerror}",
                found=str(self._directory),
                expected="room and permission to write",
            ) from error

    def _write_now(
        self, batch: list[EncodedFrame], sound: list[CodedAudio], has_sound: bool
    ) -> None:
        for frame in batch:
            if self._file is None or not self._file.fits(frame):
                if not frame.keyframe:
                    continue  # a file begins with a picture that stands alone
                self._close()
                self._file = self._create(frame, has_sound)
            self._file.write(frame)
            self.bytes_written += len(frame.data)
        if self._file is not None:
            self.bytes_written += self._file.write_sound(sound)

    def _create(self, frame: EncodedFrame, has_sound: bool) -> _RecordingFile:
        extension, _ = _FORMATS[frame.rendition.codec]
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(self._wall_clock()))
        for number in range(1, 1000):
            suffix = "" if number == 1 else f"-{number}"
            path = self._directory / f"{self.stream}-{stamp}{suffix}.{extension}"
            try:
                file = _RecordingFile(path, frame, has_sound=has_sound)
            except FileExistsError:
                continue
            logger.info("stream %s: recording to %s", self.stream, path)
            self.paths.append(path)
            return file
        raise OSError(None, f"too many recordings of {self.stream} in one second")

    def _close(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            file.close()


def recording_directory(text: str) -> Path:
    """The directory, made if need be. Raises ConfigError when it cannot be written to."""
    directory = Path(text)
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"cannot record to {text}: {error.strerror}", found=text) from error
    if not os.access(directory, os.W_OK):
        raise ConfigError(f"cannot record to {text}: no permission to write", found=text)
    return directory


async def _collect(sound: AsyncIterator[CodedAudio], heard: list[CodedAudio]) -> None:
    """Written with the pictures, once a second; more than a few seconds never wait."""
    async for packet in sound:
        heard.append(packet)
        del heard[:-_MOST_HEARD]


_MOST_HEARD = 1000


class _RecordingFile:
    """One container; its bytes go to disk fragment by fragment, whole or not at all."""

    def __init__(self, path: Path, first: EncodedFrame, *, has_sound: bool) -> None:
        self._codec = first.rendition.codec
        self._size: Size = first.size
        self._first_pts = first.pts
        self._began_s = first.arrived_s
        self._sound_start: int | None = None
        """What is taken from the pts of sound, so that it begins where its picture does."""
        self._disk = _WholeWrites(path)
        name, options = _FORMATS[self._codec]
        self._container: OutputContainer = av.open(self._disk, "w", format=name, options=options)
        self._track: ContainerStream = self._container.add_mux_stream(
            str(self._codec),
            width=first.size.width,
            height=first.size.height,
            time_base=_TIME_BASE,
        )
        self._sound_track: ContainerStream | None = None
        if has_sound:
            # Nothing is encoded by it: the container needs the header that an encoder makes.
            self._sound_track = self._container.add_stream("libopus", rate=48_000, layout="stereo")

    def fits(self, frame: EncodedFrame) -> bool:
        return (frame.rendition.codec, frame.size) == (self._codec, self._size)

    def write(self, frame: EncodedFrame) -> None:
        packet = av.Packet(frame.data)
        packet.pts = packet.dts = frame.pts - self._first_pts
        packet.time_base = _TIME_BASE
        packet.is_keyframe = frame.keyframe
        packet.stream = self._track
        self._container.mux(packet)
        self._disk.commit()

    def write_sound(self, packets: list[CodedAudio]) -> int:
        """How many bytes of sound went in: of what came after the first picture did."""
        if self._sound_track is None:
            return 0
        written = 0
        for sound in packets:
            if self._sound_start is None:
                late_s = sound.arrived_s - self._began_s
                if late_s < 0:
                    continue
                self._sound_start = sound.pts - round(late_s / _SOUND_BASE)
            packet = av.Packet(sound.data)
            packet.pts = packet.dts = sound.pts - self._sound_start
            packet.time_base = _SOUND_BASE
            packet.is_keyframe = True
            packet.stream = self._sound_track
            self._container.mux(packet)
            written += len(sound.data)
        if written:
            self._disk.commit()
        return written

    def close(self) -> None:
        try:
            self._container.close()
            self._disk.commit()
        except OSError as error:
            logger.warning("the last second of a recording is lost: %s", error.strerror)
        finally:
            self._disk.shut()


class _WholeWrites:
    """A file object for the muxer: what it writes between two commits goes to disk together.

    On a full disk the file is cut back to the last commit, so that it stays playable.
    """

    def __init__(self, path: Path) -> None:
        # Never through a link that somebody else put there.
        self._descriptor = os.open(
            path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o640
        )
        self._waiting = bytearray()
        self._size = 0
        self._full = False

    def write(self, data: bytes) -> int:
        self._waiting += data
        return len(data)

    def commit(self) -> None:
        if not self._waiting or self._full:
            return
        data, self._waiting = bytes(self._waiting), bytearray()
        try:
            written = 0
            while written < len(data):
                written += os.write(self._descriptor, data[written:])
        except OSError:
            self._full = True
            os.ftruncate(self._descriptor, self._size)
            raise
        self._size += len(data)

    def shut(self) -> None:
        os.close(self._descriptor)
