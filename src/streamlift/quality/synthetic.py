"""Procedural moving scenes: textures, layers and motion, and nine fixed test clips made of them.

The training kit draws other scenes from the same parts with other seeds; it never draws these.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import cv2
import numpy as np

from streamlift.frames import Plane

__all__ = [
    "CI_CLIPS",
    "TEST_CLIPS",
    "TEXTURES",
    "Layer",
    "Motion",
    "blob_mask",
    "render_scene",
    "synthetic_clip",
]

SUPERSAMPLING = 2
"""Scenes are drawn at twice the wanted size and area-reduced, so that edges are antialiased."""


@dataclass(frozen=True, slots=True)
class Motion:
    """Where a layer is at frame t; lengths in output pixels, angles in radians.

    A point p of the layer goes to zoom^t * R(turn * t) p + velocity * t + acceleration * t^2 / 2,
    plus a wobble: a standing wave of the given amplitude that bends the layer.
    """

    velocity: tuple[float, float] = (0.0, 0.0)
    acceleration: tuple[float, float] = (0.0, 0.0)
    zoom: float = 1.0
    turn: float = 0.0
    wobble: float = 0.0


@dataclass(frozen=True, slots=True, eq=False)
class Layer:
    """A texture (uint8, any size, mirrored beyond its borders) seen through a mask.

    `scale` is output pixels per texture pixel, `mask` uint8 at texture size (None: everywhere).
    """

    texture: Plane
    motion: Motion = Motion()
    scale: float = 1.0
    mask: Plane | None = None


def render_scene(layers: Sequence[Layer], *, side: int, frame: int, blur: float = 0.0) -> Plane:
    """Draw one square picture of `side` pixels; later layers lie on top. `blur` is a sigma."""
    big = side * SUPERSAMPLING
    picture = np.zeros((big, big), np.float32)
    for layer in layers:
        texture = _place(layer.texture, layer, big, frame, cv2.BORDER_REFLECT_101)
        if layer.mask is None:
            picture = texture.astype(np.float32)
            continue
        alpha = _place(layer.mask, layer, big, frame, cv2.BORDER_CONSTANT).astype(np.float32) / 255
        picture += alpha * (texture - picture)
    out = cv2.resize(picture, (side, side), interpolation=cv2.INTER_AREA)
    if blur > 0:
        out = cv2.GaussianBlur(out, (0, 0), blur)
    return _to_u8(out)


def synthetic_clip(name: str, *, side: int = 512, frames: int = 24) -> list[Plane]:
    """One of the nine test clips: luma pictures of side x side. KeyError for an unknown name."""
    scene = TEST_CLIPS[name]
    # The seed is fixed by the clip's place in the table; training seeds begin far above.
    rng = np.random.default_rng(list(TEST_CLIPS).index(name))
    layers, blur = scene(rng, side)
    return [render_scene(layers, side=side, frame=t, blur=blur) for t in range(frames)]


def fractal(rng: np.random.Generator, side: int) -> Plane:
    """Sums of smooth noise, each octave finer and weaker: clouds, skin, rock."""
    total = np.zeros((side, side), np.float32)
    roughness = rng.uniform(0.45, 0.8)
    weight, cells = 1.0, int(rng.integers(2, 6))
    while cells < side:
        grid = rng.standard_normal((cells, cells)).astype(np.float32)
        total += weight * cv2.resize(grid, (side, side), interpolation=cv2.INTER_CUBIC)
        weight, cells = weight * roughness, cells * 2
    return _stretch(rng, total)


def stripes(rng: np.random.Generator, side: int) -> Plane:
    """Parallel bands, soft or hard, slightly bent."""
    y, x = _grid(side)
    angle = rng.uniform(0, math.pi)
    along = x * math.cos(angle) + y * math.sin(angle)
    bend = rng.uniform(0, 12) * np.sin(2 * math.pi * y / side * rng.uniform(0.5, 3))
    wave = np.sin(2 * math.pi * (along + bend) / rng.uniform(5, 40))
    return _stretch(rng, np.tanh(wave * rng.uniform(1, 8)))


def fur(rng: np.random.Generator, side: int) -> Plane:
    """White noise smeared along one direction: hair, grass, brushed cloth."""
    noise = rng.standard_normal((side, side)).astype(np.float32)
    length = int(rng.integers(7, 25))
    kernel = np.zeros((length, length), np.float32)
    angle = rng.uniform(0, math.pi)
    reach = (length - 1) / 2 * np.array([math.cos(angle), math.sin(angle)])
    middle = np.array([length // 2, length // 2])
    ends = [tuple(int(v) for v in np.rint(middle + sign * reach)) for sign in (-1, 1)]
    cv2.line(kernel, ends[0], ends[1], 1.0, 1, cv2.LINE_AA)
    smeared = cv2.filter2D(noise, -1, kernel / kernel.sum())
    smeared = cv2.GaussianBlur(smeared, (0, 0), 0.6)
    return _stretch(rng, smeared + 0.3 * _smooth(rng, side))


def grid(rng: np.random.Generator, side: int) -> Plane:
    """Lines at right angles: bricks, windows, tiles."""
    tone = fractal(rng, side).astype(np.float32) * rng.uniform(0.1, 0.5)
    pitch_x, pitch_y = rng.uniform(10, 60, 2)
    line = max(1, int(rng.integers(1, 5)))
    ink = float(rng.uniform(-120, 120))
    for row, top in enumerate(np.arange(0, side, pitch_y)):
        tone[int(top) : int(top) + line] += ink
        shift = (row % 2) * pitch_x / 2 if rng.random() < 0.5 else 0.0
        for left in np.arange(shift, side, pitch_x):
            tone[int(top) : int(top + pitch_y), int(left) : int(left) + line] += ink
    return _stretch(rng, tone)


def foliage(rng: np.random.Generator, side: int) -> Plane:
    """Dead leaves: many overlapping ellipses whose sizes follow a power law."""
    picture = np.full((side, side), rng.uniform(60, 190), np.float32)
    for _ in range(int(side * side / rng.uniform(150, 500))):
        radius = min(side / 6, 3.0 / rng.uniform(0.02, 1) ** 0.6)
        axes = (max(1, int(radius)), max(1, int(radius * rng.uniform(0.25, 1))))
        centre = tuple(int(v) for v in rng.integers(0, side, 2))
        tone = float(rng.uniform(20, 235))
        cv2.ellipse(picture, centre, axes, rng.uniform(0, 180), 0, 360, tone, -1, cv2.LINE_AA)
    picture += 0.15 * (fractal(rng, side).astype(np.float32) - 128)
    return _to_u8(picture)


def gradient(rng: np.random.Generator, side: int) -> Plane:
    """A smooth shade with a few soft spots: sky, skin, blurred background."""
    return _stretch(rng, _smooth(rng, side))


def text(rng: np.random.Generator, side: int) -> Plane:
    """Lines of letters in several faces on a flat or shaded ground."""
    dark = bool(rng.random() < 0.5)
    shade = 0.15 * (gradient(rng, side).astype(np.float32) - 128)
    page = _to_u8((40.0 if dark else 215.0) + shade)
    letters = np.array(list("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 .,:-"))
    y = 0
    while y < side:
        height = int(rng.integers(12, 48))
        y += int(height * 1.5)
        line = "".join(rng.choice(letters, 80))
        face = int(rng.integers(0, 8))
        ink = float(rng.uniform(170, 245) if dark else rng.uniform(10, 90))
        size, thick = height / 22, max(1, height // 14)
        place = (int(rng.integers(-30, 20)), y)
        cv2.putText(page, line, place, face, size, ink, thick, cv2.LINE_AA)
    return page


def lines(rng: np.random.Generator, side: int) -> Plane:
    """Thin straight and curved strokes over a shade: wires, branches, drawings."""
    page = gradient(rng, side)
    for _ in range(int(rng.integers(20, 120))):
        ink = float(rng.uniform(0, 255))
        start, end = rng.integers(-side // 4, side + side // 4, (2, 2))
        bend = rng.normal(0, side / 8, 2)
        t = np.linspace(0, 1, 24)[:, None]
        curve = start + (end - start) * t + bend * np.sin(math.pi * t)
        points = np.rint(curve).astype(np.int32)[:, None]
        cv2.polylines(page, [points], False, ink, int(rng.integers(1, 4)), cv2.LINE_AA)
    return page


TEXTURES: dict[str, Callable[[np.random.Generator, int], Plane]] = {
    "fractal": fractal,
    "stripes": stripes,
    "fur": fur,
    "grid": grid,
    "foliage": foliage,
    "gradient": gradient,
    "text": text,
    "lines": lines,
}


def blob_mask(rng: np.random.Generator, side: int) -> Plane:
    """A soft-edged shape in the middle of a square: ellipse, polygon or cloud."""
    mask = np.zeros((side, side), np.uint8)
    middle = (side // 2, side // 2)
    kind = rng.integers(0, 3)
    if kind == 0:
        axes = tuple(int(v) for v in rng.uniform(0.15, 0.45, 2) * side)
        cv2.ellipse(mask, middle, axes, rng.uniform(0, 180), 0, 360, 255, -1, cv2.LINE_AA)
    elif kind == 1:
        turns = np.sort(rng.uniform(0, 2 * math.pi, int(rng.integers(3, 9))))
        radii = rng.uniform(0.15, 0.48, turns.size) * side
        corners = np.stack([np.cos(turns) * radii, np.sin(turns) * radii], 1) + side / 2
        cv2.fillPoly(mask, [np.rint(corners).astype(np.int32)], 255, cv2.LINE_AA)
    else:
        y, x = _grid(side)
        fall = np.hypot(x - side / 2, y - side / 2) / side
        field = fractal(rng, side).astype(np.float32) / 255 - 2.2 * fall
        mask[:] = np.clip((field + 0.1) * 600, 0, 255)
    return mask


def _place(image: Plane, layer: Layer, big: int, frame: int, border: int) -> Plane:
    """The layer's texture or mask on the drawing surface, at the given frame."""
    motion, t = layer.motion, float(frame)
    scale = layer.scale * SUPERSAMPLING * motion.zoom**t
    angle = motion.turn * t
    cos, sin = scale * math.cos(angle), scale * math.sin(angle)
    shift = [
        SUPERSAMPLING * (v * t + 0.5 * a * t * t)
        for v, a in zip(motion.velocity, motion.acceleration, strict=True)
    ]
    middle = (image.shape[1] / 2, image.shape[0] / 2)
    matrix = np.array([[cos, -sin, 0.0], [sin, cos, 0.0]])
    matrix[:, 2] = np.array([big / 2, big / 2]) + shift - matrix[:, :2] @ middle
    if scale < 0.8:
        # A linear lookup reads 2x2 texels only; smaller scales would alias.
        image = cast(Plane, cv2.GaussianBlur(image, (0, 0), 0.45 / scale))
    if motion.wobble == 0.0:
        return cast(Plane, cv2.warpAffine(image, matrix, (big, big), borderMode=border))
    y, x = _grid(big)
    wave = SUPERSAMPLING * motion.wobble * math.sin(0.35 * t)
    x = x + wave * np.sin(2 * math.pi * y / (big / 3))
    y = y + wave * np.cos(2 * math.pi * x / (big / 2.5))
    inverse = cv2.invertAffineTransform(matrix).astype(np.float32)
    map_x = inverse[0, 0] * x + inverse[0, 1] * y + inverse[0, 2]
    map_y = inverse[1, 0] * x + inverse[1, 1] * y + inverse[1, 2]
    return cast(Plane, cv2.remap(image, map_x, map_y, cv2.INTER_LINEAR, borderMode=border))


