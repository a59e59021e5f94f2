"""A net at one size as a CUDA graph: one launch in place of a thousand."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from streamlift.frames import Size

__all__ = ["CapturedNet"]

_WARM_UP_RUNS = 3  # what PyTorch's notes on CUDA graphs ask for


class CapturedNet:
    """That many frames of one size at a time, in static input and output buffers."""

    def __init__(
        self,
        run: Callable[[Tensor], Tensor],
        size: Size,
        count: int,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        self._device = device
        self._graph = torch.cuda.CUDAGraph()
        # Free for the next user: sessions of one size share the buffers, on whatever stream.
        self._free = torch.cuda.Event()  # type: ignore[no-untyped-call]
        with torch.cuda.device(device), torch.no_grad():
            shape = (count, 3, size.height, size.width)
            self._input = torch.zeros(shape, device=device, dtype=dtype).to(
                memory_format=torch.channels_last
            )
            stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
            stream.wait_stream(torch.cuda.current_stream(device))
            # cuDNN picks its kernels by trying them, here and never during capture.
            with torch.backends.cudnn.flags(enabled=True, benchmark=True):
                with torch.cuda.stream(stream):
                    for _ in range(_WARM_UP_RUNS):
                        run(self._input)
                # Thread-local: encode threads may talk to the device meanwhile.
                with torch.cuda.graph(
                    self._graph, stream=stream, capture_error_mode="thread_local"
                ):
                    self._output = run(self._input)
            torch.cuda.current_stream(device).wait_stream(stream)

    def __call__(self, lr: Tensor) -> Tensor:
        stream = torch.cuda.current_stream(self._device)
        stream.wait_event(self._free)
        self._input.copy_(lr, non_blocking=True)
        self._graph.replay()
        hr = self._output.clone()  # the next replay writes the same addresses
        self._free.record(stream)
        return hr
