"""What several commands take: sizes, rates, a configuration."""

from __future__ import annotations

import argparse
import os
from fractions import Fraction
from typing import Any

from streamlift.config import Config, load_config

__all__ = [
    "TOKEN_VARIABLE",
    "bitrate",
    "fraction",
    "load_given",
    "positive",
    "result_size",
    "size",
]

TOKEN_VARIABLE = "STREAMLIFT_TOKEN"
_LEAST_SIDE = 64


def load_given(arguments: argparse.Namespace) -> Config:
    """The configuration: file, environment, then what the command line says."""
    overrides = {
        "server.host": arguments.host,
        "server.port": arguments.port,
        "default_backend": arguments.backend,
        "outputs.save": arguments.save,
        "cluster.placement": getattr(arguments, "cluster", None),
    }
    given = {key: value for key, value in overrides.items() if value is not None}
    return load_config(arguments.config, os.environ, given)


def size(text: str) -> Any:
    from streamlift.frames import Size

    width, _, height = text.lower().partition("x")
    sides = [int(side) if side.isdecimal() else 0 for side in (width, height)]
    if any(side < _LEAST_SIDE or side % 2 for side in sides):
        raise argparse.ArgumentTypeError(
            f"found {text!r}, expected WIDTHxHEIGHT, both even and at least {_LEAST_SIDE}"
        )
    return Size(*sides)


def positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"found {text!r}, expected a number above 0")
    return value


def bitrate(text: str) -> int:
    if not text.isdecimal() or int(text) < 1000:
        raise argparse.ArgumentTypeError(f"found {text!r}, expected bits a second, at least 1000")
    return int(text)


def fraction(text: str) -> Fraction:
    """A number such as 2, 1.5 or 30000/1001, above 0 and at most 1000."""
    try:
        value = Fraction(text)
    except (ValueError, ZeroDivisionError):
        value = Fraction(0)
    if not 0 < value <= 1000:
        raise argparse.ArgumentTypeError(f"found {text!r}, expected a number above 0")
    return value


def result_size(text: str) -> Any:
    from streamlift.frames import Size

    width, _, height = text.lower().partition("x")
    sides = [int(side) if side.isdecimal() and len(side) < 6 else 0 for side in (width, height)]
    if not all(1 <= side <= 16384 for side in sides):
        raise argparse.ArgumentTypeError(f"found {text!r}, expected WIDTHxHEIGHT, both 1 to 16384")
    return Size(*sides)
