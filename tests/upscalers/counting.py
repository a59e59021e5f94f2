"""Kernels, bytes and TFLOP of what runs on "meta": the work, without a device to do it.

Every operation that is no view counts as one kernel that reads its inputs and writes its outputs
once. Operations of our own (`streamlift::...`) count alike, which is what they promise: a change
that adds a pass over memory shows here.
"""

from __future__ import annotations

import weakref
from collections import Counter
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

_NOTHING = ("empty", "new_empty", "prim", "sym_", "is_pinned", "lift_fresh")
_PRODUCTS = ("addmm", "mm.default", "bmm", "matmul", "linear")
_OWN_PRODUCTS = ("linear_gelu", "conv3x3", "enlarging_conv", "convolution", "conv2d")


class Counting(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """While it is entered: `kernels` and `bytes` by operation, `tflop`, and most bytes alive."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.kernels: Counter[str] = Counter()
        self.bytes: Counter[str] = Counter()
        self.tflop = 0.0
        self.alive = self.peak = 0
        self._seen: set[int] = set()

    @property
    def elementwise_bytes(self) -> int:
        """Of everything but matrix products, convolutions and attention."""
        work = (*_PRODUCTS, *_OWN_PRODUCTS, "attention", "scaled_dot_product")
        return sum(n for name, n in self.bytes.items() if not any(w in name for w in work))

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        name = str(func).removeprefix("aten.").removeprefix("streamlift.")
        made = [x for x in tree_flatten(result)[0] if isinstance(x, Tensor)]
        given = [x for x in tree_flatten((args, kwargs))[0] if isinstance(x, Tensor)]
        shared = {x.untyped_storage()._cdata for x in given}
        new = [x for x in made if x.untyped_storage()._cdata not in shared]
        for tensor in new:
            self._note(tensor)
        if name.startswith(_NOTHING) or (made and not new and not func._schema.is_mutable):
            return result  # a view
        self.kernels[name] += 1
        self.bytes[name] += self._moved(name, given, made)
        self.tflop += _flop(name, given, made) / 1e12
        return result

    @staticmethod
    def _moved(name: str, given: list[Tensor], made: list[Tensor]) -> int:
        if name.startswith(("addmm_", "add_", "mul_")):
            return sum(x.numel() * x.itemsize for x in (*given, *given[:1]))
        if "qkv_into_ring" in name:
            qkv = given[0]  # in; queries out, and a slot of keys and values, a part of the ring
            return 2 * qkv.numel() * qkv.itemsize
        if name.startswith(("copy_", "fill_", "zero_")):
            return sum(x.numel() * x.itemsize for x in given)
        return sum(x.numel() * x.itemsize for x in (*given, *made))

    def _note(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._seen or tensor.device.type != "meta":
            return
        self._seen.add(key)
        size = storage.nbytes()
        self.alive += size
        self.peak = max(self.peak, self.alive)
        weakref.finalize(storage, self._gone, key, size)

    def _gone(self, key: int, size: int) -> None:
        self._seen.discard(key)
        self.alive -= size


def _flop(name: str, given: list[Tensor], made: list[Tensor]) -> float:
    """Two for each multiplication and addition of matrix products and convolutions."""
    if name.startswith("conv3x3"):
        # x, weight (9, c, outputs), ...: the outputs are as many as there are pixels of x.
        weight = given[1]
        return 2.0 * given[0].shape[0] * given[0][0, 0].numel() * weight.numel()
    if name.startswith("enlarging_conv"):
        weight = given[1]  # all phases together write each pixel of the large grid once
        return 2.0 * given[0].shape[0] * given[0][0, 0].numel() * weight.numel()
    if name.startswith("linear"):
        return 2.0 * given[0].numel() * given[1].shape[0]
    if name.startswith("addmm"):
        return 2.0 * given[1].numel() * given[2].shape[1]
    if name.startswith("mm."):
        return 2.0 * given[0].numel() * given[1].shape[1]
    if name.startswith(("convolution.", "conv2d.")):
        return 2.0 * made[0].numel() * given[1][0].numel()
    return 0.0
