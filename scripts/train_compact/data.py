"""Training clips: photographs and procedural scenes in motion, halved, coded, kept on disk."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, cast

import cv2
import numpy as np
import numpy.typing as npt

from streamlift.frames import Codec, Plane, Planes
from streamlift.quality.coding import Coding, code_clip, luma_planes
from streamlift.quality.synthetic import TEXTURES, Layer, Motion, blob_mask, render_scene

__all__ = ["PHOTOGRAPHS", "DataPlan", "draw_sequence", "load_clips", "make_clips"]

TEXTURE_PHOTOGRAPHS = frozenset({"brick", "grass", "gravel", "hubble_deep_field"})
"""Even surfaces; drawn half as often as pictures of things and faces."""

PHOTOGRAPHS = {
    "astronaut": "public domain (NASA)",
    "brick": "CC0 (CC0Textures)",
    "camera": "CC0 (Lav Varshney)",
    "chelsea": "CC0 (Stefan van der Walt)",
    "coffee": "CC0 (Rachel Michetti)",
    "grass": "CC0 (CC0Textures)",
    "gravel": "CC0 (CC0Textures)",
    "hubble_deep_field": "public domain (NASA)",
    "rocket": "public domain (SpaceX)",
}
"""Pictures in scikit-image's wheel (`skimage.data`), with their licences; nothing is downloaded."""

LATER_PHOTOGRAPHS = {
    "retina": "CC0 (Mikael Häggström)",
    "grace_hopper": "public domain (US Navy; in matplotlib's wheel)",
}
"""Found after the first sets were drawn; only plans that say so have them."""


PHOTOGRAPH_LIMIT = 1.2


@dataclass(frozen=True, slots=True)
class DataPlan:
    """What is drawn. Sides in pixels; every random choice follows from `seed`.

    `scales` is the range of output pixels per photograph pixel, `blurs` that of a last Gaussian's
    sigma: together they set how sharp the pictures are. With `published` the target itself has
    been through a good coder before it is halved, as video that was published once has.
    """

    clips: int = 1600
    seed: int = 1000
    side: int = 384
    frames: int = 12
    kept: int = 3
    photograph_share: float = 0.7
    scales: tuple[float, float] = (0.4, 1.1)
    blurs: tuple[float, float] = (0.15, 0.8)
    published: bool = False
    later_photographs: bool = False


