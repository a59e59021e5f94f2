"""A worker and an anchor over loopback, in one process: lanes, refusals, faults, draining."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from tests.waiting import until

pytest.importorskip("grpc", reason="needs the extra cluster")

import grpc
from tests.cluster.served import TOKEN, Reader, coded_frames, frames_now, wanted
from tests.engine.frames import SMALL

from streamlift.cluster.trust import Trust
from streamlift.cluster.wire import worker_pb2 as pb
from streamlift.errors import InvalidOutput, NoCapacity, WorkerDraining, WorkerLost
from streamlift.frames import BackendState, EncodedFrame, Fit, Size, Target, Unencoded

Worker = Callable[..., Any]


async def feed(lane: Any, frames: list[Any]) -> None:
    for frame in frames:
        lane.offer(frame)
        await asyncio.sleep(0.005)


async def test_pictures_come_back_enlarged_with_the_anchors_own_times(worker: Worker) -> None:
    served = await worker("bicubic")
    backend = await served.linked()
    lane = await backend.open_lane(SMALL, wanted())
    reader, frames = Reader(lane), frames_now(0, 6)
    await feed(lane, frames)
    await reader.has(6)
    lane.finish()
    assert await reader.ended() is None
    assert reader.pts == [frame.pts for frame in frames]
    for frame, got in zip(frames, reader.got, strict=True):
        assert isinstance(got, EncodedFrame)
        assert (got.arrived_s, got.size) == (frame.arrived_s, SMALL.times(2))
    assert served.metrics.value("lane_input_total", kind="picture") == 6
    await lane.aclose()
    await until(lambda: served.backend.info().slots.used == 0, "the slot to be free")
    await backend.aclose()


async def test_units_go_up_as_they_are_and_a_gap_is_bridged_by_a_picture(worker: Worker) -> None:
    served = await worker("bicubic")
    backend = await served.linked()
    asked: list[int] = []
    lane = await backend.open_lane(SMALL, wanted(ask_source=lambda: asked.append(1)))
    reader, frames = Reader(lane), coded_frames(8)
    await feed(lane, [*frames[:4], *frames[5:]])
    await reader.has(7)
    lane.finish()
    assert await reader.ended() is None
    assert reader.pts == [frame.pts for frame in (*frames[:4], *frames[5:])]
    assert served.metrics.value("lane_input_total", kind="unit") == 4
    assert served.metrics.value("lane_input_total", kind="picture") == 3
    assert len(asked) == 1
    await backend.aclose()


async def test_without_renditions_nothing_is_coded_and_then_from_a_keyframe_on(
    worker: Worker,
) -> None:
    served = await worker("bicubic")
    backend = await served.linked()
    options = wanted()
    lane = await backend.open_lane(SMALL, type(options)(frozenset(), stream="s", fps=25.0))
    reader = Reader(lane)
    await feed(lane, frames_now(0, 4))
    await reader.has(4)
    assert all(isinstance(one, Unencoded) for one in reader.got)
    lane.set_renditions(options.renditions)
    await feed(lane, frames_now(4, 3))
    await reader.has(7)
    first, *others = reader.got[4:]
    assert isinstance(first, EncodedFrame)
    assert first.keyframe
    assert not any(one.keyframe for one in others if isinstance(one, EncodedFrame))
    await backend.aclose()


async def test_the_worker_brings_pictures_to_the_size_that_is_wanted(worker: Worker) -> None:
    served = await worker("bicubic")
    backend = await served.linked()
    options = wanted()
    (plain,) = options.renditions
    lane = await backend.open_lane(SMALL, options)
    reader = Reader(lane)
    await feed(lane, frames_now(0, 3))
    await reader.has(3)
    target = Target(size=Size(320, 180), fit=Fit.COVER)
    lane.set_renditions(frozenset({replace(plain, target=target)}))
    await feed(lane, frames_now(3, 3))
    await reader.has(6)
    lane.finish()
    assert await reader.ended() is None
    frames = [one for one in reader.got if isinstance(one, EncodedFrame)]
    assert [one.size for one in frames] == 3 * [SMALL.times(2)] + 3 * [Size(320, 180)]
    assert [one.keyframe for one in frames] == [True, False, False] * 2
    assert [one.rendition.target for one in frames] == 3 * [None] + 3 * [target]
    await backend.aclose()


async def test_a_backend_on_workers_tells_how_they_are(worker: Worker) -> None:
    served = await worker("bicubic")
    backend = await served.linked()
    await until(lambda: backend.info().state is BackendState.READY, "it to be ready")
    await until(lambda: backend.info().workers[0].rtt_s is not None, "a round trip")
    info = backend.info()
    (one,) = info.workers
    assert (info.device, info.slots.total, info.reason) == ("H100", 4, "")
    assert (one.name, one.address, one.state) == ("w", served.address, "ready")
    await served.server.stop(0)
    await until(lambda: backend.info().state is BackendState.UNAVAILABLE, "it to be gone")
    assert "worker " in backend.info().reason
    await backend.aclose()


async def test_a_full_worker_refuses_and_the_next_one_is_tried(worker: Worker) -> None:
    small, large = await worker("bicubic", slots=1), await worker("bicubic", slots=2)
    backend = await small.linked(small.link(), large.link())
    await until(lambda: backend.info().slots.total == 3, "both to be ready")
    slot = Size(512, 512)
    lanes = [await backend.open_lane(slot, wanted(stream=f"s{n}")) for n in range(3)]
    assert sorted(lane.worker for lane in lanes) == sorted(
        [small.address, large.address, large.address]
    )
    with pytest.raises(NoCapacity):
        await backend.open_lane(slot, wanted(stream="one too many"))
    await backend.aclose()


async def test_two_anchors_share_one_worker_and_it_alone_counts(worker: Worker) -> None:
    served = await worker("bicubic", slots=1)
    first, second = await served.linked(), await served.linked()
    from streamlift.frames import Size

    lane = await first.open_lane(Size(512, 512), wanted())
    with pytest.raises(NoCapacity):
        await second.open_lane(Size(512, 512), wanted())
    await until(lambda: second.info().slots.used == 1, "the second to hear of it")
    await lane.aclose()
    await until(lambda: second.info().slots.used == 0, "the slot to be free")
    other = await second.open_lane(Size(512, 512), wanted())
    await other.aclose()
    for backend in (first, second):
        await backend.aclose()


async def test_a_fault_of_the_model_ends_its_lane_alone_with_the_same_error(
    worker: Worker,
) -> None:
    served = await worker(black_at=40)
    backend = await served.linked()
    lane, other = [await backend.open_lane(SMALL, wanted(stream=n)) for n in ("a", "b")]
    reader = Reader(lane)
    # As many as it takes: a busy machine leaves frames out.
    for number in range(400):
        if reader.task.done():
            break
        await feed(lane, frames_now(number, 1))
        await asyncio.sleep(0.01)
    assert isinstance(await reader.ended(), InvalidOutput)
    beside = Reader(other)
    await feed(other, frames_now(0, 2))
    await beside.has(2)
    await backend.aclose()


async def test_all_lanes_of_a_link_end_when_the_worker_is_gone(worker: Worker) -> None:
    served = await worker("bicubic")
    backend = await served.linked()
    readers = [Reader(await backend.open_lane(SMALL, wanted(stream=str(n)))) for n in range(3)]
    await served.server.stop(0)
    for reader in readers:
        assert isinstance(await reader.ended(), WorkerLost)
    await backend.aclose()


async def test_lanes_leave_a_draining_worker_and_it_waits_for_them(worker: Worker) -> None:
    going, staying = await worker("bicubic"), await worker("bicubic")
    link = going.link()
    backend = await going.linked(link)
    lane = await backend.open_lane(SMALL, wanted())
    reader = Reader(lane)
    backend.add(staying.link())
    draining = asyncio.create_task(going.service.drain(10.0))
    await until(lambda: lane.leaving, "the lane to be told")
    await until(lambda: backend.info().slots.total == 4, "only the other to count")
    follower = await backend.open_lane(SMALL, wanted())
    assert follower.worker == staying.address
    await lane.aclose()
    async with asyncio.timeout(5):
        await draining
    assert reader.error is None
    assert link.strikes.recent(0.0) == 0
    await backend.aclose()


async def test_a_lane_that_is_not_followed_ends_as_draining_which_is_no_fault(
    worker: Worker,
) -> None:
    served = await worker("bicubic")
    link = served.link()
    backend = await served.linked(link)
    reader = Reader(await backend.open_lane(SMALL, wanted()))
    await served.service.drain(1.0)
    assert isinstance(await reader.ended(), WorkerDraining)
    assert not link.strikes._times_s
    await backend.aclose()


@pytest.mark.parametrize("token", [None, "another token, also long enough"])
async def test_a_wrong_token_and_none_hear_the_same(worker: Worker, token: str | None) -> None:
    served = await worker("bicubic")
    link = served.link(Trust(token))
    backend = await served.linked(link)
    await until(lambda: "token" in link.info().reason, "the refusal", show=link.info)
    assert link.info().reason == "wrong or missing token"
    assert backend.info().state is BackendState.UNAVAILABLE
    assert served.service._door.refused == 1
    await backend.aclose()


async def test_another_version_is_refused_with_both_ranges(worker: Worker) -> None:
    served = await worker("bicubic", versions=(3, 2))
    link = served.link()
    backend = await served.linked(link)
    await until(lambda: "version" in link.info().reason, "the refusal", show=link.info)
    assert link.info().reason == "version: worker speaks 2-3, anchor 1"
    await backend.aclose()


@pytest.mark.parametrize(
    ("method", "data"),
    [
        ("Attach", b"\xff\xff\xff"),
        ("Attach", pb.FromAnchor(echo=pb.Echo(number=1)).SerializeToString()),
        ("Attach", pb.FromAnchor(hello=pb.Hello(anchor="x" * 5000)).SerializeToString()),
        ("Lane", b"\x0a\xff\xff\xff\xff"),
        ("Lane", pb.ToLane(finish=pb.Finish()).SerializeToString()),
    ],
    ids=["garbage", "no Hello", "too long", "truncated", "no Open"],
)
async def test_what_does_not_begin_as_it_must_is_refused(
    worker: Worker, method: str, data: bytes
) -> None:
    served = await worker("bicubic")
    async with grpc.aio.insecure_channel(served.address) as channel:
        call = channel.stream_stream(f"/streamlift.worker.v1.Worker/{method}")(
            metadata=Trust(TOKEN).metadata
        )
        await call.write(data)
        assert await call.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert served.service.rejected == 1


async def test_what_is_no_message_ends_only_its_lane(worker: Worker) -> None:
    served = await worker("bicubic")
    backend = await served.linked()
    beside = await backend.open_lane(SMALL, wanted(stream="beside"))
    reader = Reader(beside)
    for data in (b"\xff\xff\xff", pb.ToLane(unit=pb.Unit(codec="av1")).SerializeToString()):
        lane = await backend.open_lane(SMALL, wanted())
        bad = Reader(lane)
        await lane._call.write(data)
        error = await bad.ended()
        assert isinstance(error, WorkerLost)
        assert str(error).startswith("protocol: ")
    await feed(beside, frames_now(0, 2))
    await reader.has(2)
    await backend.aclose()


async def test_the_health_service_tells_whether_lanes_are_taken(worker: Worker) -> None:
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    served = await worker("bicubic")
    async with grpc.aio.insecure_channel(served.address) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        ask = health_pb2.HealthCheckRequest()
        assert (await health.Check(ask)).status == health_pb2.HealthCheckResponse.SERVING
        await served.service.drain(0.1)
        assert (await health.Check(ask)).status == health_pb2.HealthCheckResponse.NOT_SERVING
