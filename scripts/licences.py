"""Lists the licences of what a user's environment holds: python -m scripts.licences

Read from the packages' own metadata, from streamlift's base and extras down. Tools for tests and
documentation are not looked at: they are not part of what runs. Metadata tells of a package's own
code: the wheels of PyAV also hold FFmpeg with x264 and x265, which are under the GPL.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib.metadata import Distribution, PackageNotFoundError, distribution

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

__all__ = ["ALLOWED", "EXTRAS", "Package", "installed"]

EXTRAS = ("server", "torch", "cluster", "ray", "spandrel", "train")

ALLOWED = frozenset(
    {
        "0BSD",
        "Apache-2.0",
        "Apache-2.0 WITH LLVM-exception",
        "BSD-2-Clause",
        "BSD-3-Clause",
        "BSL-1.0",
        "CC0-1.0",
        "ISC",
        "MIT",
        "MIT-0",
        "MIT-CMU",
        "MPL-2.0",  # of files, and we change none: certifi
        "PSF-2.0",
        "Zlib",
    }
)
_KNOWN = (
    (r"apache", "Apache-2.0"),
    (r"mpl|mozilla", "MPL-2.0"),
    (r"\bpsf|python software foundation", "PSF-2.0"),
    (r"bsd[- ]?2|simplified bsd", "BSD-2-Clause"),
    (r"bsd", "BSD-3-Clause"),
    (r"\bmit\b", "MIT"),
    (r"\bisc\b", "ISC"),
    (r"zlib", "Zlib"),
)


@dataclass(frozen=True, slots=True)
class Package:
    name: str
    version: str
    licence: str
    """An expression of SPDX's names, or what the package says where that is none."""

    @property
    def allowed(self) -> bool:
        parts = re.split(r"\s+(?:AND|OR)\s+", self.licence.replace("(", "").replace(")", ""))
        return set(parts) <= ALLOWED


def main() -> None:
    for package in installed():
        print(f"{package.name:<32} {package.version:<16} {package.licence}")


def installed() -> list[Package]:
    """What is here of streamlift's dependencies, and theirs."""
    found: dict[str, Package] = {}
    waiting = [Requirement(f"streamlift[{','.join(EXTRAS)}]")]
    seen: set[tuple[str, frozenset[str]]] = set()
    while waiting:
        wanted = waiting.pop()
        name, extras = canonicalize_name(wanted.name), frozenset(wanted.extras)
        if (name, extras) in seen:
            continue
        seen.add((name, extras))
        try:
            package = distribution(name)
        except PackageNotFoundError:
            continue  # an extra that is not installed
        if name.startswith(("nvidia-", "cuda-")):
            continue  # NVIDIA's terms; they come with a CUDA build of torch
        if name != "streamlift":
            found[name] = Package(name, package.version, _licence(package))
        for text in package.requires or ():
            needed = Requirement(text)
            marker = needed.marker
            if marker is None or any(marker.evaluate({"extra": e}) for e in ("", *extras)):
                waiting.append(needed)
    return sorted(found.values(), key=lambda package: package.name)


def _licence(package: Distribution) -> str:
    for said in package.metadata.get_all("License-Expression") or ():
        return str(said)
    classifiers = [
        str(c).rsplit(" :: ", 1)[1]
        for c in package.metadata.get_all("Classifier") or ()
        if c.startswith("License :: OSI Approved ::")
    ]
    whole = package.metadata.get_all("License") or [""]
    short = str(whole[0]).strip().split("\n")[0]
    for text in (*classifiers, short):
        if re.search(r"GPL", text):
            return text
    for text in (*classifiers, short):
        for pattern, name in _KNOWN:
            if text and re.search(pattern, text, re.I):
                return name
    return short or "nothing said"


if __name__ == "__main__":
    main()
