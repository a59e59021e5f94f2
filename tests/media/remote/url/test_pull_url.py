"""URLs that are pulled by a child process: what is read, what is refused, what is left behind."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scripts.children import bound
from tests.media.remote.url import media
from tests.media.remote.url.webserver import Site, website
from tests.serving import until

from streamlift.clock import MonotonicClock
from streamlift.codec.bitstream import is_keyframe
from streamlift.frames import Codec, CodedAudio, Frame
from streamlift.media.remote import pull_url
from streamlift.media.remote.pull import PullPublisher, PullState
from streamlift.media.remote.pull_url import UrlPictures, UrlSource

pytestmark = pytest.mark.peer


class Pulling:
    """A pull whose waits between tries take no time; why it had to wait is noted."""

    def __init__(self, url: str, *, loop: bool, max_side: int, **allowed: Any) -> None:
        clock = MonotonicClock()
        places = {"hosts": ("127.0.0.1",), "listen": (), "directories": (), **allowed}
        self.source = UrlSource("live", url, loop=loop, max_side=max_side, clock=clock, **places)
        self.pull = PullPublisher("live", self.source, clock=clock, sleep=self._nap)
        self.frames: list[Frame] = []
        self.sound: list[CodedAudio] = []
        self.reasons: list[str] = []
        self.tries = 3

    async def _nap(self, seconds: float) -> None:
        self.reasons.append(self.pull.status.reason)
        if len(self.reasons) >= self.tries:
            await asyncio.Event().wait()
        await asyncio.sleep(0)

    @property
    def state(self) -> PullState:
        return self.pull.status.state

    @property
    def child(self) -> UrlPictures:
        assert self.source._pictures is not None
        return self.source._pictures

    async def wait(self, frames: int, timeout_s: float = 20.0) -> None:
        await until(
            lambda: len(self.frames) >= frames,
            f"{frames} pictures",
            timeout_s=timeout_s,
            show=lambda: (self.pull.status, self.reasons),
        )

    async def wait_end(self) -> None:
        """Until it has given up, for good or for now."""
        over = (PullState.FAILED, PullState.CLOSED)
        await until(lambda: bool(self.reasons) or self.state in over, "an end", timeout_s=30)

    async def wait_state(self, *states: PullState, timeout_s: float = 20.0) -> None:
        await until(
            lambda: self.state in states,
            f"{states}",
            timeout_s=timeout_s,
            show=lambda: (self.pull.status, self.reasons),
        )


@asynccontextmanager
async def pulling(
    url: str, *, loop: bool = False, max_side: int = 1280, **allowed: Any
) -> AsyncIterator[Pulling]:
    it = Pulling(url, loop=loop, max_side=max_side, **allowed)

    async def take() -> None:
        async for frame in it.pull:
            it.frames.append(frame)

    async def listen() -> None:
        async for packet in it.pull.sound:
            it.sound.append(packet)

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(it.pull.run())
        tasks.create_task(take())
        tasks.create_task(listen())
        try:
            yield it
        finally:
            await it.pull.aclose("test over")


@pytest.fixture
def site() -> Iterator[Site]:
    with website() as served:
        yield served


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a clip of every kind."""
    folder = tmp_path_factory.mktemp("clips")
    media.clip(folder / "a.mp4")
    media.clip(folder / "reordered-b.mp4")
    media.clip(folder / "a.ts")
    media.clip(folder / "a.flv")
    media.clip(folder / "a.webm", sound="libopus", codec="libvpx")
    media.clip(folder / "hevc.mkv", sound="ac3", codec="libx265", frames=25)
    media.clip(folder / "silent.mp4", sound=None)
    media.hls(folder)
    return folder


def times(packets: list[Any]) -> list[int]:
    return [packet.pts for packet in packets]


