"""What is opened for FFmpeg, in this process: names, addresses, and the bounds of the child."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from tests.media.remote.url import media
from tests.media.remote.url.webserver import website

from streamlift.errors import ConfigError
from streamlift.media.remote.url.ending import Lost, Refused
from streamlift.media.remote.url.readers import UdpReader, Web, addresses_of
from streamlift.media.remote.url.rules import UrlRules


class Names:
    """A resolver; every question is noted, and answered with the next answer."""

    def __init__(self, *answers: Sequence[str]) -> None:
        self.asked: list[str] = []
        self._answers = list(answers)

    def __call__(self, host: str, port: int) -> Sequence[str]:
        self.asked.append(host)
        return self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]


def nothing() -> None:
    """Nobody wants to know that bytes came."""


@pytest.mark.parametrize(
    "found",
    [["10.0.0.1"], ["169.254.169.254"], ["::1"], ["8.8.8.8", "192.168.0.1"], ["::ffff:10.0.0.1"]],
)
def test_a_name_is_resolved_once_and_must_not_lead_to_a_private_address(found: list[str]) -> None:
    rules, names = UrlRules(("cam.example.org",), (), ()), Names(found, ["8.8.8.8"])
    place = rules.check("rtsps://cam.example.org/x")
    assert place.target is not None
    with pytest.raises(ConfigError, match="not a public address"):
        addresses_of(rules, place.target, names)
    assert names.asked == ["cam.example.org"]
    web = rules.check("https://cam.example.org/x")
    with Web(rules, web, nothing, Names(found)) as opener, pytest.raises(Refused, match="public"):
        opener.open(web.url, 1, {})
    assert opener.refused is not None


def test_a_name_that_changes_its_mind_is_not_asked_again() -> None:
    with website() as site:
        site.pages["/a"] = b"0123456789" * 10
        port = site.url.rpartition(":")[2]
        rules = UrlRules(("cam.example.org", "127.0.0.1"), (), ())
        place = rules.check(f"http://cam.example.org:{port}/a")
        names = Names(["127.0.0.1"], ["127.0.0.2"])
        with Web(rules, place, nothing, names) as opener:
            assert opener.open(place.url, 1, {}).read(5) == b"01234"
            assert site.headers[0]["host"] == f"cam.example.org:{port}"
            with pytest.raises(Refused):  # a second file, whose name leads elsewhere by now
                opener.open(place.url, 1, {})
        assert names.asked == ["cam.example.org"] * 2


def test_a_file_on_the_web_is_read_at_any_place_and_a_range_is_a_range() -> None:
    data = bytes(range(256)) * 4000
    with website() as site:
        site.pages["/a"] = data
        rules = UrlRules(("127.0.0.1",), (), ())
        place = rules.check(f"{site.url}/a")
        with Web(rules, place, nothing) as opener:
            file = opener.open(place.url, 1, {})
            assert file.seekable()
            assert file.read(10) == data[:10]
            assert file.seek(1000) == 1000  # close by: it is read up to there
            assert file.read(4) == data[1000:1004]
            assert len(site.asked) == 1
            assert file.seek(900_000) == 900_000
            assert file.read(4) == data[900_000:900_004]
            assert file.seek(5) == file.tell() == 5
            assert file.read(3) == data[5:8]
            assert len(site.asked) == 3
            assert file.seek(0, 2) == len(data)
            assert file.read(1) == b""
            part = opener.open(place.url, 1, {"offset": "100", "end_offset": "110"})
            assert part.read(1000) + part.read(1000) == data[100:110]
            assert not part.seekable()


def test_too_many_hosts_and_no_answer_end_it() -> None:
    rules = UrlRules(("127.0.0.0/8",), (), ())
    with website() as site:
        site.pages["/a"] = b"x"
        port = site.url.rpartition(":")[2]
        place = rules.check(f"{site.url}/a")
        with Web(rules, place, nothing, Names(["127.0.0.1"])) as opener:
            for number in range(8):
                opener.open(f"http://127.0.0.{number + 1}:{port}/a", 1, {}).read(1)
            with pytest.raises(Refused, match="too many hosts"):
                opener.open(f"http://127.0.0.9:{port}/a", 1, {})
    with Web(rules, place, nothing) as opener, pytest.raises(Lost, match="cannot reach"):
        opener.open(place.url, 1, {})


CONFINED = """
from streamlift.portable import confine
held = confine(64 << 20)
for what in ("bytearray(16 << 20)", "bytearray(256 << 20)", "open('/dev/null')",
             "open(__import__('sys').argv[1], 'w').write('x' * 9999)"):
    try:
        eval(what)
        print("done")
    except (MemoryError, OSError) as error:
        print(type(error).__name__)
print(held)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux holds a process to its bounds")
def test_a_confined_process_gets_no_more_memory_and_writes_no_file(tmp_path: Path) -> None:
    code = "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)" + CONFINED
    done = subprocess.run(
        [sys.executable, "-c", code, f"{tmp_path}/out"],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": ":".join(sys.path)},
        timeout=60,
    )
    assert done.stdout.split() == ["done", "MemoryError", "done", "OSError", "True"], done.stderr


PLAYED = """
import sys
from collections import deque
from streamlift.errors import StreamliftError
from streamlift.media.remote.url.child import Play
from streamlift.media.remote.url.opening import Opening
from streamlift.media.remote.url.rules import UrlRules

class Box:
    stale = pictures = 0
    grown = []
    ahead = deque(maxlen=25)  # what waits for its time
    def put(self, due_s, message, *, picture=False):
        self.pictures += picture
        self.ahead.append(message)
        if picture and self.pictures % 100 == 0:
            with open("/proc/self/statm") as statm:
                self.grown.append(int(statm.read().split()[1]) * 4096 / 1e6)
        if self.pictures == 400:
            raise StreamliftError("enough")
    def beat(self): pass
    def wait(self, seconds): pass

rules = UrlRules((), (), (sys.argv[1],))
opening = Opening(rules, rules.check(f"file://{sys.argv[1]}/a.mp4"), Box(), max_side=1280)
try:
    Play(opening, Box(), max_side=1280, loop=True).run()
except StreamliftError as error:
    print(error, Box.grown[-1] - Box.grown[0])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is of Linux")
def test_pictures_that_were_handed_over_are_not_kept(tmp_path: Path) -> None:
    media.clip(tmp_path / "a.mp4", frames=50, size=(512, 512))
    done = subprocess.run(
        [sys.executable, "-c", PLAYED, str(tmp_path)],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": ":".join(sys.path)},
        timeout=100,
    )
    assert done.stdout.startswith("enough"), done.stderr
    assert float(done.stdout.split()[1]) < 30, "MB; 300 pictures are 118 MB"


def test_a_datagram_without_bytes_is_no_end() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    place = UrlRules((), (f"127.0.0.1:{port}",), ()).check(f"udp://127.0.0.1:{port}")
    reader = UdpReader(place, lambda: None)
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.sendto(b"", ("127.0.0.1", port))
            sender.sendto(b"media", ("127.0.0.1", port))
        assert reader.read(65536) == b"media"
    finally:
        reader.close()
