"""What a link to a worker costs beside a control of the same messages over bare gRPC.

    .venv/bin/python -m scripts.bench_link --streams 1 [--units] [--seconds 10]

Pictures of 512x512 (393 kB) over a Unix socket, or with --units access units of 2.4 Mbit/s over TLS
on loopback, which are decoded at the other end in both cases. The other end is a process of its
own that answers each picture at once with 30 kB: no model, no encoder. Told: the round trip of a
picture, and the processor time of both processes for one. Both are run in turns.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, cast

import grpc
from scripts.children import bound, processor, sample

from streamlift.clock import MonotonicClock
from streamlift.cluster.backend import WorkerBackend
from streamlift.cluster.link import Link
from streamlift.cluster.trust import (
    Door,
    Trust,
    make_certificate,
    open_channel,
    server_credentials,
)
from streamlift.cluster.wire import convert
from streamlift.cluster.wire import worker_pb2 as pb
from streamlift.cluster.worker import WorkerService, make_server
from streamlift.codec import is_keyframe, open_encoder
from streamlift.codec.decoder import CodedPicture, DecodeThread
from streamlift.config import ClusterConfig
from streamlift.engine import EngineBackend
from streamlift.frames import (
    BackendInfo,
    BackendState,
    Codec,
    CodedVideo,
    Colour,
    EncodedFrame,
    Frame,
    LaneOptions,
    Planes,
    Rendition,
    Size,
    Slots,
    Unencoded,
)
from streamlift.mailbox import Mailbox
from streamlift.media.files.scene import scene_pictures
from streamlift.metrics import Metrics

CLOCK = MonotonicClock()
SIZE = Size(512, 512)
FPS = 25.0
RENDITION = Rendition(Codec.H264, 6_000_000)
ANSWER = os.urandom(30_000)
CONTROL = "/bench/Lane"
FRAMES = 50


class EchoLane:
    """Answers each frame at once. Fits `routing.ports.Lane`."""

    upscaled = 0
    degraded = can_spend_less = leaving = False
    stuck_s = 0.0

    def __init__(self) -> None:
        self.dropped: dict[str, int] = {}
        self._out: Mailbox[EncodedFrame | Unencoded] = Mailbox(64)

    def offer(self, frame: Frame) -> bool:
        self.upscaled += 1
        now_s = CLOCK.now_s()
        return self._out.put(
            EncodedFrame(frame.pts, SIZE.times(2), RENDITION, False, ANSWER, now_s)
        )

    def finish(self) -> None:
        self._out.end()

    def __aiter__(self) -> AsyncIterator[EncodedFrame | Unencoded]:
        return self._out

    def set_renditions(self, wanted: object) -> None:
        """It has one."""

    request_keyframe = park = lambda self: None

    async def aclose(self) -> None:
        self._out.end()


class EchoBackend:
    """As much of a backend as the worker's service asks for."""

    name = "echo"

    def info(self) -> BackendInfo:
        return BackendInfo("echo", "echo", "cpu", BackendState.READY, "", 1000.0, Slots(64, 0))

    async def open_lane(self, size: Size, options: LaneOptions) -> EchoLane:
        return EchoLane()


async def serve(address: str, folder: Path) -> None:
    """The other end, link and control on one server; until it is killed."""
    service = WorkerService(
        "bench", cast("EngineBackend", EchoBackend()), Door(None), clock=CLOCK, max_side=1280
    )
    server = make_server(service)
    control = {"Lane": grpc.stream_stream_rpc_method_handler(_control)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("bench", control),))
    if address.startswith("unix:"):
        server.add_insecure_port(address)
    else:
        pair = ClusterConfig(
            tls_cert=str(folder / "worker.pem"), tls_key=str(folder / "worker.key")
        )
        server.add_secure_port(address, server_credentials(pair))
    await server.start()
    print("listening", flush=True)
    await server.wait_for_termination()


async def _control(_: Any, context: grpc.aio.ServicerContext) -> None:
    loop, answers = asyncio.get_running_loop(), asyncio.Queue[bytes](64)

    def answer(pts: int) -> None:
        encoded = EncodedFrame(pts, SIZE.times(2), RENDITION, False, ANSWER, CLOCK.now_s())
        message = pb.FromLane(encoded=convert.encoded_message(encoded))
        answers.put_nowait(message.SerializeToString())

    def deliver(frame: Frame) -> None:
        loop.call_soon_threadsafe(answer, frame.pts)

    decoder = DecodeThread(
        "bench",
        max_side=1280,
        clock=CLOCK,
        deliver=deliver,
        refuse=lambda *_: None,
        done=lambda: None,
    )

    async def write() -> None:
        while True:
            await context.write(await answers.get())

    writing = asyncio.create_task(write())
    try:
        while (data := await context.read()) is not grpc.aio.EOF:
            message = pb.ToLane.FromString(data)
            if message.HasField("unit"):
                coded = convert.unit_video(message.unit)
                decoder.offer(CodedPicture(message.unit.pts, coded, CLOCK.now_s()))
            else:
                answer(convert.picture_frame(message.picture, CLOCK.now_s(), 1280).pts)
    finally:
        writing.cancel()
        decoder.stop()