@pytest.mark.parametrize(
    ("name", "video", "sound", "relayed"),
    [
        ("a.mp4", "h264", "aac", Codec.H264),
        ("reordered-b.mp4", "h264", "aac", Codec.H264),
        ("a.ts", "h264", "aac", Codec.H264),
        ("a.flv", "h264", "aac", Codec.H264),
        ("a.webm", "vp8", "opus", Codec.VP8),
        ("hevc.mkv", "hevc", "ac3", None),
    ],
)
async def test_a_file_is_shown_at_its_own_rate_with_its_sound(
    clips: Path, name: str, video: str, sound: str, relayed: Codec | None
) -> None:
    url = f"file://{clips}/{name}"
    began_s = MonotonicClock().now_s()
    async with pulling(url, directories=(str(clips),)) as it:
        await it.wait_state(PullState.CLOSED)
        passed_s = MonotonicClock().now_s() - began_s
    frames = 25 if name == "hevc.mkv" else 50
    assert it.pull.status.reason.endswith(f"{name} is over")
    counts = it.pull.counts
    lost = sum(counts.dropped.values())  # where the machine has no time
    assert len(it.frames) + lost == counts.received == frames
    assert passed_s > frames / 25 * 0.9, "it was not paced"
    assert {f.size.width for f in it.frames} == {media.WIDTH}
    steps = np.diff(times(it.frames))
    assert steps.min() > 0
    assert np.quantile(np.abs(steps - 3600), 0.9) <= 90  # WebM and FLV count milliseconds
    assert it.source.describe() == {
        "url": url,
        "loop": False,
        "video": video,
        "sound": sound,
    }
    seconds = frames / 25
    assert len(it.sound) == pytest.approx(seconds * 50, abs=6)
    assert np.diff(times(it.sound)).min() > 0
    assert np.quantile(np.abs(np.diff(times(it.sound)) - 960), 0.9) <= 96
    units = [f.coded for f in it.frames if f.coded is not None]
    assert len(units) == (len(it.frames) if relayed else 0)
    if relayed:
        assert {unit.codec for unit in units} == {relayed}
        assert units[0].keyframe
        assert is_keyframe(relayed, units[0].data)
        assert {unit.number for unit in units} <= set(range(frames))


async def test_a_file_in_a_loop_goes_on_without_a_seam(clips: Path) -> None:
    async with pulling(f"file://{clips}/a.mp4", loop=True, directories=(str(clips),)) as it:
        await it.wait(130)
        assert it.state is PullState.LIVE
    assert it.pull.status.connections == 1
    steps = np.diff(times(it.frames))
    assert steps.min() > 0
    assert np.quantile(np.abs(steps - 3600), 0.9) <= 1
    gaps = np.diff(times(it.sound))
    assert gaps.min() > 0
    assert np.quantile(gaps, 0.9) <= 48_000 * 0.05
    numbers = [f.coded.number for f in it.frames if f.coded is not None]
    assert numbers == sorted(numbers)
    assert numbers[-1] > 100  # it counts on through the rounds


@pytest.mark.parametrize("name", ["a.mp4", "a.ts", "live.m3u8"])
async def test_the_web_gives_mp4_ts_and_hls(site: Site, clips: Path, name: str) -> None:
    site.serve(clips)
    async with pulling(f"{site.url}/{name}?key=1") as it:
        await it.wait(40)
        assert it.state is PullState.LIVE
        await until(lambda: len(it.sound) > 20, "sound")
        await it.wait_state(PullState.CLOSED)
    lost = sum(it.pull.counts.dropped.values())
    assert len(it.frames) + lost == (75 if name == "live.m3u8" else 50)
    assert it.source.describe()["url"] == f"{site.url}/{name}"


async def test_a_live_playlist_is_followed(site: Site, clips: Path) -> None:
    site.serve(clips)
    lines = (clips / "live.m3u8").read_text().splitlines()
    first = lines.index(next(line for line in lines if line.startswith("#EXTINF")))
    asked_s: list[float] = []

    def grown(request: BaseHTTPRequestHandler) -> None:
        asked_s.append(MonotonicClock().now_s())
        segments = 3 + int((asked_s[-1] - asked_s[0]) / 0.5)
        head = [line for line in lines[:first] if "PLAYLIST-TYPE" not in line]
        text = "\n".join([*head, *lines[first : first + 2 * segments], ""])
        body = text.replace("#EXT-X-ENDLIST", "").encode()
        request.send_response(200)
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body)

    site.pages["/live.m3u8"] = grown
    async with pulling(f"{site.url}/live.m3u8") as it:
        await it.wait(60)  # three segments have 36
        assert it.state is PullState.LIVE
    assert len(asked_s) > 1


