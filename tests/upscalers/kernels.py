"""Kernels without a GPU: run in Triton's interpreter, and compiled for cards that are not here.

Triton decides at its import whether it interprets, hence a process of its own for that.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

SHARED_LIMIT = {80: 166_912, 89: 101_376, 90: 232_448, 120: 101_376}
"""Shared memory that a block may have, by compute capability, in bytes."""
NUMBERS = {torch.float32: "*fp32", torch.bfloat16: "*bf16", torch.float16: "*fp16"}


def interpret(program: str) -> None:
    """Run a program with Triton's interpreter; its assertions are the test."""
    environment = os.environ | {
        "TRITON_INTERPRET": "1",
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
    }
    program = "import torch\ntorch.set_num_threads(1)\n" + program
    run = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr


@dataclass(frozen=True)
class Compiled:
    """What a compiled kernel takes of a multiprocessor, and its instructions."""

    registers: int
    stack_bytes: int
    shared_bytes: int
    ptx: str


def compile_for(
    kernel: Any,
    capability: int,
    signature: dict[str, str],
    constants: dict[str, Any],
    options: dict[str, Any],
) -> Compiled:
    """Compile for a card of that capability; all arguments not named are int32.

    Pointers and strides are taken for multiples of 16, as they are at full size.
    """
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    types = dict.fromkeys(kernel.arg_names, "i32") | signature
    types |= dict.fromkeys(constants, "constexpr")
    aligned = {
        (number,): [["tt.divisibility", 16]]
        for number, name in enumerate(kernel.arg_names)
        if types[name] != "constexpr" and types[name][0] in "*i"
    }
    source = ASTSource(kernel, types, constants, attrs=aligned)
    binary = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
    cubin, ptx = binary.asm["cubin"], binary.asm["ptx"]
    usage = _resources(cubin)
    return Compiled(
        registers=int(re.search(r"REG:(\d+)", usage)[1]),  # type: ignore[index]
        stack_bytes=int(re.search(r"STACK:(\d+)", usage)[1]),  # type: ignore[index]
        shared_bytes=int(binary.metadata.shared),
        ptx=ptx,
    )


def _resources(cubin: bytes) -> str:
    """What cuobjdump, which comes with Triton, says of the only kernel in it."""
    import tempfile

    import triton.backends.nvidia as nvidia

    tool = Path(next(iter(nvidia.__path__))) / "bin" / "cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        run = subprocess.run(
            [str(tool), "-res-usage", file.name], capture_output=True, text=True, check=True
        )
    return run.stdout + run.stderr
