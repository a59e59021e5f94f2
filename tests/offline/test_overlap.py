"""Work beside: in order, bounded, errors where they can be acted on, nothing left running."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from tests.offline.media import make_clip, pictures_of

from streamlift.errors import UpscaleError
from streamlift.frames import Plane, Planes, Size, Stabilise
from streamlift.offline import Options, upscale_file
from streamlift.offline.overlap import ahead, behind
from streamlift.upscalers import create_upscaler
from streamlift.upscalers.bicubic import Bicubic, BicubicSession
from streamlift.upscalers.toy import Toy, ToyKnobs


def test_reading_ahead_keeps_the_order_and_its_bound() -> None:
    read: list[int] = []
    paused = threading.Event()

    def numbers() -> Iterator[int]:
        for n in range(100):
            read.append(n)
            if len(read) == 6:
                paused.set()
            yield n

    with ahead(numbers(), 5) as items:
        assert next(items) == 0
        assert paused.wait(10)
        taken = 1
        for n in items:
            assert n == taken
            taken += 1
            assert len(read) <= taken + 5 + 2  # one being handed over, one taken
    assert taken == 100


def test_an_error_of_the_reader_comes_where_its_item_would() -> None:
    def numbers() -> Iterator[int]:
        yield 1
        raise ValueError("broken")

    with ahead(numbers(), 5) as items:
        assert next(items) == 1
        with pytest.raises(ValueError, match="broken"):
            next(items)


def test_ending_early_stops_the_reader() -> None:
    before = threading.active_count()

    def numbers() -> Iterator[int]:
        n = 0
        while True:
            yield n
            n += 1

    with ahead(numbers(), 3) as items:
        assert next(items) == 0
    assert threading.active_count() == before


def test_an_error_of_the_writer_stops_the_work() -> None:
    before, taken = threading.active_count(), 0

    def consume(item: int) -> None:
        if item == 3:
            raise ValueError("disk full")

    def produce() -> None:
        nonlocal taken
        with behind(consume, 2) as work:
            for n in range(1000):
                work.put(n)
                taken = n

    with pytest.raises(ValueError, match="disk full"):
        produce()
    assert taken < 999
    assert threading.active_count() == before


def test_an_error_of_the_block_stops_the_writer_at_once() -> None:
    written: list[int] = []
    gate = threading.Event()

    def consume(item: int) -> None:
        gate.wait(10)
        written.append(item)

    def produce() -> None:
        with behind(consume, 4) as work:
            for n in range(4):
                work.put(n)
            threading.Timer(0.1, gate.set).start()
            raise KeyError

    with pytest.raises(KeyError):
        produce()
    assert written in ([], [0])


@pytest.mark.parametrize("stabilise", list(Stabilise))
def test_side_by_side_gives_what_one_after_the_other_gives(
    stabilise: Stabilise, tmp_path: Path
) -> None:
    source = make_clip(tmp_path / "in.mp4", frames=20)
    compact = create_upscaler("compact", settings={"tier": "xs", "precision": "fp32"})
    found = []
    for workers in (1, 4):
        target = tmp_path / f"{workers}.mp4"
        options = Options(workers=workers, stabilise=stabilise)
        assert upscale_file(source, target, compact, options=options).pictures == 20
        found.append([f.to_ndarray() for f in pictures_of(target)])
    differ = {
        n: float(np.abs(one.astype(int) - other.astype(int)).mean())
        for n, (one, other) in enumerate(zip(*found, strict=True))
        if not np.array_equal(one, other)
    }
    # The stabiliser decides by thresholds, after which x264 codes what differs in its own way: a
    # picture in the wrong place, or with another's history, is off by several levels.
    most = 0.0 if stabilise is Stabilise.OFF else 1.0
    assert all(mean <= most for mean in differ.values()), differ


def test_what_is_held_does_not_grow_with_the_length(tmp_path: Path) -> None:
    most = {}
    for frames in (40, 160):
        source = make_clip(tmp_path / f"{frames}.mp4", frames=frames)
        counting = Counting()
        upscale_file(source, tmp_path / f"{frames}-big.mp4", counting, options=Options(workers=3))
        most[frames] = counting.most
    assert most[160] <= 24  # read ahead, at work, waiting to be written
    assert most[160] <= most[40] + 6


def test_a_model_that_fails_leaves_no_thread_behind(tmp_path: Path) -> None:
    source, before = make_clip(tmp_path / "in.mp4", frames=60), threading.active_count()
    with pytest.raises(UpscaleError):
        upscale_file(source, tmp_path / "out.mp4", Toy(ToyKnobs(fail_at=5)))
    assert threading.active_count() == before


class Counting(Bicubic):
    """Counts the enlarged pictures whose memory is held at once."""

    def __init__(self) -> None:
        super().__init__()
        self.held: list[weakref.ref[Plane]] = []
        self.most = 0
        self.lock = threading.Lock()

    def open(self, size: Size, *, seed: int = 0) -> BicubicSession:
        return CountingSession(self)


class CountingSession(BicubicSession):
    """Tells its `Counting` of every picture."""

    def __init__(self, counting: Counting) -> None:
        super().__init__(2)
        self._counting = counting

    def push(self, lr: Planes) -> Iterator[Planes]:
        counting = self._counting
        for planes in super().push(lr):
            with counting.lock:
                counting.held = [r for r in counting.held if r() is not None]
                counting.held.append(weakref.ref(planes.y))
                counting.most = max(counting.most, len(counting.held))
            yield planes
