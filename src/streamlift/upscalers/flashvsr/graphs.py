"""The steady denoising step as CUDA graphs: one launch in place of some thousand.

A graph replays fixed addresses, and a step writes one slot of the key ring, so there is one graph
for each slot. They belong to one session, and are void once its memory has moved.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

__all__ = ["Record", "StepGraphs", "record_on_cuda"]

Step = Callable[..., Tensor]
Record = Callable[[Callable[[], Tensor]], tuple[Callable[[], None], Tensor]]
"""Takes a step without arguments; gives what replays it, and the tensor it leaves its result in."""


class StepGraphs:
    """Graphs by ring slot, with the fixed tensors they read."""

    def __init__(self, record: Record) -> None:
        self._record = record
        self._inputs: tuple[Tensor, ...] = ()
        self._graphs: dict[int, tuple[Callable[[], None], Tensor]] = {}

    def run(self, slot: int, step: Step, *inputs: Tensor) -> Tensor:
        """step(*inputs), recorded at a slot's first use. The result holds until the next run."""
        if not self._inputs:
            self._inputs = tuple(tensor.clone() for tensor in inputs)
        for fixed, tensor in zip(self._inputs, inputs, strict=True):
            fixed.copy_(tensor)
        if slot not in self._graphs:
            self._graphs[slot] = self._record(lambda: step(*self._inputs))
        replay, result = self._graphs[slot]
        replay()
        return result

    def forget(self) -> None:
        """The tensors that the steps use have moved."""
        self._inputs = ()
        self._graphs.clear()


def record_on_cuda() -> Record:
    """A recorder whose graphs share one pool of memory, as they never run at the same time."""
    pool: Any = torch.cuda.graph_pool_handle()

    def record(step: Callable[[], Tensor]) -> tuple[Callable[[], None], Tensor]:
        graph = torch.cuda.CUDAGraph()
        # Other threads may use the device meanwhile, the encoder for one.
        with torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local"):
            result = step()
        return graph.replay, result

    return record