async def test_user_and_password_go_to_the_first_server_and_nowhere_else(
    site: Site, clips: Path
) -> None:
    with website() as other:
        other.pages["/a.mp4"] = clips / "a.mp4"
        site.redirect("/moved", f"{other.url}/a.mp4")
        url = site.url.replace("http://", "http://me:pa%20ss@")
        async with pulling(f"{url}/moved") as it:
            await it.wait(5)
    assert site.headers[0]["authorization"] == "Basic bWU6cGEgc3M="
    assert all("authorization" not in headers for headers in other.headers)


def playlist(*lines: str) -> bytes:
    head = ("#EXTM3U", "#EXT-X-VERSION:3", "#EXT-X-TARGETDURATION:2", "#EXT-X-MEDIA-SEQUENCE:0")
    return "\n".join((*head, *lines, "#EXT-X-ENDLIST", "")).encode()


@pytest.mark.parametrize(
    "lines",
    [
        ("#EXTINF:2,", "file:///etc/passwd"),
        ("#EXTINF:2,", "http://10.1.2.3/x.ts"),
        ("#EXTINF:2,", "http://169.254.169.254/x.ts"),
        ("#EXTINF:2,", "http://127.0.0.2/x.ts"),
        ("#EXTINF:2,", "data:video/mp2t;base64,AAAA"),
        ("#EXTINF:2,", "concat:file:///etc/passwd"),
        ('#EXT-X-KEY:METHOD=AES-128,URI="file:///etc/passwd"', "#EXTINF:2,", "a.ts"),
        ('#EXT-X-MAP:URI="file:///etc/passwd"', "#EXTINF:2,", "a.ts"),
        ("#EXTINF:2,", "moved.ts"),
    ],
    ids=lambda lines: lines[-1][:24] if lines[0].startswith("#EXTINF") else lines[0][:14],
)
async def test_a_playlist_leads_nowhere_else(
    site: Site, clips: Path, lines: tuple[str, ...]
) -> None:
    site.pages["/live.m3u8"] = playlist(*lines)
    site.pages["/a.ts"] = clips / "a.ts"
    site.redirect("/moved.ts", "http://10.1.2.3/x.ts")
    async with pulling(f"{site.url}/live.m3u8") as it:
        await it.wait_end()
    assert it.frames == []
    assert "root:" not in str(it.reasons)


@pytest.mark.parametrize(
    "to", ["http://10.1.2.3/x.mp4", "file:///etc/passwd", "rtsp://127.0.0.1/x", "http://127.0.0.2/"]
)
async def test_a_redirect_to_what_is_not_allowed_fails_for_good(site: Site, to: str) -> None:
    site.redirect("/a.mp4", to)
    async with pulling(f"{site.url}/a.mp4") as it:
        await it.wait_state(PullState.FAILED)
    assert "it leads to what this service does not open" in it.pull.status.reason
    assert site.asked == ["/a.mp4"]


async def test_redirects_without_end_and_missing_files_are_tried_again(site: Site) -> None:
    site.redirect("/round", f"{site.url}/round")

    async def look(path: str, words: str) -> None:
        async with pulling(site.url + path) as it:
            await until(lambda: len(it.reasons) == 2, "two tries", timeout_s=20)
            assert it.state is PullState.WAITING
            assert words in it.reasons[0]

    await asyncio.gather(
        look("/round", "redirects again and again"), look("/none.mp4", "answered 404")
    )


def endless(piece: bytes) -> Callable[[BaseHTTPRequestHandler], None]:
    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Connection", "close")
        request.end_headers()
        request.close_connection = True
        for _ in range(4000):  # a gigabyte
            request.wfile.write(piece)

    return answer


