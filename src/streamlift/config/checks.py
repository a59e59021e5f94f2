"""What a configuration may hold beyond its types: ranges, names, secrets."""

from __future__ import annotations

import dataclasses
import ipaddress
import os
import re
import sys
from collections.abc import Mapping

from streamlift.config.tree import (
    AuthConfig,
    BackendConfig,
    ClusterConfig,
    Config,
    FilesConfig,
    IceConfig,
    LimitsConfig,
    SourcesConfig,
    TokenConfig,
)
from streamlift.errors import ConfigError
from streamlift.sizes import MOST_SCALE

__all__ = [
    "KINDS",
    "NAME_PATTERN",
    "POLICIES",
    "PREFIX_PATTERN",
    "check",
    "check_name",
    "kind_of",
    "shown",
    "wrong",
]

NAME_PATTERN = r"[A-Za-z0-9_-]{1,64}"
"""Names of streams and backends."""
PREFIX_PATTERN = r"(/[A-Za-z0-9._~-]+){1,8}"
"""Paths that the service may be reached under."""
KINDS: Mapping[type, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    list: "a list",
    dict: "a mapping",
    type(None): "nothing",
}
"""Python's types in YAML's words; the first that fits."""
_SECRET = re.compile(
    r"(auth|outputs\.push)([.\[]|$)|(.*\.)?(turn_secret|credential|daydream_key|token)\b"
)
"""Keys whose values no message repeats: what cannot be read is often a token without quotes."""
SHORTEST_SECRET = 32
POLICIES = ("auto", "quality", "speed")
"""Ways to choose a backend; they cannot name one."""


def check(config: Config) -> None:
    """Raises ConfigError that names the key, what was found and what was expected."""
    server, encode = config.server, config.encode
    if not 0 <= server.port <= 65535:
        raise wrong("server.port", server.port, "0 to 65535")
    if (server.tls_cert is None) != (server.tls_key is None):
        raise ConfigError("server.tls_cert and server.tls_key must be given together")
    if server.root_path and not re.fullmatch(PREFIX_PATTERN, server.root_path):
        raise wrong("server.root_path", server.root_path, "a path such as /lift, or nothing")
    for proxy in server.trusted_proxies:
        try:
            ipaddress.ip_network(proxy, strict=False)
        except ValueError:
            raise wrong("server.trusted_proxies", proxy, "IP addresses or networks") from None
    if encode.codec not in ("h264", "vp8"):
        raise wrong("encode.codec", encode.codec, "h264 | vp8")
    if encode.profile not in ("High", "Baseline"):
        raise wrong("encode.profile", encode.profile, "High | Baseline")
    if not 100_000 <= encode.bitrate_bps <= 50_000_000:
        raise wrong("encode.bitrate_bps", encode.bitrate_bps, "100000 to 50000000")
    if not 64 <= config.ingest.max_size <= 1280:
        raise wrong("ingest.max_size", config.ingest.max_size, "64 to 1280")
    if not 50 <= config.ingest.max_age_ms <= 5000:
        raise wrong("ingest.max_age_ms", config.ingest.max_age_ms, "50 to 5000")
    _check_auth(config.auth)
    for key in ("first_media_s", "no_picture_s", "absence_s"):
        if not 1 <= (seconds := getattr(config.ingest, key)) <= 3600:
            raise wrong(f"ingest.{key}", seconds, "1 to 3600")
    _check_ice(config.ice)
    _check_limits(config.limits)
    _check_sources(config.sources)
    if config.rtsp is not None and not 0 <= config.rtsp.port <= 65535:
        raise wrong("rtsp.port", config.rtsp.port, "0 to 65535")
    if config.files is not None:
        _check_files(config.files)
    for push in config.outputs.push:
        check_name("outputs.push stream", push.stream)
    for camera in config.outputs.cameras:
        check_name("outputs.cameras stream", camera.stream)
    for device in (*config.outputs.devices, *(c.device for c in config.outputs.cameras)):
        if not re.fullmatch(r"/dev/[^\s\0]+", device) or "/.." in device:
            raise wrong("outputs.devices", device, "a device such as /dev/video10")
    names = [check_name("backend", b.name) for b in config.named_backends]
    if len(set(names)) != len(names):
        raise ConfigError("two backends have the same name", found=names)
    for backend in config.named_backends:
        if backend.scale is not None and not 1 <= backend.scale <= MOST_SCALE:
            raise wrong(f"backends.{backend.name}.scale", backend.scale, f"1 to {MOST_SCALE:g}")
        if "stabilise" in backend.settings:
            raise ConfigError(
                f"backends.{backend.name}.settings.stabilise is now backends.{backend.name}"
                ".stabilise: move it up beside `settings`",
                found=f"settings.stabilise: {backend.settings['stabilise']}",
                expected="stabilise: off | lite | strong",
            )
    _check_cluster(config.cluster)
    for backend in config.named_backends:
        _check_link(backend, config.cluster)
    if reserved := set(names) & set(POLICIES):
        raise ConfigError("a backend is named like a policy", found=sorted(reserved))
    if config.named_default not in (*names, *POLICIES):
        raise ConfigError(
            f"default_backend {config.named_default!r} is neither a backend nor a policy",
            found=config.named_default,
            expected=[*names, *POLICIES],
        )


