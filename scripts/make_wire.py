"""Makes the Python modules of cluster/wire from worker.proto, where grpcio-tools is installed."""

from __future__ import annotations

import sys
from importlib import resources
from pathlib import Path

ROOT = Path(__file__).parents[1]
PROTO = ROOT / "src" / "streamlift" / "cluster" / "wire" / "worker.proto"


def main() -> int:
    from grpc_tools import protoc

    common = Path(str(resources.files("grpc_tools"))) / "_proto"
    out = ROOT / "src"
    arguments = [f"-I{out}", f"-I{common}", f"--python_out={out}", f"--pyi_out={out}"]
    return int(protoc.main(["protoc", *arguments, str(PROTO)]))


if __name__ == "__main__":
    sys.exit(main())
