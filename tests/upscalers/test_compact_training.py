"""The training kit: the graph computes what was trained, from data that seeds decide."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("torch", reason="the training kit needs torch")
pytest.importorskip("onnx", reason="the training kit needs onnx")

import onnx
import onnxruntime
import torch
from onnx import numpy_helper
from scripts.train_compact.data import DataPlan, load_clips, make_clips
from scripts.train_compact.export import calibrate, export
from scripts.train_compact.net import TIERS, Calibration, CompactNet
from scripts.train_compact.train import Schedule, load_trained, train

from streamlift.quality.synthetic import synthetic_clip
from streamlift.upscalers.compact import Tier
from streamlift.upscalers.compact.network import interleaved, weights_folder


@pytest.fixture
def net() -> CompactNet:
    torch.manual_seed(0)
    return CompactNet(TIERS["xs"])


def test_the_untrained_linear_path_is_bicubic(net: CompactNet) -> None:
    silent = [net.tail.direct, net.tail.point, net.tail.bias]
    for parameter in silent:
        torch.nn.init.zeros_(parameter)
    picture = synthetic_clip("leaves", side=64, frames=1)[0].astype(np.float32)
    with torch.no_grad():
        found = net(torch.from_numpy(picture)[None, None] / 255)[0, 0].numpy() * 255
    expected = cv2.resize(picture, (128, 128), interpolation=cv2.INTER_CUBIC)
    assert np.abs(found - expected).max() < 1e-3


def test_the_float_graph_equals_the_network(net: CompactNet, tmp_path: Path) -> None:
    picture = synthetic_clip("leaves", side=64, frames=1)[0]
    export(net, tmp_path / "net.onnx", None, {})
    with torch.no_grad():
        levels = net(torch.from_numpy(picture)[None, None].float() / 255)[0, 0].numpy() * 255
    expected = np.clip(np.rint(levels), 0, 255)
    assert np.abs(_run(tmp_path / "net.onnx", picture) - expected).max() <= 1


def test_the_integer_graph_is_near_the_float_graph(net: CompactNet, tmp_path: Path) -> None:
    picture = synthetic_clip("leaves", side=64, frames=1)[0]
    export(net, tmp_path / "float.onnx", None, {})
    export(net, tmp_path / "integer.onnx", calibrate(net, picture[None]), {})
    graphs = [_run(tmp_path / f"{name}.onnx", picture) for name in ("float", "integer")]
    assert np.abs(graphs[0] - graphs[1]).mean() < 1.0


def test_the_integer_graph_is_what_the_rounded_training_computes(
    net: CompactNet, tmp_path: Path
) -> None:
    picture = synthetic_clip("leaves", side=64, frames=1)[0]
    with torch.no_grad():
        net.tail.direct.mul_(20)  # an untrained correction is hardly a level
    calibration = calibrate(net, picture[None])
    export(net, tmp_path / "net.onnx", calibration, {})
    with torch.no_grad():
        lr = torch.from_numpy(picture)[None, None].float() / 255
        levels = net(lr, calibration)[0, 0].numpy() * 255
    difference = np.abs(_run(tmp_path / "net.onnx", picture) - np.clip(np.rint(levels), 0, 255))
    assert difference.mean() < 0.05  # sums in another order fall on another side of a half
    assert np.quantile(difference, 0.99) <= 1


@pytest.mark.parametrize("tier", list(Tier))
def test_the_kernels_of_the_8_bit_graphs_have_7_bits(tier: Tier) -> None:
    """Two products of 255 and 63 fit into 16 bits, where processors without VNNI add them."""
    graph = onnx.load_from_string((weights_folder() / f"{tier}-int8.onnx").read_bytes()).graph
    kernels = [numpy_helper.to_array(c) for c in graph.initializer if c.name.endswith(".kernel")]
    coded = [k for k in kernels if k.dtype == np.int8]
    assert len(coded) == {Tier.XS: 4, Tier.S: 4, Tier.M: 6}[tier]
    assert max(int(np.abs(k.astype(int)).max()) for k in coded) <= 63


def test_gradients_pass_the_rounding(net: CompactNet) -> None:
    picture = synthetic_clip("leaves", side=64, frames=1)[0]
    lr = torch.from_numpy(picture)[None, None].float() / 255
    net(lr, calibrate(net, picture[None])).square().mean().backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_exporting_twice_gives_the_same_bytes(net: CompactNet, tmp_path: Path) -> None:
    calibration = Calibration((0.01, 0.02, 0.02), 0.1)
    for name in ("one", "two"):
        export(net, tmp_path / name, calibration, {"tier": "xs"})
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_data_follow_from_the_seed_and_resume(tmp_path: Path) -> None:
    pytest.importorskip("skimage", reason="the data maker needs scikit-image's photographs")
    plan = DataPlan(clips=2, seed=31, side=128, frames=4, published=True)
    for folder in ("one", "two"):
        make_clips(tmp_path / folder, plan)
    first, second = (load_clips(tmp_path / folder) for folder in ("one", "two"))
    assert first[0].shape == (6, 64, 64)
    assert first[1].shape == (6, 128, 128)
    for one, other in zip(first, second, strict=True):
        assert np.array_equal(one, other)
    kept = tmp_path / "one" / "00000.npz"
    before = kept.stat().st_mtime_ns
    make_clips(tmp_path / "one", plan)
    assert kept.stat().st_mtime_ns == before


def test_no_clips_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="run the `data` command first"):
        load_clips(tmp_path)


def test_a_few_steps_lower_the_loss_and_can_be_loaded(tmp_path: Path) -> None:
    hr = np.stack(synthetic_clip("leaves", side=128, frames=2))
    lr = np.stack([cv2.resize(y, (64, 64), interpolation=cv2.INTER_AREA) for y in hr])
    schedule = Schedule("xs", steps=30, batch=2, patch=32, warm_up=5, averaging=0.5)
    trained = train(lr, hr, (lr, hr), schedule, tmp_path / "xs.pt")
    again = load_trained(tmp_path / "xs.pt")
    assert again.schedule == schedule
    assert again.log == trained.log
    assert torch.equal(again.net.skip, trained.net.skip)
    rounded = replace(schedule, rounded=True, square_share=1.0)
    trained = train(lr, hr, (lr, hr), rounded, tmp_path / "int8.pt", start=tmp_path / "xs.pt")
    assert trained.calibration is not None
    assert load_trained(tmp_path / "int8.pt").calibration == trained.calibration


def _run(
    path: Path, picture: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]
) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    edged = cv2.copyMakeBorder(picture, 2, 2, 2, 2, cv2.BORDER_REPLICATE)
    (output,) = session.run(None, {"lr": edged[None, None]})
    return np.asarray(interleaved(output[0]), np.float32)