async def run_link(
    address: str, trust: Trust, units: bool, streams: int, send: Callable[..., Any]
) -> list[float]:
    link = Link(
        "bench",
        address,
        trust,
        backend="echo",
        anchor="bench",
        units=units,
        clock=CLOCK,
        metrics=Metrics(),
    )
    backend = WorkerBackend("echo", "echo", clock=CLOCK)
    backend.add(link)
    await backend.start()
    options = LaneOptions(frozenset({RENDITION}), fps=FPS)

    async def stream() -> list[float]:
        lane = await backend.open_lane(SIZE, options)
        sent: dict[int, float] = {}
        took: list[float] = []

        async def read() -> None:
            async for one in lane:
                took.append(time.perf_counter() - sent.pop(one.pts))  # noqa: PERF401

        reading = asyncio.create_task(read())
        async for frame in send():
            sent[frame.pts] = time.perf_counter()
            lane.offer(frame)
        await asyncio.sleep(0.2)
        reading.cancel()
        await lane.aclose()
        return took

    took = await _all(stream, streams)
    await backend.aclose()
    return took


async def run_control(
    address: str, trust: Trust, units: bool, streams: int, send: Callable[..., Any]
) -> list[float]:
    channel = await open_channel(address, trust, convert.ANCHOR_RECEIVES)

    async def stream() -> list[float]:
        call = channel.stream_stream(CONTROL)()
        sent: dict[int, float] = {}
        took: list[float] = []

        async def read() -> None:
            while (data := await call.read()) is not grpc.aio.EOF:
                encoded = pb.FromLane.FromString(data).encoded
                took.append(time.perf_counter() - sent.pop(encoded.pts))

        reading = asyncio.create_task(read())
        async for frame in send():
            sent[frame.pts] = time.perf_counter()
            message = pb.ToLane()
            if not units:
                fill_picture(message.picture, frame)
            else:
                assert frame.coded is not None
                message.unit.CopyFrom(convert.unit_message(frame, frame.coded, 0.0))
            await call.write(message.SerializeToString())
        await asyncio.sleep(0.2)
        reading.cancel()
        call.cancel()
        return took

    took = await _all(stream, streams)
    await channel.close()
    return took


def fill_picture(picture: pb.Picture, frame: Frame) -> None:
    """As protobuf's users do it."""
    picture.pts, picture.age_s, picture.decode_s = frame.pts, 0.0, frame.decode_s
    picture.width, picture.height = frame.size.width, frame.size.height
    picture.matrix, picture.full_range = frame.colour.matrix, frame.colour.full_range
    picture.data = b"".join(plane.tobytes() for plane in frame.planes.each())


async def _all(stream: Callable[[], Any], streams: int) -> list[float]:
    parts = await asyncio.gather(*(stream() for _ in range(streams)))
    return [one for part in parts for one in part]


def _frames() -> list[tuple[Planes, bytes, bool]]:
    source = scene_pictures(SIZE)
    rendition = Rendition(Codec.H264, 2_400_000, "Baseline")
    encoder = open_encoder(rendition, SIZE, FPS, preset="superfast", colour=Colour())
    made = []
    for number in range(FRAMES):
        planes = next(source)
        data, _ = encoder.encode(planes, number * 3600, keyframe=number == 0)
        made.append((planes, data, is_keyframe(Codec.H264, data)))
    encoder.close()
    return made


def _sender(frames: list[tuple[Planes, bytes, bool]], seconds: float) -> Callable[..., Any]:
    async def send() -> AsyncIterator[Frame]:
        start_s = time.perf_counter()
        for number in range(int(seconds * FPS)):
            await asyncio.sleep(max(0.0, start_s + number / FPS - time.perf_counter()))
            planes, data, key = frames[number % FRAMES]
            coded = CodedVideo(Codec.H264, data, key, number)
            now_s = CLOCK.now_s()
            yield Frame(number * 3600, SIZE, planes, Colour(), now_s, coded)

    return send


Row = tuple[float, float, float]
"""Median and 95th percentile of the round trip, processor time of a picture; all in ms."""


async def in_turns(
    pid: int, address: str, trust: Trust, send: Callable[..., Any], arguments: argparse.Namespace
) -> dict[str, list[Row]]:
    rows: dict[str, list[Row]] = {"control": [], "link": []}
    for turn in range(2 * arguments.turns):
        name, run = (("control", run_control), ("link", run_link))[turn % 2]
        before_s = time.process_time() + sample(pid).cpu_s
        took = await run(address, trust, arguments.units, arguments.streams, send)
        cpu_s = time.process_time() + sample(pid).cpu_s - before_s
        ordered = sorted(1000 * one for one in took)
        p95 = ordered[int(0.95 * len(ordered))]
        rows[name].append((statistics.median(ordered), p95, 1000 * cpu_s / len(took)))
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", type=int, default=1)
    parser.add_argument("--units", action="store_true")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--port", type=int, default=8439)
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        folder = arguments.serve or Path(made)
        address = f"127.0.0.1:{arguments.port}" if arguments.units else f"unix:{folder}/bench.sock"
        if arguments.serve is not None:
            asyncio.run(serve(address, folder))
            return 0
        _, _, fingerprint = make_certificate(folder)
        trust = Trust(fingerprint=fingerprint) if arguments.units else Trust()
        command = [sys.executable, "-m", "scripts.bench_link", *sys.argv[1:], "--serve", made]
        other = subprocess.Popen(bound(*command), stdout=subprocess.PIPE)
        try:
            assert other.stdout is not None
            other.stdout.readline()
            send = _sender(_frames(), arguments.seconds)
            rows = asyncio.run(in_turns(other.pid, address, trust, send, arguments))
        finally:
            other.kill()
            other.wait()
    told: dict[str, Any] = {
        "processor": processor(),
        "load": round(os.getloadavg()[0], 1),
        "streams": arguments.streams,
        "what": "units over TLS" if arguments.units else "pictures over a Unix socket",
    }
    for name, turns in rows.items():
        p50, p95, cpu = (round(statistics.median(t[i] for t in turns), 2) for i in range(3))
        told[name] = {"p50_ms": p50, "p95_ms": p95, "cpu_ms_a_frame": cpu}
    print(json.dumps(told, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
