"""The docs' plots: drawn from recorded JSON alone, the same each time."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

pytest.importorskip("matplotlib", reason="matplotlib is in the train extra")

from scripts import plot

WHERE = {"processor": "a machine", "date": "2026-01-01"}
OVERLOAD = WHERE | {
    "command": "compact, stabilise lite, 4 more",
    "phase_s": 2.0,
    "seconds": [
        {"second": n, "p50_ms": ms, "p95_ms": ms, "shown": 25, "dropped": {"overdue": n}}
        for n, ms in enumerate((50.0, 60.0, None, 120.0, 70.0, 50.0), 1)
    ],
}
PICTURE = WHERE | {
    "bitrate_bps": 1_500_000,
    "rows": [
        {"clips": "synthetic", "method": "bicubic", "gained_db": 0.0, "cpu_ms": 0.6},
        {"clips": "given", "method": "compact s + lite", "gained_db": 0.4, "cpu_ms": 12.0},
    ],
}


def draw(data: Path, images: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    monkeypatch.setattr(sys, "argv", ["plot", "--from", str(data), "--to", str(images)])
    plot.main()
    return {path.name: path.read_bytes() for path in images.iterdir()}


def test_the_same_data_give_the_same_plots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "overload.json").write_text(json.dumps(OVERLOAD))
    (tmp_path / "picture.json").write_text(json.dumps(PICTURE))
    once = draw(tmp_path, tmp_path / "one", monkeypatch)
    assert set(once) == {"overload.svg", "picture.svg"}
    assert draw(tmp_path, tmp_path / "two", monkeypatch) == once


def test_without_data_it_says_how_to_record_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="nothing is recorded"):
        draw(tmp_path, tmp_path / "images", monkeypatch)
    assert "scripts.record overload" in capsys.readouterr().out