def _check_cluster(cluster: ClusterConfig) -> None:
    placement = cluster.placement
    if placement not in ("static", "local") and not re.fullmatch(r"ray://[^/\s]+:\d+", placement):
        raise wrong("cluster.placement", placement, "static | local | ray://HOST:PORT")
    if (cluster.tls_cert is None) != (cluster.tls_key is None):
        raise ConfigError("cluster.tls_cert and cluster.tls_key must be given together")
    if cluster.token is not None and len(cluster.token) < 16:
        raise ConfigError(
            "cluster.token is too short",
            found=f"{len(cluster.token)} characters",
            expected="at least 16, such as the output of openssl rand -hex 32",
        )
    low_high = (*cluster.ports, 0, 0)[:2]
    if cluster.ports and (
        len(cluster.ports) != 2 or not 1024 <= low_high[0] <= low_high[1] <= 65535
    ):
        raise wrong("cluster.ports", list(cluster.ports), "[LOWEST, HIGHEST] within 1024 to 65535")
    if cluster.name is not None:
        check_name("cluster", cluster.name)
    if not 0 <= cluster.drain_s <= 3600:
        raise wrong("cluster.drain_s", cluster.drain_s, "0 to 3600")
    for peer in cluster.peers:
        if not re.fullmatch(r"https?://[^\s?#]+", peer):
            raise wrong("cluster.peers", peer, "URLs such as https://anchor-2.example.org")
    for worker in cluster.workers:
        host, _, port = worker.address.rpartition(":")
        if not host or not port.isdecimal() or not 1 <= int(port) <= 65535:
            raise wrong("cluster.workers.address", worker.address, "HOST:PORT")
        print_ = worker.fingerprint
        if print_ is not None and not re.fullmatch(r"sha256:[0-9a-fA-F]{64}", print_):
            raise wrong("cluster.workers.fingerprint", print_, "sha256: and 64 hex digits")
        local = host in ("localhost", "127.0.0.1", "[::1]")
        if local or placement != "static":
            continue
        if cluster.token is None or (print_ is None and cluster.tls_ca is None):
            raise ConfigError(
                f"worker {worker.address} is on another machine: set cluster.token, and its "
                "fingerprint or cluster.tls_ca",
                found=worker.address,
                expected=["cluster.token", "fingerprint or cluster.tls_ca"],
            )


def _check_link(backend: BackendConfig, cluster: ClusterConfig) -> None:
    where = f"backends.{backend.name}"
    if backend.name == "bicubic" and backend.link not in (None, "inproc"):
        # What everything falls back to must not need anything that can fail.
        raise wrong(f"{where}.link", backend.link, "inproc: other backends fall back to it")
    if not 1 <= backend.workers <= 64:
        raise wrong(f"{where}.workers", backend.workers, "1 to 64")
    if backend.link == "process" and sys.platform == "win32":
        raise wrong(f"{where}.link", backend.link, "inproc or remote: needs Linux or macOS")
    listed = [worker.backend for worker in cluster.workers]
    if backend.link == "remote" and cluster.placement == "static" and backend.name not in listed:
        raise ConfigError(
            f"{where} is remote, but cluster.workers has no worker for it",
            found=listed,
            expected=backend.name,
        )


