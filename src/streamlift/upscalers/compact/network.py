"""One shipped network: its file checked against the manifest, run by onnxruntime on a plane."""

from __future__ import annotations

import hashlib
import json
import os
from enum import StrEnum
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Any

import cv2
import numpy as np

from streamlift.errors import UpscaleError, WeightsError
from streamlift.frames import Plane

__all__ = ["BORDER", "Network", "Precision", "Tier", "int8_agrees", "interleaved", "weights_folder"]

BORDER = 2
"""Pixels of edge that the graph wants around the picture: one 2x2 block."""

SPREAD = 4
"""The graph's output is gathered: a 2x2 block of the input becomes 4x4 pixels in 16 planes."""

INT8_WORST = 8
"""Largest difference between the 8-bit and the float32 graph, in levels, that is still right.

Rounding alone comes to 5 on a picture of heavy grain; sums that saturate came to 13 and more. The
kernels have 7 bits, so that sums of two products fit into 16 bits also on processors without VNNI;
this catches what computes in yet another way.
"""


class Tier(StrEnum):
    """The three sizes of the network, cheapest first."""

    XS = "xs"
    S = "s"
    M = "m"


class Precision(StrEnum):
    """The arithmetic of a network."""

    FP32 = "fp32"
    INT8 = "int8"


class Network:
    """Luma x2 of one tier in one precision. May be used by several threads at once."""

    def __init__(self, tier: Tier, precision: Precision, *, threads: int = 1) -> None:
        """`threads` compute one picture. Raises WeightsError when the package's file is missing or
        damaged."""
        self.tier = tier
        self.precision = precision
        self._session = _session(
            _checked_bytes(weights_folder(), f"{tier}-{precision}.onnx"), threads
        )

    def enlarge(self, y: Plane) -> Plane:
        """Luma (H, W) uint8 of even sides, rows at any stride -> (2H, 2W) uint8.

        Levels pass through as they are, so limited and full range both work. Raises UpscaleError.
        """
        height, width = y.shape
        if height % 2 or width % 2:
            raise UpscaleError(
                "the compact network takes even sides; pad the picture",
                found=f"{width}x{height}",
                expected="even width and height",
            )
        edged = cv2.copyMakeBorder(y, BORDER, BORDER, BORDER, BORDER, cv2.BORDER_REPLICATE)
        return interleaved(self._session.run(None, {"lr": edged[None, None]})[0][0])

    def __repr__(self) -> str:
        return f"Network({self.tier}, {self.precision})"


def interleaved(parts: Any) -> Plane:
    """16 planes (16, H, W), each every fourth pixel of every fourth row -> (4H, 4W).

    onnxruntime's own DepthToSpace takes ten times as long as these four merges.
    """
    _, height, width = parts.shape
    out = np.empty((height, SPREAD, SPREAD * width), np.uint8)
    for row in range(SPREAD):
        merged = cv2.merge([*parts[row * SPREAD : (row + 1) * SPREAD]])
        out[:, row] = merged.reshape(height, SPREAD * width)
    return out.reshape(SPREAD * height, SPREAD * width)


def weights_folder() -> Traversable:
    """Where the graphs and their manifest `weights.json` lie."""
    return resources.files("streamlift.upscalers.compact") / "weights"


def int8_agrees(int8: Network, fp32: Network) -> bool:
    """Whether this processor computes the 8-bit graph rightly, judged on a fixed picture."""
    rng = np.random.default_rng(0)
    blotches = cv2.resize(rng.uniform(0, 255, (12, 12)).astype(np.float32), (96, 96))
    grain = rng.normal(0, 12, (96, 96))
    picture = np.clip(blotches + grain, 0, 255).astype(np.uint8)
    difference = cv2.absdiff(int8.enlarge(picture), fp32.enlarge(picture))
    return int(difference.max()) <= INT8_WORST


def _checked_bytes(folder: Traversable, name: str) -> bytes:
    cure = "reinstall streamlift, or rebuild the weights with the training kit"
    try:
        manifest = json.loads((folder / "weights.json").read_text())
        blob = (folder / name).read_bytes()
    except OSError as error:
        raise WeightsError(f"{name} cannot be read ({error}); {cure}", found=str(error)) from error
    expected = manifest.get(name, {}).get("sha256")
    found = hashlib.sha256(blob).hexdigest()
    if found != expected:
        raise WeightsError(f"{name} is damaged; {cure}", found=found, expected=expected)
    return blob


def _session(blob: bytes, threads: int) -> Any:
    # Read when it is loaded: otherwise 1.32 reports its use to Microsoft. Its own
    # disable_telemetry_events() comes after the first report has been written down.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 3
    # A spinning worker would take a whole core from the encoder between frames.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(blob, options, providers=["CPUExecutionProvider"])
