"""The choice of a backend, as tables."""

from __future__ import annotations

import pytest

from streamlift.frames import BackendInfo, BackendState, Slots
from streamlift.routing.policy import (
    QUALITY,
    Policy,
    Stepper,
    choose,
    decision_matrix,
)


def backend(
    upscaler: str,
    fps: float | None,
    *,
    state: BackendState = BackendState.READY,
    used: int = 0,
    device: str = "cuda:0",
) -> BackendInfo:
    return BackendInfo(upscaler, upscaler, device, state, "", fps, Slots(1, used))


H100 = [backend("flashvsr", 40.0), backend("realesrgan-x2", 90.0), backend("bicubic", None)]
H100_SWIFT = [*H100, backend("swiftvr", 170.0)]
RTX_5090_SWIFT = [
    backend("flashvsr", 22.0),
    backend("swiftvr", 60.0),
    backend("realesrgan-x2", 120.0),
    backend("bicubic", None),
]
RTX_5090 = [backend("flashvsr", 22.0), backend("realesrgan-x2", 120.0), backend("bicubic", None)]
CPU = [backend("flashvsr", 0.2), backend("compact", 31.0), backend("bicubic", 400.0)]
SLOW_CPU = [backend("compact", 20.0), backend("bicubic", 300.0)]


@pytest.mark.parametrize(
    ("policy", "backends", "fps", "chosen"),
    [
        (Policy.AUTO, H100, 25.0, "flashvsr"),
        (Policy.AUTO, H100, 30.0, "flashvsr"),
        (Policy.AUTO, H100, 34.0, "realesrgan-x2"),  # 20 % headroom is missing
        (Policy.AUTO, H100, 60.0, "realesrgan-x2"),
        (Policy.AUTO, H100, 100.0, "bicubic"),
        (Policy.AUTO, RTX_5090, 25.0, "realesrgan-x2"),
        (Policy.AUTO, RTX_5090, 15.0, "flashvsr"),  # measures fast enough
        (Policy.AUTO, H100_SWIFT, 30.0, "flashvsr"),
        (Policy.AUTO, H100_SWIFT, 60.0, "swiftvr"),
        (Policy.AUTO, RTX_5090_SWIFT, 30.0, "swiftvr"),
        (Policy.AUTO, RTX_5090_SWIFT, 60.0, "realesrgan-x2"),  # 20 % headroom is missing
        (Policy.QUALITY, RTX_5090_SWIFT, 60.0, "swiftvr"),
        (Policy.AUTO, CPU, 25.0, "compact"),
        (Policy.AUTO, CPU, None, "compact"),
        (Policy.AUTO, CPU, 30.0, "bicubic"),
        (Policy.AUTO, SLOW_CPU, 25.0, "bicubic"),
        (Policy.AUTO, SLOW_CPU, 12.0, "compact"),
        (Policy.QUALITY, H100, 34.0, "flashvsr"),
        (Policy.QUALITY, CPU, 30.0, "compact"),
        (Policy.QUALITY, CPU, 40.0, "bicubic"),
        (Policy.SPEED, H100, 25.0, "realesrgan-x2"),
        (Policy.SPEED, CPU, 25.0, "compact"),
        (Policy.SPEED, SLOW_CPU, 25.0, "bicubic"),
    ],
)
def test_choice(
    policy: Policy, backends: list[BackendInfo], fps: float | None, chosen: str
) -> None:
    choice = choose(policy, backends, fps)
    assert choice is not None
    assert choice.backend == chosen
    assert choice.reason


def test_what_is_not_ready_or_full_is_not_chosen_but_the_held_slot_is_kept() -> None:
    loading = backend("flashvsr", 60.0, state=BackendState.LOADING)
    full = backend("realesrgan-x2", 60.0, used=1)
    free = backend("compact", 60.0)
    assert choose(Policy.AUTO, [loading, full, free], 25.0) is not None
    choice = choose(Policy.AUTO, [loading, full, free], 25.0)
    assert choice is not None
    assert choice.backend == "compact"
    kept = choose(Policy.AUTO, [loading, full, free], 25.0, current="realesrgan-x2")
    assert kept is not None
    assert kept.backend == "realesrgan-x2"


