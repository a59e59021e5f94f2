"""The shipped networks: the files, their pictures, their gain, and how a tier is chosen."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import cast

import cv2
import numpy as np
import pytest

from streamlift.errors import ConfigError, UpscaleError, WeightsError
from streamlift.frames import Plane, Planes, Size
from streamlift.quality.coding import Coding, area_half, code_clip, luma_planes
from streamlift.quality.figures import psnr
from streamlift.quality.synthetic import CI_CLIPS, synthetic_clip
from streamlift.upscalers.base import Pixels
from streamlift.upscalers.bicubic import enlarge_plane
from streamlift.upscalers.compact import Compact, Cost, Effort, Precision, Tier, choose
from streamlift.upscalers.compact import network as network_module
from streamlift.upscalers.compact import upscaler as upscaler_module
from streamlift.upscalers.compact.network import Network, int8_agrees, weights_folder
from streamlift.upscalers.compact.picker import measure
from streamlift.upscalers.registry import create_upscaler

GOLDEN = Path(__file__).parent.parent / "data" / "compact" / "golden.npz"
LARGEST_BYTES = 500_000
EVERY = [(tier, precision) for tier in Tier for precision in Precision]
SIZE = Size(48, 32)


@pytest.fixture(scope="module")
def small() -> Compact:
    return Compact(Tier.XS, Precision.FP32)


def test_the_runtime_reports_its_use_to_nobody(tmp_path: Path) -> None:
    """What onnxruntime would send is first written below the user's cache."""
    code = "from streamlift.upscalers.compact import *; Compact(Tier.XS, Precision.FP32)"
    environ = {k: v for k, v in os.environ.items() if k != "ORT_DISABLE_TELEMETRY"}
    environ |= {"HOME": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)}
    environ.pop("XDG_CACHE_HOME", None)
    subprocess.run([sys.executable, "-c", code], env=environ, check=True, timeout=120)
    assert [path for path in tmp_path.rglob("*") if "onnxruntime" in path.name] == []


@pytest.mark.parametrize(("tier", "precision"), EVERY)
def test_golden_output(tier: Tier, precision: Precision) -> None:
    with np.load(GOLDEN) as golden:
        found = Network(tier, precision).enlarge(golden["lr"])
        expected = golden[f"{tier}-{precision}"]
    difference = cv2.absdiff(found, expected)
    # On every processor: kernels of 7 bits leave no sum room to saturate.
    assert int(difference.max()) <= 1


def test_the_manifest_names_every_file_with_its_size_and_digest() -> None:
    manifest = json.loads((weights_folder() / "weights.json").read_text())
    files = {f.name: f.read_bytes() for f in weights_folder().iterdir() if f.name.endswith(".onnx")}
    assert manifest == {
        name: {"bytes": len(blob), "sha256": hashlib.sha256(blob).hexdigest()}
        for name, blob in files.items()
    }
    assert {f"{tier}-{precision}.onnx" for tier, precision in EVERY} == set(files)


def test_all_weights_together_are_small() -> None:
    sizes = [f.read_bytes() for f in weights_folder().iterdir() if f.name.endswith(".onnx")]
    assert sum(map(len, sizes)) < LARGEST_BYTES


def test_a_damaged_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for file in weights_folder().iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "s-int8.onnx").write_bytes(b"\0" * 100)
    monkeypatch.setattr(network_module, "weights_folder", lambda: tmp_path)
    with pytest.raises(WeightsError, match=r"s-int8.onnx is damaged; reinstall"):
        Network(Tier.S, Precision.INT8)


def test_a_missing_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "weights.json").write_text("{}")
    monkeypatch.setattr(network_module, "weights_folder", lambda: tmp_path)
    with pytest.raises(WeightsError, match=r"xs-fp32.onnx cannot be read"):
        Network(Tier.XS, Precision.FP32)


@pytest.mark.parametrize("tier", [Tier.XS, Tier.S, Tier.M])
def test_it_beats_bicubic_by_half_a_decibel_on_coded_clips_never_trained_on(tier: Tier) -> None:
    network = Network(tier, Precision.FP32)
    gains = []
    for name in CI_CLIPS:
        truth = synthetic_clip(name, side=256, frames=8)
        small = [area_half(luma_planes(y)) for y in truth]
        coded = code_clip(small, Coding(bitrate_bps=3_000_000))
        for planes, y in list(zip(coded, truth, strict=True))[2:]:
            base = psnr(enlarge_plane(planes.y, 2), y)
            gains.append(psnr(network.enlarge(planes.y), y) - base)
    assert float(np.mean(gains)) > 0.5


@pytest.mark.parametrize("tier", list(Tier))
def test_8_bit_and_float_agree_and_8_bit_is_chosen(tier: Tier) -> None:
    assert int8_agrees(Network(tier, Precision.INT8), Network(tier, Precision.FP32))
    assert Compact(tier).precision is Precision.INT8


@pytest.mark.parametrize("right", [True, False])
def test_8_bits_are_taken_only_where_they_are_right(
    right: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upscaler_module, "int8_agrees", lambda int8, fp32: right)
    assert Compact(Tier.XS).precision is (Precision.INT8 if right else Precision.FP32)


@pytest.mark.parametrize("level", [0, 16, 128, 235, 255])
def test_a_flat_picture_stays_flat_to_its_corners(level: int) -> None:
    flat = np.full((16, 24), level, np.uint8)
    found = Network(Tier.S, Precision.FP32).enlarge(flat)
    assert int(cv2.absdiff(found, np.full((32, 48), level, np.uint8)).max()) <= 2


