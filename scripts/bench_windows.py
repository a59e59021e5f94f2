"""How near windows come to a net that sees the whole clip: python -m scripts.bench_windows [FILE]

FILE is a checkpoint of BasicVSR++ or RealBasicVSR; without one, nets of the published sizes get the
made-up weights of the tests' fixtures, which carry what they saw along as trained ones need not.
24 pictures of 64x64 moving by (2, -3) pixels, on the CPU: some minutes for each net.
"""

from __future__ import annotations

import json
import math
import sys
from importlib.resources import files
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from streamlift.frames import Size
from streamlift.upscalers.basicvsr import (
    BasicVSR,
    BasicVSRpp,
    BasicVSRSettings,
    RealBasicVSR,
    load_net,
)
from streamlift.upscalers.basicvsr.checkpoint import build_basicvsrpp, build_realbasicvsr

DATA = Path(__file__).parents[1] / "tests" / "data" / "basicvsr"
FRAMES, SIZE = 24, Size(64, 64)
WINDOWS = ((4, 8, 4), (4, 8, 0), (2, 4, 2))


def main() -> None:
    torch.set_num_threads(1)
    clip = _clip()
    for name, net in _nets():
        whole: Tensor | None = None
        for past, step, ahead in WINDOWS:
            window = {"scale": 4, "past": past, "step": step, "ahead": ahead}
            settings = BasicVSRSettings.read(name, window)
            model = BasicVSR(name, net, settings, device=torch.device("cpu"))
            if whole is None:
                whole = torch.cat(list(model.enlarge(clip)))
            session = model.open(SIZE)
            out = [hr for frame in clip for hr in session.push(frame[None])]
            out += session.finish()
            errors = ((torch.cat(out) - whole) ** 2).mean((1, 2, 3))
            mean_db, worst_db = (-10 * math.log10(float(e)) for e in (errors.mean(), errors.max()))
            print(
                f"{name} past {past} step {step} ahead {ahead}: "
                f"{mean_db:.1f} dB, worst picture {worst_db:.1f}",
                flush=True,
            )


def _nets() -> list[tuple[str, BasicVSRpp | RealBasicVSR]]:
    if len(sys.argv) > 1:
        net = load_net(Path(sys.argv[1]))
        return [("realbasicvsr" if isinstance(net, RealBasicVSR) else "basicvsrpp", net)]
    return [
        ("basicvsrpp", build_basicvsrpp(_made_up("basicvsrpp"), where="made up")),
        ("realbasicvsr", build_realbasicvsr(_made_up("realbasicvsr"), where="made up")),
    ]


def _made_up(name: str) -> dict[str, Tensor]:
    made = {}
    for entry in json.loads((DATA / f"{name}.json").read_text())["entries"]:
        shape = tuple(entry["shape"])
        if "values" in entry:
            values = np.array(entry["values"])
        else:
            u = np.random.Generator(np.random.PCG64(entry["seed"])).random(math.prod(shape))
            values = entry["offset"] + entry["amp"] * (2 * u - 1)
        made[entry["name"]] = torch.from_numpy(values.astype(np.float32).reshape(shape))
    return made


def _clip() -> Tensor:
    source = files("streamlift.media.files") / "photographs" / "astronaut.jpg"
    picture = cv2.imdecode(np.frombuffer(source.read_bytes(), np.uint8), cv2.IMREAD_COLOR)
    assert picture is not None
    rgb = torch.from_numpy(picture[..., ::-1].astype(np.float32) / 255).permute(2, 0, 1)
    return torch.stack(
        [rgb[:, 150 + 2 * n : 214 + 2 * n, 250 - 3 * n : 314 - 3 * n] for n in range(FRAMES)]
    )


if __name__ == "__main__":
    main()
