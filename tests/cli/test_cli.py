"""The command line: exit codes, one clear line for every mistake, exact JSON."""

from __future__ import annotations

import json
import logging
import socket
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from streamlift import __version__
from streamlift.cli import main
from streamlift.config import Config
from streamlift.media.remote.measure import ViewFigures

OK, FAILED, USAGE = 0, 1, 2


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    """The commands set up logging for their process."""
    root, streamlift = logging.getLogger(), logging.getLogger("streamlift")
    before = (root.level, list(root.handlers), streamlift.level)
    yield
    root.setLevel(before[0])
    root.handlers[:] = before[1]
    streamlift.setLevel(before[2])


def test_the_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == OK
    assert __version__ in capsys.readouterr().out


@pytest.mark.parametrize("command", ["serve", "publish", "watch", "doctor"])
def test_every_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert ended.value.code == OK
    assert "usage:" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["fly"],
        ["serve", "--prot", "1"],
        ["serve", "--port", "many"],
        ["watch"],
        ["publish", "--demo", "--size", "512", "http://127.0.0.1:9/whip/a"],
        ["publish", "--demo", "--size", "511x512", "http://127.0.0.1:9/whip/a"],
        ["publish", "--demo", "--size", "0x512", "http://127.0.0.1:9/whip/a"],
        ["publish", "--demo", "--size", "2x2", "http://127.0.0.1:9/whip/a"],
        ["publish", "--demo", "--fps", "-5", "http://127.0.0.1:9/whip/a"],
        ["publish", "--demo", "--fps", "nan", "http://127.0.0.1:9/whip/a"],
        ["publish", "--demo", "--bitrate", "-1", "http://127.0.0.1:9/whip/a"],
        ["watch", "--scale", "0", "http://127.0.0.1:9/whep/a"],
        ["watch", "--seconds", "-1", "http://127.0.0.1:9/whep/a"],
    ],
)
def test_usage_mistakes_end_with_2(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == USAGE
    assert "usage:" in capsys.readouterr().err


def test_a_port_in_use_ends_with_1(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as busy:
        port = busy.getsockname()[1]
        status = main(["serve", "--port", str(port)])
    assert status == FAILED
    line = _only_line(capsys)
    assert f"127.0.0.1:{port}" in line
    assert "--port" in line


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ("sever: {}", "sever"),
        ("server: {prot: 1}", "server.prot"),
        ("server: {port: 99999}", "server.port"),
        ("server: {tls_cert: /no/cert.pem, tls_key: /no/key.pem}", "/no/cert.pem"),
        ("server: {host: 0.0.0.0}", "auth.publish"),
        ("default_backend: fast", "fast"),
    ],
)
def test_mistakes_of_the_configuration_end_with_2(
    tmp_path: Path, config: str, named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(config, encoding="utf-8")
    assert main(["serve", "--config", str(path)]) == USAGE
    assert named in _only_line(capsys)


def test_files_that_are_no_certificate_and_key_end_with_2(
    tmp_path: Path, certificate: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = tmp_path / "wrong.pem"
    wrong.write_text("hello", encoding="utf-8")
    config = tmp_path / "config.yaml"
    config.write_text(f"server: {{tls_cert: {wrong}, tls_key: {certificate[1]}}}", encoding="utf-8")
    assert main(["serve", "--config", str(config)]) == USAGE
    assert str(wrong) in _only_line(capsys)


def test_a_mistake_in_the_environment_ends_with_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("STREAMLIFT_SERVER__PROT", "1")
    assert main(["serve"]) == USAGE
    assert "server.prot" in _only_line(capsys)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["serve", "--config", "/no/file.yaml"], "/no/file.yaml"),
        (["serve", "--demo", "/no/clip.mp4"], "/no/clip.mp4"),
        (["serve", "--backend", "none"], "'none'"),
        (["publish", "http://127.0.0.1:9/whip/a"], "--demo"),
        (["publish", "--demo", "clip.mp4", "http://127.0.0.1:9/whip/a"], "--demo"),
        (["publish", "--demo", "--burst", "0", "http://127.0.0.1:9/whip/a"], "--burst"),
    ],
)
def test_what_cannot_be_meant_ends_with_2(
    arguments: list[str], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == USAGE
    assert named in _only_line(capsys)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["watch", "http://127.0.0.1:9/whep/a"], "cannot reach"),
        (["watch", "no url at all"], "no url at all"),
        (["publish", "--demo", "http://127.0.0.1:9/whip/a"], "cannot reach"),
        (["publish", "/no/clip.mp4", "http://127.0.0.1:9/whip/a"], "/no/clip.mp4"),
    ],
)
def test_what_cannot_be_done_ends_with_1(
    arguments: list[str], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == FAILED
    assert named in _only_line(capsys)


def test_doctor_prints_json(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("STREAMLIFT_SERVER__PORT", "0")
    assert main(["doctor", "--json"]) == OK
    report = json.loads(capsys.readouterr().out)
    assert report["ok"] is True
    assert all(set(check) == {"name", "ok", "detail"} for check in report["checks"])


def test_doctor_ends_with_1_when_something_is_bad(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as busy:
        monkeypatch.setenv("STREAMLIFT_SERVER__PORT", str(busy.getsockname()[1]))
        assert main(["doctor"]) == FAILED
    lines = capsys.readouterr().out.splitlines()
    (bad,) = (line for line in lines if line.startswith("BAD"))
    assert "http port" in bad


def test_the_shape_of_watch_json_is_the_documented_one_without_any_frame() -> None:
    assert ViewFigures().as_json() == {
        "size": None,
        "frames": 0,
        "fps": 0.0,
        "first_frame_ms": None,
        "gap_ms": {"p50": None, "p95": None, "max": None},
        "latency_ms": None,
        "lost": 0,
        "repeated": 0,
    }


def test_lost_and_repeated_frames_are_counted_across_the_wrap() -> None:
    figures = ViewFigures(
        shown_s=[0.0, 0.04, 0.08, 0.12, 0.16, 0.2],
        numbers=[65533, 65534, 65534, 1, 2, 3],
        latencies_ms=[5.0] * 6,
    )
    report = figures.as_json()
    assert (report["lost"], report["repeated"]) == (2, 1)
    assert report["fps"] == 25.0
    assert report["latency_ms"] == {"p50": 5.0, "p95": 5.0}


def test_the_defaults_that_the_help_names_are_the_configurations() -> None:
    server = Config().server
    assert (server.host, server.port) == ("127.0.0.1", 8080)


def _only_line(capsys: pytest.CaptureFixture[str]) -> str:
    """What was said on stderr: one line from us, and no traceback."""
    said = capsys.readouterr().err
    assert "Traceback" not in said
    ours = [line for line in said.splitlines() if line.startswith("streamlift: ")]
    assert len(ours) == 1, said
    return ours[0]


def test_a_file_is_upscaled_by_the_best_tier(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cv2 = pytest.importorskip("cv2")
    source, target = tmp_path / "in.png", tmp_path / "out.png"
    picture = np.random.default_rng(1).integers(0, 255, (48, 64, 3), dtype=np.uint8)
    assert cv2.imwrite(str(source), picture)
    assert main(["upscale", str(source), str(target), "--verbose"]) == OK
    assert "tier m" in capsys.readouterr().err
    assert cv2.imread(str(target)).shape == (96, 128, 3)


def test_a_bit_rate_needs_the_quality_table(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("onnxruntime")
    assert main(["bench", "--bitrate", "1000000"]) == USAGE
    assert "--bitrate 1000000: used with --quality only" in capsys.readouterr().err


@pytest.mark.parametrize("rate", ["3", "-1", "fast"])
def test_a_bit_rate_that_cannot_be_meant_is_refused(
    rate: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["bench", "--quality", f"--bitrate={rate}"])
    assert ended.value.code == USAGE
    assert f"found '{rate}', expected bits a second, at least 1000" in capsys.readouterr().err
