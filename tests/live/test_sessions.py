"""Sessions with real peers: joining, leaving, coming back, taking over, and leaving nothing."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from tests.clips import coded_clip
from tests.machine import in_time
from tests.peers import SDP, ffmpeg_whip, make_offer, publishing, watching
from tests.serving import Served, light, serving, until

from streamlift.clock import MonotonicClock
from streamlift.config import AuthConfig, IngestConfig, LimitsConfig, TokenConfig
from streamlift.media.remote.measure import measure_whep

pytestmark = pytest.mark.peer

FIRST_PICTURE_MS = 1500
"""On a busy machine; idle it is under 500 ms (docs/performance.md)."""


async def test_the_first_picture_is_there_soon_after_the_post(service: Served) -> None:
    async def run() -> list[str]:
        figures = await measure_whep(service.whep(), None, 0.2, scale=2, clock=MonotonicClock())
        first_ms = figures.first_frame_ms
        assert first_ms is not None, "no picture"
        return [] if first_ms < FIRST_PICTURE_MS else [f"first picture after {first_ms} ms"]

    async with publishing(service.whip(), coded_clip()):
        await service.live()
        await in_time(run)


async def test_a_viewer_before_the_publisher_is_told_when_to_come_back(service: Served) -> None:
    async with service.http() as http:
        answer = await http.post("/whep/live", content=await make_offer(), headers=SDP)
    assert answer.status_code == 409
    assert answer.headers["retry-after"] == "1"
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["type"] == "urn:streamlift:problem:nothing-published"


async def test_a_viewer_stays_when_the_publisher_leaves_and_comes_back(service: Served) -> None:
    whip = service.whip()
    async with publishing(whip, coded_clip()):
        await service.live()
        viewer = watching(service.whep())
        seen = await viewer.__aenter__()
        await seen.wait_units(5)
    try:
        await until(lambda: service.state() == "waiting", "the stream to wait")
        async with publishing(whip, coded_clip()):
            await seen.wait_more(5)
        assert seen.peer.state == "connected"
        times = [time for time, _ in seen.units]
        assert all((b - a) % 2**32 < 2**31 for a, b in pairwise(times)), "time ran backwards"
    finally:
        await viewer.__aexit__(None, None, None)


@pytest.mark.client
async def test_ffmpeg_with_sound_connects_though_it_offers_audio_first(
    service: Served, certificate: tuple[Path, Path]
) -> None:
    async with ffmpeg_whip(service.whip(), certificate, size="256x256", sound=True) as muxer:
        await service.live()
        source = service.parts.router.stream("live").publisher
        assert source is not None
        assert source.audio is not None
        async with watching(service.whep()) as seen:
            await seen.wait_units(10)
        assert await muxer.end() > 0


async def test_a_publisher_that_vanished_without_a_word_can_take_its_place_again(
    service: Served, certificate: tuple[Path, Path]
) -> None:
    async with ffmpeg_whip(service.whip(), certificate, size="256x256") as muxer:
        await service.live()
        async with watching(service.whep()) as seen:
            await seen.wait_units(5)
            await muxer.kill()
            async with publishing(service.whip(), coded_clip()) as back:
                await until(lambda: len(back.sent) > 5, "the new publisher to send")
                await seen.wait_more(10)


async def test_a_second_publisher_takes_over_and_the_first_is_ended(service: Served) -> None:
    async with publishing(service.whip(), coded_clip()):
        await service.live()
        async with watching(service.whep()) as seen:
            await seen.wait_units(5)
            former = [s for s in service.parts.sessions if s.role == "publish"]
            async with publishing(service.whip(), coded_clip()) as second:
                await until(lambda: former[0].peer.state == "closed", "the first to be ended")
                assert former[0].peer.reason == "taken_over"  # type: ignore[attr-defined]
                await seen.wait_more(10)
                assert len(second.sent) >= 5
                publishers = [s for s in service.parts.sessions if s.role == "publish"]
                assert len(publishers) == 1
                assert publishers[0] is not former[0]


async def test_without_takeover_a_second_publisher_is_refused(serve: Any) -> None:
    service = await serve(light(ingest=IngestConfig(takeover=False)))
    async with publishing(service.whip(), coded_clip()):
        await service.live()
        async with service.http() as http:
            answer = await http.post("/whip/live", content=await make_offer("send"), headers=SDP)
    assert answer.status_code == 409
    assert answer.json()["type"] == "urn:streamlift:problem:stream-taken"


async def test_closing_a_stream_ends_its_publisher_and_its_viewers(service: Served) -> None:
    async with publishing(service.whip(), coded_clip()):
        await service.live()
        async with watching(service.whep()) as seen, service.http() as http:
            await seen.wait_units(1)
            assert (await http.delete("/api/v1/streams/live")).status_code == 204
            await until(lambda: len(service.parts.sessions) == 0, "all sessions to end")
            assert (await http.get("/api/v1/streams/live")).status_code == 404
            await asyncio.wait_for(seen.peer.wait_gone(), 5)


async def test_a_session_can_be_read_until_it_is_deleted(service: Served) -> None:
    async with publishing(service.whip(), coded_clip()):
        await service.live()
        async with watching(service.whep()) as seen:
            await seen.wait_units(5)
            read = await seen.resource.read()
            assert set(read) == {
                "id",
                "role",
                "stream",
                "state",
                "codec",
                "rtp_origin",
                "bitrate_bps",
                "packets_lost",
            }
            assert (read["role"], read["stream"]) == ("view", "live")
            assert (read["state"], read["codec"]) == ("live", "h264")
            assert read["packets_lost"] == 0
            assert service.parts.metrics.value("frames_total", stage="sent") >= len(seen.units)
            http, location = seen.resource.http, seen.resource.location
            assert (await http.delete(location)).status_code == 200
            assert (await http.delete(location)).status_code == 404
            assert (await http.get(f"/api/v1{location}")).status_code == 404


async def test_handshakes_that_never_connect_are_capped_and_freed(
    serve: Callable[..., Awaitable[Served]], monkeypatch: pytest.MonkeyPatch
) -> None:
    # As many offers as are really allowed would take a busy machine longer than their deadline.
    service = await serve(light(limits=LimitsConfig(handshakes=8, handshakes_per_address=20)))
    monkeypatch.setattr("streamlift.media.rtc.connection.CONNECT_S", 8.0)
    offer = await make_offer("send")
    before = _descriptors()
    async with service.http() as http:
        for number in range(8):
            answer = await http.post(f"/whip/half-open-{number}", content=offer, headers=SDP)
            assert answer.status_code == 201
        refused = await http.post("/whip/one-more", content=offer, headers=SDP)
        assert refused.status_code == 503
        assert int(refused.headers["retry-after"]) > 0
        assert refused.json()["type"] == "urn:streamlift:problem:overloaded"
    await until(lambda: len(service.parts.sessions) == 0, "them to be freed", timeout_s=20)
    await until(lambda: _descriptors() <= before + 2, "their sockets to be closed")


@dataclass(frozen=True)
class Held:
    """What a process holds."""

    threads: frozenset[str]
    tasks: int
    descriptors: int

    @staticmethod
    def now() -> Held:
        gc.collect()
        # The loop's own pool threads stay for reuse; asyncio closes them with the loop.
        names = [t.name for t in threading.enumerate() if not t.name.startswith("asyncio_")]
        return Held(frozenset(names), len(asyncio.all_tasks()), _descriptors())

    def no_more_than(self, other: Held) -> bool:
        return (
            self.threads <= other.threads
            and self.tasks <= other.tasks
            and self.descriptors <= other.descriptors
        )


async def test_sessions_leave_no_thread_task_or_descriptor_behind(service: Served) -> None:
    await _come_and_go(service, "warm-up")  # what is made once and kept, such as pool threads
    before = Held.now()
    for number in range(4):
        await _come_and_go(service, f"visit-{number}")
    await until(lambda: Held.now().no_more_than(before), f"everything to be as {before}")


async def test_a_service_that_ends_under_load_leaves_nothing_behind() -> None:
    async with serving() as warm_up:
        await _come_and_go(warm_up, "warm-up")
    before = Held.now()
    async with serving() as service:
        publisher = publishing(service.whip(), coded_clip(), delete=False)
        await publisher.__aenter__()
        await service.live()
        viewer = watching(service.whep(), delete=False)
        seen = await viewer.__aenter__()
        await seen.wait_units(3)
    await viewer.__aexit__(None, None, None)
    await publisher.__aexit__(None, None, None)
    await until(lambda: Held.now().no_more_than(before), f"everything to be as {before}")


async def _come_and_go(service: Served, stream: str) -> None:
    async with publishing(service.whip(stream), coded_clip()):
        await service.live(stream)
        async with watching(service.whep(stream)) as seen:
            await seen.wait_units(3)
    async with service.http() as http:
        assert (await http.delete(f"/api/v1/streams/{stream}")).status_code == 204
    await until(lambda: len(service.parts.sessions) == 0, "the sessions to be forgotten")


def _descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


async def test_what_a_link_began_ends_with_it_and_others_go_on(
    serve: Callable[..., Awaitable[Served]],
) -> None:
    auth = AuthConfig(("p",), ("v",), ("c",), link_secret="north" * 8)
    service = await serve(light(auth=auth))
    async with publishing(service.whip(), coded_clip(), token="p"), service.http() as http:
        await service.live()
        control = {"Authorization": "Bearer c"}
        where = "/api/v1/streams/live/links"
        made = await http.post(where, json={"right": "view", "ttl_s": 600}, headers=control)
        link = made.json()
        token = link["url"].partition("#view=")[2]
        async with (
            watching(service.whep(), token="v") as other,
            watching(service.whep(), token=token, delete=False) as guest,
        ):
            await guest.wait_units(5)
            follow = {"Authorization": f"Bearer {token}"}
            async with http.stream("GET", "/api/v1/events", headers=follow) as events:
                ended = asyncio.create_task(events.aread())
                await http.delete(f"{where}/{link['id']}", headers=control)
                await until(lambda: len(service.parts.sessions) == 2, "the guest to be ended")
                async with asyncio.timeout(5):
                    await ended
            await other.wait_more(10)
            again = await http.post("/whep/live", content=await make_offer(), headers=SDP | follow)
            assert again.status_code == 401


async def test_a_token_that_is_taken_back_ends_its_sessions(
    serve: Callable[..., Awaitable[Served]],
) -> None:
    auth = AuthConfig(("p", TokenConfig("q", ("live",))), ("v",), ("c",))
    service = await serve(light(auth=auth))
    async with publishing(service.whip(), coded_clip(), token="q", delete=False):
        await service.live()
        service.parts.grants.replace(AuthConfig(("p",), ("v",), ("c",)))
        await until(lambda: len(service.parts.sessions) == 0, "the publisher to be ended")


async def test_a_comparison_ends_with_the_token_by_which_it_may_control(
    serve: Callable[..., Awaitable[Served]],
) -> None:
    auth = AuthConfig(("p",), ("v",), ("c", "d"))
    service = await serve(light(auth=auth))
    async with publishing(service.whip(), coded_clip(), token="p", delete=False):
        await service.live()
        headers = {**SDP, "Authorization": "Bearer v", "Streamlift-Control": "d"}
        async with service.http() as http:
            answer = await http.post(
                service.whep(backend="bicubic"), content=await make_offer(), headers=headers
            )
        assert answer.status_code == 201, answer.text
        assert len(service.parts.sessions) == 2
        service.parts.grants.replace(AuthConfig(("p",), ("v",), ("c",)))
        await until(lambda: len(service.parts.sessions) == 1, "the comparison to be ended")
