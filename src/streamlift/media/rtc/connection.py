"""One WebRTC connection: an offer answered or made, its states, its end.

This folder alone touches aiortc's private parts. Every such place links to the code it leans on
(aiortc 1.16, aioice 0.13) and has a test in `tests/media/rtc` that fails when that code changes.
Attributes of instances are replaced, never classes or module constants.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Sequence
from typing import Any

from aiortc import (
    MediaStreamTrack,
    RTCConfiguration,
    RTCIceServer,
    RTCPeerConnection,
    RTCRtpSender,
    RTCRtpTransceiver,
    RTCSessionDescription,
)
from aiortc.codecs import is_rtx
from aiortc.exceptions import InvalidStateError, OperationError
from aiortc.rtcconfiguration import RTCBundlePolicy
from aiortc.rtcrtpparameters import RTCRtcpFeedback, RTCRtpHeaderExtensionParameters
from aiortc.sdp import SessionDescription, candidate_from_sdp

from streamlift.config import IceConfig
from streamlift.errors import MalformedSdp, MediaError, Overloaded, UnsupportedOffer
from streamlift.frames import Codec
from streamlift.media.rtc.candidates import Candidates
from streamlift.media.rtc.codecs import MIME, OPUS, RTX, negotiated
from streamlift.media.rtc.costs import affordable, lines_of
from streamlift.media.rtc.formats import Format, chosen, with_known_h264
from streamlift.media.rtc.guard import Guard
from streamlift.media.rtc.ice import (
    check,
    enlarge_receive_buffers,
    prepare_gathering,
    take_media_as_consent,
)
from streamlift.media.rtc.sdp import (
    Offer,
    Role,
    announced,
    finish_answer,
    no_common_format,
    sections_without_candidates,
    with_bundle_led_by,
    without_candidates,
)
from streamlift.media.rtc.simulcast import REPAIRED_URI, RID_URI, with_layers
from streamlift.media.rtc.transport_cc import EXTENSION_URI
from streamlift.metrics import Metrics
from streamlift.tasks import to_its_end

__all__ = ["CONNECT_S", "Peer"]

CONNECT_S = 10.0
CHECK_S = 1.0
_UNREADABLE = (ArithmeticError, AssertionError, AttributeError, LookupError, TypeError, ValueError)
"""aiortc checks little of an SDP: whatever Python raises for a value it did not expect."""


class Peer:
    """An RTCPeerConnection that answers one offer, or makes one."""

    def __init__(self, ice: IceConfig, metrics: Metrics | None = None) -> None:
        servers = [RTCIceServer(s.urls, s.username, s.credential) for s in ice.servers]
        self._announce = ice.announce
        self._ports = ice.ports
        self._stream_id = str(uuid.uuid4())
        self.connection = RTCPeerConnection(
            # An explicit list, even an empty one: aiortc's default is a public STUN server.
            RTCConfiguration(iceServers=servers, bundlePolicy=RTCBundlePolicy.MAX_BUNDLE)
        )
        self.guard = Guard()
        self._metrics = metrics
        self._candidates = Candidates(deny_private=ice.deny_private_candidates)
        self._wanted: dict[str, list[str]] = {}
        """Codecs by kind, in order of preference."""
        self._gathering: asyncio.Future[None] | None = None
        self.changed = asyncio.Event()
        """Set at every change of `state`."""
        self.connection.on("connectionstatechange", self.changed.set)

    @property
    def state(self) -> str:
        """new, connecting, connected, failed or closed."""
        return str(self.connection.connectionState)

    def add(
        self, kind: str, direction: str, track: MediaStreamTrack | None = None
    ) -> RTCRtpTransceiver:
        """Add a transceiver. Must happen before `answer`: preferences set later do nothing."""
        transceiver = self.connection.addTransceiver(track or kind, direction=direction)
        if direction == "recvonly":
            take_media_as_consent(transceiver.receiver.transport, self.guard)
        # All tracks of one MediaStream (RFC 9725 4.4.2); stock senders have a stream each:
        # https://github.com/aiortc/aiortc/blob/1.16.0/src/aiortc/rtcrtpsender.py (_stream_id)
        transceiver.sender._stream_id = self._stream_id
        return transceiver

    def prefer(self, transceiver: RTCRtpTransceiver, codecs: Sequence[Codec]) -> None:
        """Allow only these video codecs, in this order, each with its retransmission format."""
        known = RTCRtpSender.getCapabilities("video").codecs
        ordered = [c for codec in codecs for c in known if c.mimeType == MIME[codec]]
        transceiver.setCodecPreferences([*ordered, *(c for c in known if c.mimeType == RTX)])
        self._wanted[transceiver.kind] = [codec.value.upper() for codec in codecs]

    def prefer_opus(self, transceiver: RTCRtpTransceiver) -> None:
        """Allow only Opus, which is relayed as it is."""
        known = RTCRtpSender.getCapabilities("audio").codecs
        transceiver.setCodecPreferences([c for c in known if c.mimeType == OPUS])
        self._wanted[transceiver.kind] = ["OPUS"]

    async def answer(self, offer: Offer) -> str:
        """Take the offer, gather all candidates, and return the finished answer.

        Raises MalformedSdp or UnsupportedOffer when the offer cannot be served, Overloaded when
        all configured UDP ports are taken.
        """
        self._prepare()
        first = self.connection.getTransceivers()[0]
        mid = next(m.mid for m in offer.media if m.kind == first.kind)
        try:
            return await self._answer(offer, with_bundle_led_by(offer.sdp, mid))
        except OperationError as error:
            raise UnsupportedOffer(
                "no sound format in common",
                found=[str(f) for f in offer.audio.formats] if offer.audio else [],
                expected="opus, PCMU, PCMA or G722",
            ) from error
        except (*_UNREADABLE, InvalidStateError) as error:
            raise _unreadable("offer") from error

    async def _answer(self, offer: Offer, sdp: str) -> str:
        offered = _parsed(sdp)
        formats = {kind: self._choose(offer, kind) for kind in self._wanted}
        sdp, candidates = without_candidates(sdp)
        await self.connection.setRemoteDescription(
            RTCSessionDescription(with_known_h264(sdp), "offer")
        )
        await self.add_candidates(candidates)
        for transceiver in self.connection.getTransceivers():
            if taken := formats.get(transceiver.kind):
                media = next(m for m in offered.media if m.rtp.muxId == transceiver.mid)
                transceiver._codecs = negotiated(media.rtp.codecs, taken)
        self._take_passive_role(sdp)
        self._negotiate_transport_cc(offered)
        await self._settle(await self.connection.createAnswer())
        enlarge_receive_buffers(self._ice)
        answer = finish_answer(self.connection.localDescription.sdp, self._announce)
        if offer.role is Role.PUBLISH and offer.video.simulcast.rids:
            answer = with_layers(answer, offer.video.simulcast.rids)
        self._must_have_candidates(answer)
        return answer

    async def offer(self) -> str:
        """Gather all candidates and return an offer for the transceivers added."""
        self._prepare()
        await self._settle(await self.connection.createOffer())
        self._must_have_candidates(self.connection.localDescription.sdp)
        enlarge_receive_buffers(self._ice)
        return announced(self.connection.localDescription.sdp, self._announce)

    async def accept(self, answer_sdp: str) -> None:
        """Take the answer to `offer`. Raises MalformedSdp when it cannot be read, UnsupportedOffer
        when that would take too long."""
        lines = affordable(lines_of(answer_sdp))
        answer_sdp = "\r\n".join(lines) + "\r\n"
        try:
            led = with_bundle_led_by(answer_sdp, self.connection.getTransceivers()[0].mid or "")
            sdp, candidates = without_candidates(led)
            if all(t.direction == "recvonly" for t in self.connection.getTransceivers()):
                sdp = with_known_h264(sdp)  # whatever it is, it can be decoded
            _parsed(sdp)
            await self.connection.setRemoteDescription(RTCSessionDescription(sdp, "answer"))
            await self.add_candidates(candidates)
        except (*_UNREADABLE, OperationError, InvalidStateError) as error:
            raise _unreadable("answer") from error

    async def add_candidates(self, candidates: Sequence[str]) -> None:
        """Take candidates of the peer, lines with or without `a=`; unusable ones are left out."""
        mid = self.connection.getTransceivers()[0].mid
        for text in self._candidates.take(candidates):
            candidate = candidate_from_sdp(text.removeprefix("a=").removeprefix("candidate:"))
            candidate.sdpMid = mid  # all media is bundled with the first section
            await self.connection.addIceCandidate(candidate)

    async def connected(self) -> None:
        """Wait until media can flow. Raises MediaError when it does not within `CONNECT_S`."""
        try:
            async with asyncio.timeout(CONNECT_S):
                connected = await self.wait_connected()
        except TimeoutError:
            raise MediaError(f"not connected within {CONNECT_S:g} s; is UDP blocked?") from None
        if not connected:
            raise MediaError("connection failed")

    async def check(self, patience_s: float = CHECK_S) -> float | None:
        """Ask the peer for a sign of life; the seconds until its answer, None without one."""
        return await check(self._ice, patience_s) if self.state == "connected" else None

    async def wait_connected(self) -> bool:
        """Wait until media can flow (True) or never will (False)."""
        while self.state not in ("connected", "failed", "closed"):
            self.changed.clear()
            await self.changed.wait()
        return self.state == "connected"

    async def wait_gone(self) -> None:
        """Wait until the connection has failed or was closed by either side."""
        while self.state not in ("failed", "closed"):
            self.changed.clear()
            await self.changed.wait()

    async def close(self) -> None:
        """Free sockets and tasks, also of a gathering whose caller was cancelled; goes to its end
        when cancelled itself, or half of them would stay."""
        await to_its_end(self._close())

    async def _close(self) -> None:
        if self._gathering is not None:
            await asyncio.wait([self._gathering])
            if not self._gathering.cancelled():
                self._gathering.exception()  # told to whoever waited; nobody may have
        await self.connection.close()
        if self._metrics is not None:
            for reason, count in self.guard.refused.items():
                self._metrics.count("datagrams_refused_total", count, reason=reason)
            self.guard.refused.clear()

    async def _settle(self, description: RTCSessionDescription) -> None:
        """Set our description, which gathers. In a task of its own: gathering that is cancelled
        half-way leaves sockets bound that no connection knows of, so none would close them.

        https://github.com/aiortc/aioice/blob/0.13.0/src/aioice/ice.py (get_component_candidates)
        """
        self._gathering = asyncio.ensure_future(self.connection.setLocalDescription(description))
        await asyncio.shield(self._gathering)

    @property
    def _ice(self) -> Any:
        """The ICE agent; all media shares it, that of the first section."""
        return self.connection.getTransceivers()[0].receiver.transport.transport._connection

    def _choose(self, offer: Offer, kind: str) -> tuple[Format, ...]:
        """The formats to answer with. Raises UnsupportedOffer when none fits."""
        sending = offer.role is Role.VIEW
        offered = next((m for m in offer.media if m.kind == kind), None)
        if offered is None:
            return ()
        if not (taken := chosen(offered.formats, self._wanted[kind], sending=sending)):
            raise no_common_format(offered, offer.role)
        return taken

    def _take_passive_role(self, offer_sdp: str) -> None:
        """Be the DTLS server whenever the peer leaves it open: RSA certificates work then.

        createAnswer keeps a role that is set and answers `active` otherwise:
        https://github.com/aiortc/aiortc/blob/1.16.0/src/aiortc/rtcpeerconnection.py (createAnswer)
        """
        if "a=setup:actpass" in offer_sdp:
            for transceiver in self.connection.getTransceivers():
                transceiver.receiver.transport._set_role("server")

    def _negotiate_transport_cc(self, offered: SessionDescription) -> None:
        """Answer with transport-cc and without REMB where the peer offers the extension.

        createAnswer reads the transceiver's `_headerExtensions` and `_codecs`:
        https://github.com/aiortc/aiortc/blob/1.16.0/src/aiortc/rtcpeerconnection.py
        """
        for transceiver in self.connection.getTransceivers():
            media = next((m for m in offered.media if m.rtp.muxId == transceiver.mid), None)
            # Viewers tell their bandwidth by REMB: what we send carries no transport sequence.
            receiving = transceiver.direction in ("recvonly", "sendrecv")
            if media is None or transceiver.kind != "video" or not receiving:
                continue
            ids = {e.uri: e.id for e in media.rtp.headerExtensions}
            transceiver._headerExtensions += [
                RTCRtpHeaderExtensionParameters(id=ids[uri], uri=uri)
                for uri in (EXTENSION_URI, RID_URI, REPAIRED_URI)
                if uri in ids
            ]
            if EXTENSION_URI not in ids:
                continue
            for codec in transceiver._codecs:
                if not is_rtx(codec):
                    kept = [f for f in codec.rtcpFeedback if f.type != "goog-remb"]
                    codec.rtcpFeedback = [*kept, RTCRtcpFeedback(type="transport-cc")]

    def _prepare(self) -> None:
        """Before anything is bound: where to bind, and the guard before it."""
        prepare_gathering(self._ice, self._ports, self.guard)
        self.guard.watch_transport(self.connection.getTransceivers()[0].receiver.transport)

    def _must_have_candidates(self, description: str) -> None:
        """A description without a candidate for each open section could only fail later, silently.

        Raises Overloaded: what is missing, ports or descriptors, others may give back.
        """
        if not (bare := sections_without_candidates(description)):
            return
        if self._ports:
            low, high = self._ports
            raise Overloaded(
                "all UDP ports for media are taken; retry later",
                found="no free port",
                expected=f"a free one in {low}-{high} (ice.ports)",
            )
        raise Overloaded(
            "no UDP socket for media could be opened, or none at an address of ice.announce",
            found=f"no candidate for {', '.join(bare)}",
            expected="a candidate for each open media section",
        )


def _parsed(sdp: str) -> SessionDescription:
    """Raises MalformedSdp or one of `_UNREADABLE`."""
    try:
        return SessionDescription.parse(sdp)
    except StopIteration as error:  # in a coroutine it would surface as a RuntimeError
        raise MalformedSdp(
            "a media section lists a payload type that nothing describes",
            expected="a=rtpmap for each payload type above 95",
        ) from error


def _unreadable(what: str) -> MalformedSdp:
    """What aiortc stumbled over is told in the traceback; its words mean nothing to a caller."""
    return MalformedSdp(
        f"the {what} cannot be read",
        found="a line whose value is missing or of another form",
        expected="SDP as RFC 8866 and RFC 8829 have it",
    )