@pytest.mark.parametrize(
    "piece",
    [
        b"#EXTM3U\n#EXTINF:1,\nx.ts\n" * (10 << 10),
        # An MP4 box of metadata without end.
        b"\xff\xff\xff\xf0moov" + b"\0\0\0\x08free" * (32 << 10),
    ],
    ids=["playlist", "moov"],
)
async def test_what_never_ends_is_ended(
    site: Site, piece: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(UrlSource, "first_frame_s", 6.0)
    site.pages["/a.mp4"] = endless(piece)
    async with pulling(f"{site.url}/a.mp4") as it:
        await it.wait_end()
    assert it.frames == []


async def test_a_picture_that_is_too_large_is_refused_before_it_is_decoded(
    tmp_path: Path, clips: Path
) -> None:
    media.clip(tmp_path / "large.mp4", sound=None, frames=1, size=(4096, 2304))
    media.forged(tmp_path / "forged.webm")
    ours = (str(tmp_path), str(clips))
    async with pulling(f"file://{tmp_path}/large.mp4", directories=ours) as it:
        await it.wait_state(PullState.FAILED)
    assert "found 4096x2304, expected 64x64 to 1280x1280" in it.pull.status.reason
    async with pulling(f"file://{clips}/a.mp4", directories=ours, max_side=100) as it:
        await it.wait_state(PullState.FAILED)
    assert "found 128x96, expected 64x64 to 100x100" in it.pull.status.reason
    async with pulling(f"file://{tmp_path}/forged.webm", directories=ours) as it:
        await it.wait_end()
    assert it.frames == []
    assert it.pull.counts.dropped == {"decode_error": 5}


async def test_sound_alone_is_no_video(tmp_path: Path) -> None:
    import av

    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        container.add_stream("aac", rate=48000)
        stream: Any = container.streams.audio[0]
        frame = av.AudioFrame.from_ndarray(np.zeros((2, 48000), np.float32), "fltp", "stereo")
        frame.sample_rate = 48000
        for packet in (*stream.encode(frame), *stream.encode(None)):
            container.mux(packet)
    async with pulling(f"file://{tmp_path}/a.mp4", directories=(str(tmp_path),)) as it:
        await it.wait_state(PullState.FAILED)
    assert "no video" in it.pull.status.reason


def damaged(data: bytes, seed: int) -> bytes:
    """Cut off, with holes, or with bytes changed."""
    rng = np.random.default_rng(seed)
    bad = np.frombuffer(data, np.uint8).copy()
    if seed % 3 == 0:
        return bad[: int(rng.integers(len(bad)))].tobytes()
    if seed % 3 == 1:
        at = rng.integers(0, len(bad), max(8, len(bad) // 500))
        bad[at] = rng.integers(0, 256, len(at), np.uint8)
        return bad.tobytes()
    begin = int(rng.integers(len(bad) // 2))
    return np.delete(bad, np.arange(begin, begin + len(bad) // 4)).tobytes()


async def test_damaged_files_end_their_own_pull_in_order(clips: Path, tmp_path: Path) -> None:
    paths = []
    for seed, name in enumerate(["a.mp4", "a.mp4", "a.ts", "a.ts", "a.flv", "a.webm", "hevc.mkv"]):
        paths.append(tmp_path / f"{seed}-{name}")
        paths[-1].write_bytes(damaged((clips / name).read_bytes(), seed + 1))
    (tmp_path / "noise.mp4").write_bytes(np.random.default_rng(0).bytes(100_000))
    paths += [tmp_path / "noise.mp4"]
    turns = asyncio.Semaphore(2)

    async def look(path: Path) -> str:
        async with turns, pulling(f"file://{path}", directories=(str(tmp_path),)) as it:
            await it.wait_end()
            return it.reasons[0] if it.reasons else it.pull.status.reason

    reasons = await asyncio.gather(*(look(path) for path in paths))
    assert all(reasons)
    assert not [r for r in reasons if "silent" in r or "log has the details" in r], reasons


async def test_a_child_that_is_killed_is_replaced_and_the_line_of_pts_goes_on(clips: Path) -> None:
    async with pulling(f"file://{clips}/a.mp4", loop=True, directories=(str(clips),)) as it:
        await it.wait(10)
        process = it.child._process
        assert process is not None
        process.kill()
        before = len(it.frames)
        await until(lambda: bool(it.reasons), "the end to be noticed")
        assert "ended by signal 9" in it.reasons[0]
        await it.wait(before + 20)
        assert it.state is PullState.LIVE
    assert it.pull.status.connections == 2
    assert np.all(np.diff(times(it.frames)) > 0)
    assert np.all(np.diff(times(it.sound)) > 0)


@pytest.mark.skipif(sys.platform == "win32", reason="SIGSTOP is of POSIX")
async def test_a_child_that_hangs_is_killed_after_its_silence(
    clips: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pull_url, "SILENT_S", 1.5)
    async with pulling(f"file://{clips}/a.mp4", loop=True, directories=(str(clips),)) as it:
        await it.wait(5)
        process = it.child._process
        assert process is not None
        os.kill(process.pid, signal.SIGSTOP)
        await until(lambda: bool(it.reasons), "the silence to be noticed")
        assert "its reader was silent for 1.5 s" in it.reasons[0]
        assert process.returncode == -signal.SIGKILL


async def test_a_server_that_says_nothing_is_given_up(site: Site, clips: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        port = mute.getsockname()[1]
        async with pulling(f"rtsp://127.0.0.1:{port}/x") as it:
            await until(lambda: bool(it.reasons), "it to be given up", timeout_s=30)
    assert it.frames == []


async def test_nobody_there_is_tried_again() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closing:
        port = closing.getsockname()[1]

    async def look(scheme: str) -> None:
        async with pulling(f"{scheme}://127.0.0.1:{port}/x/y") as it:
            await until(lambda: bool(it.reasons), "a try", timeout_s=20)
            assert it.state is PullState.WAITING
            assert "cannot reach 127.0.0.1" in it.reasons[0]

    await asyncio.gather(*(look(scheme) for scheme in ("rtsp", "rtmp", "http")))


async def test_an_rtsp_server_cannot_send_its_readers_elsewhere() -> None:
    reached = asyncio.Event()

    async def moved(into: asyncio.StreamReader, out: asyncio.StreamWriter) -> None:
        while head := await into.readuntil(b"\r\n\r\n"):
            number = head.split(b"CSeq: ")[1].split(b"\r\n")[0]
            location = f"Location: rtsp://127.0.0.1:{there}/x\r\n".encode()
            out.write(b"RTSP/1.0 302 Found\r\nCSeq: " + number + b"\r\n" + location + b"\r\n")

    async def elsewhere(into: asyncio.StreamReader, out: asyncio.StreamWriter) -> None:
        reached.set()
        out.close()

    async with (
        await asyncio.start_server(elsewhere, "127.0.0.1", 0) as second,
        await asyncio.start_server(moved, "127.0.0.1", 0) as first,
    ):
        there = second.sockets[0].getsockname()[1]
        here = first.sockets[0].getsockname()[1]
        async with pulling(f"rtsp://127.0.0.1:{here}/x") as it:
            await it.wait_state(PullState.FAILED)
    assert "another address" in it.pull.status.reason
    assert not reached.is_set()


@pytest.mark.client
@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="no ffmpeg here to be an RTMP server")
async def test_rtmp_is_read_in_its_own_time(clips: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    url = f"rtmp://127.0.0.1:{port}/live/x"
    play = ("-v", "error", "-re", "-i", str(clips / "a.flv"), "-c", "copy", "-f", "flv")
    server = await asyncio.create_subprocess_exec(
        *bound("ffmpeg", *play, "-listen", "1", url), stderr=asyncio.subprocess.DEVNULL
    )
    try:
        async with pulling(url) as it:
            it.tries = 1000
            await it.wait(25)
            await until(lambda: len(it.sound) > 20, "sound")
            assert it.source.describe()["video"] == "h264"
    finally:
        if server.returncode is None:
            server.kill()
        await server.wait()


async def test_udp_is_read_where_it_is_configured(clips: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"127.0.0.1:{port}"
    data = (clips / "a.ts").read_bytes()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:

        async def send() -> None:
            while True:
                for at in range(0, len(data), 1316):
                    sender.sendto(data[at : at + 1316], ("127.0.0.1", port))
                    await asyncio.sleep(0.003)

        sending = asyncio.create_task(send())
        async with pulling(f"udp://{address}", listen=(address,)) as it:
            await it.wait(20)
        sending.cancel()


async def test_twenty_pulls_leave_nothing_behind(clips: Path) -> None:
    def descriptors() -> int:
        return len(os.listdir("/proc/self/fd")) if sys.platform == "linux" else 0

    async def once() -> int:
        async with pulling(f"file://{clips}/a.mp4", directories=(str(clips),)) as it:
            await it.wait(1)
            process = it.child._process
            assert process is not None
        assert process.returncode is not None
        return process.pid

    await once()
    before = descriptors()
    pids: list[int] = []
    for _ in range(10):
        pids += await asyncio.gather(once(), once())
    assert descriptors() <= before
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    assert not [t for t in threading.enumerate() if t.name == "pull-live"]
