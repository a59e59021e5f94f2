"""Which URLs may be pulled, and what of them is shown."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from streamlift.errors import ConfigError
from streamlift.media.remote.url.rules import UrlRules, hidden, open_file


def rules(*hosts: str, listen: tuple[str, ...] = (), directory: Path | None = None) -> UrlRules:
    return UrlRules(hosts, listen, () if directory is None else (str(directory),))


def test_a_camera_is_reached_by_its_address_and_its_password_is_kept_apart() -> None:
    place = rules("10.0.0.5").check("rtsp://admin:pa%20ss@10.0.0.5/ch1?x=1")
    assert (place.scheme, place.user) == ("rtsp", "admin:pa%20ss")
    assert place.target is not None
    assert (place.target.host, place.target.port) == ("10.0.0.5", 554)
    assert place.url == "rtsp://10.0.0.5/ch1?x=1"
    assert not place.paced


@pytest.mark.parametrize(
    "url",
    [
        "concat:/etc/passwd|x",
        "data:video/mp4;base64,AAAA",
        "subfile,,start,0,end,9,,:/etc/passwd",
        "crypto+https://10.0.0.5/x",
        "gopher://10.0.0.5/",
        "tcp://10.0.0.5:22",
        "rtp://10.0.0.5:5004",
        "srt://10.0.0.5:9000",
        "/etc/passwd",
        "http+unix://x/",
        "hls+http://10.0.0.5/x.m3u8",
        "",
        "rtsp://10.0.0.5/a b",
        "rtsp://10.0.0.5:99999/",
        "rtsp:///x",
        "http://[::1",
    ],
)
def test_anything_else_is_refused_with_what_is_expected(url: str) -> None:
    with pytest.raises(ConfigError) as refused:
        rules("10.0.0.5").check(url)
    assert "expected" in str(refused.value)


@pytest.mark.parametrize(
    "url",
    ["rtsp://10.0.0.6/x", "http://127.0.0.1/x", "https://example.org/x", "rtmp://169.254.169.254/"],
)
def test_a_host_that_is_not_listed_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match=r"sources\.allowed_hosts"):
        rules("10.0.0.5").check(url)


def test_no_error_repeats_user_password_or_query() -> None:
    for url in (
        "rtsp://canary:canary@example.org/x?canary",
        "rtsp://canary:canary@10.0.0.5:x/",
        "ftp://canary:canary@10.0.0.5/",
        "udp://canary@10.0.0.5:5004?canary",
        "file://canary@host/clip.mp4?canary",
    ):
        with pytest.raises(ConfigError) as refused:
            rules("10.0.0.5").check(url)
        error = refused.value
        assert "canary" not in f"{error} {error.found} {error.expected}"


def test_what_is_shown_has_no_user_no_query() -> None:
    assert hidden("rtsp://u:p@cam.local:554/ch1?key=1#f") == "rtsp://cam.local:554/ch1"
    assert hidden("file:///srv/a.mp4") == "file:///srv/a.mp4"
    assert hidden("rtmp://live.example/app/key-of-the-stream") == "rtmp://live.example/app/..."
    assert hidden("rtmp://live.example/app") == "rtmp://live.example/app"


def test_a_file_below_a_directory_is_allowed_and_nothing_above_it(tmp_path: Path) -> None:
    inside, outside = tmp_path / "clips", tmp_path / "secret.mp4"
    inside.mkdir()
    outside.write_bytes(b"x")
    (inside / "a b.mp4").write_bytes(b"clip")
    (inside / "out.mp4").symlink_to(outside)
    (inside / "up").symlink_to(tmp_path)
    (inside / "in.mp4").symlink_to(inside / "a b.mp4")
    (tmp_path / "clips-not").mkdir()
    (tmp_path / "clips-not" / "b.mp4").write_bytes(b"x")
    ours = rules(directory=inside)
    assert ours.check(f"file://{inside}/a%20b.mp4").path == inside / "a b.mp4"
    assert ours.check(f"file://{inside}/in.mp4").path == inside / "a b.mp4"
    for path in (
        outside,
        inside / "out.mp4",
        inside / "up" / "secret.mp4",
        inside / ".." / "secret.mp4",
        tmp_path / "clips-not" / "b.mp4",
        Path("/etc/passwd"),
    ):
        with pytest.raises(ConfigError, match="not below a directory"):
            ours.check(f"file://{path}")
    with pytest.raises(ConfigError, match="not below a directory"):
        ours.check(f"file://{inside}/%2e%2e/secret.mp4")
    with pytest.raises(ConfigError, match="No such file"):
        ours.check(f"file://{inside}/none.mp4")
    with pytest.raises(ConfigError, match="is no file"):
        ours.check(f"file://{inside}")


def test_without_directories_there_are_no_files(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"x")
    with pytest.raises(ConfigError, match=r"sources\.directories"):
        rules("10.0.0.5").check(f"file://{tmp_path}/a.mp4")


def test_a_pipe_in_a_directory_is_no_file_and_holds_nobody_up(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.mp4")
    with pytest.raises(ConfigError, match="is no file"):
        open_file(rules(directory=tmp_path), tmp_path / "a.mp4")


def test_a_link_that_changes_after_the_check_is_not_followed(tmp_path: Path) -> None:
    inside = tmp_path / "clips"
    inside.mkdir()
    (tmp_path / "secret").write_bytes(b"x")
    clip = inside / "a.mp4"
    clip.write_bytes(b"clip")
    ours = rules(directory=inside)
    path = ours.check(f"file://{clip}").path
    assert path is not None
    clip.unlink()
    clip.symlink_to(tmp_path / "secret")
    with pytest.raises(ConfigError, match="not below a directory"):
        open_file(ours, path)


def test_udp_is_only_what_is_configured() -> None:
    ours = rules(listen=("127.0.0.1:5004",))
    assert ours.check("udp://127.0.0.1:5004").listen == ("127.0.0.1", 5004)
    for url in ("udp://127.0.0.1:5005", "udp://0.0.0.0:5004", "udp://127.0.0.1"):
        with pytest.raises(ConfigError, match=r"sources\.udp"):
            ours.check(url)
