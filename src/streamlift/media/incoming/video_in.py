"""Receiving one video: packets to pictures to frames, with the feedback its sender needs."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Any

from streamlift.clock import Clock
from streamlift.codec import has_picture, is_keyframe, recovers
from streamlift.codec.decoder import MOST_BEHIND_S, TOO_SLOW, CodedPicture, DecodeThread
from streamlift.codec.dimensions import picture_size
from streamlift.codec.motion import bridged
from streamlift.frames import Codec, CodedVideo, Frame, IngestCounts
from streamlift.mailbox import Mailbox
from streamlift.media.incoming.assembler import AssembledPicture, PictureAssembler
from streamlift.media.incoming.layers import Layers
from streamlift.media.incoming.nack import NackSchedule
from streamlift.media.incoming.parameter_sets import ParameterSets
from streamlift.media.incoming.tally import Tally
from streamlift.media.rtc.packet import MediaPacket
from streamlift.media.rtc.receiver import ReceiverTap
from streamlift.media.rtc.simulcast import Simulcast
from streamlift.media.rtc.transport_cc import TransportFeedback
from streamlift.metrics import Metrics

__all__ = ["VideoReceiver"]

logger = logging.getLogger(__name__)

_TICK_S = 0.025
_FEEDBACK_EVERY_S = 0.05
_PLI_EVERY_S = 0.5
_QUEUED = 32


class VideoReceiver:
    """An async iterator of Frame over one receiver; ends at `end()`.

    Everything that arrives is taken at once; what is not fetched in time is dropped, oldest
    first, and counted. `run_feedback` belongs in a task beside it.
    """

    def __init__(
        self,
        name: str,
        receiver: Any,
        *,
        max_side: int,
        clock: Clock,
        metrics: Metrics | None = None,
    ) -> None:
        self.name = name
        self.codec: Codec | None = None
        self.first_media = asyncio.Event()
        """Set when the first complete picture has arrived."""
        self.first_picture = asyncio.Event()
        """Set when the first one has been decoded."""
        self.undecoded_since_s: float | None = None
        """Since when media has come without a picture; None while pictures come, or nothing."""
        self.sets = ParameterSets()
        self._layers: Layers | None = None
        self._clock = clock
        self._metrics = metrics or Metrics()
        self._tap = ReceiverTap(receiver, self._take_packet)
        self._tap.transport_sequence = self._note_arrival
        self._feedback = TransportFeedback(self._tap.rtcp_ssrc)
        self._loop = asyncio.get_running_loop()
        self._assembler = PictureAssembler(self._is_picture)
        self._nack = NackSchedule()
        self._hole = asyncio.Event()
        self._holes_seen = 0
        self._decode = DecodeThread(
            name,
            max_side=max_side,
            clock=clock,
            deliver=lambda frame: self._post(self._deliver, frame),
            refuse=lambda reason, detail: self._post(self._refuse, reason, detail),
            done=lambda: self._post(self._frames.end),
            most_behind_s=MOST_BEHIND_S,
        )
        self._ssrc = 0
        self._frames: Mailbox[Frame] = Mailbox(_QUEUED, bridge=bridged)
        self._ending = False
        self._tally = Tally(name, clock)
        self._need_keyframe = True
        self._pli_wanted = False
        self._pli_sent_s = -_PLI_EVERY_S
        self._first_packet_s: float | None = None

    @property
    def counts(self) -> IngestCounts:
        return self._tally.counts

    @property
    def media_bytes(self) -> int:
        """Payload bytes that have arrived."""
        return self._tally.media_bytes

    def __aiter__(self) -> AsyncIterator[Frame]:
        return self._frames

    def expect(self, layers: Simulcast) -> None:
        """What the peer's description says of several sizes of its picture."""
        self._tap.expect(layers)
        self._layers = Layers() if layers.several else None

    def request_keyframe(self) -> None:
        """Ask the sender for a keyframe; at most one request in half a second goes out."""
        self._pli_wanted = True

    def end(self) -> None:
        """End the iteration and the decode thread, after what has arrived; never waits."""
        if not self._ending:
            self._ending = True
            self._decode.stop()

    async def packets_lost(self) -> int:
        return await self._tap.packets_lost()

    async def run_feedback(self) -> None:
        """Repeat NACKs, send merged PLIs and transport-cc reports."""
        reported_s = self._clock.now_s()
        while True:
            await self._wait_for_hole(_TICK_S)
            if self._first_packet_s is None:
                continue
            now_s = self._clock.now_s()
            if lost := self._nack.due(self._assembler.missing(), now_s):
                self._metrics.count("nack_total", direction="sent")
                await self._tap.send_nack(self._ssrc, lost)
            if self._need_keyframe and now_s - self._first_packet_s > _PLI_EVERY_S:
                self._pli_wanted = True
            if self._pli_wanted and now_s - self._pli_sent_s >= _PLI_EVERY_S:
                self._pli_wanted = False
                self._pli_sent_s = now_s
                self._metrics.count("pli_total", direction="sent")
                await self._tap.send_pli(self._ssrc)
            if now_s - reported_s >= _FEEDBACK_EVERY_S:
                reported_s = now_s
                report = self._feedback.report(self._ssrc)
                if report is not None:
                    await self._tap.send_rtcp(report)

    async def _wait_for_hole(self, timeout_s: float) -> None:
        """Return when a packet is found missing, and after `timeout_s` anyway."""
        self._hole.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._hole.wait()

    def _note_arrival(self, transport_sequence: int) -> None:
        self._feedback.add(transport_sequence, self._clock.now_s())

    def _take_packet(self, packet: MediaPacket) -> None:
        if self._ending:
            return
        now_s = self._clock.now_s()
        if self._layers is not None and not self._is_of_largest(packet, now_s):
            return
        if packet.ssrc != self._ssrc:
            self._ssrc = packet.ssrc
            self._nack.forget()
        self._tally.media_bytes += len(packet.data)
        if packet.data and self.undecoded_since_s is None:
            self.undecoded_since_s = now_s
        if self._first_packet_s is None:
            self._first_packet_s = now_s
        self._nack.arrived(packet.sequence_number, now_s)
        self._assembler.wait_for(self._nack.round_trip_s)
        assembly = self._assembler.add(packet, now_s)
        if self._assembler.holes > self._holes_seen:
            self._hole.set()
        self._holes_seen = self._assembler.holes
        if assembly.gave_up:
            self._tally.drop("packet_loss", "gave up on lost packets")
        for picture in assembly.pictures:
            self._take_picture(picture, now_s)

    def _is_of_largest(self, packet: MediaPacket, now_s: float) -> bool:
        codec = self._tap.codec_of(packet.payload_type)
        if codec is None or self._layers is None:
            return False
        if not self._layers.takes(packet.ssrc, picture_size(codec, packet.data), now_s):
            return False
        if packet.ssrc != self._ssrc:
            self._assembler.go_over(packet.ssrc)
        return True

    def _is_picture(self, payload_type: int, data: bytes) -> bool:
        return self._tap.codec_of(payload_type) is not Codec.H264 or has_picture(data)

    def note_round_trip(self, seconds: float) -> None:
        """How far away the sender is, measured by an ICE check: lost packets take as long."""
        self._nack.note_round_trip(seconds)

    def _take_picture(self, picture: AssembledPicture, now_s: float) -> None:
        codec = self._tap.codec_of(picture.payload_type)
        if codec is None:
            return
        self.codec = codec
        self._tally.received += 1
        self.first_media.set()
        data = picture.data
        if codec is Codec.H264:
            self.sets.note(picture.payload_type, data)
            if not has_picture(data):
                return
        keyframe = is_keyframe(codec, data)
        if picture.after_loss:
            # Predicted from what never came: it would show damage until the next keyframe.
            self._need_keyframe = True
            self.request_keyframe()
        entry = keyframe or (codec is Codec.H264 and recovers(data))
        if self._need_keyframe and not entry:
            self._tally.drop("no_keyframe", "waiting for a keyframe")
            return
        self._need_keyframe = False
        if entry and codec is Codec.H264:
            data = self.sets.before(data)
        coded = CodedVideo(codec, data, keyframe)
        if not self._decode.offer(CodedPicture(picture.pts, coded, now_s)):
            self._need_keyframe = True
            self._tally.drop("decode_busy", TOO_SLOW)
            self.request_keyframe()

    # ---- back from the decode thread ----

    def _post(self, call: Callable[..., None], *args: object) -> None:
        # After the loop is gone there is nobody to tell; it may go between a look and the call.
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(call, *args)

    def _deliver(self, frame: Frame) -> None:
        self._tally.decoded += 1
        self.undecoded_since_s = None
        self.first_picture.set()
        if not self._frames.put(frame):
            self._tally.drop("stale", "the stream does not keep up")

    def _refuse(self, reason: str, detail: str) -> None:
        self._tally.drop(reason, detail)
        if reason == "decode_error":
            self.request_keyframe()
