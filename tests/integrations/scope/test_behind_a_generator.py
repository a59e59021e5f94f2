"""The post-processor between a bursty source and Scope's player, in virtual time."""

from __future__ import annotations

import numpy as np
import pytest
from tests.integrations.scope.conftest import MakeUpscale
from tests.integrations.scope.player import SIDE, Scope, bursts_of, camera, longlive

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


@pytest.mark.parametrize("model", ["bicubic", "realesrgan-x2", "flashvsr"])
@pytest.mark.parametrize("burst", [21, 32, 97])
def test_bursts_of_any_size_lose_nothing(
    make: MakeUpscale, clock: ManualClock, model: str, burst: int
) -> None:
    scope = scope_with(make, clock, model)
    shown = scope.run(bursts_of(burst, 16.0, 40.0), call_s=0.1)
    assert scope.lost == 0
    assert shown.numbers == list(range(len(shown.numbers)))
    assert len(shown.numbers) >= burst * int(40.0 * 16 / burst) - 11


@pytest.mark.parametrize("model", ["bicubic", "flashvsr"])
def test_a_generator_with_sound_is_seen_and_heard(
    make: MakeUpscale, clock: ManualClock, model: str
) -> None:
    scope = scope_with(make, clock, model)
    scope.sound = True
    bursts = longlive(16.0, 15.0)
    shown = scope.run(bursts, call_s=0.02)
    # The last piece may still wait for its frame, as the frame does for its chunk.
    assert [piece for _, piece in scope.heard][:-1] == list(range(1, len(scope.heard)))
    assert len(scope.heard) >= len(bursts) - 1
    assert len(shown.numbers) > 15 * 16 - 9 - 12
    for heard_s, piece in scope.heard:
        assert heard_s >= bursts[piece - 1][0]


@pytest.mark.parametrize("source", [longlive, camera])
def test_changing_the_model_behind_a_source_with_timestamps_brings_no_bursts(
    make: MakeUpscale, clock: ManualClock, source: type
) -> None:
    scope = scope_with(make, clock, "bicubic")
    scope.stamped = True
    scope.stage._models.wait("flashvsr")  # type: ignore[attr-defined]
    shown = scope.run(
        source(16.0, 30.0), events=[(10.0, {"upscale_model": "flashvsr"})], call_s=0.02
    )
    assert scope.lost == 0
    assert shown.numbers == list(range(len(shown.numbers)))
    assert max(shown.gaps_s(SETTLED_S)) < 0.150
    assert min(shown.gaps_s(SETTLED_S)) > 0.5 / 16


@pytest.mark.long
def test_over_four_minutes_the_delay_does_not_grow(make: MakeUpscale, clock: ManualClock) -> None:
    scope = scope_with(make, clock, "realesrgan-x2")
    bursts = longlive(16.0, 240.0)
    shown = scope.run(bursts)
    ready_s = [ready for ready, frames in bursts for _ in frames]
    delays = [at - ready_s[n] for n, at in zip(shown.numbers, shown.times_s, strict=True)]
    assert scope.lost == 0
    assert max(delays[-200:]) < max(delays[100:300]) + 0.3
