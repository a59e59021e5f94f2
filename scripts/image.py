"""Builds the `cpu` image and runs it, without a Docker daemon or a registry: scripts/test --image.

Debian's buildah builds it on a base that debootstrap made and that is kept in /var/tmp; podman and
runc run it as docs/docker.md says: without root, read-only, without capabilities. FFmpeg's muxer
publishes into it and a viewer counts pictures. Where a tool is missing it says so and is skipped.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from scripts.children import bound, read, stop, streamlift, wait_for

ROOT = Path(__file__).parents[1]
WORK = Path(os.environ.get("STREAMLIFT_IMAGE_DIR", "/var/tmp/streamlift-image"))
"""The base image is kept here, for the next run; all else is removed."""
BASE = "localhost/debian:bookworm-slim"
IMAGE = "localhost/streamlift:cpu"
MOST_MB = 900
PUBLISHED_S, WATCHED_S = 14, 8
LEAST_FRAMES = 100
"""Of some 200 at 25 a second: this proves that pictures come, on any machine."""
TOOLS = {
    "buildah": "buildah",
    "podman": "podman",
    "runc": "runc",
    "debootstrap": "debootstrap",
    "openssl": "openssl",
}
# As they are needed here: crun does not take hybrid cgroups, podman's own limits may be above the
# hard ones, and health checks want timers of systemd.
RUNTIME = ("--cgroup-manager", "cgroupfs", "--runtime", "runc", "--events-backend", "none")
LOCKED = (
    *("--network", "host", "--read-only", "--tmpfs", "/tmp", "--cap-drop", "all"),
    *("--security-opt", "no-new-privileges", "--memory", "1g", "--no-healthcheck"),
    *("--ulimit", "nofile=8192:8192", "--ulimit", "nproc=4096:4096"),
)
STORES = (f"--root={WORK}/store", f"--runroot={WORK}/run")
EXPECTED = (
    "streamlift_sessions_active",
    "streamlift_slots_used",
    "streamlift_backend_state",
    "streamlift_frames_total",
    "streamlift_stream_latency_seconds_bucket",
    "streamlift_stage_duration_seconds_bucket",
    "streamlift_event_loop_lag_seconds_bucket",
)
"""What the dashboard shows of a stream that runs."""


def main() -> int:
    if lacking := missing():
        print(f"image: skipped, not built: {lacking}")
        return 0
    WORK.mkdir(parents=True, exist_ok=True)
    os.environ["STORAGE_DRIVER"] = "overlay"
    base()
    try:
        build()
        check()
    finally:
        # The store is ours alone; builders leave their working containers behind.
        subprocess.run(["buildah", *STORES, "rm", "--all"], **QUIET)
        subprocess.run([*podman(), "rmi", "--force", IMAGE], stdout=subprocess.DEVNULL, check=False)
        subprocess.run([*podman(), "image", "prune", "--force"], check=False)
    return 0


def missing() -> str | None:
    """What this machine lacks for it, or None."""
    if absent := sorted(p for tool, p in TOOLS.items() if shutil.which(tool) is None):
        return f"install {', '.join(absent)}"
    if not any(Path(folder, "netavark").exists() for folder in ("/usr/lib/podman", "/usr/bin")):
        return "install netavark"
    if os.geteuid() != 0:
        return "only root may run debootstrap and a container in the host's network"
    return None


def podman() -> list[str]:
    return ["podman", *STORES, f"--tmpdir={WORK}/tmp", *RUNTIME]


def said(*command: str) -> str:
    return subprocess.run(command, check=True, text=True, stdout=subprocess.PIPE).stdout.strip()


def base() -> None:
    """Debian's smallest system as an image, from the mirror that this machine uses."""
    have = subprocess.run(["buildah", *STORES, "inspect", "--type", "image", BASE], **QUIET)
    if have.returncode == 0:
        return
    rootfs = WORK / "rootfs"
    shutil.rmtree(rootfs, ignore_errors=True)
    try:
        subprocess.run(
            [
                *("debootstrap", "--variant=minbase", "--include=ca-certificates"),
                *("bookworm", str(rootfs), mirror()),
            ],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        container = said("buildah", *STORES, "from", "scratch")
        said("buildah", *STORES, "copy", "-q", container, str(rootfs), "/")
        said("buildah", *STORES, "commit", "-q", container, BASE)
        said("buildah", *STORES, "rm", container)
    finally:
        shutil.rmtree(rootfs, ignore_errors=True)


QUIET: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "check": False}


def mirror() -> str:
    """The first archive in apt's sources, of either form."""
    for path in ("/etc/apt/sources.list.d/debian.sources", "/etc/apt/sources.list"):
        with contextlib.suppress(OSError):
            text = Path(path).read_text(encoding="utf-8")
            if found := re.search(r"^(?:URIs:|deb(?: \[.*\])?)\s+(\S+)", text, re.MULTILINE):
                return found[1]
    return "http://deb.debian.org/debian"


