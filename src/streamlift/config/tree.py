"""The whole configuration as one frozen typed tree, with its defaults."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

__all__ = [
    "DEFAULT_BACKEND",
    "DEFAULT_BACKENDS",
    "AuthConfig",
    "BackendConfig",
    "CameraConfig",
    "ClusterConfig",
    "Config",
    "EncodeConfig",
    "FilesConfig",
    "IceConfig",
    "IceServer",
    "IngestConfig",
    "LimitsConfig",
    "OutputsConfig",
    "PushConfig",
    "RtspConfig",
    "ServerConfig",
    "SourcesConfig",
    "TokenConfig",
    "WeightsConfig",
    "WorkerConfig",
]


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
    `daydream_key`: secret, best given as STREAMLIFT_SOURCES__DAYDREAM_KEY. `url`: whether FFmpeg
    may read what control tokens name: hosts that are allowed, files below `directories`, and what
    is sent to addresses of `udp` (HOST:PORT).
    """

    allowed_hosts: tuple[str, ...] = ()
    daydream_url: str = "https://api.daydream.live"
    daydream_key: str | None = field(default=None, repr=False)
    url: bool = False
    directories: tuple[str, ...] = ()
    udp: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PushConfig:
    """Send `stream`, whenever it is there, to another server: by WHIP (https), RTMP (rtmp, rtmps)
    or RTSP (rtsp, rtsps). `token`: bearer token, stream key or password."""

    stream: str
    url: str = field(repr=False)
    token: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class CameraConfig:
    """Show `stream`, whenever it is there, on a Video4Linux output device (v4l2loopback)."""

    stream: str
    device: str


@dataclass(frozen=True, slots=True)
class OutputsConfig:
    """Where streams go beside the viewers. `allowed_hosts` as in SourcesConfig, for pushes.

    `save`: a directory in which every stream is recorded. `devices`: Video4Linux output devices
    that the API may use, beside those of `cameras`.
    """

    allowed_hosts: tuple[str, ...] = ()
    push: tuple[PushConfig, ...] = ()
    cameras: tuple[CameraConfig, ...] = ()
    devices: tuple[str, ...] = ()
    save: str | None = None


@dataclass(frozen=True, slots=True)
class RtspConfig:
    """Where RTSP readers are served; nowhere, unless the section is there. The view token is the
    password. Without view tokens `host` must be a loopback address."""

    host: str = "127.0.0.1"
    port: int = 8554


@dataclass(frozen=True, slots=True)
class WeightsConfig:
    """`download`: whether those with the control token may have the service fetch the pinned
    weights that a backend lacks."""

    download: bool = False


@dataclass(frozen=True, slots=True)
class FilesConfig:
    """Files that those with the control token may upload to be upscaled; none, unless the section
    is there.

    `jobs`: as many are held at most, results among them, for `kept_s` after they are done.
    `longest_s`: the work on one. `directory`: where they lie meanwhile, by default the system's.
    """

    largest_mb: int = 1000
    jobs: int = 8
    longest_s: float = 3600.0
    kept_s: float = 3600.0
    directory: str | None = None


@dataclass(frozen=True, slots=True)
class LimitsConfig:
    """What strangers, and holders of one token, may take of the service.

    An address is one of IPv4, or an IPv6 network of 64 bits. Limits per token count where tokens
    are configured. `connections` are those of HTTP; each has `head_s` to send a request's head,
    and `body_s` for its body. `events_per_token`: those who follow the events.
    `rtsp_per_address`: connections of RTSP readers.
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
    rtsp_per_address: int = 16


@dataclass(frozen=True, slots=True)
class BackendConfig:
    """A named upscaler and where it runs. `device`: cpu, cuda:0, or a pattern such as H100|H200.

    `stabilise`: strength of the temporal stabiliser for streams that ask for none of their own.
    `cuda_priority`: of its CUDA stream, among the backends of one process (see `docs/flashvsr.md`).
    `scale`: how many times larger pictures come out, 1 to 4, for streams that ask for no size; None
    is the model's own.
    `link`: where it runs. inproc: in the service's own process, so a crash ends the service;
    process: in `workers` processes of this machine, one a GPU; remote: on the workers of `cluster`.
    Said nothing, backends on a GPU run in a process, others in the service.
    """

    name: str
    upscaler: str
    device: str = "cpu"
    slots: int | None = None
    stabilise: Literal["off", "lite", "strong"] = "off"
    cuda_priority: Literal["default", "low", "high"] = "default"
    scale: float | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    link: Literal["inproc", "process", "remote"] | None = None
    workers: int = 1


@dataclass(frozen=True, slots=True)
class WorkerConfig:
    """A worker that serves `backend`, at HOST:PORT.

    `fingerprint`: of its certificate, as `streamlift worker --make-cert` prints it; without one,
    `cluster.tls_ca` must have signed it.
    """

    backend: str
    address: str
    fingerprint: str | None = None


@dataclass(frozen=True, slots=True)
class ClusterConfig:
    """Workers on other machines, and what services and workers must know to trust each other.

    `placement`: static (the list `workers`), local (processes of this machine), or ray://HOST:PORT.
    `token` is the same on both sides; best given as STREAMLIFT_CLUSTER__TOKEN. `tls_ca` signs
    certificates of the other side; `tls_cert` and `tls_key` are one's own. `ports`: the lowest and
    highest that a worker told to listen on port 0 may take. `name`: of this service or worker.
    `peers`: base URLs of other services that may hold a stream asked for here. `drain_s`: how long
    a worker that is told to end waits for its streams to leave.
    """

    placement: str = "static"
    workers: tuple[WorkerConfig, ...] = ()
    token: str | None = field(default=None, repr=False)
    tls_ca: str | None = None
    tls_cert: str | None = None
    tls_key: str | None = None
    ports: tuple[int, ...] = (8600, 8699)
    name: str | None = None
    peers: tuple[str, ...] = ()
    drain_s: float = 20.0


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
    rtsp: RtspConfig | None = None
    weights: WeightsConfig = WeightsConfig()
    files: FilesConfig | None = None
    limits: LimitsConfig = LimitsConfig()
    cluster: ClusterConfig = ClusterConfig()
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
