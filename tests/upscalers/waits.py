"""A device without a GPU: tensors on "meta" are its, those on the CPU the host's; waits are found.

Meta tensors have shapes and no values, so that whatever needs a value on the host, as a wait for
the device would, raises or is seen here.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

_READS = ("_local_scalar_dense", "nonzero", "masked_select", "unique")
"""Operations whose result the host waits for."""


class Waits(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """While it is entered: `found` names every operation that would wait for a device.

    A copy between host and device waits unless it says `non_blocking` (from pinned memory, which
    a machine without CUDA does not have, so that is not looked at).
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.found: list[str] = []
        self.calls = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        name = str(func)
        self.calls += 1
        if any(read in name for read in _READS):
            self.found.append(name)
        elif "_to_copy" in name:
            target = torch.device(kwargs.get("device") or args[0].device)
            if target.type != args[0].device.type and not kwargs.get("non_blocking"):
                self.found.append(name)
        elif "copy_" in name and isinstance(args[1], Tensor):
            blocking = not (args[2] if len(args) > 2 else kwargs.get("non_blocking", False))
            if args[0].device.type != args[1].device.type and blocking:
                self.found.append(name)
        return func(*args, **kwargs)