def _check_files(files: FilesConfig) -> None:
    for name, value, low, high in (
        ("largest_mb", files.largest_mb, 1, 1_000_000),
        ("jobs", files.jobs, 1, 1000),
        ("longest_s", files.longest_s, 1, 604_800),
        ("kept_s", files.kept_s, 1, 604_800),
    ):
        if not low <= value <= high:
            raise wrong(f"files.{name}", value, f"{low} to {high}")
    if files.directory is not None and not os.path.isdir(files.directory):
        raise wrong("files.directory", files.directory, "a directory that is there")


def _check_limits(limits: LimitsConfig) -> None:
    for name, value in dataclasses.asdict(limits).items():
        most = 3600 if name.endswith("_s") else 100_000
        if not 1 <= value <= most:
            raise wrong(f"limits.{name}", value, f"1 to {most}")


def _check_sources(sources: SourcesConfig) -> None:
    for directory in sources.directories:
        if not os.path.isabs(directory) or not os.path.isdir(directory):
            raise wrong("sources.directories", directory, "directories that exist, from / on")
    for address in sources.udp:
        host, _, port = address.rpartition(":")
        try:
            ipaddress.ip_address(host.strip("[]"))
            port_fits = 1 <= int(port) <= 65535
        except ValueError:
            port_fits = False
        if not port_fits:
            raise wrong("sources.udp", address, "ADDRESS:PORT, such as 0.0.0.0:5004")


def _check_auth(auth: AuthConfig) -> None:
    for door in (auth.publish, auth.view, auth.control):
        for token in door:
            if isinstance(token, TokenConfig) and token.streams is not None:
                if not token.streams:
                    raise ConfigError(
                        "a token of auth is for no stream at all; leave `streams` out for all",
                        expected="streams: [NAME, ...]",
                    )
                for stream in token.streams:
                    check_name("auth stream", stream)
            if not (token.token if isinstance(token, TokenConfig) else token):
                raise ConfigError("a token of auth is empty", expected="at least one character")
    if auth.link_secret is not None and len(auth.link_secret) < SHORTEST_SECRET:
        raise ConfigError(
            "auth.link_secret is too short to keep links from being forged",
            found=f"{len(auth.link_secret)} characters",
            expected=f"at least {SHORTEST_SECRET}, such as the output of openssl rand -hex 32",
        )


def _check_ice(ice: IceConfig) -> None:
    for address in ice.announce:
        try:
            ipaddress.ip_address(address)
        except ValueError:
            raise wrong("ice.announce", address, "IP addresses, no names") from None
    for server in ice.servers:
        if not re.match(r"(stun|turn)s?:[^/\s]+$", server.urls):
            raise wrong("ice.servers.urls", server.urls, "stun:HOST:PORT or turn:HOST:PORT")
    if not 30 <= ice.turn_ttl_s <= 86_400:
        raise wrong("ice.turn_ttl_s", ice.turn_ttl_s, "30 to 86400")
    low_high = (*ice.ports, 0, 0)[:2]
    if ice.ports and (len(ice.ports) != 2 or not 1024 <= low_high[0] <= low_high[1] <= 65535):
        raise wrong("ice.ports", list(ice.ports), "[LOWEST, HIGHEST] within 1024 to 65535")


def check_name(kind: str, name: str) -> str:
    """Return `name` if it is a legal stream or backend name; raise ConfigError otherwise."""
    if not re.fullmatch(NAME_PATTERN, name):
        raise ConfigError(f"{kind} name {name!r} is not allowed", found=name, expected=NAME_PATTERN)
    return name


def wrong(where: str, value: object, expected: str) -> ConfigError:
    """The error for a value that does not fit its key."""
    found = shown(where, value)
    return ConfigError(
        f"{where}: found {found!r}, expected {expected}", found=found, expected=expected
    )


def shown(where: str, value: object) -> object:
    """The value, or of a secret its kind."""
    return kind_of(value) if _SECRET.match(where) else value


def kind_of(value: object) -> str:
    """What YAML holds, in its own words."""
    return next((word for kind, word in KINDS.items() if isinstance(value, kind)), "a value")
