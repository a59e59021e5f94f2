"""The whole configuration: one frozen typed tree, read once from YAML and the environment.

Defaults live here; `configs/*.yaml` are commented examples. An environment variable
`STREAMLIFT_SERVER__PORT=9000` overrides `server.port`; its value is read as YAML, so
`true`, `12` and `[a, b]` mean what they mean in a file. Unknown keys fail with their name.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import re
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml

from streamlift.errors import ConfigError

__all__ = [
    "NAME_PATTERN",
    "AuthConfig",
    "BackendConfig",
    "Config",
    "EncodeConfig",
    "IceConfig",
    "IceServer",
    "IngestConfig",
    "LimitsConfig",
    "OutputsConfig",
    "PushConfig",
    "ServerConfig",
    "SourcesConfig",
    "TokenConfig",
    "check_name",
    "load_config",
]

ENVIRONMENT_PREFIX = "STREAMLIFT_"
NAME_PATTERN = r"[A-Za-z0-9_-]{1,64}"
"""Names of streams and backends."""
PREFIX_PATTERN = r"(/[A-Za-z0-9._~-]+){1,8}"
"""Paths that the service may be reached under."""
_SECRET = re.compile(r"auth(\.|$)|(.*\.)?(turn_secret|credential|daydream_key|token)\b")
"""Keys whose values no message repeats: what cannot be read is often a token without quotes."""
SHORTEST_SECRET = 32
POLICIES = ("auto", "quality", "speed")
"""Ways to choose a backend; they cannot name one."""


@dataclass(frozen=True, slots=True)
class ServerConfig:
    """Where HTTP is served. Without tokens `host` must be a loopback address.

    `root_path`: the path that a reverse proxy serves this under, such as /lift. What a proxy tells
    of its client (X-Forwarded-For, -Proto, -Prefix) is read from `trusted_proxies` only:
    addresses or networks.
    """

    host: str = "127.0.0.1"
    port: int = 8080
    tls_cert: str | None = None
    tls_key: str | None = None
    allowed_origins: tuple[str, ...] = ()
    root_path: str = ""
    trusted_proxies: tuple[str, ...] = ("127.0.0.1", "::1")


@dataclass(frozen=True, slots=True)
class TokenConfig:
    """A bearer token; `streams`: those it is for, all if none are named."""

    token: str = field(repr=False)
    streams: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class AuthConfig:
    """Bearer tokens; an empty tuple leaves that door open, on loopback only.

    `link_secret` signs links that expire; at least 32 characters.
    """

    publish: tuple[str | TokenConfig, ...] = field(default=(), repr=False)
    view: tuple[str | TokenConfig, ...] = field(default=(), repr=False)
    control: tuple[str | TokenConfig, ...] = field(default=(), repr=False)
    link_secret: str | None = field(default=None, repr=False)

    @property
    def complete(self) -> bool:
        return bool(self.publish and self.view and self.control)


@dataclass(frozen=True, slots=True)
class IceServer:
    """A STUN or TURN server given to peers and used by the service."""

    urls: str
    username: str | None = None
    credential: str | None = None


@dataclass(frozen=True, slots=True)
class IceConfig:
    """`servers` is empty by default: no public STUN. `announce` limits the announced addresses.

    `deny_private_candidates`: check no private address that a peer names (10/8, 192.168/16 ...).
    `turn_secret`, shared with the TURN server (coturn: use-auth-secret), makes credentials that
    are valid for `turn_ttl_s` only. `ports`: the lowest and the highest UDP port for media.
    """

    servers: tuple[IceServer, ...] = ()
    announce: tuple[str, ...] = ()
    turn_secret: str | None = None
    turn_ttl_s: int = 300
    ports: tuple[int, ...] = ()
    deny_private_candidates: bool = False


@dataclass(frozen=True, slots=True)
class IngestConfig:
    """What publishers may send. `max_size` is the longest side in pixels.

    `first_media_s`: after connecting, until anything is sent. `no_picture_s`: how long media may
    come of which no picture can be decoded, before viewers see the waiting card. `absence_s`: how
    long a stream stays open for a publisher that is gone.
    """

    max_size: int = 1280
    max_age_ms: int = 500
    takeover: bool = True
    first_media_s: float = 5.0
    no_picture_s: float = 5.0
    absence_s: float = 60.0


@dataclass(frozen=True, slots=True)
class EncodeConfig:
    """How the output is encoded (libx264 names)."""

    codec: str = "h264"
    profile: str = "High"
    preset: str = "superfast"
    bitrate_bps: int = 6_000_000


@dataclass(frozen=True, slots=True)
class SourcesConfig:
    """Where streams may be pulled from: nowhere, unless hosts are allowed.

    `allowed_hosts`: names, *.domain, addresses or networks; private addresses only if listed.
    `daydream_key`: secret, best given as STREAMLIFT_SOURCES__DAYDREAM_KEY.
    """

    allowed_hosts: tuple[str, ...] = ()
    daydream_url: str = "https://api.daydream.live"
    daydream_key: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class PushConfig:
    """Publish `stream`, whenever it is there, to another server by WHIP."""

    stream: str
    url: str
    token: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class OutputsConfig:
    """Where streams go beside the viewers. `allowed_hosts` as in SourcesConfig, for pushes.

    `save`: a directory in which every stream is recorded.
    """

    allowed_hosts: tuple[str, ...] = ()
    push: tuple[PushConfig, ...] = ()
    save: str | None = None


@dataclass(frozen=True, slots=True)
class LimitsConfig:
    """What strangers, and holders of one token, may take of the service.

    An address is one of IPv4, or an IPv6 network of 64 bits. Limits per token count where tokens
    are configured. `connections` are those of HTTP; each has `head_s` to send a request's head,
    and `body_s` for its body. `events_per_token`: those who follow the events.
    """

    handshakes: int = 64
    handshakes_per_address: int = 8
    handshakes_per_token: int = 4
    publishers_per_token: int = 4
    viewers_per_token: int = 50
    connections: int = 512
    head_s: float = 10.0
    body_s: float = 10.0
    events_per_token: int = 16


@dataclass(frozen=True, slots=True)
class BackendConfig:
    """A named upscaler and where it runs. `device`: cpu, cuda:0, or a pattern such as H100|H200.

    `stabilise`: strength of the temporal stabiliser for streams that ask for none of their own.
    """

    name: str
    upscaler: str
    device: str = "cpu"
    slots: int | None = None
    stabilise: Literal["off", "lite", "strong"] = "off"
    settings: Mapping[str, Any] = field(default_factory=dict)


DEFAULT_BACKEND = "compact"
DEFAULT_BACKENDS = (
    BackendConfig("compact", "compact", stabilise="lite"),
    BackendConfig("bicubic", "bicubic"),
)


@dataclass(frozen=True, slots=True)
class Config:
    """The tree. `default_backend` names a backend or a policy: auto, quality or speed.

    None of `default_backend` and `backends` is what nobody has said anything about: then what
    the machine has may be added, and the policy chooses. Said is said, be it the same.
    """

    server: ServerConfig = ServerConfig()
    auth: AuthConfig = AuthConfig()
    ice: IceConfig = IceConfig()
    ingest: IngestConfig = IngestConfig()
    encode: EncodeConfig = EncodeConfig()
    sources: SourcesConfig = SourcesConfig()
    outputs: OutputsConfig = OutputsConfig()
    limits: LimitsConfig = LimitsConfig()
    default_backend: str | None = None
    backends: tuple[BackendConfig, ...] | None = None

    @property
    def named_backends(self) -> tuple[BackendConfig, ...]:
        """The backends that were configured, or those of a service without configuration."""
        return DEFAULT_BACKENDS if self.backends is None else self.backends

    @property
    def named_default(self) -> str:
        """The backend or policy that was named, or that of a service without configuration."""
        return DEFAULT_BACKEND if self.default_backend is None else self.default_backend


def load_config(
    path: Path | None,
    environ: Mapping[str, str],
    overrides: Mapping[str, Any] | None = None,
) -> Config:
    """Read the file (if any), then the environment, then `overrides` (dotted keys, from the CLI).

    Raises ConfigError that names the key, what was found and what was expected.
    """
    tree: dict[str, Any] = {}
    if path is not None:
        tree = _read_yaml(path)
    for key, value in environ.items():
        section, _, leaf = key.removeprefix(ENVIRONMENT_PREFIX).lower().partition("__")
        known = {f.name for f in dataclasses.fields(Config)}
        # Other STREAMLIFT_ variables (STREAMLIFT_MEDIA, STREAMLIFT_REQUIRE) belong to scripts.
        if not key.startswith(ENVIRONMENT_PREFIX) or not (leaf or section in known):
            continue
        _put(tree, [section, *leaf.split("__")] if leaf else [section], _scalar(key, value))
    for dotted, value in (overrides or {}).items():
        _put(tree, dotted.split("."), value)
    config = _build(Config, tree, "")
    _check(config)
    return config


def check_name(kind: str, name: str) -> str:
    """Return `name` if it is a legal stream or backend name; raise ConfigError otherwise."""
    if not re.fullmatch(NAME_PATTERN, name):
        raise ConfigError(f"{kind} name {name!r} is not allowed", found=name, expected=NAME_PATTERN)
    return name


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"cannot read configuration {path}: {error.strerror}") from error
    try:
        tree = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not valid YAML: {_place(error)}") from None
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise ConfigError(
            f"{path} must hold a mapping at the top", found=type(tree).__name__, expected="mapping"
        )
    return tree


def _scalar(key: str, value: str) -> Any:
    try:
        return yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise ConfigError(
            f"environment variable {key} is not valid YAML: {_place(error)}"
        ) from None


def _place(error: yaml.YAMLError) -> str:
    """What is wrong and where, without the text itself: there may be tokens in it."""
    if not isinstance(error, yaml.MarkedYAMLError) or error.problem_mark is None:
        return type(error).__name__
    mark = error.problem_mark
    return f"line {mark.line + 1}, column {mark.column + 1}: {error.problem}"


def _put(tree: dict[str, Any], keys: list[str], value: Any) -> None:
    for key in keys[:-1]:
        below = tree.setdefault(key, {})
        if not isinstance(below, dict):
            raise ConfigError(f"{'.'.join(keys)}: {key} is not a section", found=below)
        tree = below
    tree[keys[-1]] = value


T = TypeVar("T")


def _build(cls: type[T], tree: object, where: str) -> T:
    if not isinstance(tree, dict):
        shown = _shown(where, tree)
        raise ConfigError(
            f"{where or 'configuration'} must be a mapping, found {shown!r}", found=shown
        )
    hints = typing.get_type_hints(cls)
    fields = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    unknown = sorted(str(key) for key in tree if key not in fields)
    if unknown:
        names = ", ".join(_join(where, key) for key in unknown)
        raise ConfigError(
            f"unknown configuration key {names}; known here: {', '.join(sorted(fields))}",
            found=unknown,
            expected=sorted(fields),
        )
    missing = [
        name
        for name, f in fields.items()
        if name not in tree
        and f.default is dataclasses.MISSING
        and f.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise ConfigError(f"{where} lacks {', '.join(missing)}", found=sorted(map(str, tree)))
    return cls(**{k: _convert(hints[k], v, _join(where, k)) for k, v in tree.items()})


def _convert(hint: Any, value: Any, where: str) -> Any:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in args:
            return None
        inner = [a for a in args if a is not type(None)]
        if len(inner) > 1:  # a plain value, or a mapping that says more
            inner = [a for a in inner if dataclasses.is_dataclass(a) == isinstance(value, dict)]
        return _convert(inner[0], value, where)
    if origin is tuple:
        if isinstance(value, str):
            value = [value]  # one token, one origin: a list of one
        if not isinstance(value, list):
            raise _wrong(where, value, "a list")
        return tuple(_convert(args[0], v, f"{where}[{i}]") for i, v in enumerate(value))
    if isinstance(origin, type) and issubclass(origin, Mapping):
        if not isinstance(value, dict):
            raise _wrong(where, value, "a mapping")
        return types.MappingProxyType(dict(value))
    if origin is Literal:
        value = "off" if value is False and "off" in args else value  # YAML 1.1 reads off as false
        if value not in args:
            raise _wrong(where, value, " | ".join(args))
        return value
    if hint is float and type(value) is int:
        return float(value)
    if dataclasses.is_dataclass(hint):
        return _build(typing.cast(type[Any], hint), value, where)
    if isinstance(value, bool) != (hint is bool) or not isinstance(value, hint):
        raise _wrong(where, value, hint.__name__)
    return value


def _wrong(where: str, value: object, expected: str) -> ConfigError:
    shown = _shown(where, value)
    return ConfigError(
        f"{where}: found {shown!r}, expected {expected}", found=shown, expected=expected
    )


def _shown(where: str, value: object) -> object:
    return type(value).__name__ if _SECRET.match(where) else value


def _join(where: str, key: str) -> str:
    return f"{where}.{key}" if where else key


def _check(config: Config) -> None:
    server, encode = config.server, config.encode
    if not 0 <= server.port <= 65535:
        raise _wrong("server.port", server.port, "0 to 65535")
    if (server.tls_cert is None) != (server.tls_key is None):
        raise ConfigError("server.tls_cert and server.tls_key must be given together")
    if server.root_path and not re.fullmatch(PREFIX_PATTERN, server.root_path):
        raise _wrong("server.root_path", server.root_path, "a path such as /lift, or nothing")
    for proxy in server.trusted_proxies:
        try:
            ipaddress.ip_network(proxy, strict=False)
        except ValueError:
            raise _wrong("server.trusted_proxies", proxy, "IP addresses or networks") from None
    if encode.codec not in ("h264", "vp8"):
        raise _wrong("encode.codec", encode.codec, "h264 | vp8")
    if encode.profile not in ("High", "Baseline"):
        raise _wrong("encode.profile", encode.profile, "High | Baseline")
    if not 100_000 <= encode.bitrate_bps <= 50_000_000:
        raise _wrong("encode.bitrate_bps", encode.bitrate_bps, "100000 to 50000000")
    if not 64 <= config.ingest.max_size <= 1280:
        raise _wrong("ingest.max_size", config.ingest.max_size, "64 to 1280")
    if not 50 <= config.ingest.max_age_ms <= 5000:
        raise _wrong("ingest.max_age_ms", config.ingest.max_age_ms, "50 to 5000")
    _check_auth(config.auth)
    for key in ("first_media_s", "no_picture_s", "absence_s"):
        if not 1 <= (seconds := getattr(config.ingest, key)) <= 3600:
            raise _wrong(f"ingest.{key}", seconds, "1 to 3600")
    _check_ice(config.ice)
    _check_limits(config.limits)
    for push in config.outputs.push:
        check_name("outputs.push stream", push.stream)
    names = [check_name("backend", b.name) for b in config.named_backends]
    if len(set(names)) != len(names):
        raise ConfigError("two backends have the same name", found=names)
    for backend in config.named_backends:
        if "stabilise" in backend.settings:
            raise ConfigError(
                f"backends.{backend.name}.settings.stabilise is now backends.{backend.name}"
                ".stabilise: move it up beside `settings`",
                found=f"settings.stabilise: {backend.settings['stabilise']}",
                expected="stabilise: off | lite | strong",
            )
    if reserved := set(names) & set(POLICIES):
        raise ConfigError("a backend is named like a policy", found=sorted(reserved))
    if config.named_default not in (*names, *POLICIES):
        raise ConfigError(
            f"default_backend {config.named_default!r} is neither a backend nor a policy",
            found=config.named_default,
            expected=[*names, *POLICIES],
        )


def _check_limits(limits: LimitsConfig) -> None:
    for name, value in dataclasses.asdict(limits).items():
        most = 3600 if name.endswith("_s") else 100_000
        if not 1 <= value <= most:
            raise _wrong(f"limits.{name}", value, f"1 to {most}")


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
            raise _wrong("ice.announce", address, "IP addresses, no names") from None
    for server in ice.servers:
        if not re.match(r"(stun|turn)s?:[^/\s]+$", server.urls):
            raise _wrong("ice.servers.urls", server.urls, "stun:HOST:PORT or turn:HOST:PORT")
    if not 30 <= ice.turn_ttl_s <= 86_400:
        raise _wrong("ice.turn_ttl_s", ice.turn_ttl_s, "30 to 86400")
    low_high = (*ice.ports, 0, 0)[:2]
    if ice.ports and (len(ice.ports) != 2 or not 1024 <= low_high[0] <= low_high[1] <= 65535):
        raise _wrong("ice.ports", list(ice.ports), "[LOWEST, HIGHEST] within 1024 to 65535")
