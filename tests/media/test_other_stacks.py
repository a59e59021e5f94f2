"""Publishers made with other people's WebRTC stacks, with sound and without, in either order.

The offers of OBS and Safari are `reconstructed`: written after their public source, not recorded.
Real ones were not tried.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import re
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from scripts.children import bound
from tests.clips import TICKS, coded_clip, decode
from tests.peers import watching
from tests.serving import Served, until

from streamlift.config import BackendConfig, Config, IceConfig
from streamlift.frames import Codec, EncodedFrame, Rendition, Size
from streamlift.media.outgoing.packetizer import Packetizer
from streamlift.media.rtc.connection import Peer
from streamlift.media.rtc.sdp import Role, read_offer, sections_without_candidates

Serve = Callable[..., Awaitable[Served]]
PLAIN = Config(backends=(BackendConfig("bicubic", "bicubic"),), default_backend="bicubic")
HERE = Path(__file__).parent / "node"
ORDERS = ["video", "audio,video", "video,audio"]


def node_modules(package: str) -> Path:
    """Where npm has put the package; skips without it."""
    modules = Path(os.environ.get("STREAMLIFT_NODE_MODULES", HERE / "node_modules"))
    if shutil.which("node") is None:
        pytest.skip("no Node.js: install the package nodejs")
    if not (modules / package).is_dir():
        pytest.skip(f"no {package}: npm install in tests/media/node, or STREAMLIFT_NODE_MODULES")
    return modules


def write_clip(path: Path) -> None:
    """The RTP payloads of a small clip, base64, by picture."""
    packetizer, rendition = Packetizer(), Rendition(Codec.H264, 0, "")
    clip = coded_clip(frames=50)
    units = [
        packetizer.packetize(EncodedFrame(n * TICKS, clip.size, rendition, n == 0, unit, 0.0))
        for n, unit in enumerate(clip.units)
    ]
    path.write_text(json.dumps([[base64.b64encode(p).decode() for p in u.payloads] for u in units]))


@asynccontextmanager
async def publisher(
    script: str, package: str, folder: Path, url: str, order: str
) -> AsyncIterator[None]:
    """A child process that publishes with that package."""
    modules = node_modules(package)
    write_clip(folder / "clip.json")
    # Node looks for packages beside the script.
    for file in HERE.glob("*.js*"):
        shutil.copy(file, folder)
    (folder / "node_modules").symlink_to(modules)
    process = await asyncio.create_subprocess_exec(
        *bound("node", str(folder / script), url, order),
        env={**os.environ, "CLIP": str(folder / "clip.json")},
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield
    finally:
        if process.returncode is None:
            process.kill()
        _, told = await process.communicate()
        print(told.decode()[-2000:])  # noqa: T201  shown when the test fails


@pytest.mark.client
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(
    ("script", "package"), [("libdatachannel.js", "node-datachannel"), ("werift.js", "werift")]
)
async def test_it_publishes_at_the_first_try(
    serve: Serve, script: str, package: str, order: str, tmp_path: Path
) -> None:
    node_modules(package)
    served = await serve(PLAIN)
    async with publisher(script, package, tmp_path, served.whip(), order):
        await until(
            lambda: any(s.state == "live" for s in served.parts.router.streams()),
            "the stream to be live",
            timeout_s=30,
        )
        source = served.parts.router.stream("live").publisher
        assert source is not None
        assert (source.audio is not None) == ("audio" in order)
        async with watching(served.whep()) as viewer:
            await viewer.wait_units(10, timeout_s=20)
    pictures = decode([unit for _, unit in viewer.units], Codec.H264)
    assert {Size(p.width, p.height) for p in pictures} == {Size(512, 512)}


# ---- reconstructed ----

TRANSPORT = [
    "a=ice-ufrag:Yn3x",
    "a=ice-pwd:bN2jLrw7mQZ2kVh8sXc4Td",
    "a=ice-options:trickle",
    "a=fingerprint:sha-256 " + ":".join(["5A"] * 32),
    "a=setup:actpass",
]


def text(*lines: str) -> str:
    return "\r\n".join(lines) + "\r\n"


OBS = text(
    # obsproject/obs-studio, plugins/obs-webrtc/whip-output.cpp, by libdatachannel: audio first,
    # a stream id of its own for all tracks, no rtcp-mux-only, candidates in the first section.
    *("v=0", "o=rtc 1718293046 0 IN IP4 127.0.0.1", "s=-", "t=0 0", "a=group:BUNDLE 0 1"),
    *("a=group:LS 0 1", "a=msid-semantic:WMS *", "a=setup:actpass"),
    *("a=ice-ufrag:Yn3x", "a=ice-pwd:bN2jLrw7mQZ2kVh8sXc4Td", "a=ice-options:ice2,trickle"),
    "a=fingerprint:sha-256 " + ":".join(["5A"] * 32),
    "m=audio 61024 UDP/TLS/RTP/SAVPF 111",
    *("c=IN IP4 192.0.2.7", "a=mid:0", "a=sendonly", "a=ssrc:1734 cname:obs"),
    *("a=ssrc:1734 msid:obs-stream obs-audio", "a=msid:obs-stream obs-audio", "a=rtcp-mux"),
    *("a=rtpmap:111 opus/48000/2", "a=fmtp:111 minptime=10;maxaveragebitrate=96000;stereo=1"),
    "a=candidate:1 1 UDP 2114977791 192.0.2.7 61024 typ host",
    "a=end-of-candidates",
    "m=video 61024 UDP/TLS/RTP/SAVPF 96",
    *("c=IN IP4 192.0.2.7", "a=mid:1", "a=sendonly", "a=ssrc:1735 cname:obs"),
    *("a=ssrc:1735 msid:obs-stream obs-video", "a=msid:obs-stream obs-video", "a=rtcp-mux"),
    *("a=rtpmap:96 H264/90000", "a=rtcp-fb:96 nack", "a=rtcp-fb:96 nack pli"),
    *("a=rtcp-fb:96 goog-remb",),
    "a=fmtp:96 profile-level-id=42e01f;packetization-mode=1;level-asymmetry-allowed=1",
)

SAFARI = text(
    # WebKit on Apple's build of libwebrtc: H.264 High before Baseline, both packetization modes,
    # H.265, VP8 and VP9, payload types from 96 on and below 64, mDNS candidates.
    *("v=0", "o=- 4611731400430051336 2 IN IP4 127.0.0.1", "s=-", "t=0 0"),
    *("a=group:BUNDLE 0 1", "a=extmap-allow-mixed", "a=msid-semantic: WMS stream"),
    "m=audio 9 UDP/TLS/RTP/SAVPF 111 63 9 0 8 13 110 126",
    *("c=IN IP4 0.0.0.0", "a=rtcp:9 IN IP4 0.0.0.0", *TRANSPORT, "a=mid:0"),
    "a=extmap:1 urn:ietf:params:rtp-hdrext:ssrc-audio-level",
    *("a=extmap:4 urn:ietf:params:rtp-hdrext:sdes:mid", "a=sendonly", "a=msid:stream audio"),
    *("a=rtcp-mux", "a=rtpmap:111 opus/48000/2", "a=rtcp-fb:111 transport-cc"),
    *("a=fmtp:111 minptime=10;useinbandfec=1", "a=rtpmap:63 red/48000/2", "a=fmtp:63 111/111"),
    *("a=rtpmap:9 G722/8000", "a=rtpmap:0 PCMU/8000", "a=rtpmap:8 PCMA/8000"),
    *("a=rtpmap:13 CN/8000", "a=rtpmap:110 telephone-event/48000"),
    *("a=rtpmap:126 telephone-event/8000", "a=ssrc:1 cname:safari", "a=ssrc:1 msid:stream audio"),
    "a=candidate:1 1 udp 2113937151 4f1e7a2c-11aa-4c5d-9b1e-0c1d2e3f4a5b.local 51234 typ host",
    "m=video 9 UDP/TLS/RTP/SAVPF 96 97 98 99 100 101 127 103 104 105 45 46 125",
    *("c=IN IP4 0.0.0.0", "a=rtcp:9 IN IP4 0.0.0.0", *TRANSPORT, "a=mid:1"),
    "a=extmap:3 http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time",
    "a=extmap:5 http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01",
    *("a=extmap:4 urn:ietf:params:rtp-hdrext:sdes:mid", "a=sendonly", "a=msid:stream video"),
    *("a=rtcp-mux", "a=rtcp-rsize", "a=rtpmap:96 H264/90000", "a=rtcp-fb:96 goog-remb"),
    *("a=rtcp-fb:96 transport-cc", "a=rtcp-fb:96 ccm fir", "a=rtcp-fb:96 nack"),
    *("a=rtcp-fb:96 nack pli",),
    "a=fmtp:96 level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=640c1f",
    *("a=rtpmap:97 rtx/90000", "a=fmtp:97 apt=96", "a=rtpmap:98 H264/90000"),
    *("a=rtcp-fb:98 transport-cc", "a=rtcp-fb:98 nack", "a=rtcp-fb:98 nack pli"),
    "a=fmtp:98 level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f",
    *("a=rtpmap:99 rtx/90000", "a=fmtp:99 apt=98", "a=rtpmap:100 H264/90000"),
    "a=fmtp:100 level-asymmetry-allowed=1;packetization-mode=0;profile-level-id=640c1f",
    *("a=rtpmap:101 rtx/90000", "a=fmtp:101 apt=100", "a=rtpmap:127 H265/90000"),
    *("a=rtpmap:103 rtx/90000", "a=fmtp:103 apt=127", "a=rtpmap:104 VP8/90000"),
    *("a=rtpmap:105 rtx/90000", "a=fmtp:105 apt=104", "a=rtpmap:45 AV1/90000"),
    *("a=rtpmap:46 rtx/90000", "a=fmtp:46 apt=45", "a=rtpmap:125 ulpfec/90000"),
    *("a=ssrc-group:FID 2 3", "a=ssrc:2 cname:safari", "a=ssrc:3 cname:safari"),
)


@pytest.mark.parametrize(
    ("offer", "video", "audio"),
    [
        pytest.param(OBS, "96", "111", id="OBS 30, reconstructed"),
        pytest.param(SAFARI, "98 99 104 105", "111", id="Safari, reconstructed"),
    ],
)
@pytest.mark.peer
async def test_a_reconstructed_offer_is_answered_in_its_order(
    offer: str, video: str, audio: str
) -> None:
    peer = Peer(IceConfig())
    for_video = peer.add("video", "recvonly")
    peer.prefer(for_video, list(Codec))
    peer.prefer_opus(peer.add("audio", "recvonly"))
    answer = await peer.answer(read_offer(offer, Role.PUBLISH))
    await peer.close()
    lines = re.findall(r"m=(\w+) \d+ \S+ ([\d ]+)\r", answer)
    assert lines == [("audio", audio), ("video", video)]
    assert not sections_without_candidates(answer)
    assert answer.count("a=rtcp-mux-only") == 2
    assert answer.count("a=setup:passive") == 2
    assert answer.count("a=recvonly") == 2


@pytest.mark.peer
async def test_a_reconstructed_safari_watches() -> None:
    peer = Peer(IceConfig())
    for media in read_offer(SAFARI.replace("a=sendonly", "a=recvonly"), Role.VIEW).media:
        added = peer.add(media.kind, "sendonly")
        if media.kind == "video":
            peer.prefer(added, [Codec.H264])
        else:
            peer.prefer_opus(added)
    offer = read_offer(SAFARI.replace("a=sendonly", "a=recvonly"), Role.VIEW)
    answer = await peer.answer(offer)
    await peer.close()
    assert re.findall(r"m=video \d+ \S+ ([\d ]+)\r", answer) == ["98 99"]
    assert "profile-level-id=42e01f" in answer
