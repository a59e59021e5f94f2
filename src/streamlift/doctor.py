"""Looks at this machine and says what streamlift can do on it."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import socket
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from streamlift import __version__
from streamlift.config import Config
from streamlift.engine import accelerators
from streamlift.portable import take_address
from streamlift.routing import decision_matrix

__all__ = ["Check", "Report", "examine"]


@dataclass(frozen=True, slots=True)
class Check:
    """One thing looked at."""

    name: str
    ok: bool
    detail: str


@dataclass(frozen=True, slots=True)
class Report:
    """All of them."""

    checks: tuple[Check, ...]

    @property
    def ok(self) -> bool:
        return all(check.ok for check in self.checks)

    def as_json(self) -> dict[str, Any]:
        return {
            "ok": self.ok,
            "checks": [{"name": c.name, "ok": c.ok, "detail": c.detail} for c in self.checks],
        }


def examine(config: Config) -> Report:
    """Run every check; nothing is changed, nothing is sent."""
    return Report(
        (
            Check("streamlift", True, f"{__version__}, Python {platform.python_version()}"),
            _processor(),
            _plan(config),
            _gpu(),
            *_matrix(),
            *_upscalers(),
            *(_library(n) for n in ("av", "aiortc", "cv2", "onnxruntime", "fastapi")),
            _encoder(),
            *_links(config),
            *_ray(config, os.environ),
            *_ports_of_doors(config),
            _media(config),
            _turn(config),
            _exposure(config),
        )
    )


def _processor() -> Check:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return Check("processor", True, f"{platform.machine()}, {cores} cores")


def _plan(config: Config) -> Check:
    """What `compact` would begin with here; measured once, then remembered."""
    from streamlift.engine.costs import known_costs
    from streamlift.engine.cpu_budget import usable_cores
    from streamlift.engine.plan import make_plan
    from streamlift.upscalers.compact import Precision

    preset = config.encode.preset
    costs = known_costs(preset, Precision.INT8)
    plan = make_plan(costs, cores=usable_cores(), preset=preset, stabilised=True)
    return Check("plan", True, plan.words())


def _gpu() -> Check:
    present = accelerators()
    if present:
        return Check("gpu", True, ", ".join(f"{a.device} {a.name}" for a in present))
    if importlib.util.find_spec("torch") is None:
        return Check("gpu", True, "torch is not installed: CPU backends only (extra: torch)")
    return Check("gpu", True, "no CUDA device: CPU backends only")


def _matrix() -> tuple[Check, ...]:
    """What the policy `auto` picks, by device."""
    return tuple(
        Check("auto", True, f"{row.device}: the first of {', '.join(row.order)} {row.condition}")
        for row in decision_matrix()
    )


def _upscalers() -> tuple[Check, ...]:
    """What is not in the base install: here, or the command that gets it."""
    from streamlift.upscalers.presence import OPTIONAL, presence_of

    return tuple(Check(name, True, presence_of(name).words) for name in OPTIONAL)


def _library(name: str) -> Check:
    if importlib.util.find_spec(name) is None:
        return Check(name, False, "not installed: pip install 'streamlift[server]'")
    return Check(name, True, "installed")


def _encoder() -> Check:
    import av

    missing = [name for name in ("libx264", "libvpx") if name not in av.codecs_available]
    if missing:
        return Check("encoders", False, f"this FFmpeg lacks {', '.join(missing)}")
    return Check("encoders", True, "libx264, libvpx")


def _links(config: Config) -> tuple[Check, ...]:
    """Whether each worker that is configured answers, and how it is."""
    if not config.cluster.workers:
        return ()
    if importlib.util.find_spec("grpc") is None:
        return (Check("link", False, "not installed: pip install 'streamlift[cluster]'"),)
    from streamlift.cluster.looking import look_at_workers

    return tuple(Check(f"link {who}", ok, detail) for who, ok, detail in look_at_workers(config))


def _ray(config: Config, environ: Mapping[str, str]) -> tuple[Check, ...]:
    """What Ray's nodes must have in their environment; this machine's is looked at."""
    if not config.cluster.placement.startswith("ray://"):
        return ()
    try:
        version = importlib.metadata.version("ray")
    except importlib.metadata.PackageNotFoundError:
        return (Check("ray", False, "not installed: pip install 'streamlift[ray]'"),)
    wrong = []
    if environ.get("RAY_AUTH_MODE") != "token":
        wrong.append("no token: who reaches it can run anything (RAY_AUTH_MODE=token)")
    waits = environ.get("RAY_gcs_rpc_server_reconnect_timeout_s", RAY_WAITS_S)
    if not waits.isdecimal() or int(waits) < LEAST_RAY_WAITS_S:
        wrong.append(
            f"reconnect timeout {waits} s: streams lose their workers that long after the head is "
            "gone (RAY_gcs_rpc_server_reconnect_timeout_s=3600 on every node)"
        )
    detail = "; ".join(wrong) or f"token auth, reconnect timeout {waits} s"
    return (Check("ray", not wrong, f"ray {version}, {detail}"),)


RAY_WAITS_S = "60"
"""Ray's own."""
LEAST_RAY_WAITS_S = 600


