"""The peers of a soak, each a child process: FFmpeg's muxer, the judge that watches, the crowd."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from itertools import pairwise
from pathlib import Path

import av
from av.video.stream import VideoStream

from streamlift.clock import MonotonicClock
from streamlift.codec.decoder import picture_of
from streamlift.config import IceConfig
from streamlift.frames import Codec, Size
from streamlift.media.files.clips import clip_pictures, paced
from streamlift.media.files.scene import scene_pictures
from streamlift.media.remote.client import watch_whep
from streamlift.media.remote.http import Signalling
from streamlift.media.remote.measure import ViewFigures
from streamlift.media.rtc.connection import Peer
from streamlift.media.rtc.receiver import ReceiverTap
from streamlift.stamp import MODULUS, Stamp, draw_stamp, read_stamp

__all__ = ["PUBLISHER_STEP"]

PAUSE_S = 0.4
"""Without a new picture for about half a second the service may show the last one again."""
PUBLISHER_STEP = 5_000
"""A publisher numbers its frames from this much past the former's, so that the judge can tell."""
SCALE = 2
BLACK = Stamp(0, 0)
"""What a slate, all black, reads as."""
STAY_S = 10.0
"""Every so often one of the crowd leaves and another comes."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("role", choices=("publish", "judge", "crowd"))
    parser.add_argument("url")
    parser.add_argument("--size", default="512x512")
    parser.add_argument("--fps", type=int, default=25)
    parser.add_argument("--first", type=int, default=0, help="number of the first frame")
    parser.add_argument("--clip", type=Path)
    parser.add_argument("--seconds", type=float, default=0.0)
    parser.add_argument("--viewers", type=int, default=0)
    parser.add_argument("--churn", action="store_true")
    arguments = parser.parse_args()
    if arguments.role == "publish":
        return publish(arguments)
    if arguments.role == "judge":
        return asyncio.run(judge(arguments.url, arguments.seconds))
    asyncio.run(be_crowd(arguments.url, arguments.viewers, churn=arguments.churn))
    return 0


def publish(arguments: argparse.Namespace) -> int:
    """FFmpeg's own WHIP muxer, fed with stamped pictures until SIGTERM; prints how many."""
    stopped: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: stopped.append(number))
    size = Size(*map(int, arguments.size.split("x")))
    clip = arguments.clip
    pictures = clip_pictures(clip, size, loop=True) if clip else scene_pictures(size)

    async def run(folder: Path) -> int:
        options = {"handshake_timeout": "8000", **make_certificate(folder)}
        number = 0
        with av.open(arguments.url, "w", format="whip", options=options) as container:
            stream = container.add_stream("libx264", rate=arguments.fps)
            assert isinstance(stream, VideoStream)
            stream.width, stream.height, stream.pix_fmt = size.width, size.height, "yuv420p"
            stream.bit_rate = 4_000_000
            context = stream.codec_context
            context.profile, context.gop_size, context.max_b_frames = "Baseline", 50, 0
            context.thread_count = 1
            context.options = {"preset": "superfast", "tune": "zerolatency"}
            container.start_encoding()  # the handshake, before the clock starts
            clock = MonotonicClock()
            async for _, planes in paced(pictures, arguments.fps, clock=clock):
                if stopped:
                    break
                draw_stamp(planes.y, arguments.first + number, clock.now_s())
                frame = av.VideoFrame(size.width, size.height, "yuv420p")
                for view, plane in zip(picture_of(frame).each(), planes.each(), strict=True):
                    view[:] = plane
                frame.pts = number
                container.mux(stream.encode(frame))
                number += 1
        return number

    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps({"frames": asyncio.run(run(Path(folder)))}))
    return 0


def make_certificate(folder: Path) -> dict[str, str]:
    """A P-256 key and certificate: the one FFmpeg makes by itself fails in DTLS."""
    cert, key = folder / "cert.pem", folder / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
         "-nodes", "-days", "2", "-subj", "/CN=soak", "-keyout", str(key), "-out", str(cert)],
        check=True,
        capture_output=True,
    )  # fmt: skip
    return {"cert_file": str(cert), "key_file": str(key)}


async def judge(url: str, seconds: float) -> int:
    """Watch over one connection, decode everything, and print what was seen as JSON."""
    figures = ViewFigures()
    clock = MonotonicClock()
    start_s = clock.now_s()
    ended, slates = False, 0
    resumed: set[int] = set()  # indices of numbers that came after a slate, or a pause
    last_s = start_s
    async with watch_whep(url, None, clock=clock) as (video, gone):
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                async for frame in video:
                    now_s = clock.now_s()
                    if read_stamp(frame.planes.y, scale=SCALE) == BLACK:
                        slates += 1
                        resumed.add(len(figures.numbers))
                        continue
                    if now_s - last_s > PAUSE_S:
                        resumed.add(len(figures.numbers))
                    last_s = now_s
                    if figures.first_frame_ms is None:
                        figures.first_frame_ms = (now_s - start_s) * 1000
                    figures.note(frame, now_s, SCALE)
        ended = gone.done()
    seen = {**figures.as_json(), **by_publisher(figures.numbers, resumed)}
    print(json.dumps({**seen, "slates": slates, "ended": ended}))
    return 0


def by_publisher(numbers: list[int], resumed: set[int]) -> dict[str, int]:
    """Lost and repeated frames within what each publisher sent, and how many were seen.

    After a slate or a pause the picture before it may be shown again (`resumed`), as it is to a
    viewer that joins while nothing new comes: that is no repetition.
    """
    lost = repeated = 0
    publishers = 1
    for index, (before, after) in enumerate(pairwise(numbers), start=1):
        step = (after - before) % MODULUS
        if step == 0 and index in resumed:
            continue
        if PUBLISHER_STEP // 2 < step < MODULUS // 2:
            publishers += 1
        elif step == 0 or step >= MODULUS // 2:
            repeated += 1
        else:
            lost += step - 1
    return {"lost": lost, "repeated": repeated, "publishers": publishers}


async def be_crowd(url: str, viewers: int, *, churn: bool) -> None:
    """Viewers that decode nothing, until SIGTERM; with `churn` they come and go."""
    me = asyncio.current_task()
    assert me is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, me.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        if not churn:
            async with contextlib.AsyncExitStack() as stack:
                for _ in range(viewers):
                    await stack.enter_async_context(viewing(url))
                await asyncio.Event().wait()
        async with asyncio.TaskGroup() as tasks:
            for number in range(viewers):
                tasks.create_task(come_and_go(url, (number + 1) * STAY_S / max(1, viewers)))
            await asyncio.Event().wait()


async def come_and_go(url: str, first_stay_s: float) -> None:
    stay_s = first_stay_s
    while True:
        async with viewing(url):
            await asyncio.sleep(stay_s)
        stay_s = STAY_S


@contextlib.asynccontextmanager
async def viewing(url: str) -> AsyncIterator[None]:
    async with contextlib.AsyncExitStack() as stack:
        peer = Peer(IceConfig())
        stack.push_async_callback(peer.close)
        transceiver = peer.add("video", "recvonly")
        peer.prefer(transceiver, [Codec.H264])
        ReceiverTap(transceiver.receiver, lambda packet: None)
        signalling = await stack.enter_async_context(Signalling(url, None))
        await peer.accept(await signalling.post(await peer.offer()))
        yield


if __name__ == "__main__":
    sys.exit(main())
