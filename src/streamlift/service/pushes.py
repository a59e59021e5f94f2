"""Makes pushes of what is asked for, and refuses what the operator has not allowed."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from streamlift.clock import Clock
from streamlift.config import IceConfig, OutputsConfig
from streamlift.errors import ConfigError
from streamlift.media.outgoing.packetizer import Packetizer
from streamlift.media.remote.fetch import Fetcher
from streamlift.media.remote.push import Push, PushKind
from streamlift.media.remote.push_whip import WhipPush
from streamlift.media.remote.url_safety import WEB, HostRules, Resolve, resolve_name
from streamlift.media.targets import rtmp, rtsp
from streamlift.media.targets.camera import CameraPush
from streamlift.media.targets.line import open_line
from streamlift.metrics import Metrics

__all__ = ["PushOrder", "Pushes"]

_SCHEMES: dict[PushKind, tuple[str, ...]] = {
    "whip": WEB,
    "rtmp": rtmp.SCHEMES,
    "rtsp": rtsp.SCHEMES,
}


@dataclass(frozen=True, slots=True)
class PushOrder:
    """`address`: a URL, of `v4l2` a device. `token`: bearer token, stream key or password."""

    kind: PushKind
    address: str = field(repr=False)
    token: str | None = field(default=None, repr=False)

    @staticmethod
    def of_url(url: str, token: str | None) -> PushOrder:
        """Its kind is told by the URL's scheme. Raises ConfigError for one that is none."""
        scheme = url.partition(":")[0].lower()
        for kind, schemes in _SCHEMES.items():
            if scheme in schemes:
                return PushOrder(kind, url, token)
        known = [f"{s}://" for schemes in _SCHEMES.values() for s in schemes]
        raise ConfigError("nothing can be pushed to this URL", expected=known)


class Pushes:
    """All that pushes of any stream have in common."""

    def __init__(
        self,
        config: OutputsConfig,
        *,
        clock: Clock,
        packetizer: Packetizer,
        resolve: Resolve = resolve_name,
        unix_s: Callable[[], float] = time.time,
    ) -> None:
        """Raises ConfigError when something configured cannot be used."""
        self._rules = HostRules(config.allowed_hosts, "outputs.allowed_hosts")
        self._devices = {*config.devices, *(camera.device for camera in config.cameras)}
        self._clock = clock
        self._packetizer = packetizer
        self._resolve = resolve
        self._unix_s = unix_s
        for push in config.push:
            self.check(PushOrder.of_url(push.url, push.token))

    def check(self, order: PushOrder) -> None:
        """Raises ConfigError when this is not allowed, or cannot be used."""
        if order.kind == "v4l2":
            if order.address not in self._devices:
                raise ConfigError(
                    f"{order.address} is not among the devices that this service may use; its "
                    "operator can list it in outputs.devices (STREAMLIFT_OUTPUTS__DEVICES)",
                    found=order.address,
                    expected="a device in outputs.devices",
                )
            return
        url = order.address
        if order.kind == "rtsp":
            url = rtsp.read_rtsp_url(url, order.token).url  # there a user may be in the address
        self._rules.check(url, _SCHEMES[order.kind])
        if order.kind == "rtmp":
            rtmp.read_rtmp_url(url, order.token)

    def make(self, stream: str, order: PushOrder, *, ice: IceConfig, metrics: Metrics) -> Push:
        """Raises ConfigError as `check`."""
        self.check(order)
        clock, url, token = self._clock, order.address, order.token
        line = partial(open_line, rules=self._rules, resolve=self._resolve)
        match order.kind:
            case "whip":
                return WhipPush(
                    stream,
                    url,
                    token,
                    ice=ice,
                    fetcher=lambda: Fetcher(self._rules, resolve=self._resolve),
                    packetizer=self._packetizer,
                    clock=clock,
                    metrics=metrics,
                )
            case "rtmp":
                return rtmp.RtmpPush(
                    stream, url, token, open_line=line, clock=clock, metrics=metrics
                )
            case "rtsp":
                return rtsp.RtspPush(
                    stream,
                    url,
                    token,
                    open_line=line,
                    packetizer=self._packetizer,
                    unix_s=self._unix_s,
                    clock=clock,
                    metrics=metrics,
                )
            case "v4l2":
                return CameraPush(stream, url, clock=clock, metrics=metrics)
