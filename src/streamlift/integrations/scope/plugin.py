"""What Scope imports at each start: the hook, and nothing heavy."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from streamlift.integrations.scope.standin import hookimpl
else:
    try:
        from scope.core.plugins.hookspecs import hookimpl
    except ImportError:  # our own tests, where Scope is not installed
        from streamlift.integrations.scope.standin import hookimpl

__all__ = ["register_nodes", "register_pipelines"]


@hookimpl
def register_pipelines(register: Callable[[type], None]) -> None:
    """Scope calls this once; only now the post-processor, and with it torch, is imported."""
    from streamlift.integrations.scope.postprocessor import (
        Upscale,
        UpscaleFlashVsr,
        UpscaleRealEsrgan,
    )

    for stage in (Upscale, UpscaleFlashVsr, UpscaleRealEsrgan):
        register(stage)


@hookimpl
def register_nodes(register: Callable[[type], None]) -> None:
    """Scope calls this once; a source of pictures is registered like a node."""
    from streamlift.integrations.scope.whep_input import StreamliftInput

    register(StreamliftInput)
