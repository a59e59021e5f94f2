"""The built-in moving scene of the demo: textures, text, motion and cuts, cheap to make."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import cast

import cv2
import numpy as np
import numpy.typing as npt

from streamlift.frames import Planes, Size

__all__ = ["SCENE_FPS", "SCENE_SIZE", "scene_pictures", "scene_round"]

SCENE_SIZE = Size(512, 512)
SCENE_FPS = 25.0
_SHOT_FRAMES = 150
_FONT = cv2.FONT_HERSHEY_DUPLEX

Image = npt.NDArray[np.uint8]


def scene_pictures(size: Size = SCENE_SIZE, seed: int = 7) -> Iterator[Planes]:
    """Three shots of six seconds, for ever: a dusk landscape, a turning quilt, and spheres."""
    rng = np.random.default_rng(seed)
    shots = (_Landscape(size, rng), _Quilt(size, rng), _Spheres(size, rng))
    number = 0
    while True:
        shot = shots[(number // _SHOT_FRAMES) % len(shots)]
        bgr = shot(number % _SHOT_FRAMES / SCENE_FPS, number)
        yield _planes(bgr)
        number += 1


def scene_round(size: Size = SCENE_SIZE, seed: int = 7) -> Iterator[Planes]:
    """Each shot once: the whole scene, which then begins anew."""
    return islice(scene_pictures(size, seed), 3 * _SHOT_FRAMES)


class _Landscape:
    """Ridges in three depths that slide past a sky of clouds."""

    def __init__(self, size: Size, rng: np.random.Generator) -> None:
        self._size = size
        wide = Size(size.width * 3, size.height)
        self._sky = _tint(_fractal(wide, rng, 2.0), (150, 90, 60), (150, 190, 250))
        self._sky = cast(Image, cv2.GaussianBlur(self._sky, (0, 0), 2))
        self._ridges = [
            _ridge(wide, rng, base, dark, light)
            for base, dark, light in (
                (0.45, (120, 80, 70), (150, 120, 110)),
                (0.6, (70, 70, 50), (110, 130, 90)),
                (0.76, (20, 35, 25), (70, 120, 80)),
            )
        ]

    def __call__(self, time_s: float, number: int) -> Image:
        picture = _slide(self._sky, self._size, 12 * time_s)
        for depth, (texture, alpha) in enumerate(self._ridges):
            shift = time_s * (30, 62, 125)[depth]
            mask = _slide(alpha, self._size, shift)
            picture = _over(picture, _slide(texture, self._size, shift), mask)
        _caption(picture, "streamlift demo", 0.9)
        return picture


class _Quilt:
    """Patches of many textures that turn and breathe: every direction of motion at once."""

    def __init__(self, size: Size, rng: np.random.Generator) -> None:
        self._size = size
        side = int(1.6 * max(size.width, size.height))
        cell = side // 8
        self._quilt = np.zeros((side, side, 3), np.uint8)
        for row in range(8):
            for column in range(8):
                patch = _patch(cell, rng, (row * 8 + column) % 5)
                top, left = row * cell, column * cell
                self._quilt[top : top + cell, left : left + cell] = patch

    def __call__(self, time_s: float, number: int) -> Image:
        side = self._quilt.shape[0]
        turn = cv2.getRotationMatrix2D((side / 2, side / 2), 14 * time_s, 1 + 0.12 * np.sin(time_s))
        turn[0, 2] += (self._size.width - side) / 2
        turn[1, 2] += (self._size.height - side) / 2
        turned = cv2.warpAffine(
            self._quilt,
            turn,
            (self._size.width, self._size.height),
            flags=cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REFLECT,
        )
        picture = cast(Image, turned)
        _caption(picture, f"frame {number}", 0.8)
        return picture


class _Spheres:
    """Shaded balls over a striped floor: smooth shading beside fine lines."""

    def __init__(self, size: Size, rng: np.random.Generator) -> None:
        self._size = size
        self._floor = _tint(
            _fractal(Size(size.width * 2, size.height), rng, 1.6), (70, 40, 30), (190, 150, 120)
        )
        for x in range(0, size.width * 2, 24):
            cv2.line(self._floor, (x, 0), (x + 160, size.height), (30, 25, 25), 1, cv2.LINE_AA)
        colours = ((60, 80, 230), (80, 200, 120), (230, 140, 60), (70, 190, 240))
        self._balls = [
            _ball(int(rng.integers(size.width // 10, size.width // 5)), colour)
            for colour in colours
        ]

    def __call__(self, time_s: float, number: int) -> Image:
        picture = _slide(self._floor, self._size, 40 * time_s)
        for index, (ball, alpha) in enumerate(self._balls):
            phase = time_s * (0.9 + 0.23 * index) + index * 1.7
            x = int(self._size.width * (0.5 + 0.36 * np.sin(phase)))
            y = int(self._size.height * (0.56 + 0.3 * np.sin(1.31 * phase + index)))
            _paste(picture, ball, alpha, x, y)
        _caption(picture, "super-resolution, live", 0.8)
        return picture


def _fractal(size: Size, rng: np.random.Generator, roughness: float) -> npt.NDArray[np.float32]:
    """Fractal noise (H, W) in [0, 1] that repeats in width, so that it can slide for ever."""
    noise = np.zeros((size.height, size.width), np.float32)
    cells = 4
    while cells * 2 <= size.height:
        grid = rng.random((cells, cells * size.width // size.height), dtype=np.float32)
        grid[:, -1] = grid[:, 0]
        layer = cv2.resize(grid, (size.width, size.height), interpolation=cv2.INTER_CUBIC)
        noise += layer / cells ** (roughness - 1)
        cells *= 2
    low, high = float(noise.min()), float(noise.max())
    return (noise - low) / (high - low)


def _tint(
    noise: npt.NDArray[np.float32], dark: tuple[int, int, int], light: tuple[int, int, int]
) -> Image:
    low, high = np.array(dark, np.float32), np.array(light, np.float32)
    return (low + noise[..., None] * (high - low)).astype(np.uint8)


def _ridge(
    size: Size,
    rng: np.random.Generator,
    base: float,
    dark: tuple[int, int, int],
    light: tuple[int, int, int],
) -> tuple[Image, Image]:
    """Texture and coverage of one range of hills."""
    across = np.linspace(0, 2 * np.pi, size.width, dtype=np.float32)
    skyline = sum(np.sin(k * across + rng.random() * 6.28) / k for k in (2, 3, 5, 9, 14, 23, 41))
    edge = size.height * (base - 0.07 * np.asarray(skyline))
    rows = np.arange(size.height, dtype=np.float32)[:, None]
    alpha = np.clip(rows - edge[None, :], 0, 1)
    return _tint(_fractal(size, rng, 1.35), dark, light), (alpha * 255).astype(np.uint8)


def _patch(side: int, rng: np.random.Generator, kind: int) -> Image:
    dark = tuple(int(v) for v in rng.integers(10, 110, 3))
    light = tuple(int(v) for v in rng.integers(140, 250, 3))
    yy, xx = np.mgrid[:side, :side].astype(np.float32)
    pattern: npt.NDArray[np.float32]
    if kind == 0:
        pattern = _fractal(Size(side, side), rng, 1.3)
    elif kind == 1:
        pattern = ((xx + yy) % 10 < 5).astype(np.float32)
    elif kind == 2:
        pattern = 0.5 + 0.5 * np.sin(np.hypot(xx - side / 2, yy - side / 2) / 2.2)
    elif kind == 3:
        pattern = (((xx // 8) + (yy // 8)) % 2).astype(np.float32)
    else:
        pattern = np.clip(rng.normal(0.5, 0.25, (side, side)).astype(np.float32), 0, 1)
        pattern = cast(npt.NDArray[np.float32], cv2.GaussianBlur(pattern, (0, 0), 0.7))
    return _tint(pattern, cast(tuple[int, int, int], dark), cast(tuple[int, int, int], light))


def _ball(radius: int, colour: tuple[int, int, int]) -> tuple[Image, npt.NDArray[np.float32]]:
    yy, xx = np.mgrid[-radius : radius + 1, -radius : radius + 1].astype(np.float32) / radius
    distance = np.hypot(xx, yy)
    height = np.sqrt(np.clip(1 - distance**2, 0, 1))
    light = np.clip(0.25 + 0.75 * (0.5 * height - 0.5 * xx - 0.6 * yy), 0, 1)
    shine = np.clip(1 - 9 * ((xx + 0.35) ** 2 + (yy + 0.4) ** 2), 0, 1) ** 2
    shaded = light[..., None] * np.array(colour, np.float32) + 200 * shine[..., None]
    alpha = np.clip((1 - distance) * radius, 0, 1)[..., None]
    return np.clip(shaded, 0, 255).astype(np.uint8), alpha


def _slide(image: Image, size: Size, shift: float) -> Image:
    """The window of `size` at `shift` pixels into an image that repeats in width; sub-pixel."""
    span = image.shape[1]
    whole = int(shift) % span
    window = np.take(image, range(whole, whole + size.width + 1), axis=1, mode="wrap")
    move = np.array([[1, 0, -(shift % 1)], [0, 1, 0]], np.float32)
    return cast(Image, cv2.warpAffine(window, move, (size.width, size.height)))


def _over(below: Image, above: Image, alpha: Image) -> Image:
    share = cv2.merge([alpha, alpha, alpha]).astype(np.uint16)
    mixed = below.astype(np.uint16) * (255 - share) + above.astype(np.uint16) * share
    return (mixed // 255).astype(np.uint8)


def _paste(picture: Image, ball: Image, alpha: npt.NDArray[np.float32], x: int, y: int) -> None:
    radius = ball.shape[0] // 2
    height, width = picture.shape[:2]
    top, left = max(0, y - radius), max(0, x - radius)
    bottom, right = min(height, y + radius + 1), min(width, x + radius + 1)
    if top >= bottom or left >= right:
        return
    part = np.s_[top - y + radius : bottom - y + radius, left - x + radius : right - x + radius]
    below = picture[top:bottom, left:right]
    mixed = below * (1 - alpha[part]) + ball[part] * alpha[part]
    picture[top:bottom, left:right] = mixed.astype(np.uint8)


def _caption(picture: Image, text: str, scale: float) -> None:
    bottom = picture.shape[0] - 24
    for colour, offset in (((20, 20, 20), 2), ((245, 245, 245), 0)):
        at = (20 + offset, bottom + offset)
        cv2.putText(picture, text, at, _FONT, scale, colour, 2, cv2.LINE_AA)


def _planes(bgr: Image) -> Planes:
    """BT.601 limited range I420."""
    height, width = bgr.shape[:2]
    packed = cast(Image, cv2.cvtColor(bgr, cv2.COLOR_BGR2YUV_I420))
    y = np.array(packed[:height])
    u, v = packed[height:].reshape(2, height // 2, width // 2)
    return Planes(y, u, v)
