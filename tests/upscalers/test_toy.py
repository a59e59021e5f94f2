"""The toy does what its knobs say, and each fault once."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
from tests.clips import picture

from streamlift.errors import ConfigError, OutOfMemory, UpscaleError
from streamlift.frames import Planes, Size
from streamlift.upscalers import UpscaleSession, create_upscaler
from streamlift.upscalers.toy import Toy, ToyKnobs

SIZE = Size(64, 64)


def test_it_repeats_every_pixel() -> None:
    (large,) = _push(Toy().open(SIZE), 0)
    assert np.array_equal(large.y[::2, ::2], picture(SIZE, 0, stamped=False).y)
    assert np.array_equal(large.y[::2, ::2], large.y[1::2, 1::2])


def test_knobs_are_the_settings() -> None:
    toy = create_upscaler("toy", settings={"first": 25, "step": 8, "lag": 4})
    assert (toy.spec.first, toy.spec.step, toy.spec.lag) == (25, 8, 4)
    assert toy.spec.max_owed == 24
    assert toy.spec.chunked


def test_an_unknown_knob_is_named() -> None:
    with pytest.raises(ConfigError, match="unknown toy setting") as caught:
        create_upscaler("toy", settings={"delay": 3})
    assert caught.value.found == ["delay"]


@pytest.mark.parametrize("chunk", [(0, 1, 0), (1, 0, 0), (1, 1, -1), (2, 2, 4)])
def test_chunks_that_do_not_fit_together_are_refused(chunk: tuple[int, int, int]) -> None:
    first, step, lag = chunk
    with pytest.raises(ConfigError, match="chunk sizes"):
        Toy(ToyKnobs(first=first, step=step, lag=lag))


def test_a_fault_happens_at_its_frame_and_only_once() -> None:
    toy = Toy(ToyKnobs(fail_at=2))
    session = toy.open(SIZE)
    _push(session, 0)
    _push(session, 1)
    with pytest.raises(UpscaleError, match="frame 2"):
        _push(session, 2)
    retry = toy.open(SIZE)
    assert sum(len(_push(retry, n)) for n in range(5)) == 5


def test_fail_every_fails_in_every_session() -> None:
    toy = Toy(ToyKnobs(fail_at=1, fail_every=2))
    for _ in range(2):
        session = toy.open(SIZE)
        _push(session, 0)
        with pytest.raises(UpscaleError):
            _push(session, 1)
        _push(session, 2)
        with pytest.raises(UpscaleError):
            _push(session, 3)


def test_out_of_memory_is_its_own_error() -> None:
    with pytest.raises(OutOfMemory):
        _push(Toy(ToyKnobs(oom_at=0)).open(SIZE), 0)


def test_a_black_picture_is_black_once() -> None:
    session = Toy(ToyKnobs(black_at=1)).open(SIZE)
    brightness = [_push(session, n)[0].y.max() for n in range(3)]
    assert [b > 0 for b in brightness] == [True, False, True]


def test_a_wrong_shape_is_wrong_once() -> None:
    session = Toy(ToyKnobs(wrong_shape_at=1)).open(SIZE)
    sizes = [_push(session, n)[0].size for n in range(3)]
    assert sizes == [SIZE.times(2), SIZE, SIZE.times(2)]


def test_a_delay_takes_its_time_once_a_computation() -> None:
    session = Toy(ToyKnobs(delay_ms=30, first=3, step=3)).open(SIZE)
    started = time.monotonic()
    outputs = [len(_push(session, n)) for n in range(6)]
    assert outputs == [0, 0, 3, 0, 0, 3]
    assert time.monotonic() - started >= 0.06


def test_a_hang_ends_when_it_is_released() -> None:
    toy = Toy(ToyKnobs(hang_at=0, hang_s=60))
    outputs: list[Planes] = []
    thread = threading.Thread(target=lambda: outputs.extend(_push(toy.open(SIZE), 0)))
    thread.start()
    assert not outputs
    toy.released.set()
    thread.join(10)
    assert len(outputs) == 1


def _push(session: UpscaleSession[Planes], number: int) -> list[Planes]:
    return list(session.push(picture(SIZE, number, stamped=False)))