def _smooth(rng: np.random.Generator, side: int) -> Any:
    """Low-frequency float noise of about unit size."""
    cells = int(rng.integers(2, 6))
    noise = rng.standard_normal((cells, cells)).astype(np.float32)
    return cv2.resize(noise, (side, side), interpolation=cv2.INTER_CUBIC)


def _stretch(rng: np.random.Generator, values: Any) -> Plane:
    """Map float values to a random range of levels."""
    low, high = np.percentile(values, (1, 99))
    floor = rng.uniform(16, 90)
    ceiling = floor + rng.uniform(60, 235 - floor)
    return _to_u8(floor + (values - low) / max(high - low, 1e-6) * (ceiling - floor))


def _grid(side: int) -> tuple[Any, Any]:
    y, x = np.mgrid[:side, :side].astype(np.float32)
    return y, x


def _to_u8(values: Any) -> Plane:
    return cast(Plane, np.clip(np.rint(values), 0, 255).astype(np.uint8))


Scene = Callable[[np.random.Generator, int], tuple[list[Layer], float]]


def _leaves_pan(rng: np.random.Generator, side: int) -> tuple[list[Layer], float]:
    ground = Layer(foliage(rng, side), Motion(velocity=(2.3, 0.7)), scale=1.1)
    top = Layer(
        foliage(rng, side), Motion(velocity=(-1.4, 1.1), turn=0.01), 0.8, blob_mask(rng, side)
    )
    return [ground, top], 0.4


