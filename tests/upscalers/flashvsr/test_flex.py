"""FlexAttention stays sparse however many picture sizes a process sees."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from streamlift.errors import UpscaleError
from streamlift.upscalers.flashvsr import attention as module
from streamlift.upscalers.flashvsr.attention import FlexAttention, attend_exact
from streamlift.upscalers.flashvsr.blocks import BlockLists
from streamlift.upscalers.flashvsr.model import _allow_many_sizes

_LIMIT = 8
"""Shapes that torch compiles of one piece of code."""


class StandInCompiler:
    """torch.compile's rule without its work: after so many shapes of one code it runs it plainly.

    What is "compiled" walks the lists, as the compiled kernel does; a code object may be given
    by several functions, and is still one.
    """

    def __init__(self) -> None:
        self.shapes: dict[Any, set[object]] = {}
        self.refused = 0

    def __call__(self, function: Any, *, dynamic: bool, fullgraph: bool) -> Callable[..., Any]:
        assert not dynamic

        def compiled(q: Tensor, k: Tensor, v: Tensor, mask: Any) -> Tensor:
            seen = self.shapes.setdefault(function.__code__, set())
            if (q.shape, k.shape) not in seen and len(seen) == _LIMIT:
                self.refused += 1
                if fullgraph:
                    raise RuntimeError("recompile limit reached with fullgraph=True")
                return function(q, k, v, mask)  # type: ignore[no-any-return]
            seen.add((q.shape, k.shape))
            blocks = BlockLists(mask.full_kv_num_blocks[0], mask.full_kv_indices[0])
            return attend_exact(q[0], k[0], v[0], blocks)[None]

        return compiled


def test_ten_sizes_in_one_process_are_each_attended_sparsely() -> None:
    compiler = StandInCompiler()
    attend = FlexAttention(compiler)
    for size in range(1, 11):
        for keys in (size, size + 1):  # a first and a steady chunk
            q, k, v, blocks = _problem(size, keys)
            torch.testing.assert_close(
                attend(q, k, v, blocks), attend_exact(q, k, v, blocks), atol=0, rtol=0
            )
    assert compiler.refused == 0
    assert max(len(shapes) for shapes in compiler.shapes.values()) == 1


def test_torch_itself_compiles_a_copied_code_for_each_shape() -> None:
    # "eager" traces and guards as the real backend does, and compiles nothing.
    torch._dynamo.reset()

    def compiler(function: Any, **options: Any) -> Any:
        return torch.compile(function, backend="eager", **options)

    attend = FlexAttention(compiler)
    plain = torch.nn.attention.flex_attention.flex_attention
    shapes = []

    def stand_in(q: Tensor, k: Tensor, v: Tensor, *, block_mask: Any) -> Tensor:
        return q + k.sum() * 0

    torch.nn.attention.flex_attention.flex_attention = stand_in  # type: ignore[assignment]
    try:
        for size in range(1, 11):
            q, k, v, blocks = _problem(size, size)
            shapes.append(attend(q, k, v, blocks).shape)
    finally:
        torch.nn.attention.flex_attention.flex_attention = plain
        torch._dynamo.reset()
    assert len(set(shapes)) == 10


def test_what_would_run_uncompiled_raises() -> None:
    attend = FlexAttention(lambda function, **options: function)
    with pytest.raises(UpscaleError, match="uncompiled"):
        attend(*_problem(1, 2))


def test_shapes_are_forgotten_when_there_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.FlexAttention, "KEPT", 2)
    compiler = StandInCompiler()
    attend = FlexAttention(compiler)
    for size in (1, 2, 3, 1):
        attend(*_problem(size, size))
    assert len(compiler.shapes) == 4
    assert len(attend._by_shape) == 2


def test_compiled_networks_may_have_as_many_shapes_as_a_backend_has_slots() -> None:
    import torch._dynamo

    settings: Any = torch._dynamo.config
    # By torch's own means: what pytest puts back is hidden from then on.
    with settings.patch(recompile_limit=8, accumulated_recompile_limit=256):
        _allow_many_sizes()
        assert settings.recompile_limit >= 64 * 3
        assert settings.accumulated_recompile_limit >= 64 * 3


def _problem(queries: int, keys: int) -> tuple[Tensor, Tensor, Tensor, BlockLists]:
    generator = torch.Generator().manual_seed(queries)
    q = torch.randn(1, queries * 128, 16, generator=generator)
    k, v = torch.randn(2, 1, keys * 128, 16, generator=generator)
    keep = torch.rand(1, queries, keys, generator=generator) < 0.5
    return q, k, v, BlockLists.from_mask(keep)
