"""The built-in moving scene of the demo: a wall of photographs that a camera wanders along.

Faces, hair, fur, cloth, print and fine lines, for these are what an upscaler is judged by. Where
the photographs are from, and that they are free, is written beside them (`photographs/SOURCES.md`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from itertools import islice
from typing import cast

import cv2
import numpy as np
import numpy.typing as npt

from streamlift.frames import Planes, Size

__all__ = ["SCENE_FPS", "SCENE_SIZE", "scene_pictures", "scene_round"]

SCENE_SIZE = Size(512, 512)
SCENE_FPS = 25.0
_ROUND_FRAMES = 750
_FONT = cv2.FONT_HERSHEY_DUPLEX
_MARGIN = 70
"""Wall around and between the prints, pixels."""
_FRAME = 14
_WALL = (196, 204, 208)
_LABEL_WIDTH, _LABEL_HEIGHT = 136, 23
_INK = (52, 48, 46)

Image = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class _Print:
    """A photograph on the wall: its file, its caption, and where its middle is."""

    file: str
    caption: str
    x: int
    y: int


_ROWS = (
    (("astronaut", "Eileen Collins, 1993"), ("cat", "Chelsea"), ("admiral", "Grace Hopper, 1984")),
    (
        ("deep_field", "Hubble Deep Field"),
        ("coffee", "Coffee, twenty past nine"),
        ("rocket", "Lift-off"),
    ),
)


def scene_pictures(size: Size = SCENE_SIZE) -> Iterator[Planes]:
    """The walk along the wall, half a minute a round, for ever; I420 of BT.601 limited range."""
    wall, prints = _wall()
    path = _path(prints)
    number = 0
    while True:
        view = _view(wall, path, number % _ROUND_FRAMES / _ROUND_FRAMES, size)
        _label(view)
        yield _planes(view)
        number += 1


def scene_round(size: Size = SCENE_SIZE) -> Iterator[Planes]:
    """One round: the whole scene, which then begins anew."""
    return islice(scene_pictures(size), _ROUND_FRAMES)


@cache
def _wall() -> tuple[Image, tuple[_Print, ...]]:
    """The whole wall, BGR, and where the prints hang."""
    rows = [[(_photograph(file), file, caption) for file, caption in row] for row in _ROWS]
    width = max(_MARGIN + sum(p.shape[1] + _MARGIN for p, _, _ in row) for row in rows)
    heights = [max(p.shape[0] for p, _, _ in row) for row in rows]
    wall = _plaster(_MARGIN + sum(h + 2 * _MARGIN for h in heights), width)
    prints = []
    top = _MARGIN
    for row, height in zip(rows, heights, strict=True):
        spare = width - sum(p.shape[1] for p, _, _ in row)
        left = spare // (len(row) + 1)
        for photograph, file, caption in row:
            y = top + (height - photograph.shape[0]) // 2
            _hang(wall, photograph, caption, left, y)
            middle = left + photograph.shape[1] // 2, y + photograph.shape[0] // 2
            prints.append(_Print(file, caption, *middle))
            left += photograph.shape[1] + spare // (len(row) + 1)
        top += height + 2 * _MARGIN
    return wall, tuple(prints)


def _photograph(name: str) -> Image:
    data = (files("streamlift.media.files") / "photographs" / f"{name}.jpg").read_bytes()
    return cast(Image, cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR))


def _plaster(height: int, width: int) -> Image:
    """A wall with a faint grain, so that a flat place is no empty one."""
    rng = np.random.default_rng(7)
    grain = rng.normal(0, 1, (height // 4, width // 4)).astype(np.float32)
    grain = np.asarray(cv2.resize(grain, (width, height), interpolation=cv2.INTER_CUBIC))
    light = np.linspace(1.02, 0.86, height, dtype=np.float32)[:, None, None]
    wall = np.array(_WALL, np.float32) * light + 1.6 * grain[..., None]
    return np.clip(wall, 0, 255).astype(np.uint8)


def _hang(wall: Image, photograph: Image, caption: str, left: int, top: int) -> None:
    """A shadow, a dark frame with a fine light line in it, the print, and a caption below."""
    height, width = photograph.shape[:2]
    outer = (left - _FRAME, top - _FRAME), (left + width + _FRAME, top + height + _FRAME)
    shadow = np.s_[outer[0][1] : outer[1][1] + 12, outer[0][0] : outer[1][0] + 8]
    wall[shadow] = (wall[shadow] * 0.8).astype(np.uint8)
    cv2.rectangle(wall, *outer, (38, 42, 48), cv2.FILLED)
    inner = (left - 5, top - 5), (left + width + 4, top + height + 4)
    cv2.rectangle(wall, *inner, (120, 170, 200), 1)
    wall[top : top + height, left : left + width] = photograph
    at = left, top + height + _FRAME + 34
    cv2.putText(wall, caption, at, _FONT, 0.7, _INK, 1, cv2.LINE_AA)
    rule = at[0], at[1] + 10
    cv2.line(wall, rule, (rule[0] + width, rule[1]), _INK, 1, cv2.LINE_AA)
    small = at[0], rule[1] + 16
    cv2.putText(wall, "super-resolution, live", small, _FONT, 0.4, _INK, 1, cv2.LINE_AA)


def _path(prints: tuple[_Print, ...]) -> npt.NDArray[np.float64]:
    """Stops of the camera (n, 3): x, y and how many pixels of the wall a pixel shows.

    Along the upper row, back along the lower one, near and far in turn.
    """
    first, second = prints[: len(_ROWS[0])], prints[len(_ROWS[0]) :]
    stops = [*first, *reversed(second)]
    near = (0.86, 0.95, 1.0)
    return np.array([[p.x, p.y - 20, near[i % len(near)]] for i, p in enumerate(stops)])


def _view(wall: Image, path: npt.NDArray[np.float64], share: float, size: Size) -> Image:
    """What the camera sees after a share of the round."""
    place = share * len(path)
    stop = int(place)
    # It slows down at each print: most of the time something can be looked at.
    moved = place - stop
    moved -= np.sin(2 * np.pi * moved) / (2 * np.pi) * 0.85
    here, there = path[stop], path[(stop + 1) % len(path)]
    x, y, step = here + (there - here) * moved
    step += 0.35 * np.sin(np.pi * moved) ** 2
    step *= SCENE_SIZE.width / min(size.width, size.height)
    look = np.array([[step, 0, x - step * size.width / 2], [0, step, y - step * size.height / 2]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    view = cv2.warpAffine(
        wall, look, (size.width, size.height), flags=flags, borderMode=cv2.BORDER_REPLICATE
    )
    return cast(Image, view)


def _label(view: Image) -> None:
    """A name that stands still in the corner.

    Its grey is neither black nor white where a stamp (`streamlift.stamp`) has its first cell: of
    photographs alone, some pass for one.
    """
    cv2.rectangle(view, (0, 0), (_LABEL_WIDTH, _LABEL_HEIGHT), (128, 124, 120), cv2.FILLED)
    cv2.putText(view, "streamlift demo", (18, 17), _FONT, 0.42, (250, 250, 250), 1, cv2.LINE_AA)


def _planes(bgr: Image) -> Planes:
    height, width = bgr.shape[:2]
    packed = cast(Image, cv2.cvtColor(bgr, cv2.COLOR_BGR2YUV_I420))
    y = np.array(packed[:height])
    u, v = packed[height:].reshape(2, height // 2, width // 2)
    return Planes(y, u, v)
