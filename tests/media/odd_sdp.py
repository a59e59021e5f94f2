"""Offers that are odd, wrong or hostile, each made of a good one by one change."""

from __future__ import annotations

import re
from collections.abc import Iterator

__all__ = ["odd_offers"]

_CANDIDATE = "a=candidate:1 1 udp 2113937151 {} typ host"
_CANDIDATES = (
    "a=candidate:",
    "a=candidate:1",
    _CANDIDATE.format("127.0.0.1 99999"),
    _CANDIDATE.format("127.0.0.1 0"),
    _CANDIDATE.format("127.0.0.1 -1"),
    _CANDIDATE.format("::1 9"),
    _CANDIDATE.format("fe80::1%eth0 9"),
    _CANDIDATE.format("127.1 9"),
    _CANDIDATE.format("0x7f000001 9"),
    _CANDIDATE.format("255.255.255.255 9"),
    _CANDIDATE.format("224.0.0.1 53"),
    _CANDIDATE.format("169.254.169.254 80"),
    _CANDIDATE.format("::ffff:169.254.169.254 80"),
    _CANDIDATE.format("x.local 9"),
    _CANDIDATE.format("ａ.local 9"),
    _CANDIDATE.format("127.0.0.1 9") + " raddr 1.2.3.4 rport x",
    _CANDIDATE.format("127.0.0.1 9") + " raddr",
    _CANDIDATE.format("127.0.0.1 9") + " generation 0 ufrag \u00fc network-id",
    _CANDIDATE.format("127.0.0.1 ٣٤"),
    "a=candidate:1 1 tcp 1 127.0.0.1 9 typ host tcptype active",
    "a=candidate:1 2 udp 1 127.0.0.1 9 typ host",
    "a=candidate:1 1 udp 99999999999999999999 127.0.0.1 9 typ host",
    "a=candidate:1 1 udp 1 127.0.0.1 9 typ sometype",
    "a=candidate:1 1 udp 1 127.0.0.1 9 host",
)
_LINES = (
    "a=extmap:0 urn:ietf:params:rtp-hdrext:sdes:mid",
    "a=extmap:15 urn:x",
    "a=extmap:99999 urn:x",
    "a=extmap:-1 urn:x",
    "a=extmap:1",
    "a=extmap:1/sendonly urn:x",
    "a=extmap:x urn:x",
    "a=extmap:3 urn:a\r\na=extmap:3 urn:b",
    "a=extmap-allow-mixed",
    "a=ssrc:1 cname:a\r\na=ssrc:1 cname:b",
    "a=ssrc:4294967296 cname:a",
    "a=ssrc:-1 cname:a",
    "a=ssrc:x cname:a",
    "a=ssrc:1",
    "a=ssrc:",
    "a=ssrc-group:FID 1",
    "a=ssrc-group:FID 1 2 3",
    "a=ssrc-group:FID x y",
    "a=ssrc-group:SIM",
    "a=ssrc-group:",
    "a=fmtp:96",
    "a=fmtp:96 ;;;=;a=;=b",
    "a=fmtp:96 packetization-mode=x;profile-level-id=zz",
    "a=fmtp:x y",
    "a=rtpmap:96",
    "a=rtpmap:96 ",
    "a=rtpmap:x H264/90000",
    "a=rtpmap:96 H264",
    "a=rtpmap:96 H264/x",
    "a=rtpmap:96 H264/0",
    "a=rtpmap:200 H264/90000",
    "a=rtcp-fb:96",
    "a=rtcp-fb:* nack",
    "a=rtcp-fb:x nack",
    "a=rtcp:x",
    "a=rtcp:9 IN IP4",
    "a=rtcp:9",
    "a=rtcp-mux:1",
    "a=rid:",
    "a=rid:a",
    "a=rid:a send max-width=x",
    "a=simulcast:",
    "a=simulcast:send",
    "a=simulcast:send ;;,",
    "a=simulcast:send ~;~",
    "a=msid:",
    "a=msid:a b c d",
    "a=mid:",
    "a=mid:other",
    "a=mid:\u00fc",
    "a=setup:passive",
    "a=setup:holdconn",
    "a=setup:",
    "a=setup",
    "a=ice-ufrag:",
    "a=ice-ufrag:\u00fc",
    "a=ice-pwd:",
    "a=ice-pwd:" + "x" * 300,
    "a=ice-lite",
    "a=ice-options:",
    "a=fingerprint:",
    "a=fingerprint:sha-256",
    "a=fingerprint:sha-256 zz",
    "a=fingerprint:md5 00",
    "a=fingerprint:sha-1 " + ":".join(["00"] * 20),
    "a=sctp-port:5000",
    "a=max-message-size:x",
    "a=ptime:x",
    "a=framerate:x",
    "a=imageattr:* send [x=1]",
    "a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:x",
    "a=bundle-only",
    "a=inactive\r\na=sendrecv",
    "a=group:BUNDLE",
    "a=",
    "a",
    "=",
    "\u00fc=1",
    "b=AS:x",
    "b=AS",
    "b=:",
    "c=",
    "c=IN IP4",
    "c=IN IP6 ::1%1",
    "t=x",
    "k=prompt",
    "z=0 0",
    "m=",
    "m=video",
    "m=video x",
    "m=video 9",
    "m=video 9 UDP/TLS/RTP/SAVPF",
    "m=video 9 UDP/TLS/RTP/SAVPF x",
    "m=video 9/2 UDP/TLS/RTP/SAVPF 96",
    "m=video 99999999 UDP/TLS/RTP/SAVPF 96",
    "m=audio 0 UDP/TLS/RTP/SAVPF 111",
    "m=audio 0 UDP/TLS/RTP/SAVPF 0\r\na=mid:z\r\na=inactive",
    "m=audio 9 UDP/TLS/RTP/SAVPF 0 8 200",
    "m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\na=mid:9\r\na=sctp-port:5000",
    "m=application 0 UDP/DTLS/SCTP webrtc-datachannel\r\na=mid:9",
    "m=application 9 DTLS/SCTP 5000\r\na=sctpmap:5000 webrtc-datachannel 1024",
    "m=text 9 RTP/AVP 98",
    "m=image 9 udptl t38",
    "m=video 0 UDP/TLS/RTP/SAVPF 96\r\na=mid:z\r\na=inactive",
    "m=video 9 RTP/AVP 96\r\na=mid:z\r\na=rtpmap:96 H264/90000\r\na=sendonly",
)


