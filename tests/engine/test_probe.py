"""How fast a model is told to be: measured, and not for ever where it is hopeless."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from streamlift.engine import measure_fps, probe
from streamlift.frames import Planes, Size
from streamlift.upscalers.toy import Toy, ToyKnobs


class Counting(Toy):
    """Counts the frames that all its sessions take."""

    pushed = 0

    def open(self, size: Size, *, seed: int = 0) -> Any:
        session: Any = super().open(size, seed=seed)
        plain = session.push

        def push(lr: Planes) -> Iterator[Planes]:
            self.pushed += 1
            yield from plain(lr)

        session.push = push
        return session


@pytest.mark.parametrize(("too_slow_s", "frames"), [(-1.0, 12), (1e9, 12 + 8 + 8)])
def test_a_model_that_is_hopeless_on_a_cpu_is_asked_once(
    too_slow_s: float, frames: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its first pictures tell; windows of large nets take a minute there, and probes three."""
    monkeypatch.setattr(probe, "_TOO_SLOW_S", too_slow_s)
    monkeypatch.setattr(probe, "_PROBE_LIMIT_S", -1.0)  # the full size is not looked at
    toy = Counting(ToyKnobs(first=12, step=8, lag=4))
    assert measure_fps(toy, "cpu") > 0
    assert toy.pushed == frames
