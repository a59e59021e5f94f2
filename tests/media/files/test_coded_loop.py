"""A clip that is drawn and coded once and then played from memory."""

from __future__ import annotations

from collections.abc import Iterator

import av
import numpy as np
from tests.clips import picture

from streamlift.clock import MonotonicClock
from streamlift.codec.decoder import picture_of
from streamlift.frames import Planes, Size
from streamlift.media.files.coded_loop import CodedLoop, TimedUnit
from streamlift.stamp import read_stamp

SIZE = Size(128, 128)
LENGTH = 6


class Clip:
    """Counts how often its pictures are drawn."""

    def __init__(self, length: int = LENGTH) -> None:
        self.length = length
        self.drawn = 0

    def __call__(self) -> Iterator[Planes]:
        for number in range(self.length):
            self.drawn += 1
            yield picture(SIZE, number)


async def take(
    loop: CodedLoop, count: int, wishes: frozenset[int] = frozenset()
) -> list[TimedUnit]:
    taken: list[TimedUnit] = []
    units = loop.units(lambda: len(taken) in wishes)
    async for unit in units:
        taken.append(unit)
        if len(taken) == count:
            break
    await units.aclose()
    return taken


def loop_of(clip: Clip, *, fps: float = 500, **options: int) -> CodedLoop:
    return CodedLoop(clip, SIZE, fps, 400_000, clock=MonotonicClock(), **options)


async def test_pictures_are_drawn_once_however_long_it_plays() -> None:
    clip = Clip()
    units = await take(loop_of(clip), 5 * LENGTH)
    assert clip.drawn == LENGTH
    first, later = units[:LENGTH], units[LENGTH : 2 * LENGTH]
    assert [data for _, data, _ in first] == [data for _, data, _ in later]


async def test_what_it_plays_decodes_to_the_clip_over_and_over() -> None:
    units = await take(loop_of(Clip()), 3 * LENGTH)
    assert numbers(units) == [*range(LENGTH)] * 3


async def test_times_go_on_over_the_end_of_the_clip() -> None:
    units = await take(loop_of(Clip()), 2 * LENGTH + 1)
    assert [pts for pts, _, _ in units] == [180 * n for n in range(2 * LENGTH + 1)]


async def test_a_wish_for_a_keyframe_is_granted_with_the_next_picture() -> None:
    units = await take(loop_of(Clip()), 3 * LENGTH, wishes=frozenset({3, 2 * LENGTH - 2}))
    keyframes = [index for index, (_, _, keyframe) in enumerate(units) if keyframe]
    assert {0, 3, 2 * LENGTH - 2} <= set(keyframes)


async def test_a_second_run_plays_what_the_first_has_coded() -> None:
    clip = Clip()
    loop = loop_of(clip)
    first = await take(loop, LENGTH + 1)
    assert [data for _, data, _ in await take(loop, LENGTH)] == [
        data for _, data, _ in first[:LENGTH]
    ]
    assert clip.drawn == LENGTH


async def test_a_run_that_broke_off_is_begun_anew() -> None:
    clip = Clip()
    loop = loop_of(clip)
    await take(loop, 2)
    assert numbers(await take(loop, 2 * LENGTH)) == [*range(LENGTH)] * 2


async def test_a_clip_too_long_to_keep_is_coded_again_in_every_round() -> None:
    clip = Clip()
    units = await take(loop_of(clip, most_bytes=100), 2 * LENGTH)
    assert numbers(units) == [*range(LENGTH)] * 2
    assert clip.drawn == 2 * LENGTH


async def test_a_clip_without_pictures_ends() -> None:
    assert await take(loop_of(Clip(length=0)), 1) == []


def numbers(units: list[TimedUnit]) -> list[int]:
    """The stamps of the pictures that the units decode to."""
    decoder = av.CodecContext.create("h264", "r")
    assert isinstance(decoder, av.VideoCodecContext)
    found = []
    for _, data, _ in units:
        for frame in decoder.decode(av.Packet(data)):
            stamp = read_stamp(np.ascontiguousarray(picture_of(frame).y))
            assert stamp is not None
            found.append(stamp.number)
    return found
