"""What viewers get: the source untouched and in step, and a codec of their own."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest
from tests.clips import coded_clip, decode
from tests.machine import in_time
from tests.peers import SDP, PacketViewer, make_offer, publishing, watching
from tests.serving import Served, until

from streamlift.codec.decoder import picture_of
from streamlift.frames import Codec
from streamlift.stamp import read_stamp

pytestmark = pytest.mark.peer


async def test_the_source_view_relays_the_access_units_untouched(service: Served) -> None:
    async with publishing(service.whip(), coded_clip()) as publisher:
        await service.live()
        async with watching(service.whep(view="source")) as source:
            await source.wait_units(15)
    relayed = [_nal_units(data) for _, data in source.units]
    sent = [_nal_units(data) for data in publisher.sent]
    start = next(i for i in range(len(sent)) if sent[i : i + 15] == relayed[:15])
    assert start >= 0


async def test_source_and_upscaled_pictures_carry_the_same_time(service: Served) -> None:
    async with publishing(service.whip(), coded_clip()):
        await service.live()
        async with (
            watching(service.whep(view="source")) as source,
            watching(service.whep()) as upscaled,
        ):
            await source.wait_units(15)
            await upscaled.wait_units(15)
            small = await _times_by_number(source, scale=1)
            large = await _times_by_number(upscaled, scale=2)
    shared = small.keys() & large.keys()
    assert len(shared) >= 5
    assert {n: small[n] for n in shared} == {n: large[n] for n in shared}


async def test_a_viewer_without_h264_gets_vp8_and_the_others_keep_theirs(
    service: Served,
) -> None:
    async with publishing(service.whip(), coded_clip()):
        await service.live()
        async with watching(service.whep()) as usual:
            async with watching(service.whep(), codecs=[Codec.VP8]) as other:
                await other.wait_units(10)
                await usual.wait_more(5)
                assert (usual.codec, other.codec) == (Codec.H264, Codec.VP8)
                renditions = (await service.stream())["output"]["renditions"]
                assert [r["codec"] for r in renditions] == ["h264", "vp8"]
            pictures = decode([data for _, data in other.units[:10]], Codec.VP8)
            assert {(p.width, p.height) for p in pictures} == {(512, 512)}
            await until(lambda: _renditions(service) == ["h264"], "the VP8 encoder to be closed")
            await usual.wait_more(5)


async def test_a_vp8_publisher_is_upscaled_as_well(service: Served) -> None:
    async with publishing(service.whip(), coded_clip(codec=Codec.VP8)):
        await service.live()
        assert (await service.stream())["publisher"]["codec"] == "vp8"
        async with watching(service.whep()) as seen:
            await seen.wait_units(5)
    assert len(decode([data for _, data in seen.units], seen.codec or Codec.H264)) >= 5


async def test_a_viewer_with_no_codec_of_ours_is_told_so(service: Served) -> None:
    offer = (await make_offer()).replace("H264/90000", "AV1/90000")
    async with publishing(service.whip(), coded_clip()):
        await service.live()
        async with service.http() as http:
            answer = await http.post("/whep/live", content=offer, headers=SDP)
    assert answer.status_code == 422
    assert answer.json()["expected"] == ["H264", "VP8"]


async def test_a_joining_viewer_gets_a_keyframe_first_and_the_others_see_no_gap(
    service: Served,
) -> None:
    async def run() -> list[str]:
        async with publishing(service.whip(), coded_clip()):
            await service.live()
            async with watching(service.whep()) as early:
                await early.wait_units(5)
                async with watching(service.whep()) as late:
                    await late.wait_units(5)
                await early.wait_more(3)
        for seen in (early, late):
            assert len(decode([data for _, data in seen.units], Codec.H264)) == len(seen.units)
        steps = {(b[0] - a[0]) % 2**32 for a, b in pairwise(early.units)}
        return [] if steps == {3600} else [f"steps of {steps}"]

    await in_time(run)


async def test_a_snapshot_shows_the_newest_picture_in_both_sizes(service: Served) -> None:
    async with publishing(service.whip(), coded_clip()):
        await service.live()
        async with service.http() as http:
            for view, side in (("upscaled", 512), ("source", 256)):
                answer = await http.get(f"/api/v1/streams/live/snapshot.jpg?view={view}")
                assert answer.status_code == 200, answer.text
                assert answer.headers["content-type"] == "image/jpeg"
                assert _jpeg_size(answer.content) == (side, side)


async def _times_by_number(viewer: PacketViewer, scale: int) -> dict[int, int]:
    """Stamped frame number -> `rtpTimestamp - rtp_origin`."""
    read = await viewer.resource.read()
    origin = read["rtp_origin"]
    assert isinstance(origin, int)
    units = list(viewer.units)
    pictures = decode([data for _, data in units], viewer.codec or Codec.H264)
    times = {}
    for (timestamp, _), picture in zip(units, pictures, strict=True):
        stamp = read_stamp(picture_of(picture).y, scale=scale)
        assert stamp is not None
        times[stamp.number] = (timestamp - origin) % 2**32
    return times


def _renditions(service: Served) -> list[str]:
    return [r.codec for r in service.parts.router.stream("live").snapshot().output.renditions]


def _nal_units(data: bytes) -> list[bytes]:
    """Annex B without its start codes, which RTP does not carry (RFC 6184)."""
    return [nal for nal in re.split(b"\x00\x00\x00?\x01", data) if nal]


def _jpeg_size(jpeg: bytes) -> tuple[int, int]:
    import cv2
    import numpy as np

    image = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    assert image is not None
    height, width = image.shape[:2]
    return width, height


async def test_a_source_view_ends_when_the_publisher_of_now_sends_another_codec(
    service: Served,
) -> None:
    async with publishing(service.whip(), coded_clip()):
        await service.live()
        async with (
            watching(service.whep(view="source"), codecs=[Codec.H264]) as source,
            watching(service.whep()) as upscaled,
        ):
            await source.wait_units(5)
            async with publishing(service.whip(), coded_clip(codec=Codec.VP8)):
                await until(lambda: source.peer.state == "closed", "the source view to end")
                await upscaled.wait_more(10)
            assert len(decode([data for _, data in source.units], Codec.H264)) >= 5