def test_nothing_ready_is_no_choice_and_neither_is_fixed() -> None:
    assert choose(Policy.AUTO, [backend("compact", 9.0, used=1)], 25.0) is None
    assert choose(Policy.FIXED, CPU, 25.0) is None


def test_if_nothing_holds_the_rate_the_fastest_is_taken() -> None:
    choice = choose(Policy.AUTO, [backend("flashvsr", 1.0), backend("compact", 20.0)], 25.0)
    assert choice is not None
    assert choice.backend == "compact"
    assert "none holds 25 fps" in choice.reason


def test_an_unknown_upscaler_ranks_before_bicubic() -> None:
    choice = choose(Policy.AUTO, [backend("bicubic", 999.0), backend("my-model", 99.0)], 25.0)
    assert choice is not None
    assert choice.backend == "my-model"


def test_the_matrix_is_what_the_policy_does() -> None:
    order = {row.device: row.order for row in decision_matrix()}
    assert order["CPU"] == ("compact", "bicubic")
    assert order["NVIDIA GPU"] == (
        "flashvsr",
        "swiftvr",
        "realesrgan-x2",
        "rtx-vsr",
        "compact",
        "bicubic",
    )
    for row in decision_matrix():
        assert sorted(row.order, key=QUALITY.index) == list(row.order)


def seconds(stepper: Stepper, start: int, stop: int, *, overloaded: bool, current: str) -> str:
    """Feed whole seconds; the backend at the end."""
    for now_s in range(start, stop):
        stepper.observe(now_s, overloaded)
        step = stepper.step(Policy.AUTO, H100, 25.0, current, now_s)
        current = step.backend if step else current
    return current


def test_sustained_overload_steps_down() -> None:
    assert seconds(Stepper(), 0, 4, overloaded=True, current="flashvsr") == "realesrgan-x2"


def test_a_short_overload_changes_nothing() -> None:
    stepper = Stepper()
    for now_s in range(60):
        stepper.observe(now_s, now_s % 4 < 2)
        assert stepper.step(Policy.AUTO, H100, 25.0, "flashvsr", now_s) is None


def test_sustained_headroom_steps_back_up_but_not_too_soon() -> None:
    stepper = Stepper()
    assert seconds(stepper, 0, 4, overloaded=True, current="flashvsr") == "realesrgan-x2"
    current = seconds(stepper, 4, 60, overloaded=False, current="realesrgan-x2")
    assert current == "realesrgan-x2"  # still barred
    assert seconds(stepper, 60, 70, overloaded=False, current=current) == "flashvsr"


def test_each_further_overload_bars_twice_as_long() -> None:
    stepper, now_s, current, barred_s = Stepper(), 0, "flashvsr", list[int]()
    for _ in range(3):
        while current == "flashvsr":
            current = seconds(stepper, now_s, now_s + 1, overloaded=True, current=current)
            now_s += 1
        down_s = now_s
        while current != "flashvsr":
            current = seconds(stepper, now_s, now_s + 1, overloaded=False, current=current)
            now_s += 1
        barred_s.append(now_s - down_s)
    assert barred_s == [pytest.approx(60 * 2**n, abs=2) for n in range(3)]


def test_a_fixed_backend_never_steps() -> None:
    stepper = Stepper()
    for now_s in range(20):
        stepper.observe(now_s, True)
        assert stepper.step(Policy.FIXED, H100, 25.0, "flashvsr", now_s) is None


def test_a_step_tells_its_reason() -> None:
    stepper = Stepper()
    for now_s in (0, 1, 2, 3):
        stepper.observe(now_s, True)
    step = stepper.step(Policy.AUTO, H100, 25.0, "flashvsr", 3)
    assert step is not None
    assert step.reason.startswith("flashvsr fell behind for 3 s: best picture")
