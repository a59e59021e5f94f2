"""A stream as a camera: against a device of our making, and a real one where there is any."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.container import OutputContainer
from tests.clips import SMALL, decode
from tests.media.targets.feeding import Feed, pictures, pushing, waits_of
from tests.waiting import until

from streamlift.errors import MediaError
from streamlift.frames import Codec, Size
from streamlift.media.remote.push import PushState
from streamlift.media.targets.camera import CameraPush, open_device

DEVICE = "/dev/video-of-a-test"


class Device:
    """What was written to it: a raw file for each time that it was opened."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.opened = 0
        self.gate = threading.Event()
        self.gate.set()

    def open(self, path: str) -> OutputContainer:
        assert path == DEVICE
        self.gate.wait(10)
        self.opened += 1
        # As the real one: a muxer of raw pictures.
        return av.open(str(self.directory / f"{self.opened}.yuv"), "w", format="rawvideo")

    def written(self, opened: int, size: Size) -> list[Any]:
        data = (self.directory / f"{opened}.yuv").read_bytes()
        shape = (size.height * 3 // 2, size.width)
        return list(np.frombuffer(data, np.uint8).reshape(-1, *shape))


@pytest.fixture
def device(tmp_path: Path) -> Device:
    return Device(tmp_path)


def camera(device: Device) -> tuple[CameraPush, list[Any]]:
    push, waits = waits_of(CameraPush, DEVICE, open_device=device.open)
    assert isinstance(push, CameraPush)
    return push, waits


async def test_the_device_gets_the_pictures_that_viewers_get(device: Device) -> None:
    feed = Feed()
    push, _ = camera(device)
    feed.put(pictures(10))
    async with pushing(push, feed):
        await until(lambda: push.frames_written == 10, "ten pictures")
        assert push.state is PushState.LIVE
        feed.frames.end()
        await until(lambda: push.state is PushState.CLOSED, "the end of the stream")
    expected = [f.to_ndarray() for f in decode([p.data for p in pictures(10)], Codec.H264)]
    await until(lambda: len(device.written(1, SMALL)) == 10, "all of it to be written")
    assert all((a == b).all() for a, b in zip(device.written(1, SMALL), expected, strict=True))


async def test_another_size_opens_the_device_anew(device: Device) -> None:
    feed, small = Feed(), Size(128, 128)
    push, waits = camera(device)
    feed.put([*pictures(3), *pictures(1, small, start=3)])
    async with pushing(push, feed):
        await until(lambda: feed.watched == 2, "another session")
        feed.put(pictures(4, small, start=10))
        await until(lambda: push.frames_written == 7, "the other size")
        assert push.connections == 2
    assert waits == []
    await until(lambda: len(device.written(2, small)) == 4, "all of it to be written")


async def test_a_device_that_fails_is_tried_again(device: Device) -> None:
    def fail(path: str) -> OutputContainer:
        raise MediaError(f"{path}: No such file or directory")

    feed = Feed()
    push, waits = waits_of(CameraPush, DEVICE, open_device=fail)
    feed.put(pictures(5))
    async with pushing(push, feed):
        await until(lambda: len(waits) >= 3, "three tries")
    assert DEVICE in waits[0].reason


async def test_a_device_that_stands_still_is_waited_for_by_one_thread(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streamlift.media.targets.camera.STUCK_S", 0.05)
    feed = Feed()
    push, _ = camera(device)
    device.gate.clear()
    feed.put(pictures(5))
    async with pushing(push, feed):
        await until(lambda: push.state is PushState.WAITING, "it to be noticed")
        assert "takes nothing" in push.reason
        assert sum(t.name == "camera-live" for t in threading.enumerate()) == 1
        device.gate.set()
        await until(lambda: device.opened > 1, "another try")
    device.gate.set()


def test_what_is_no_device_is_not_opened(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for path, words in ((pipe, "no device"), (tmp_path / "none", "v4l2loopback")):
        with pytest.raises(MediaError, match=words):
            open_device(str(path))


@pytest.mark.skipif(not os.path.exists("/dev/video10"), reason="no v4l2loopback at /dev/video10")
async def test_a_real_device_takes_pictures() -> None:
    feed = Feed()
    push, waits = waits_of(CameraPush, "/dev/video10")
    assert isinstance(push, CameraPush)
    feed.put(pictures(10))
    async with pushing(push, feed):
        await until(lambda: push.frames_written == 10 or bool(waits), "ten pictures")
        assert waits == []
