"""What is missing, and the one command that gets it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from streamlift.cli import main
from streamlift.upscalers import presence, upscaler_names
from streamlift.upscalers.presence import OPTIONAL, presence_of
from streamlift.upscalers.weights import CHECKPOINTS, WeightStore

WITH_WEIGHTS = sorted(set(OPTIONAL) - {"rtx-vsr"})


@pytest.mark.parametrize("name", WITH_WEIGHTS)
def test_without_anything_one_line_gets_it(name: str, tmp_path: Path) -> None:
    found = presence_of(name, store=WeightStore(tmp_path), has=lambda _: False)
    assert not found.here
    assert found.words == (
        f"not here: pip install 'streamlift[torch]' && streamlift weights pull {name}"
    )


def test_with_torch_only_the_weights_are_asked_for(tmp_path: Path) -> None:
    found = presence_of("basicvsrpp", store=WeightStore(tmp_path), has=lambda _: True)
    assert found.words == "not here: streamlift weights pull basicvsrpp"


def test_what_is_there_is_said_to_be(tmp_path: Path) -> None:
    store = WeightStore(tmp_path)
    for checkpoint in CHECKPOINTS:
        if "basicvsrpp" in checkpoint.upscalers:
            path = store.path(checkpoint)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"x")
    assert presence_of("basicvsrpp", store=store, has=lambda _: True).here


def test_nvidias_package_comes_with_its_terms_and_says_what_it_stands_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = WeightStore(tmp_path)
    words = presence_of("rtx-vsr", store=store, has=lambda _: False).words
    assert words.startswith("not here: pip install 'streamlift[rtx]' (")
    assert "accept NVIDIA's licence" in words
    pytest.importorskip("torch")
    from tests.upscalers.fake_nvvfx import FakeNvvfx

    monkeypatch.setitem(sys.modules, "nvvfx", FakeNvvfx().module())
    monkeypatch.setattr(presence.shutil, "which", lambda name: None)  # type: ignore[attr-defined]
    words = presence_of("rtx-vsr", store=store, has=lambda _: True).words
    assert words.startswith("nvidia-vfx 0.2.0.0, SDK 1.3; no NVIDIA driver found")
    assert ("libnvidia-ngx.so" in words) == (sys.platform == "linux")


def test_doctor_names_a_command_for_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("STREAMLIFT_WEIGHTS_DIR", str(tmp_path))
    main(["doctor"])
    lines = capsys.readouterr().out.splitlines()
    for name in OPTIONAL:
        (line,) = (line for line in lines if f" {name} " in f" {line} ".replace(":", " "))
        assert "pip install" in line or "weights pull" in line, line


def test_all_upscalers_with_files_to_fetch_are_looked_at() -> None:
    fetched = {name for checkpoint in CHECKPOINTS for name in checkpoint.upscalers}
    assert fetched <= set(OPTIONAL) <= set(upscaler_names())
