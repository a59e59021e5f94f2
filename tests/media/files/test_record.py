"""Recordings: playable, not encoded again, one file a size, and no trouble for the stream."""

from __future__ import annotations

import asyncio
import errno
import os
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from tests.clips import SMALL, TICKS, CodedClip, coded_clip
from tests.peers import publishing, watching
from tests.serving import Served, until

from streamlift.codec import is_keyframe
from streamlift.config import BackendConfig, Config, OutputsConfig
from streamlift.errors import ConfigError, MediaError
from streamlift.frames import Codec, CodedAudio, EncodedFrame, Rendition, Size
from streamlift.media.files.record import Recorder, recording_directory

PLAIN = Config(backends=(BackendConfig("bicubic", "bicubic"),), default_backend="bicubic")
NOON = 1_700_000_000.0


def frames_of(clip: CodedClip, start: int = 0) -> list[EncodedFrame]:
    rendition = Rendition(clip.codec, 1_000_000)
    return [
        EncodedFrame(
            (start + number) * TICKS,
            clip.size,
            rendition,
            is_keyframe(clip.codec, unit),
            unit,
            0.0,
        )
        for number, unit in enumerate(clip.units)
    ]


def watch(frames: list[EncodedFrame]) -> Any:
    async def each() -> AsyncIterator[EncodedFrame]:
        for frame in frames:
            yield frame

    @contextmanager
    def opened() -> Iterator[AsyncIterator[EncodedFrame]]:
        yield each()

    return opened


async def record(directory: Path, frames: list[EncodedFrame]) -> Recorder:
    recorder = Recorder("live", directory, wall_clock=lambda: NOON)
    await recorder.run(watch(frames))
    return recorder


def packet_sizes(path: Path) -> list[int]:
    with av.open(str(path)) as container:
        return [p.size for p in container.demux(video=0) if p.size]


def pictures(path: Path) -> int:
    with av.open(str(path)) as container:
        return sum(1 for _ in container.decode(video=0))


async def test_a_recording_plays_with_the_times_of_the_stream(tmp_path: Path) -> None:
    recorder = await record(tmp_path, frames_of(coded_clip(frames=60), start=1000))
    (path,) = recorder.paths
    assert path.name == "live-20231114T221320Z.mp4"
    with av.open(str(path)) as container:
        video = container.streams.video[0]
        assert (video.width, video.height) == (SMALL.width, SMALL.height)
        times = [frame.time for frame in container.decode(video=0)]
    assert len(times) == 60
    assert times[0] == 0
    assert times[-1] == pytest.approx(59 / 25, abs=0.001)


async def test_nothing_is_encoded_again(tmp_path: Path) -> None:
    frames = frames_of(coded_clip(frames=30))
    (path,) = (await record(tmp_path, frames)).paths
    sizes = packet_sizes(path)
    # Start codes become lengths; of three-byte ones a byte more.
    assert len(sizes) == 30
    assert all(0 <= b - len(a.data) <= 16 for a, b in zip(frames, sizes, strict=True))


def opus(count: int, start_s: float) -> list[CodedAudio]:
    """A tone in packets of 20 ms, each as it arrives; their pts begin anywhere."""
    encoder: Any = av.CodecContext.create("libopus", "w")
    encoder.sample_rate, encoder.layout, encoder.format = 48_000, "stereo", "s16"
    encoder.open()
    packets: list[CodedAudio] = []
    for number in range(count):
        frame = av.AudioFrame.from_ndarray(
            (8000 * np.sin(np.arange(960).repeat(2) / 9.0)).astype(np.int16)[None], layout="stereo"
        )
        frame.sample_rate, frame.pts = 48_000, number * 960
        for packet in encoder.encode(frame):
            at = len(packets)
            packets.append(CodedAudio(777 + at * 960, bytes(packet), start_s + at * 0.02))
    return packets


@pytest.mark.parametrize("codec", list(Codec))
async def test_sound_is_recorded_as_it_is_and_begins_with_its_picture(
    tmp_path: Path, codec: Codec
) -> None:
    sound = opus(160, start_s=-0.5)  # half a second is from before the first picture
    frames = [
        replace(f, arrived_s=n * 0.04) for n, f in enumerate(frames_of(coded_clip(codec=codec)))
    ]

    async def each() -> AsyncIterator[CodedAudio]:
        for packet in sound:
            yield packet

    @contextmanager
    def listen() -> Iterator[AsyncIterator[CodedAudio]]:
        yield each()

    async def slowly() -> AsyncIterator[EncodedFrame]:
        for frame in frames:
            await asyncio.sleep(0)
            yield frame

    @contextmanager
    def watched() -> Iterator[AsyncIterator[EncodedFrame]]:
        yield slowly()

    recorder = Recorder("live", tmp_path, wall_clock=lambda: NOON)
    await recorder.run(watched, listen, lambda: True)
    with av.open(str(recorder.paths[0])) as container:
        (track,) = container.streams.audio
        assert (track.codec_context.name, track.rate) == ("opus", 48_000)
        packets = [p for p in container.demux(audio=0) if p.size]
    came_later = [s.data for s in sound if s.arrived_s >= 0]
    assert [bytes(p) for p in packets] == came_later[: len(packets)]
    assert len(packets) > 100
    assert float((packets[0].pts or 0) * (track.time_base or 0)) == pytest.approx(0.0, abs=0.021)
    with av.open(str(recorder.paths[0])) as container:
        decoded = np.concatenate([f.to_ndarray().ravel() for f in container.decode(audio=0)])
    assert float(np.abs(decoded).mean()) > 0.02
    assert pictures(recorder.paths[0]) == len(frames)