def _clouds_zoom(rng: np.random.Generator, side: int) -> tuple[list[Layer], float]:
    return [Layer(fractal(rng, side), Motion(zoom=1.006, turn=0.004), scale=1.2)], 0.3


def _page_scroll(rng: np.random.Generator, side: int) -> tuple[list[Layer], float]:
    return [Layer(text(rng, side), Motion(velocity=(0.0, -1.6)), scale=1.2)], 0.4


def _fur_turn(rng: np.random.Generator, side: int) -> tuple[list[Layer], float]:
    ground = Layer(gradient(rng, side), Motion(velocity=(0.4, 0.0)))
    return [ground, Layer(fur(rng, side), Motion(turn=0.012), 1.3, blob_mask(rng, side))], 0.4


def _wires_still(rng: np.random.Generator, side: int) -> tuple[list[Layer], float]:
    ground = Layer(lines(rng, side), Motion(), scale=1.2)
    top = Layer(grid(rng, side), Motion(velocity=(3.1, 0.0)), 0.7, blob_mask(rng, side))
    return [ground, top], 0.3


def _bricks_fast(rng: np.random.Generator, side: int) -> tuple[list[Layer], float]:
    return [Layer(grid(rng, side), Motion(velocity=(6.4, 2.2)), scale=1.3)], 0.5


