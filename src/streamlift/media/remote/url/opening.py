"""Opens a place for FFmpeg, which itself may open nothing: how, by kind of address."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import NoReturn

import av
from av.container import InputContainer

from streamlift.media.remote.url.ending import Lost, Refused
from streamlift.media.remote.url.pace import Outbox
from streamlift.media.remote.url.readers import (
    FileReader,
    ResolveNow,
    UdpReader,
    Web,
    addresses_of,
    resolve_now,
)
from streamlift.media.remote.url.relay import Relay
from streamlift.media.remote.url.rules import Place, UrlRules
from streamlift.media.remote.url.sound import CODECS as SOUND
from streamlift.media.remote.url.video import CODECS as VIDEO
from streamlift.media.remote.url.wire import Kind, write_reason

__all__ = ["Opening", "told"]

FORMATS = "mov,mpegts,hls,flv,matroska,webm"
"""FFmpeg's names of the demuxers that are used, of the many that it has."""
PROBE_BYTES = 5_000_000
PROBE_S = 5
OPEN_S = 20.0
READ_S = 20.0
_SILENT_US = 10_000_000


class Opening:
    """What is to be opened, by which rules; `opened` may be called again and again."""

    def __init__(
        self,
        rules: UrlRules,
        place: Place,
        outbox: Outbox,
        *,
        max_side: int,
        resolve: ResolveNow = resolve_now,
    ) -> None:
        self.place = place
        self._rules = rules
        self._outbox = outbox
        self._max_side = max_side
        self._resolve = resolve
        self._web: Web | None = None
        self._relay: Relay | None = None

    @property
    def name(self) -> str:
        """What to call it: nothing secret."""
        if self.place.target is not None:
            return self.place.target.host
        return str(self.place.path or "the sender")

    def ends(self, container: InputContainer) -> bool:
        """Whether its end is the end, and no broken connection."""
        return self.place.paced and (container.duration or 0) > 0

    @contextmanager
    def opened(self) -> Iterator[InputContainer]:
        """Raises Refused, Lost or ConfigError; what was opened is closed at the end."""
        with ExitStack() as stack:
            try:
                container = self._open(stack)
                stack.callback(container.close)
                self._tell("reads the first pictures")
                yield container
            except av.FFmpegError as error:
                raise self._reason() or told(error, self.name) from error
            except Lost as error:
                raise self._reason() or error from error
            if (reason := self._reason()) is not None:
                raise reason

    def _open(self, stack: ExitStack) -> InputContainer:
        place, scheme = self.place, self.place.scheme
        if scheme == "file":
            file = FileReader(self._rules, place)
            stack.callback(file.close)
            return self._read(file)
        if scheme == "udp":
            self._tell("waits for the sender")
            datagrams = UdpReader(place, self._outbox.beat)
            stack.callback(datagrams.close)
            return self._read(datagrams, format="mpegts")
        self._tell(f"connects to {self.name}")
        if scheme in ("http", "https"):
            self._web = stack.enter_context(
                Web(self._rules, place, self._outbox.beat, self._resolve)
            )
            return av.open(
                place.url,
                io_open=self._web.open,
                options=self._options(protocol_whitelist="http,https"),
                timeout=(OPEN_S, READ_S),
                metadata_errors="replace",
            )
        return self._connect(stack)

    def _read(self, reader: FileReader | UdpReader, format: str | None = None) -> InputContainer:
        return av.open(
            reader,
            "r",
            format=format,
            io_open=_nothing_else,
            options=self._options(protocol_whitelist="none"),
            timeout=(OPEN_S, READ_S),
            metadata_errors="replace",
        )

    def _connect(self, stack: ExitStack) -> InputContainer:
        """RTSP and RTMP, whose connections FFmpeg makes itself: to our relay."""
        target = self.place.target
        assert target is not None
        found = addresses_of(self._rules, target, self._resolve)
        relay = self._relay = Relay(target, found, self._outbox.beat)
        stack.callback(relay.close)
        relay.begin()
        plain = target.scheme.removesuffix("s")
        user = "" if self.place.user is None else f"{self.place.user}@"
        rest = self.place.url.split("://", 1)[1].partition("/")[2]
        url = f"{plain}://{user}127.0.0.1:{relay.port}/{rest}"
        if plain == "rtsp":
            options = self._options(
                protocol_whitelist="tcp",
                rtsp_transport="tcp",
                allowed_media_types="video+audio",
                timeout=str(_SILENT_US),
                format_whitelist="rtsp",
            )
        else:
            options = self._options(
                protocol_whitelist="rtmp,tcp", rtmp_tcurl=_tc_url(self.place.url)
            )
        wanted = "rtsp" if plain == "rtsp" else "flv"
        return av.open(
            url,
            format=wanted,
            options=options,
            timeout=(OPEN_S, READ_S),
            metadata_errors="replace",
        )

    def _options(self, **more: str) -> dict[str, str]:
        side = self._max_side + 16
        return {
            "probesize": str(PROBE_BYTES),
            "analyzeduration": str(PROBE_S * 1_000_000),
            "max_streams": "64",
            "format_whitelist": FORMATS,
            "codec_whitelist": ",".join((*VIDEO, *SOUND)),
            "max_pixels": str(side * side),
            # An address that is open is not used for another: each is one of our readers.
            "http_persistent": "0",
            "http_multiple": "0",
            **more,
        }

    def _reason(self) -> Lost | Refused | None:
        """What is behind whatever FFmpeg says, where we know it."""
        if self._web is not None and self._web.refused is not None:
            return self._web.refused
        return None if self._relay is None else self._relay.why

    def _tell(self, doing: str) -> None:
        self._outbox.put(time.monotonic(), write_reason(Kind.DOING, doing))


def told(error: av.FFmpegError, name: str) -> Lost | Refused:
    """FFmpeg's error without the address, which may hold a password."""
    says = error.strerror or "an error that says nothing more"
    if isinstance(error, av.HTTPUnauthorizedError | av.HTTPForbiddenError):
        return Refused(f"{name} wants a user and password, or others: {says}")
    if isinstance(error, av.InvalidDataError | av.ArgumentError):
        return Lost(
            f"cannot read {name}: found no {FORMATS.replace(',', ', ')} that could be read ({says})"
        )
    return Lost(f"cannot read {name}: {says}")


def _nothing_else(url: str, flags: int, options: Mapping[str, str]) -> NoReturn:
    raise Refused("it leads to another file or address, which this service does not open")


def _tc_url(url: str) -> str:
    """The address of the RTMP application, under the server's own name."""
    scheme, _, rest = url.partition("://")
    host, _, path = rest.partition("?")[0].partition("/")
    parts = path.split("/")
    return f"{scheme}://{host}/" + "/".join(parts[: 2 if len(parts) > 2 else 1])
