"""How fast `streamlift upscale` is, beside other source trees, by turns: seconds and CPU seconds.

python -m scripts.bench_files CLIP [--src OTHER_TREE/src ...] [--rounds 6] [-- --backend bicubic]
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("clip", type=Path)
    parser.add_argument("--src", type=Path, action="append", default=[], help="another tree")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("options", nargs="*", help="passed on to upscale")
    arguments = parser.parse_args()
    trees = [*arguments.src, Path("src").resolve()]
    best: dict[Path, tuple[float, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(arguments.rounds):
            for tree in trees:
                taken = _run(tree, arguments.clip, Path(folder, "out.mp4"), arguments.options)
                before = best.get(tree, taken)
                best[tree] = min(before[0], taken[0]), min(before[1], taken[1])
                print(f"{tree}: {taken[0]:.2f} s, {taken[1]:.2f} CPU s", flush=True)
    for tree, (wall_s, cpu_s) in best.items():
        print(f"best of {tree}: {wall_s:.2f} s, {cpu_s:.2f} CPU s")


def _run(tree: Path, clip: Path, target: Path, options: list[str]) -> tuple[float, float]:
    """Wall and processor seconds of one command."""
    before, started_s = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    subprocess.run(
        [sys.executable, "-m", "streamlift.cli", "upscale", clip, target, *options],
        env={**os.environ, "PYTHONPATH": str(tree)},
        check=True,
        capture_output=True,
    )
    after, taken_s = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic() - started_s
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return taken_s, cpu_s


if __name__ == "__main__":
    main()
