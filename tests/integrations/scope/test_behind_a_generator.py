"""The post-processor between a bursty source and Scope's player, in virtual time."""

from __future__ import annotations

import numpy as np
import pytest
from tests.integrations.scope.conftest import MakeUpscale
from tests.integrations.scope.player import SIDE, Scope, camera, longlive

from streamlift.clock import ManualClock

SETTLED_S = 5.0


def scope_with(make: MakeUpscale, clock: ManualClock, model: str) -> Scope:
    clock.advance(-clock.now_s())
    return Scope(make(upscale_model=model), clock)


@pytest.mark.parametrize("model", ["bicubic", "realesrgan-x2", "flashvsr"])
@pytest.mark.parametrize("fps", [16.0, 25.0])
def test_behind_longlives_bursts_no_frame_is_lost_and_the_cadence_is_even(
    make: MakeUpscale, clock: ManualClock, model: str, fps: float
) -> None:
    scope = scope_with(make, clock, model)
    shown = scope.run(longlive(fps, 15.0), call_s=0.02)
    owed = 11 if model == "flashvsr" else 3
    assert scope.lost == 0
    assert shown.numbers == list(range(len(shown.numbers)))
    assert len(shown.numbers) >= 9 + 12 * ((15.0 * fps - 9) // 12) - owed
    assert shown.fps(SETTLED_S) == pytest.approx(fps, rel=0.05)
    assert np.percentile(shown.gaps_s(SETTLED_S), 95) < 1.5 / fps


@pytest.mark.parametrize("model", ["realesrgan-x2", "flashvsr"])
def test_behind_a_camera_the_cadence_is_even_too(
    make: MakeUpscale, clock: ManualClock, model: str
) -> None:
    scope = scope_with(make, clock, model)
    shown = scope.run(camera(30.0, 12.0), call_s=0.01)
    assert scope.lost == 0
    assert shown.numbers == list(range(len(shown.numbers)))
    assert shown.fps(SETTLED_S) == pytest.approx(30.0, rel=0.05)
    assert np.percentile(shown.gaps_s(SETTLED_S), 95) < 1.5 / 30.0


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("bicubic", "flashvsr"),
        ("flashvsr", "realesrgan-x2"),
        ("realesrgan-x2", "flashvsr"),
        ("flashvsr", "bicubic"),
    ],
)
@pytest.mark.parametrize("source", [longlive, camera])
def test_changing_the_model_costs_no_frame_and_no_gap(
    make: MakeUpscale, clock: ManualClock, before: str, after: str, source: type
) -> None:
    scope = scope_with(make, clock, before)
    scope.stage._models.wait(after)  # type: ignore[attr-defined]
    shown = scope.run(source(16.0, 20.0), events=[(10.0, {"upscale_model": after})], call_s=0.02)
    assert scope.lost == 0
    assert shown.numbers == list(range(len(shown.numbers)))
    assert max(shown.gaps_s(SETTLED_S)) < 0.150
    assert set(shown.sizes) == {(2 * SIDE, 2 * SIDE)}


@pytest.mark.long
def test_over_four_minutes_the_delay_does_not_grow(make: MakeUpscale, clock: ManualClock) -> None:
    scope = scope_with(make, clock, "realesrgan-x2")
    bursts = longlive(16.0, 240.0)
    shown = scope.run(bursts)
    ready_s = [ready for ready, frames in bursts for _ in frames]
    delays = [at - ready_s[n] for n, at in zip(shown.numbers, shown.times_s, strict=True)]
    assert scope.lost == 0
    assert max(delays[-200:]) < max(delays[100:300]) + 0.3
