"""The main path with real peers: WHIP in, upscaled, encoded once, WHEP out."""

from __future__ import annotations

import asyncio
import itertools
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.machine import in_time
from tests.peers import ffmpeg_whip, watching
from tests.serving import Served, until

from streamlift.clock import MonotonicClock
from streamlift.codec import VideoEncoder, open_encoder
from streamlift.media.remote.measure import ViewFigures, measure_whep

pytestmark = pytest.mark.peer

SECONDS = 7.0
JOINING_S = 1.0
"""A viewer that joins a busy machine catches up first; its rate is measured after that."""
SLOWEST_GAP_MS = 250
CERT = tuple[Path, Path]


@dataclass
class Encoders:
    """How many encoders are open, and were at most."""

    now: int = 0
    most: int = 0


@pytest.fixture
def encoders(monkeypatch: pytest.MonkeyPatch) -> Encoders:
    """Counts the encoders that lanes open and close."""
    counted, lock = Encoders(), threading.Lock()

    class Counted:
        def __init__(self, inner: VideoEncoder) -> None:
            self._inner = inner

        def encode(self, *args: Any, **kwargs: Any) -> tuple[bytes, bool]:
            return self._inner.encode(*args, **kwargs)

        def close(self) -> None:
            with lock:
                counted.now -= 1
            self._inner.close()

    def counted_encoder(*args: Any, **kwargs: Any) -> VideoEncoder:
        with lock:
            counted.now += 1
            counted.most = max(counted.most, counted.now)
        return Counted(open_encoder(*args, **kwargs))

    monkeypatch.setattr("streamlift.engine.encode.open_encoder", counted_encoder)
    return counted


@pytest.fixture(params=["default", "dtls_active"])
def dtls_active(request: pytest.FixtureRequest) -> bool:
    return bool(request.param == "dtls_active")


async def test_every_picture_of_ffmpegs_muxer_reaches_the_viewers_once_and_in_time(
    service: Served, certificate: CERT, encoders: Encoders, dtls_active: bool
) -> None:
    tries = itertools.count(1)

    async def run() -> list[str]:
        stream = f"try{next(tries)}"
        faults_before = _faults(service)
        figures = await _watch_muxer(service, stream, certificate, dtls_active)
        report = figures.as_json()
        assert report["size"] == [1024, 1024]
        assert report["repeated"] == 0
        assert figures.numbers == sorted(set(figures.numbers))
        late = _lateness(figures)
        if _faults(service) > faults_before:
            late.append("the lane was replaced")  # and for a moment there were two encoders
        else:
            assert encoders.most == 1
        await service.parts.router.close(stream)
        await until(lambda: encoders.now == 0, "the encoder to be closed")
        encoders.most = 0
        return late

    await in_time(run)


async def _watch_muxer(
    service: Served, stream: str, certificate: CERT, dtls_active: bool
) -> ViewFigures:
    """Publish and watch, with two more viewers beside; every frame must be accounted for."""
    whip, whep = service.whip(stream), service.whep(stream)
    async with ffmpeg_whip(
        whip, certificate, seconds=SECONDS + 3, dtls_active=dtls_active
    ) as muxer:
        await service.live(stream)
        async with watching(whep) as second, watching(whep) as third:
            figures = await measure_whep(whep, None, SECONDS, scale=2, clock=MonotonicClock())
            await asyncio.gather(second.wait_more(5), third.wait_more(5))
            assert (await service.stream(stream))["viewers"] == 2
        sent = await muxer.wait()
        await until(
            lambda: _settled(service, stream, sent),
            f"all {sent} frames to be accounted for",
            show=lambda: service.parts.router.stream(stream).snapshot().frames,
        )
    return figures


def _lateness(figures: ViewFigures) -> list[str]:
    """What only a slow machine may cause."""
    late, report = [], figures.as_json()
    joined_s = figures.shown_s[0] + JOINING_S
    shown_s = [s for s in figures.shown_s if s > joined_s]
    fps = (len(shown_s) - 1) / (shown_s[-1] - shown_s[0])
    if abs(fps - 25) > 0.3:
        late.append(f"{fps:.2f} fps")
    if report["gap_ms"]["max"] > SLOWEST_GAP_MS:
        late.append(f"a gap of {report['gap_ms']['max']} ms")
    if report["lost"]:
        late.append(f"{report['lost']} lost")
    return late


def _faults(service: Served) -> float:
    """How often a lane did not answer in time and was replaced."""
    counters = service.parts.metrics.counters()
    return sum(value for name, _, value in counters if name == "backend_faults_total")


def _settled(service: Served, stream: str, sent: int) -> bool:
    frames = service.parts.router.stream(stream).snapshot().frames
    gone_or_shown = frames.encoded + sum(frames.dropped.values())
    return frames.received == frames.decoded == gone_or_shown == sent