async def test_vp8_becomes_webm(tmp_path: Path) -> None:
    recorder = await record(tmp_path, frames_of(coded_clip(frames=30, codec=Codec.VP8)))
    (path,) = recorder.paths
    assert path.suffix == ".webm"
    assert pictures(path) == 30


async def test_another_size_begins_another_file(tmp_path: Path) -> None:
    small, big = coded_clip(frames=10), coded_clip(Size(320, 256), frames=10)
    recorder = await record(tmp_path, [*frames_of(small), *frames_of(big, start=10)])
    assert [p.name for p in recorder.paths] == [
        "live-20231114T221320Z.mp4",
        "live-20231114T221320Z-2.mp4",
    ]
    assert [pictures(p) for p in recorder.paths] == [10, 10]


async def test_a_file_begins_with_a_keyframe(tmp_path: Path) -> None:
    frames = frames_of(coded_clip(frames=20, gop=10))
    recorder = await record(tmp_path, frames[4:])
    assert pictures(recorder.paths[0]) == 10


async def test_what_is_there_already_is_not_overwritten_nor_followed(tmp_path: Path) -> None:
    elsewhere = tmp_path / "secret"
    elsewhere.write_text("keep me")
    (tmp_path / "live-20231114T221320Z.mp4").symlink_to(elsewhere)
    recorder = await record(tmp_path, frames_of(coded_clip(frames=5)))
    assert recorder.paths[0].name == "live-20231114T221320Z-2.mp4"
    assert elsewhere.read_text() == "keep me"


def test_a_name_cannot_lead_out_of_the_directory(tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        Recorder("../etc", tmp_path)


def test_a_directory_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot record"):
        recording_directory(str(tmp_path / "file" / "below"))


class FullDisk:
    """The module `os`, on a disk with room for so many bytes."""

    def __init__(self, room: int) -> None:
        self._room = room

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def write(self, descriptor: int, data: bytes) -> int:
        if self._room <= 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        written = os.write(descriptor, data[: self._room])
        self._room -= written
        return written


async def test_on_a_full_disk_what_was_written_stays_playable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames = frames_of(coded_clip(frames=100))
    room = sum(len(f.data) for f in frames[:70])
    monkeypatch.setattr("streamlift.media.files.record.os", FullDisk(room))
    recorder = Recorder("live", tmp_path)
    with pytest.raises(MediaError, match="No space left"):
        await recorder.run(watch(frames))
    assert 25 <= pictures(recorder.paths[0]) < 70


async def test_a_recording_that_is_cancelled_is_closed_after_what_is_being_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writing, may_go_on = threading.Event(), threading.Event()
    order: list[str] = []
    stock_write, stock_close = Recorder._write_now, Recorder._close

    def write_slowly(recorder: Recorder, batch: list[EncodedFrame], *sound: Any) -> None:
        writing.set()
        assert may_go_on.wait(20)
        stock_write(recorder, batch, *sound)
        order.append("written")

    def close(recorder: Recorder) -> None:
        order.append("closed")
        stock_close(recorder)

    monkeypatch.setattr(Recorder, "_write_now", write_slowly)
    monkeypatch.setattr(Recorder, "_close", close)
    recorder = Recorder("live", tmp_path)
    running = asyncio.create_task(recorder.run(watch(frames_of(coded_clip(frames=3)))))
    await until(writing.is_set, "the file to be written to")
    running.cancel()
    await asyncio.sleep(0.05)
    may_go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await running
    # The file that the first frame needs is preceded by a close of the one before: there is none.
    assert order == ["closed", "written", "closed"]
    assert pictures(recorder.paths[0]) == 1


# ---- in the service ----


@pytest.mark.peer
async def test_every_stream_is_recorded_and_the_file_finished_with_it(
    serve: Callable[..., Awaitable[Served]], tmp_path: Path
) -> None:
    served = await serve(replace(PLAIN, outputs=OutputsConfig(save=str(tmp_path))))
    async with publishing(served.whip(), coded_clip(gop=25)):
        await until(lambda: bool(os.listdir(tmp_path)), "a file")
        path = tmp_path / os.listdir(tmp_path)[0]
        await until(lambda: path.stat().st_size > 0, "a fragment")
        async with served.http() as http:
            (output,) = (await http.get("/api/v1/streams/live/outputs")).json()["outputs"]
            assert output["type"] == "file"
            assert output["state"] == "live"
            assert output["files"] == [path.name]
            assert (await http.delete("/api/v1/streams/live")).status_code == 204
    with av.open(str(path)) as container:
        assert (container.streams.video[0].width, container.streams.video[0].height) == (512, 512)
    assert pictures(path) > 20


@pytest.mark.peer
async def test_a_full_disk_stops_the_recording_and_nothing_else(
    serve: Callable[..., Awaitable[Served]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streamlift.media.files.record.os", FullDisk(1000))
    served = await serve(replace(PLAIN, outputs=OutputsConfig(save=str(tmp_path))))
    with served.parts.events.subscribe("live") as events:
        async with publishing(served.whip(), coded_clip(gop=25)):
            reasons = []
            async for event in events:
                reasons.append(event.reason)
                if event.kind == "fault":
                    break
            assert "No space left" in reasons[-1]
            assert served.parts.metrics.value("recording_errors_total") == 1
            async with watching(served.whep()) as viewer:
                await viewer.wait_units(10)