def _water(rng: np.random.Generator, side: int) -> tuple[list[Layer], float]:
    return [Layer(stripes(rng, side), Motion(velocity=(0.9, 0.4), wobble=4.0), scale=1.2)], 0.4


def _crowd(rng: np.random.Generator, side: int) -> tuple[list[Layer], float]:
    layers = [Layer(fractal(rng, side), Motion(velocity=(0.5, 0.0)), 1.2)]
    for maker in (foliage, fur, text):
        velocity = tuple(float(v) for v in rng.uniform(-3, 3, 2))
        motion = Motion(velocity=(velocity[0], velocity[1]), turn=float(rng.uniform(-0.01, 0.01)))
        layers.append(Layer(maker(rng, side), motion, 0.6, blob_mask(rng, side)))
    return layers, 0.4


def _portrait(rng: np.random.Generator, side: int) -> tuple[list[Layer], float]:
    ground = Layer(gradient(rng, side), Motion())
    body = Layer(
        fractal(rng, side), Motion(velocity=(0.6, 0.3), wobble=1.5), 0.9, blob_mask(rng, side)
    )
    hair = Layer(fur(rng, side), Motion(velocity=(0.6, 0.3), turn=0.005), 0.5, blob_mask(rng, side))
    return [ground, body, hair], 0.5


TEST_CLIPS: dict[str, Scene] = {
    "leaves": _leaves_pan,
    "clouds": _clouds_zoom,
    "page": _page_scroll,
    "fur": _fur_turn,
    "wires": _wires_still,
    "bricks": _bricks_fast,
    "water": _water,
    "crowd": _crowd,
    "portrait": _portrait,
}

CI_CLIPS = ("leaves", "page", "portrait")