def build() -> None:
    # How this machine reaches its package index is no part of the image.
    own = ("/etc/ssl/certs", "/usr/local/share/ca-certificates", "/etc/pip.conf")
    mounts = [f"--volume={path}:{path}:ro" for path in own if Path(path).exists()]
    subprocess.run(
        [
            *("buildah", *STORES, "bud", "--isolation", "chroot", "--format", "docker"),
            *("--pull-never", "--target", "cpu", "--build-arg", f"BASE={BASE}", *mounts),
            *("-f", "docker/Dockerfile", "-t", IMAGE, "."),
        ],
        check=True,
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
    )


def check() -> None:
    """Everything that is promised of the image; exits with what was found and expected."""
    facts = json.loads(said(*podman(), "image", "inspect", IMAGE))[0]
    size_mb = facts["Size"] / 1e6
    print(f"image: {size_mb:.0f} MB")
    expect(size_mb < MOST_MB, f"an image under {MOST_MB} MB")
    expect(facts["User"].startswith("10001"), "a user of its own")
    health = facts["HealthCheck" if "HealthCheck" in facts else "Healthcheck"]["Test"]
    with contained() as (name, port):
        expect(ran(name, *health[1:]) == 0, "its health check to be content")
        expect(ran(name, "touch", "/x", "/opt/streamlift/x") != 0, "a read-only root")
        expect(ran(name, "touch", "/tmp/x") == 0, "a /tmp that can be written")
        inside = said(*podman(), "exec", name, "id", "-u")
        expect(inside == "10001", f"user 10001, not {inside},")
        listed = said(
            *podman(), "exec", name, "cat", "/opt/streamlift/share/streamlift/packages.json"
        )
        expect(len(json.loads(listed)["installed"]) > 20, "a list of its packages")
        watch(port)


@contextlib.contextmanager
def contained() -> Iterator[tuple[str, int]]:
    """The container and its port; ends it by SIGTERM and expects exit code 0."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    name = f"streamlift-test-{os.getpid()}"
    service = subprocess.Popen(
        bound(
            *(*podman(), "run", "--rm", "--name", name, *LOCKED),
            *(IMAGE, "serve", "--port", str(port), "--backend", "bicubic"),
        )
    )
    try:
        wait_for(lambda: bool(read(f"http://127.0.0.1:{port}/readyz")["ready"]), 90)
        yield name, port
        began_s = time.monotonic()
        said(*podman(), "stop", "--time", "30", name)
        code = service.wait(30)
        print(f"image: stopped in {time.monotonic() - began_s:.1f} s with exit code {code}")
        expect(code == 0, "exit code 0 after SIGTERM")
    finally:
        if service.poll() is None:
            subprocess.run([*podman(), "kill", name], **QUIET)
            stop(service)


def ran(name: str, *command: str) -> int:
    return subprocess.run([*podman(), "exec", name, *command], **QUIET).returncode


def certificate() -> tuple[str, str]:
    """What the muxer proves itself with: one made here, as browsers make theirs."""
    cert, key = f"{WORK}/cert.pem", f"{WORK}/key.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt"),
            *("ec_paramgen_curve:prime256v1", "-nodes", "-days", "1", "-subj", "/CN=streamlift"),
            *("-keyout", key, "-out", cert),
        ],
        **(QUIET | {"check": True}),
    )
    return cert, key


def watch(port: int) -> None:
    """Publish with FFmpeg's own WHIP muxer, and count what a viewer gets."""
    url = f"http://127.0.0.1:{port}"
    order: dict[str, Any] = {"url": f"{url}/whip/live", "size": "256x256", "seconds": PUBLISHED_S}
    cert, key = certificate()
    order["options"] = {"handshake_timeout": "8000", "cert_file": cert, "key_file": key}
    publisher = subprocess.Popen(
        bound(sys.executable, "-m", "tests.live.ffmpeg_whip", json.dumps(order)),
        cwd=ROOT,
        stdout=subprocess.PIPE,
    )
    try:
        wait_for(lambda: read(f"{url}/api/v1/streams/live")["state"] == "live", 30)
        command = streamlift("watch", f"{url}/whep/live", "--seconds", str(WATCHED_S), "--json")
        figures = json.loads(said(*command))
        with urllib.request.urlopen(f"{url}/metrics", timeout=5) as answer:
            metrics = answer.read().decode()
    finally:
        stop(publisher)
        publisher.communicate()
    print(f"image: a viewer got {json.dumps(figures)}")
    expect(figures["frames"] >= LEAST_FRAMES, f"{LEAST_FRAMES} pictures at the viewer")
    absent = [name for name in EXPECTED if f"\n{name}" not in metrics]
    expect(not absent, f"/metrics with {', '.join(absent)}")


def expect(holds: bool, what: str) -> None:
    if not holds:
        raise SystemExit(f"image: expected {what}; it is not so")


if __name__ == "__main__":
    sys.exit(main())
