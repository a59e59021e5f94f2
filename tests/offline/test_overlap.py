"""Work beside: in order, bounded, errors where they can be acted on, nothing left running."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import av
import numpy as np
import pytest
from tests.offline.media import make_clip, pictures_of

from streamlift.clock import MonotonicClock
from streamlift.errors import UpscaleError
from streamlift.frames import Plane, Planes, Size, Stabilise
from streamlift.offline import Options, upscale_file
from streamlift.offline.description import describe
from streamlift.offline.enlarge import open_enlarger
from streamlift.offline.overlap import ahead, behind
from streamlift.offline.pictures import Picture
from streamlift.offline.reading import Reader
from streamlift.offline.steps import Notes
from streamlift.upscalers import Upscaler, create_upscaler
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
@pytest.mark.parametrize("size", [(96, 64), (95, 63)])
def test_side_by_side_gives_what_one_after_the_other_gives(
    stabilise: Stabilise, size: tuple[int, int], tmp_path: Path
) -> None:
    source = make_clip(tmp_path / "in.mkv", frames=20, size=size, codec="ffv1")
    about, compact = describe(source), small()
    enlarged = []
    for workers in (1, 4):
        with (
            av.open(str(source)) as container,
            closing(
                open_enlarger(
                    compact,
                    "cpu",
                    about,
                    8,
                    stabilise=stabilise,
                    clock=MonotonicClock(),
                    workers=workers,
                )
            ) as enlarger,
        ):
            reader = Reader(source, container, about, (), Notes(), bits=8)
            pictures = [p for p in reader if isinstance(p, Picture)]
            ready = [done for picture in pictures for done in enlarger.push(picture)]
            ready += enlarger.finish()
        assert [p.time for p in ready] == [p.time for p in pictures]
        enlarged.append(ready)
    for one, other in zip(*enlarged, strict=True):
        for plane in ("y", "u", "v"):
            assert np.array_equal(getattr(one, plane), getattr(other, plane))


@pytest.mark.parametrize("stabilise", list(Stabilise))
def test_files_are_the_same_however_many_work_on_them(stabilise: Stabilise, tmp_path: Path) -> None:
    source = make_clip(tmp_path / "in.mp4", frames=20)
    found = []
    for workers in (1, 4):
        target = tmp_path / f"{workers}.mp4"
        # Without loss: of the same pictures x264 makes other bits now and then on a busy machine,
        # and with loss they may mean other pictures.
        options = Options(workers=workers, stabilise=stabilise, crf=0)
        assert upscale_file(source, target, small(), options=options).pictures == 20
        found.append([f.to_ndarray() for f in pictures_of(target)])
    assert all(np.array_equal(one, other) for one, other in zip(*found, strict=True))


def test_a_change_of_size_keeps_every_picture_that_is_still_at_work(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "in.mp4", frames=1)
    about = describe(source)
    sizes = [(96, 64)] * 3 + [(64, 64)] * 4 + [(96, 64)]
    pictures = [
        Picture(
            np.full((h, w), 20 * n, np.uint8),
            np.full((h // 2, w // 2), 100, np.uint8),
            np.full((h // 2, w // 2), 100, np.uint8),
            8,
            n,
            1,
        )
        for n, (w, h) in enumerate(sizes, 1)
    ]
    with closing(
        open_enlarger(
            Bicubic(), "cpu", about, 8, stabilise=Stabilise.LITE, clock=MonotonicClock(), workers=3
        )
    ) as enlarger:
        ready = [done for picture in pictures for done in enlarger.push(picture)]
        ready += enlarger.finish()
    assert [p.y.shape for p in ready] == [(2 * h, 2 * w) for w, h in sizes]
    assert [int(p.y[0, 0]) for p in ready] == [20 * n for n in range(1, 9)]


def small() -> Upscaler:
    return create_upscaler("compact", settings={"tier": "xs", "precision": "fp32"})


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