def make_clips(folder: Path, plan: DataPlan, *, first: int = 0, every: int = 1) -> None:
    """Draw clips `first`, `first + every`, ... of the plan into `folder`, one file each.

    A file holds `lr` (kept, side/2, side/2) and `hr` (kept, side, side), both uint8 luma.
    Clips already there are left, so that an interrupted run goes on where it stopped.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "plan.json").write_text(json.dumps(asdict(plan), indent=1))
    photographs = _photographs(plan.later_photographs)
    for index in range(first, plan.clips, every):
        path = folder / f"{index:05d}.npz"
        if not path.exists():
            lr, hr = _clip(np.random.default_rng(plan.seed + index), photographs, plan)
            part = path.with_suffix(".part")
            with part.open("wb") as file:
                np.savez(file, lr=lr, hr=hr)
            part.rename(path)


def load_clips(folder: Path) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """All clips' pictures: LR (n, side/2, side/2) and HR (n, side, side), uint8.

    Raises FileNotFoundError when the folder holds no clips.
    """
    paths = sorted(folder.glob("*.npz"))
    if not paths:
        raise FileNotFoundError(f"no clips in {folder}; run the `data` command first")
    lr, hr = [], []
    for path in paths:
        with np.load(path) as clip:
            lr.append(clip["lr"])
            hr.append(clip["hr"])
    return np.concatenate(lr), np.concatenate(hr)


def _clip(
    rng: np.random.Generator, photographs: list[Plane], plan: DataPlan
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    clean, hr, coding = _drawn(rng, photographs, plan)
    lr = clean
    if coding is not None:
        lr = [planes.y for planes in code_clip([luma_planes(y) for y in clean], coding)]
    # The first picture is a keyframe; later ones show how P-frames drift. Mostly keep the latter.
    late = rng.permutation(np.arange(2, plan.frames))[: plan.kept - 1]
    kept = [int(rng.integers(0, 2)), *(int(t) for t in late)]
    return np.stack([lr[t] for t in kept]), np.stack([hr[t] for t in kept])


def draw_sequence(
    rng: np.random.Generator, plan: DataPlan
) -> tuple[list[Planes], list[Plane], Coding | None]:
    """One clip whole: small pictures before coding, the truth, and how a publisher codes them.

    Never VP8, which tells no motion.
    """
    clean, hr, coding = _drawn(rng, _photographs(plan.later_photographs), plan)
    if coding is not None and coding.codec is Codec.VP8:
        coding = replace(coding, codec=Codec.H264)
    return [luma_planes(y) for y in clean], hr, coding


def _drawn(
    rng: np.random.Generator, photographs: list[Plane], plan: DataPlan
) -> tuple[list[Plane], list[Plane], Coding | None]:
    photographic = rng.random() < plan.photograph_share
    layers = [_layer(rng, photographs, plan, photographic, masked=False)]
    above = int(rng.integers(0, 4))
    layers += [_layer(rng, photographs, plan, photographic, masked=True) for _ in range(above)]
    blur = float(rng.uniform(*plan.blurs))
    tone = _tone(rng)
    hr = [
        cast(Plane, cv2.LUT(render_scene(layers, side=plan.side, frame=t, blur=blur), tone))
        for t in range(plan.frames)
    ]
    if plan.published:
        good = Coding(crf=int(rng.integers(15, 27)), preset="fast", profile="high")
        hr = [planes.y for planes in code_clip([luma_planes(y) for y in hr], good)]
    shrink = _downscale(rng)
    softness = float(rng.uniform(0.2, 0.7)) if rng.random() < 0.3 else 0.0
    noise = float(rng.uniform(0, 1.5)) if rng.random() < 0.5 else 0.0
    clean = [_degrade(rng, picture, shrink, softness, noise) for picture in hr]
    return clean, hr, _coding(rng)


def _layer(
    rng: np.random.Generator,
    photographs: list[Plane],
    plan: DataPlan,
    photographic: bool,
    *,
    masked: bool,
) -> Layer:
    side = plan.side
    if photographic and rng.random() < 0.9:
        texture = photographs[int(rng.integers(len(photographs)))]
        texture = _cut(rng, texture, 2 * side)
        scale = float(np.exp(rng.uniform(*np.log(plan.scales))))
        if plan.scales[1] > PHOTOGRAPH_LIMIT:
            # Drawing interpolates linearly, which would show at these scales.
            texture = cast(Plane, cv2.resize(texture, None, fx=2, fy=2, interpolation=_LANCZOS))
            scale /= 2
        if rng.random() < 0.5:
            texture = texture[:, ::-1]
    else:
        maker = TEXTURES[str(rng.choice(list(TEXTURES)))]
        texture = maker(rng, side)
        scale = float(np.exp(rng.uniform(np.log(0.6), np.log(1.6))))
    texture = np.ascontiguousarray(texture)
    if not masked:
        return Layer(texture, _motion(rng), scale)
    mask = cv2.resize(blob_mask(rng, 256), texture.shape[::-1], interpolation=cv2.INTER_LINEAR)
    drift = rng.integers(-side // 3, side // 3, 2)
    mask = np.roll(mask, tuple(int(v) for v in drift), (0, 1))
    return Layer(texture, _motion(rng), scale * float(rng.uniform(0.6, 1)), cast(Plane, mask))


def _motion(rng: np.random.Generator) -> Motion:
    if rng.random() < 0.3:
        return Motion()
    speed = float(np.exp(rng.uniform(np.log(0.15), np.log(10))))
    heading = rng.uniform(0, 2 * np.pi)
    velocity = (speed * float(np.cos(heading)), speed * float(np.sin(heading)))
    push = rng.normal(0, 0.1, 2) if rng.random() < 0.3 else np.zeros(2)
    return Motion(
        velocity=velocity,
        acceleration=(float(push[0]), float(push[1])),
        zoom=float(np.exp(rng.normal(0, 0.006))) if rng.random() < 0.4 else 1.0,
        turn=float(rng.normal(0, 0.01)) if rng.random() < 0.4 else 0.0,
        wobble=float(rng.uniform(0.5, 4)) if rng.random() < 0.25 else 0.0,
    )


def _tone(rng: np.random.Generator) -> Plane:
    """A tone curve: gamma, contrast, and the limited or the full range of levels."""
    levels = np.linspace(0, 1, 256) ** float(np.exp(rng.normal(0, 0.2)))
    contrast, lift = rng.uniform(0.7, 1.0), rng.uniform(0, 0.3)
    levels = lift * (1 - contrast) + contrast * levels
    curve = levels * 255 if rng.random() < 0.15 else 16 + levels * 219
    return np.clip(np.rint(curve), 0, 255).astype(np.uint8)


def _downscale(rng: np.random.Generator) -> Callable[[Plane], npt.NDArray[np.float32]]:
    """One of the three halvings that cameras and generators do: area, cubic, Lanczos."""
    kind = rng.random()
    if kind < 0.55:
        return _area
    kernel = _KERNELS["cubic" if kind < 0.8 else "lanczos"]
    return lambda picture: _filtered(picture, kernel)


def _degrade(
    rng: np.random.Generator,
    picture: Plane,
    shrink: Callable[[Plane], npt.NDArray[np.float32]],
    softness: float,
    noise: float,
) -> Plane:
    if softness:
        picture = cast(Plane, cv2.GaussianBlur(picture, (0, 0), softness))
    small = shrink(picture)
    if noise:
        small = small + rng.normal(0, noise, small.shape).astype(np.float32)
    return np.clip(np.rint(small), 0, 255).astype(np.uint8)


def _coding(rng: np.random.Generator) -> Coding | None:
    """Most clips: x264 as a publisher runs it, at a rate or a quality; some VP8; some not coded."""
    kind = rng.random()
    keyframes = int(rng.choice([250, 250, 250, 6]))
    if kind < 0.1:
        return None
    rate = int(np.exp(rng.uniform(np.log(0.7e6), np.log(5e6))))
    if kind < 0.18:
        return Coding(bitrate_bps=rate, codec=Codec.VP8, keyframe_every=keyframes)
    preset = str(rng.choice(["veryfast", "veryfast", "superfast", "medium"]))
    profile = str(rng.choice(["baseline", "baseline", "high"]))
    if kind < 0.55:
        crf = int(rng.integers(15, 32))
        return Coding(crf=crf, preset=preset, profile=profile, keyframe_every=keyframes)
    return Coding(bitrate_bps=rate, preset=preset, profile=profile, keyframe_every=keyframes)


def _photographs(later: bool) -> list[Plane]:
    from skimage import data

    pictures = []
    for name in PHOTOGRAPHS:
        picture = _grey(getattr(data, name)())
        pictures += [picture] * (1 if name in TEXTURE_PHOTOGRAPHS else 2)
    if later:
        from matplotlib import cbook, image

        pictures.append(_grey(cast(Any, data).retina()))
        portrait = image.imread(cbook.get_sample_data("grace_hopper.jpg", asfileobj=False))
        pictures += [_grey(portrait)] * 2
    return pictures


def _grey(picture: npt.NDArray[np.uint8]) -> Plane:
    grey = picture if picture.ndim == 2 else cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
    return cast(Plane, grey)


def _cut(rng: np.random.Generator, picture: Plane, side: int) -> Plane:
    """A random part of at most side x side pixels."""
    height, width = picture.shape
    top = int(rng.integers(0, max(1, height - side + 1)))
    left = int(rng.integers(0, max(1, width - side + 1)))
    return picture[top : top + side, left : left + side]


def _area(picture: Plane) -> npt.NDArray[np.float32]:
    height, width = picture.shape
    small = cv2.resize(
        picture.astype(np.float32), (width // 2, height // 2), interpolation=cv2.INTER_AREA
    )
    return cast("npt.NDArray[np.float32]", small)


def _filtered(picture: Plane, kernel: Any) -> npt.NDArray[np.float32]:
    wide = cv2.sepFilter2D(
        picture.astype(np.float32), -1, kernel, kernel, borderType=cv2.BORDER_REFLECT
    )
    # The kernel is centred between two pixels; taking every second one from 0 keeps it there.
    return cast("npt.NDArray[np.float32]", wide[::2, ::2])


def _half_kernel(weight: Callable[[float], float], reach: int) -> Any:
    """Taps of an antialiased halving filter, centred half a pixel right of the middle tap."""
    taps = [weight((k - 0.5) / 2) for k in range(-2 * reach + 1, 2 * reach + 1)]
    # An odd-length kernel whose middle is tap k = 0: one zero tap leads.
    row = np.array([0.0, *taps], np.float32)
    return row / row.sum()


def _cubic(x: float) -> float:
    x = abs(x)
    if x < 1:
        return 1.5 * x**3 - 2.5 * x**2 + 1
    return -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2 if x < 2 else 0.0


def _lanczos(x: float) -> float:
    return float(np.sinc(x) * np.sinc(x / 3)) if abs(x) < 3 else 0.0


_LANCZOS = cv2.INTER_LANCZOS4
_KERNELS = {"cubic": _half_kernel(_cubic, 2), "lanczos": _half_kernel(_lanczos, 3)}