def test_rows_at_any_stride_give_the_same_picture() -> None:
    network = Network(Tier.XS, Precision.INT8)
    plane = _picture(SIZE).y
    wide = np.zeros((plane.shape[0], plane.shape[1] + 29), np.uint8)
    wide[:, 5 : 5 + plane.shape[1]] = plane
    cut = wide[:, 5 : 5 + plane.shape[1]]
    assert np.array_equal(network.enlarge(cut), network.enlarge(plane))


def test_odd_sides_are_refused_since_the_engine_pads() -> None:
    with pytest.raises(UpscaleError, match="even sides"):
        Network(Tier.XS, Precision.FP32).enlarge(np.zeros((15, 16), np.uint8))


def test_the_spec_says_one_frame_in_one_frame_out_on_yuv(small: Compact) -> None:
    spec = small.spec
    assert (spec.name, spec.scale, spec.first, spec.step, spec.lag) == ("compact", 2, 1, 1, 0)
    assert (spec.multiple, spec.pixels) == (2, Pixels.YUV420)


def test_chroma_is_bicubic(small: Compact) -> None:
    lr = _picture(SIZE)
    (hr,) = small.open(SIZE).push(lr)
    assert hr.size == SIZE.times(2)
    assert np.array_equal(hr.u, enlarge_plane(lr.u, 2))
    assert np.array_equal(hr.v, enlarge_plane(lr.v, 2))


def test_two_interleaved_sessions_equal_two_separate_ones(small: Compact) -> None:
    first, second = _picture(SIZE), _picture(Size(32, 64))
    alone = [next(small.open(p.size).push(p)).y for p in (first, second)]
    one, two = small.open(first.size), small.open(second.size)
    for _ in range(2):
        assert np.array_equal(next(one.push(first)).y, alone[0])
        assert np.array_equal(next(two.push(second)).y, alone[1])


def test_a_session_owes_nothing_at_the_end(small: Compact) -> None:
    assert list(small.open(SIZE).finish()) == []


def test_effort_steps_down_to_the_smallest_tier_and_to_bicubic() -> None:
    lr = _picture(SIZE)
    session = Compact(Tier.S, Precision.FP32).open(SIZE)
    outputs = {}
    for effort in Effort:
        session.effort = effort
        outputs[effort] = next(session.push(lr)).y
    assert np.array_equal(outputs[Effort.FULL], Network(Tier.S, Precision.FP32).enlarge(lr.y))
    assert np.array_equal(outputs[Effort.SMALL], Network(Tier.XS, Precision.FP32).enlarge(lr.y))
    assert np.array_equal(outputs[Effort.BICUBIC], enlarge_plane(lr.y, 2))


def test_it_is_registered_and_takes_its_settings() -> None:
    made = create_upscaler("compact", settings={"tier": "xs", "precision": "fp32"})
    assert isinstance(made, Compact)
    assert (made.tier, made.precision) == (Tier.XS, Precision.FP32)


@pytest.mark.parametrize(
    ("settings", "named"),
    [({"teir": "s"}, "teir"), ({"tier": "xl"}, "xl"), ({"precision": "bf16"}, "bf16")],
)
def test_a_wrong_setting_is_named(settings: dict[str, str], named: str) -> None:
    with pytest.raises(ConfigError) as error:
        Compact.from_settings(settings)
    assert named in str(error.value.found)


def test_auto_measures_and_picks_something_that_runs() -> None:
    made = Compact.from_settings({})
    (hr,) = made.open(SIZE).push(_picture(SIZE))
    assert hr.size == SIZE.times(2)


@pytest.mark.parametrize(
    ("xs", "s", "m", "reference", "cores", "expected"),
    [
        (5, 8, 9, 16.5, 2, Tier.M),
        (5, 8, 11, 16.5, 2, Tier.S),  # the machine of the study: m would exceed one core
        (5, 8, 11, 16.5, 1, Tier.XS),  # 28 ms for all: nothing fits
        (10, 16, 22, 33, 2, Tier.XS),  # half as fast: nothing fits
        (4, 6, 9, 12, 8, Tier.M),
        (5, 31, 45, 16.5, 8, Tier.XS),  # the network alone is late
    ],
)
def test_the_largest_tier_that_fits_is_chosen(
    xs: float, s: float, m: float, reference: float, cores: int, expected: Tier
) -> None:
    costs = {t: Cost(ms, ms) for t, ms in zip(Tier, (xs, s, m), strict=True)}
    assert choose(costs, reference_ms=reference, cores=cores).tier is expected


def test_measuring_stops_at_its_limit() -> None:
    calls: list[Plane] = []

    def enlarge(y: Plane) -> Plane:
        calls.append(y)
        return y

    assert measure(enlarge, limit_s=0.0).cpu_ms >= 0
    assert len(calls) == 3


def test_a_larger_tier_costs_more_than_a_smaller_one() -> None:
    """Against each other on this machine; what each costs in ms are rows of the benchmark."""
    costs = [
        measure(Network(tier, Precision.FP32).enlarge, limit_s=1.0).cpu_ms
        for tier in (Tier.XS, Tier.M)
    ]
    assert costs[0] < costs[1]


def _picture(size: Size) -> Planes:
    rng = np.random.default_rng(size.width)

    def plane(width: int, height: int) -> Plane:
        rough = rng.integers(30, 220, (height // 4, width // 4), dtype=np.uint8)
        return cast(Plane, cv2.resize(rough, (width, height), interpolation=cv2.INTER_CUBIC))

    half = (size.width // 2, size.height // 2)
    return Planes(plane(size.width, size.height), plane(*half), plane(*half))