def odd_offers(good: str) -> Iterator[tuple[str, str]]:
    """What is odd, and the offer. All but the first hundred or so are one line more or less."""
    lines = good.split("\r\n")[:-1]
    for line in (*_LINES, *_CANDIDATES):
        yield f"more: {line}", good + line + "\r\n"
        yield f"early: {line}", "\r\n".join([*lines[:4], line, *lines[4:], ""])
    for number, line in enumerate(lines):
        yield f"without: {line}", "\r\n".join([*lines[:number], *lines[number + 1 :], ""])
        yield f"twice: {line}", "\r\n".join([*lines[:number], line, *lines[number:], ""])
        cut = line[: len(line) // 2]
        yield f"cut: {line}", "\r\n".join([*lines[:number], cut, *lines[number + 1 :], ""])
        yield f"ends in: {line}", "\r\n".join([*lines[:number], cut])
    sections = re.split(r"(?m)^(?=m=)", good)
    yield "two videos", good + sections[1]
    yield "two videos bundled", _bundled(good + sections[1].replace("a=mid:0", "a=mid:1"))
    yield "five sections", good + 4 * sections[1]
    yield "no section", sections[0]
    yield "the section first", sections[1] + sections[0]
    yield "port 0", re.sub(r"(?m)^m=video \d+", "m=video 0", good)
    yield "LF only", good.replace("\r\n", "\n")
    yield "CR only", good.replace("\r\n", "\r")
    yield "blank lines", good.replace("\r\n", "\r\n\r\n")
    yield "spaces", good.replace("\r\n", " \r\n")
    yield "tabs", good.replace(" ", "\t")
    yield "upper case", good.upper()
    yield "lower case", good.lower()
    yield "a BOM", "\ufeff" + good
    yield "NUL", good.replace("a=mid", "a=mid\0")
    yield "line separators", good.replace("a=mid", "a=\u2028\x85\x0b\x0cmid")
    yield "no BUNDLE", re.sub(r"a=group:BUNDLE.*\r\n", "", good)
    yield "another BUNDLE", re.sub(r"a=group:BUNDLE.*", "a=group:BUNDLE x y", good)
    yield "mid not in BUNDLE", re.sub(r"a=mid:\S+", "a=mid:q", good)
    yield "nothing", ""
    yield "v=0", "v=0"
    yield "v=1", good.replace("v=0", "v=1")
    yield "JSON", '{"type": "offer", "sdp": "v=0"}'
    yield "HTML", "<html>"


def _bundled(sdp: str) -> str:
    return re.sub(r"a=group:BUNDLE.*", "a=group:BUNDLE 0 1", sdp)