def _ports_of_doors(config: Config) -> Iterator[Check]:
    yield _port("http port", config.server.host, config.server.port)
    if config.rtsp is not None:
        yield _port("rtsp port", config.rtsp.host, config.rtsp.port)


def _port(name: str, host: str, port: int) -> Check:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        take_address(probe)
        try:
            probe.bind((host, port))
        except OSError as error:
            return Check(name, False, f"{host}:{port}: {error.strerror}")
    return Check(name, True, f"{host}:{port} is free")


def _media(config: Config) -> Check:
    """UDP: from which ports media comes, and what peers are told to connect to."""
    ports_ok, ports = _ports(config)
    addresses_ok, addresses = _addresses(config)
    return Check("media", ports_ok and addresses_ok, f"{ports}; {addresses}")


def _ports(config: Config) -> tuple[bool, str]:
    if config.ice.ports:
        low, high = config.ice.ports
        free = sum(_can_bind("0.0.0.0", port) for port in range(low, high + 1))  # noqa: S104  as media does
        return free > 0, f"UDP {low}-{high}, {free} free, one for each session"
    ports = "any free port"
    if sys.platform == "linux":
        with open("/proc/sys/net/ipv4/ip_local_port_range", encoding="ascii") as file:
            ports = "-".join(file.read().split())
    return True, f"UDP {ports} (ice.ports sets a range for a firewall)"


def _addresses(config: Config) -> tuple[bool, str]:
    announced = config.ice.announce
    if not announced:
        return True, "every address of this machine is announced"
    own = [address for address in announced if _can_bind(address, 0)]
    if own:
        foreign = [address for address in announced if address not in own]
        detail = f"announced: {', '.join(own)}"
        if foreign:
            detail += f"; not of this machine and not used: {', '.join(foreign)}"
        return not foreign, detail
    detail = (
        f"announced: {', '.join(announced)}, which is not of this machine: its router must pass "
    )
    return True, detail + "the UDP ports on to here, port by port"


def _turn(config: Config) -> Check:
    """TURN servers need credentials, made here or written down."""
    servers = [s for s in config.ice.servers if s.urls.startswith("turn")]
    if not servers:
        return Check("turn", True, "none: viewers whose network blocks UDP cannot connect")
    if config.ice.turn_secret is not None:
        detail = f"{len(servers)}, credentials for {config.ice.turn_ttl_s} s each"
        return Check("turn", True, detail)
    bare = [s.urls for s in servers if s.username is None or s.credential is None]
    if bare:
        return Check("turn", False, f"no credentials for {', '.join(bare)}: set ice.turn_secret")
    return Check("turn", True, f"{len(servers)}, lasting credentials: prefer ice.turn_secret")


def _can_bind(address: str, port: int) -> bool:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((address, port))
        except OSError:
            return False
    return True


def _exposure(config: Config) -> Check:
    from streamlift.api import check_exposure
    from streamlift.errors import ConfigError

    try:
        check_exposure(config)
    except ConfigError as error:
        return Check("tokens", False, str(error))
    state = "set" if config.auth.complete else "none: only this machine can use the service"
    return Check("tokens", True, state)
