"""The steady step as CUDA graphs: a launch a part in place of some thousand.

A graph replays fixed addresses, so a part's changing inputs are copied into buffers of its own, and
its result holds until the part runs again. Recordings belong to one stream's memory, are made
before its first frame, and are void once that memory has moved.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

__all__ = ["Record", "StepGraphs", "record_on_cuda"]

Step = Callable[..., Tensor]
Record = Callable[[Callable[[], Tensor]], tuple[Callable[[], None], Tensor]]
"""Takes a step without arguments; gives what replays it, and the tensor it leaves its result in."""


@dataclass(frozen=True, slots=True, eq=False)
class _Part:
    inputs: tuple[Tensor, ...]
    replay: Callable[[], None]
    result: Tensor


class StepGraphs:
    """The recorded parts of one stream's step, by name."""

    def __init__(self, record: Record) -> None:
        self._record = record
        self._parts: dict[str, _Part] = {}

    def __bool__(self) -> bool:
        return bool(self._parts)

    def __contains__(self, name: str) -> bool:
        return name in self._parts

    def add(self, name: str, step: Step, *inputs: Tensor) -> None:
        """Record step(*inputs), which has run before, so that nothing is set up meanwhile."""
        fixed = tuple(tensor.clone() for tensor in inputs)
        self._parts[name] = _Part(fixed, *self._record(lambda: step(*fixed)))

    def run(self, name: str, *inputs: Tensor) -> Tensor:
        """Replay a part with these inputs. The result holds until its next run."""
        part = self._parts[name]
        for fixed, tensor in zip(part.inputs, inputs, strict=True):
            fixed.copy_(tensor)
        part.replay()
        return part.result

    def forget(self) -> None:
        """The tensors that the parts use have moved."""
        self._parts.clear()


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
