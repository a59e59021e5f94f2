"""Writes a trained network as ONNX: float32, and 8-bit integers calibrated on training pictures.

The graphs take a luma plane with a border of two pixels (its edge, repeated) and give it doubled,
as 16 planes of every fourth pixel, uint8 in and out: OpenCV puts them together in a tenth of the
time of onnxruntime's DepthToSpace. Levels run through them unscaled: 1/255 and 255 are folded into
the kernels.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from scripts.train_compact.net import (
    BLOCK,
    LEVELS,
    OUT_CHANNELS,
    WEIGHT_STEPS,
    Calibration,
    CompactNet,
)
from torch.nn import functional

__all__ = ["calibrate", "export", "write_manifest"]

F32 = npt.NDArray[np.float32]
OPSET = 17
IR_VERSION = 8


@dataclass(frozen=True, slots=True)
class Conv:
    """One convolution of the graph, in levels: kernel (out, in, 3, 3), bias (out,), padding."""

    name: str
    kernel: F32
    bias: F32
    padding: int


def export(
    net: CompactNet, path: Path, calibration: Calibration | None, notes: dict[str, str]
) -> None:
    """Write one graph: float32, or 8-bit where a calibration is given. `notes` go along as text.

    The same network, calibration and notes always give the same bytes.
    """
    graph = _Graph()
    convs = _convs(net)
    blocks = graph.add("SpaceToDepth", ["lr"], blocksize=BLOCK)
    levels = graph.add("Cast", [blocks], to=TensorProto.FLOAT)
    skip = graph.constant("skip.kernel", net.skip.detach().numpy())
    base = graph.add("Conv", [levels, skip])
    if calibration is None:
        correction = _float_path(graph, convs, levels)
    else:
        correction = _integer_path(graph, convs, blocks, calibration)
    total = graph.add("Add", [base, correction])
    # Rounds, clips to 0..255 and casts in one pass.
    one = graph.quantiser("level", 1.0, 0)
    graph.add("QuantizeLinear", [total, *one], "hr")
    path.write_bytes(graph.model(notes).SerializeToString(deterministic=True))


@torch.no_grad()
def calibrate(net: CompactNet, lr: npt.NDArray[np.uint8]) -> Calibration:
    """Find the activation steps that lose least on training pictures (n, h, w)."""
    x = torch.from_numpy(lr).float()[:, None]
    x = functional.pixel_unshuffle(functional.pad(x, (BLOCK,) * 4, mode="replicate"), BLOCK)
    steps = []
    convs = _convs(net)
    for conv in convs:
        x = functional.conv2d(
            x, torch.from_numpy(conv.kernel), torch.from_numpy(conv.bias), padding=conv.padding
        )
        if conv is convs[-1]:
            break
        x = functional.relu(x)
        steps.append(_best_step(x, 0, 255))
    return Calibration(tuple(steps), _best_step(x, -128, 127))


def write_manifest(folder: Path) -> None:
    """Write `weights.json`: size and SHA-256 of every graph in the folder."""
    files = {
        path.name: {
            "bytes": path.stat().st_size,
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        }
        for path in sorted(folder.glob("*.onnx"))
    }
    (folder / "weights.json").write_text(json.dumps(files, indent=2) + "\n")


def _convs(net: CompactNet) -> list[Conv]:
    """The folded convolutions with 1/255 and 255 folded in: levels in, levels out."""
    plain = [(c.kernel.detach().numpy(), c.bias.detach().numpy()) for c in net.plain()]
    convs = []
    for index, (kernel, bias) in enumerate(plain):
        first, last = index == 0, index == len(plain) - 1
        factor = 1 / LEVELS if first else LEVELS if last else 1.0
        name = "head" if first else "tail" if last else f"hidden{index}"
        bias = (bias * LEVELS if last else bias).astype(np.float32)
        padding = 0 if first else 1
        convs.append(Conv(name, (kernel * factor).astype(np.float32), bias, padding))
    return convs


def _float_path(graph: _Graph, convs: list[Conv], x: str) -> str:
    for conv in convs:
        kernel = graph.constant(f"{conv.name}.kernel", conv.kernel)
        bias = graph.constant(f"{conv.name}.bias", conv.bias)
        x = graph.add("Conv", [x, kernel, bias], pads=[conv.padding] * 4)
        if conv is not convs[-1]:
            x = graph.add("Relu", [x])
    return x


def _integer_path(graph: _Graph, convs: list[Conv], blocks: str, calibration: Calibration) -> str:
    """Each Conv and ReLU between quantisers: signed kernels by channel, unsigned activations."""
    x = graph.add("DequantizeLinear", [blocks, *graph.quantiser("input", 1.0, 0)])
    step = 1.0
    after = [(s, 0) for s in calibration.hidden] + [(calibration.tail, 128)]
    for conv, (next_step, zero) in zip(convs, after, strict=True):
        kernel, bias = _integer_conv(graph, conv, step)
        x = graph.add("Conv", [x, kernel, bias], pads=[conv.padding] * 4)
        if conv is not convs[-1]:
            x = graph.add("Relu", [x])
        parameters = graph.quantiser(f"{conv.name}.out", next_step, zero)
        x = graph.add("QuantizeLinear", [x, *parameters])
        x = graph.add("DequantizeLinear", [x, *parameters])
        step = next_step
    return x


def _integer_conv(graph: _Graph, conv: Conv, input_step: float) -> tuple[str, str]:
    steps = np.maximum(np.abs(conv.kernel).max((1, 2, 3)), 1e-8).astype(np.float32)
    steps /= WEIGHT_STEPS
    kernel = np.rint(conv.kernel / steps[:, None, None, None])
    kernel = np.clip(kernel, -WEIGHT_STEPS, WEIGHT_STEPS).astype(np.int8)
    bias_steps = (steps * np.float32(input_step)).astype(np.float32)
    bias = np.rint(conv.bias / bias_steps).astype(np.int32)

    def stored(part: str, values: Any, scales: F32) -> str:
        name = f"{conv.name}.{part}"
        zeros = np.zeros(scales.shape, values.dtype)
        inputs = [
            graph.constant(name, values),
            graph.constant(f"{name}.step", scales),
            graph.constant(f"{name}.zero", zeros),
        ]
        return graph.add("DequantizeLinear", inputs, axis=0)

    return stored("kernel", kernel, steps), stored("bias", bias, bias_steps)


def _best_step(x: torch.Tensor, low: int, high: int) -> float:
    """The quantiser step with the least squared error on these values."""
    reach = float(x.abs().max()) / max(abs(low), high)
    best, best_error = reach, float("inf")
    for share in np.linspace(0.2, 1.0, 33):
        step = max(reach * float(share), 1e-8)
        error = float(((x / step).round().clamp(low, high) * step - x).square().mean())
        if error < best_error:
            best, best_error = step, error
    return float(np.float32(best))


@dataclass(slots=True)
class _Graph:
    """Nodes and constants as they are added; every tensor is named after its node."""

    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: list[onnx.TensorProto] = field(default_factory=list)

    def add(self, kind: str, inputs: list[str], output: str = "", **attributes: Any) -> str:
        output = output or f"{kind.lower()}{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [output], **attributes))
        return output

    def constant(self, name: str, values: Any) -> str:
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(values), name))
        return name

    def quantiser(self, name: str, step: float, zero: int) -> list[str]:
        return [
            self.constant(f"{name}.step", np.float32(step)),
            self.constant(f"{name}.zero", np.uint8(zero)),
        ]

    def model(self, notes: dict[str, str]) -> onnx.ModelProto:
        value = helper.make_tensor_value_info
        graph = helper.make_graph(
            self.nodes,
            "compact",
            [value("lr", TensorProto.UINT8, [1, 1, "height + 4", "width + 4"])],
            [value("hr", TensorProto.UINT8, [1, OUT_CHANNELS, "height / 2", "width / 2"])],
            self.constants,
        )
        opset = [helper.make_opsetid("", OPSET)]
        model = helper.make_model(graph, producer_name="streamlift", opset_imports=opset)
        model.ir_version = IR_VERSION
        helper.set_model_props(model, notes)
        onnx.checker.check_model(model)
        return model
