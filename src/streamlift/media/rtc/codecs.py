"""Names of the codecs in SDP, and which of them a section settled on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from aiortc import RTCRtpTransceiver
from aiortc.codecs import is_rtx
from aiortc.rtcrtpparameters import RTCRtcpFeedback, RTCRtpCodecParameters

from streamlift.frames import Codec
from streamlift.media.rtc.formats import Format

__all__ = ["MIME", "OPUS", "RTX", "codec_of_mime", "negotiated", "negotiated_codec"]

MIME = {Codec.H264: "video/H264", Codec.VP8: "video/VP8"}
RTX = "video/rtx"
OPUS = "audio/opus"
_FEEDBACK = (
    RTCRtcpFeedback(type="nack"),
    RTCRtcpFeedback(type="nack", parameter="pli"),
    RTCRtcpFeedback(type="goog-remb"),
)


def negotiated_codec(transceiver: RTCRtpTransceiver) -> Codec | None:
    """The video codec media will use: the first of the negotiated list."""
    codecs = transceiver._codecs
    return codec_of_mime(codecs[0].mimeType) if codecs else None


def negotiated(
    offered: Sequence[RTCRtpCodecParameters], taken: Sequence[Format]
) -> list[RTCRtpCodecParameters]:
    """The formats taken, each with its retransmission format, under the peer's payload types.

    In place of aiortc's own choice, which knows two kinds of H.264 and no payload type below 96.
    https://github.com/aiortc/aiortc/blob/1.16.0/src/aiortc/rtcpeerconnection.py (_codecs)
    """
    by_type = {codec.payloadType: codec for codec in offered}
    codecs: list[RTCRtpCodecParameters] = []
    for format_ in taken:
        base = by_type[format_.payload_type]
        feedback = [f for f in _FEEDBACK if f in base.rtcpFeedback]
        codecs.append(replace(base, rtcpFeedback=feedback, parameters=dict(format_.answered)))
        for rtx in offered:
            if is_rtx(rtx) and rtx.parameters.get("apt") == format_.payload_type:
                codecs.append(replace(rtx, rtcpFeedback=[]))
                break
    return codecs


def codec_of_mime(mime: str) -> Codec | None:
    return next((codec for codec, name in MIME.items() if name.lower() == mime.lower()), None)
