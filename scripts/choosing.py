"""Writes what docs/choosing.md shows of the policy into it, and makes its strip of pictures.

python -m scripts.choosing            # the decision matrix, from the policy itself
python -m scripts.choosing --strip    # docs/images/choosing.png, by every upscaler that loads here
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from streamlift.frames import BackendInfo, BackendState, Slots
from streamlift.routing.policy import (
    HEADROOM,
    NEVER_CHOSEN,
    PLAIN,
    QUALITY,
    Policy,
    choose,
    decision_matrix,
)

if TYPE_CHECKING:
    from streamlift.frames import Planes

PAGE = Path(__file__).parents[1] / "docs" / "choosing.md"
STRIP = PAGE.parent / "images" / "choosing.png"
BEGIN, END = "<!-- from the policy: python -m scripts.choosing -->", "<!-- to here -->"
EXAMPLE = {
    "flashvsr": 20.0,
    "swiftvr": 45.0,
    "realesrgan-x2": 33.0,
    "rtx-vsr": 400.0,
    "compact": 60.0,
    "bicubic": 300.0,
    "basicvsrpp": 900.0,
}
"""Frames a second that backends of the page's example measured; made up, to show the rule."""
RATES = (15.0, 25.0, 30.0, 50.0, 500.0)
TESTS_ONLY = ("toy", "flashvsr-tiny-random", "swiftvr-tiny-random")


def matrix() -> str:
    """What the policies do, in Markdown; every line is asked of them."""
    lines = [
        "Where no backends are configured, `auto` takes the first of these that is ready, has room "
        f"and measured {HEADROOM:g} times the publisher's rate:",
        "",
        "| on | in this order |",
        "|---|---|",
    ]
    lines += [f"| {r.device} | {', '.join(f'`{name}`' for name in r.order)} |" for r in _rows()]
    ranked = ", ".join(f"`{name}`" for name in QUALITY if name not in TESTS_ONLY)
    lines += [
        "",
        f"Best picture first, of all that may be configured: {ranked}. An upscaler that is not "
        "named here ranks as `compact` does. Never chosen, whatever they measure, but by name: "
        f"{', '.join(f'`{name}`' for name in NEVER_CHOSEN)}. `speed` leaves out those that add no "
        f"detail ({', '.join(f'`{n}`' for n in PLAIN if n not in TESTS_ONLY)}) while another holds "
        "the rate.",
        "",
        "An example, with figures made up to show the rule. The backends measured "
        f"{', '.join(f'`{name}` {fps:g}' for name, fps in EXAMPLE.items())} frames a second:",
        "",
        "| a publisher of | `auto` | `quality` | `speed` |",
        "|---|---|---|---|",
    ]
    ready = [
        BackendInfo(name, name, "cuda:0", BackendState.READY, "", fps, Slots(1, 0))
        for name, fps in EXAMPLE.items()
    ]
    for rate in RATES:
        taken = [choose(p, ready, rate) for p in (Policy.AUTO, Policy.QUALITY, Policy.SPEED)]
        cells = " | ".join(f"`{choice.backend}`" if choice else "none" for choice in taken)
        lines.append(f"| {rate:g} fps | {cells} |")
    return "\n".join(lines)


def _rows() -> Sequence[Any]:
    return decision_matrix()


def with_matrix(page: str) -> str:
    """The page with what is between the two marks written anew."""
    before, rest = page.split(BEGIN)
    _, after = rest.split(END)
    return f"{before}{BEGIN}\n{matrix()}\n{END}{after}"


@dataclass(frozen=True, slots=True)
class Crop:
    """A square of one of the demo's photographs; `x`, `y` in its own pixels."""

    file: str
    x: int
    y: int


CROPS = (Crop("astronaut", 168, 56), Crop("cat", 150, 60), Crop("admiral", 212, 18))
SIDE, ZOOM, FRAMES, BITRATE_BPS = 104, 2, 12, 1_500_000
HEAD = 26


