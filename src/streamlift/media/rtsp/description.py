"""What a stream is, told to an RTSP reader before it is read (SDP, RFC 8866 and RFC 6184)."""

from __future__ import annotations

import base64
from dataclasses import dataclass

from streamlift.codec.bitstream import nal_units
from streamlift.frames import EncodedFrame, Size

__all__ = ["OPUS", "VIDEO", "Description", "describe"]

VIDEO, OPUS = 96, 97
"""Payload types."""
_SPS, _PPS = 7, 8


@dataclass(frozen=True, slots=True)
class Description:
    """`size` is the picture's: when it changes, the reader has to connect anew."""

    size: Size
    sdp: str
    tracks: int


def describe(stream: str, first: EncodedFrame, *, sound: bool) -> Description:
    """From an H.264 keyframe with its parameter sets."""
    units = nal_units(first.data)
    sps = next((u for u in units if u[0] & 0x1F == _SPS), b"")
    pps = next((u for u in units if u[0] & 0x1F == _PPS), b"")
    sets = ",".join(base64.b64encode(u).decode() for u in (sps, pps) if u)
    lines = [
        "v=0",
        "o=- 0 0 IN IP4 0.0.0.0",
        f"s={stream}",
        "t=0 0",
        "a=control:*",
        "a=range:npt=now-",
        f"m=video 0 RTP/AVP {VIDEO}",
        "c=IN IP4 0.0.0.0",
        f"a=rtpmap:{VIDEO} H264/90000",
        f"a=fmtp:{VIDEO} packetization-mode=1"
        + (f";profile-level-id={sps[1:4].hex()}" if len(sps) > 3 else "")
        + (f";sprop-parameter-sets={sets}" if sets else ""),
        "a=control:trackID=0",
    ]
    if sound:
        lines += [
            f"m=audio 0 RTP/AVP {OPUS}",
            "c=IN IP4 0.0.0.0",
            f"a=rtpmap:{OPUS} opus/48000/2",
            "a=control:trackID=1",
        ]
    return Description(first.size, "\r\n".join(lines) + "\r\n", 2 if sound else 1)
