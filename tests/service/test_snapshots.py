"""Still pictures: made once for all who ask at the same time, a few at once."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

import pytest
from tests.routing.fakes import encoded
from tests.serving import until

from streamlift.errors import MediaError, NoPicture, UnknownStream
from streamlift.frames import EncodedFrame
from streamlift.routing import View
from streamlift.service.snapshots import Snapshots


class Streams:
    """Fits what snapshots need of a router: some streams, each with a keyframe or none."""

    def __init__(self, *names: str, silent: bool = False) -> None:
        self.names = names
        self.silent = silent
        self.watched: list[tuple[str, View]] = []

    def stream(self, name: str) -> None:
        if name not in self.names:
            raise UnknownStream(f"no stream named {name!r}")

    @contextmanager
    def watch(self, name: str, view: View) -> Iterator[AsyncIterator[EncodedFrame]]:
        self.watched.append((name, view))
        yield self._frames()

    async def _frames(self) -> AsyncIterator[EncodedFrame]:
        if self.silent:
            await asyncio.Event().wait()
        yield encoded(0, keyframe=True)


class Encoder:
    """In place of the JPEG encoder: waits until it may go on, and counts."""

    def __init__(self) -> None:
        self.go_on = threading.Event()
        self.now = self.most = self.made = 0
        self._lock = threading.Lock()

    def __call__(self, keyframe: EncodedFrame) -> bytes:
        with self._lock:
            self.now += 1
            self.most = max(self.most, self.now)
        self.go_on.wait(20)
        with self._lock:
            self.now -= 1
            self.made += 1
        return b"jpeg"


@pytest.fixture
def encoder(monkeypatch: pytest.MonkeyPatch) -> Encoder:
    made = Encoder()
    monkeypatch.setattr("streamlift.service.snapshots.picture_as_jpeg", made)
    return made


async def test_many_who_ask_at_once_get_one_picture(encoder: Encoder) -> None:
    streams = Streams("live")
    async with asyncio.TaskGroup() as tasks:
        snapshots = Snapshots(streams, tasks)  # type: ignore[arg-type]
        asked = [
            tasks.create_task(snapshots.jpeg("live", view))
            for view in (View.UPSCALED, View.SOURCE)
            for _ in range(20)
        ]
        await until(lambda: encoder.now == 2, "both to be made")
        encoder.go_on.set()
    assert {task.result() for task in asked} == {b"jpeg"}
    assert encoder.made == 2
    assert sorted(streams.watched) == [("live", View.SOURCE), ("live", View.UPSCALED)]


async def test_only_a_few_are_made_at_once(encoder: Encoder) -> None:
    names = [f"s{number}" for number in range(8)]
    streams = Streams(*names)
    async with asyncio.TaskGroup() as tasks:
        snapshots = Snapshots(streams, tasks)  # type: ignore[arg-type]
        for name in names:
            tasks.create_task(snapshots.jpeg(name, View.UPSCALED))
        await until(lambda: len(streams.watched) == len(names), "all to have their keyframe")
        encoder.go_on.set()
    assert encoder.made == len(names)
    assert encoder.most <= 2


async def test_one_who_goes_away_takes_the_picture_from_nobody(encoder: Encoder) -> None:
    streams = Streams("live")
    async with asyncio.TaskGroup() as tasks:
        snapshots = Snapshots(streams, tasks)  # type: ignore[arg-type]
        first = asyncio.create_task(snapshots.jpeg("live", View.UPSCALED))
        second = tasks.create_task(snapshots.jpeg("live", View.UPSCALED))
        await until(lambda: encoder.now == 1, "it to be made")
        first.cancel()
        encoder.go_on.set()
    assert second.result() == b"jpeg"


async def test_a_failure_is_told_to_all_and_ends_nothing_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(keyframe: EncodedFrame) -> bytes:
        raise ZeroDivisionError

    monkeypatch.setattr("streamlift.service.snapshots.picture_as_jpeg", broken)
    monkeypatch.setattr("streamlift.service.snapshots.SNAPSHOT_S", 0.01)
    async with asyncio.TaskGroup() as tasks:
        live = Snapshots(Streams("live"), tasks)  # type: ignore[arg-type]
        with pytest.raises(MediaError):
            await live.jpeg("live", View.UPSCALED)
        with pytest.raises(UnknownStream):
            await live.jpeg("none", View.UPSCALED)
        silent = Snapshots(Streams("live", silent=True), tasks)  # type: ignore[arg-type]
        with pytest.raises(NoPicture):
            await silent.jpeg("live", View.UPSCALED)
