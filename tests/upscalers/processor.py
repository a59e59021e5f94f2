"""What this processor's 8-bit arithmetic is like, asked of onnxruntime itself."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

__all__ = ["adds_8_bit_products_exactly"]


@cache
def adds_8_bit_products_exactly() -> bool:
    """Whether sums of 8-bit products are exact here (VNNI, Arm) or saturate at 16 bits (AVX2).

    One product of the largest numbers: 255 * 127 + 255 * 127 = 64,770, which 16 bits cut to
    32,767. Says nothing of our graphs. Skips the test where `onnx` is not installed.
    """
    onnx = pytest.importorskip("onnx", reason="the probe of 8-bit sums is built with onnx")
    import onnxruntime

    kinds, shape = onnx.TensorProto, [16, 16]
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("MatMulInteger", ["a", "b"], ["sum"])],
        "probe",
        [onnx.helper.make_tensor_value_info("a", kinds.UINT8, shape)],
        [onnx.helper.make_tensor_value_info("sum", kinds.INT32, shape)],
        [onnx.numpy_helper.from_array(np.full(shape, 127, np.int8), "b")],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)])
    model.ir_version = 8
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    (found,) = session.run(None, {"a": np.full(shape, 255, np.uint8)})
    return bool((found == 16 * 255 * 127).all())
