"""Names of the codecs in SDP, and which of them a section settled on."""

from __future__ import annotations

from aiortc import RTCRtpTransceiver

from streamlift.frames import Codec

__all__ = ["MIME", "OPUS", "RTX", "codec_of_mime", "negotiated_codec"]

MIME = {Codec.H264: "video/H264", Codec.VP8: "video/VP8"}
RTX = "video/rtx"
OPUS = "audio/opus"


def negotiated_codec(transceiver: RTCRtpTransceiver) -> Codec | None:
    """The video codec media will use: the first of the negotiated list."""
    codecs = transceiver._codecs
    return codec_of_mime(codecs[0].mimeType) if codecs else None


def codec_of_mime(mime: str) -> Codec | None:
    return next((codec for codec, name in MIME.items() if name.lower() == mime.lower()), None)
