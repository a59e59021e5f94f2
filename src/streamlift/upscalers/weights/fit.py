"""Whether tensors are exactly those that a net has, and what is said when they are not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from streamlift.errors import WeightsError

if TYPE_CHECKING:
    from torch import Size

__all__ = ["check_fit", "wrong_net"]

_NAMED = 5


def check_fit(found: Mapping[str, Size], expected: Mapping[str, Size], where: str) -> None:
    """Raise WeightsError naming tensors that are missing, unexpected or of another shape."""
    missing = sorted(expected.keys() - found.keys())
    unexpected = sorted(found.keys() - expected.keys())
    misshapen = [
        f"{name} {tuple(found[name])} instead of {tuple(expected[name])}"
        for name in sorted(expected.keys() & found.keys())
        if found[name] != expected[name]
    ]
    faults = [
        f"{kind} {', '.join(names[:_NAMED])}{' and more' if len(names) > _NAMED else ''}"
        for kind, names in (
            ("missing", missing),
            ("unexpected", unexpected),
            ("misshapen", misshapen),
        )
        if names
    ]
    if faults:
        raise wrong_net(where, "; ".join(faults), f"exactly the {len(expected)} tensors of the net")


def wrong_net(where: str, found: str, expected: str) -> WeightsError:
    """The error for a file that is of another architecture, or not whole."""
    return WeightsError(
        f"{where} is not a checkpoint of this architecture: found {found}; expected {expected}. "
        "Give the file of another net, or replace it by `streamlift weights pull NAME`",
        found=found,
        expected=expected,
    )
