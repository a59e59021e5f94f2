"""What Scope gives a plugin, reduced to what ours uses: for tests where Scope is not installed.

Names and shapes follow daydreamlive/scope 0.2.4.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, ClassVar, TypeVar

__all__ = [
    "BasePipelineConfig",
    "HuggingfaceRepoArtifact",
    "InputSource",
    "InputSourceInfo",
    "ModeDefaults",
    "Pipeline",
    "Requirements",
    "UsageType",
    "hookimpl",
    "ui_field_config",
]

F = TypeVar("F", bound=Callable[..., Any])


def hookimpl(function: F) -> F:
    return function


class Pipeline:
    """The base of every stage."""


@dataclass(frozen=True, slots=True)
class Requirements:
    """How many frames a call wants."""

    input_size: int


class UsageType(StrEnum):
    """Where a stage is offered."""

    POSTPROCESSOR = "postprocessor"


@dataclass(frozen=True, slots=True)
class ModeDefaults:
    """A mode the stage can run in."""

    default: bool = False


@dataclass(frozen=True, slots=True)
class HuggingfaceRepoArtifact:
    """Files that Scope downloads before the stage is loaded."""

    repo_id: str
    files: list[str]


class InputSource:
    """The base of every source of pictures."""


@dataclass(slots=True)
class InputSourceInfo:
    """A source that was found."""

    name: str
    identifier: str
    metadata: dict[str, Any] | None = None


class BasePipelineConfig:
    """The base of every stage's fields."""

    pipeline_id: ClassVar[str]
    pipeline_name: ClassVar[str]
    pipeline_description: ClassVar[str]
    supports_prompts: ClassVar[bool] = True
    usage: ClassVar[list[UsageType]] = []
    modes: ClassVar[dict[str, ModeDefaults]] = {}
    artifacts: ClassVar[list[HuggingfaceRepoArtifact]] = []


def ui_field_config(
    *, order: int | None = None, label: str | None = None, is_load_param: bool = False
) -> dict[str, Any]:
    return {"ui": {"order": order, "label": label, "is_load_param": is_load_param}}