def strip() -> None:
    """Halve each photograph, code it as a publisher would, enlarge it, show the same square."""
    import cv2
    import numpy as np

    from streamlift.quality.coding import Coding, area_half, code_clip

    methods = _methods()
    rows: list[Any] = []
    for crop in CROPS:
        truth = _photograph(crop.file)
        still = [area_half(truth)] * FRAMES
        coded = code_clip(still, Coding(bitrate_bps=BITRATE_BPS))
        shown = [("in, pixels repeated", _repeated(coded[-1]))]
        shown += [(name, _enlarged(upscaler, coded)) for name, upscaler in methods]
        shown.append(("photograph", truth))
        tiles = [_tile(planes, crop) for _, planes in shown]
        if not rows:
            rows.append(np.hstack([_label(name) for name, _ in shown]))
        rows.append(np.hstack(tiles))
    STRIP.parent.mkdir(exist_ok=True)
    cv2.imwrite(str(STRIP), np.vstack(rows), [cv2.IMWRITE_PNG_COMPRESSION, 9])
    print(f"{STRIP}: {', '.join(name for name, _ in methods)}")


def _methods() -> list[tuple[str, Any]]:
    """Every upscaler that loads on this machine, worst first."""
    from streamlift.errors import StreamliftError
    from streamlift.upscalers import create_upscaler, upscaler_names

    found: list[tuple[str, Any]] = []
    order = [n for n in QUALITY if n in upscaler_names() and n not in TESTS_ONLY]
    for name in (*reversed(order), *NEVER_CHOSEN):
        tiers = ("xs", "s", "m") if name == "compact" else ("",)
        for tier in tiers:
            settings = {"tier": tier} if tier else {}
            try:
                found.append((f"{name} {tier}".strip(), create_upscaler(name, settings=settings)))
            except StreamliftError as error:
                print(f"left out: {name}: {error}")
    return found


def _photograph(name: str) -> Planes:
    import cv2
    import numpy as np

    from streamlift.frames import Planes

    source = files("streamlift.media.files") / "photographs" / f"{name}.jpg"
    picture = cv2.imdecode(np.frombuffer(source.read_bytes(), np.uint8), cv2.IMREAD_COLOR)
    assert picture is not None
    height, width = (side // 4 * 4 for side in picture.shape[:2])
    flat: Any = cv2.cvtColor(picture[:height, :width], cv2.COLOR_BGR2YUV_I420).reshape(-1)
    cuts = (0, height * width, height * width * 5 // 4, height * width * 3 // 2)
    y, u, v = (flat[a:b] for a, b in pairwise(cuts))
    half = (height // 2, width // 2)
    return Planes(y.reshape(height, width), u.reshape(half), v.reshape(half))


def _repeated(planes: Planes) -> Planes:
    from streamlift.frames import Planes

    return Planes(*(p.repeat(2, axis=0).repeat(2, axis=1) for p in (planes.y, planes.u, planes.v)))


def _enlarged(upscaler: Any, coded: Sequence[Planes]) -> Planes:
    """The last picture of the clip."""
    from streamlift.clock import MonotonicClock
    from streamlift.engine.chain import UpscaleChain
    from streamlift.frames import Colour, Frame, Stabilise

    chain = UpscaleChain(upscaler, "cpu", Stabilise.OFF, clock=MonotonicClock())
    done = []
    for number, planes in enumerate(coded):
        frame = Frame(number * 3600, planes.size, planes, Colour(), arrived_s=0.0)
        done += [upscaled.planes for upscaled in chain.push(frame)]
    done += [upscaled.planes for upscaled in chain.finish()]
    return done[-1]


def _tile(planes: Planes, crop: Crop) -> Any:
    import cv2
    import numpy as np

    size = planes.size
    flat = np.concatenate([p.reshape(-1) for p in (planes.y, planes.u, planes.v)])
    shape = (size.height * 3 // 2, size.width)
    picture = cv2.cvtColor(np.ascontiguousarray(flat.reshape(shape)), cv2.COLOR_YUV2BGR_I420)
    square = picture[crop.y : crop.y + SIDE, crop.x : crop.x + SIDE]
    return cv2.resize(square, None, fx=ZOOM, fy=ZOOM, interpolation=cv2.INTER_NEAREST)


def _label(name: str) -> Any:
    import cv2
    import numpy as np

    drawn = np.full((HEAD, SIDE * ZOOM, 3), 255, np.uint8)
    cv2.putText(drawn, name, (4, 18), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (30, 30, 30), 1, cv2.LINE_AA)
    return drawn


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--strip", action="store_true")
    if parser.parse_args().strip:
        strip()
    else:
        PAGE.write_text(with_matrix(PAGE.read_text()))


if __name__ == "__main__":
    main()
