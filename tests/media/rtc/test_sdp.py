"""Offers that are taken, offers that are refused and why, and what our answers add."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamlift.errors import MalformedSdp, MediaError, UnsupportedOffer
from streamlift.frames import Codec
from streamlift.media.rtc.sdp import (
    Role,
    finish_answer,
    read_fragment,
    read_offer,
    sections_without_candidates,
    with_bundle_led_by,
    with_start_bitrate,
)

HEAD = ["v=0", "o=- 1 2 IN IP4 127.0.0.1", "s=-", "t=0 0", "a=group:BUNDLE 0"]
TRANSPORT = [
    "c=IN IP4 0.0.0.0",
    "a=ice-ufrag:abcd",
    "a=ice-pwd:0123456789abcdef012345",
    "a=fingerprint:sha-256 " + ":".join(["AB"] * 32),
    "a=setup:actpass",
    "a=rtcp-mux",
]
VIDEO = [
    "m=video 9 UDP/TLS/RTP/SAVPF 96 97",
    *TRANSPORT,
    "a=mid:0",
    "a=sendonly",
    "a=rtpmap:96 VP8/90000",
    "a=rtpmap:97 H264/90000",
]
AUDIO = [
    "m=audio 9 UDP/TLS/RTP/SAVPF 111",
    *TRANSPORT,
    "a=mid:1",
    "a=sendonly",
    "a=rtpmap:111 opus/48000/2",
]
HOST = "a=candidate:1 1 udp 2130706431 192.0.2.1 5000 typ host"


def sdp(*lines: str) -> str:
    return "\r\n".join(lines) + "\r\n"


def offer(*more: str, video: list[str] = VIDEO) -> str:
    return sdp(*HEAD, *video, *more)


def without(lines: list[str], start: str) -> list[str]:
    return [line for line in lines if not line.startswith(start)]


def replaced(lines: list[str], old: str, new: str) -> list[str]:
    return [new if line == old else line for line in lines]


def test_a_plain_offer_is_read() -> None:
    read = read_offer(offer(), Role.PUBLISH)
    assert read.video.mid == "0"
    assert read.video_codecs == (Codec.VP8, Codec.H264)
    assert read.audio is None
    assert read.ice_ufrag == "abcd"


def test_lines_may_end_in_lf_alone() -> None:
    assert read_offer(offer().replace("\r\n", "\n"), Role.PUBLISH).video.mid == "0"


@pytest.mark.parametrize(
    ("direction", "role"),
    [
        ("sendonly", Role.PUBLISH),
        ("sendrecv", Role.PUBLISH),
        ("recvonly", Role.VIEW),
        ("sendrecv", Role.VIEW),
    ],
)
def test_a_fitting_direction_is_taken(direction: str, role: Role) -> None:
    video = replaced(VIDEO, "a=sendonly", f"a={direction}")
    assert read_offer(offer(video=video), role).video.direction == direction


@pytest.mark.parametrize(
    ("direction", "role"),
    [
        ("recvonly", Role.PUBLISH),
        ("inactive", Role.PUBLISH),
        ("sendonly", Role.VIEW),
        ("inactive", Role.VIEW),
    ],
)
def test_a_direction_that_does_not_fit_is_refused(direction: str, role: Role) -> None:
    video = replaced(VIDEO, "a=sendonly", f"a={direction}")
    with pytest.raises(UnsupportedOffer, match="direction"):
        read_offer(offer(video=video), role)


def test_a_direction_of_the_session_counts_where_a_section_has_none() -> None:
    text = sdp(*HEAD, "a=recvonly", *without(VIDEO, "a=sendonly"))
    assert read_offer(text, Role.VIEW).video.direction == "recvonly"


@pytest.mark.parametrize(
    ("text", "error", "word"),
    [
        ("", MalformedSdp, "not SDP"),
        ("hello", MalformedSdp, "not SDP"),
        ("v=1\r\n", MalformedSdp, "not SDP"),
        (sdp("v=0"), UnsupportedOffer, "one video"),
        (sdp(*HEAD, *AUDIO), UnsupportedOffer, "one video"),
        (offer(*VIDEO), UnsupportedOffer, "one video"),
        (offer(*AUDIO, *AUDIO), UnsupportedOffer, "one video"),
        (offer("m=application 9 UDP/DTLS/SCTP webrtc-datachannel"), UnsupportedOffer, "one video"),
        (offer(*AUDIO * 4), UnsupportedOffer, "too many media"),
        (sdp(*without(HEAD, "a=group"), *VIDEO, *AUDIO), UnsupportedOffer, "bundled"),
        (offer(video=without(VIDEO, "a=ice-ufrag")), MalformedSdp, "ice-ufrag"),
        (offer(video=without(VIDEO, "a=ice-pwd")), MalformedSdp, "ice-pwd"),
        (offer(video=without(VIDEO, "a=fingerprint")), MalformedSdp, "fingerprint"),
        (offer(video=[VIDEO[0].replace(" 9 ", " 0 "), *VIDEO[1:]]), UnsupportedOffer, "closes"),
        (offer(video=without(VIDEO, "a=rtpmap")), UnsupportedOffer, "no video format"),
        (
            offer("a=msid:one a", *AUDIO, "a=msid:two b"),
            UnsupportedOffer,
            "one MediaStream",
        ),
    ],
)
def test_what_cannot_be_served_is_refused_by_name(
    text: str, error: type[MediaError], word: str
) -> None:
    with pytest.raises(error, match=word):
        read_offer(text, Role.PUBLISH)


@pytest.mark.parametrize(
    ("line", "kept"),
    [
        (HOST, True),
        ("a=candidate:1 1 UDP 1 2001:db8::1 5000 typ host", True),
        ("a=candidate:1 1 udp 1 192.0.2.9 5000 typ srflx raddr 10.0.0.1 rport 9", True),
        ("a=candidate:1 1 udp 1 4f1e-11.local 5000 typ host", False),
        ("a=candidate:1 1 udp 1 turn.example.org 5000 typ host", False),
        ("a=candidate:1 1 tcp 1 192.0.2.1 9 typ host tcptype active", False),
        ("a=candidate:1 1 udp 1 192.0.2.1 port typ host", False),
        ("a=candidate:1 1 udp 1 192.0.2.1 99999 typ host", False),
        ("a=candidate:1 2 udp 1 192.0.2.1 5000 typ host", False),
        ("a=candidate:1 1 udp lots 192.0.2.1 5000 typ host", False),
        ("a=candidate:nonsense", False),
        ("a=end-of-candidates", False),
    ],
)
def test_only_candidates_that_can_be_used_are_kept(line: str, kept: bool) -> None:
    assert (line in read_offer(offer(line), Role.PUBLISH).sdp) is kept


# ---- fragments of trickle ICE (RFC 8840) ----


def test_a_fragment_names_its_candidates_and_credentials() -> None:
    fragment = read_fragment(
        sdp("a=ice-ufrag:abcd", "a=ice-pwd:x", "m=video 9 RTP/AVP 0", "a=mid:0", HOST)
    )
    assert fragment.ice_ufrag == "abcd"
    assert fragment.candidates == (HOST[2:],)


@pytest.mark.parametrize("text", ["", "\r\n", "a=end-of-candidates\r\n"])
def test_a_fragment_without_candidates_is_no_error(text: str) -> None:
    assert read_fragment(text).candidates == ()


@pytest.mark.parametrize("text", ["hello", "{}", "a\r\n", "candidate:1 1 udp"])
def test_what_is_no_fragment_is_refused(text: str) -> None:
    with pytest.raises(MalformedSdp):
        read_fragment(text)


def test_unusable_candidates_of_a_fragment_are_skipped() -> None:
    text = sdp("a=candidate:1 1 tcp 1 192.0.2.1 9 typ host tcptype active", HOST)
    assert read_fragment(text).candidates == (HOST[2:],)


# ---- answers ----

ANSWER = sdp(
    *HEAD,
    "m=video 9 UDP/TLS/RTP/SAVPF 96",
    "a=rtcp-mux",
    HOST,
    "a=candidate:2 1 udp 1 10.0.0.7 5001 typ host",
    "a=candidate:3 1 udp 1 198.51.100.1 5002 typ srflx raddr 10.0.0.7 rport 5001",
    "m=audio 9 UDP/TLS/RTP/SAVPF 111",
    "a=rtcp-mux",
)


def candidates(text: str) -> list[str]:
    return [line.split()[4] for line in text.split("\r\n") if line.startswith("a=candidate:")]


def test_every_section_of_an_answer_is_rtcp_mux_only() -> None:
    lines = finish_answer(ANSWER, ()).split("\r\n")
    assert lines.count("a=rtcp-mux-only") == 2
    assert lines[lines.index("a=rtcp-mux") + 1] == "a=rtcp-mux-only"


def test_without_announced_addresses_all_are_told() -> None:
    assert candidates(finish_answer(ANSWER, ())) == ["192.0.2.1", "10.0.0.7", "198.51.100.1"]


def test_an_announced_address_of_the_machine_hides_the_others() -> None:
    assert candidates(finish_answer(ANSWER, ("192.0.2.1",))) == ["192.0.2.1", "198.51.100.1"]


def test_a_foreign_announced_address_replaces_the_hosts_with_their_ports() -> None:
    text = finish_answer(ANSWER, ("203.0.113.5",))
    assert candidates(text) == ["203.0.113.5", "203.0.113.5", "198.51.100.1"]
    assert "203.0.113.5 5000 typ host" in text
    assert "203.0.113.5 5001 typ host" in text


def test_an_announced_address_of_the_other_family_replaces_nothing() -> None:
    assert candidates(finish_answer(ANSWER, ("2001:db8::5",))) == ["198.51.100.1"]


def test_a_start_rate_is_told_for_each_video_format() -> None:
    lines = ["a=rtpmap:96 VP8/90000", "a=rtpmap:97 rtx/90000", "a=fmtp:97 apt=96"]
    lines += ["a=rtpmap:99 H264/90000", "a=fmtp:99 packetization-mode=1"]
    lines += ["a=rtpmap:111 opus/48000/2", "a=fmtp:111 minptime=10"]
    hint = "x-google-start-bitrate=2000"
    assert with_start_bitrate(sdp(*lines), 2000) == sdp(
        lines[0], f"a=fmtp:96 {hint}", *lines[1:4], f"{lines[4]};{hint}", *lines[5:]
    )


# ---- anything at all ----

GRAMMAR = [*HEAD, *VIDEO, *AUDIO, HOST, "", "m=", "a=", "a=mid:", "a=msid:x y", "m=video x y z"]


def _only_media_errors(read: Callable[[], object]) -> None:
    with contextlib.suppress(MediaError):
        read()


@given(text=st.text(max_size=400), role=st.sampled_from(list(Role)))
def test_any_text_is_read_or_refused(text: str, role: Role) -> None:
    _only_media_errors(lambda: read_offer(text, role))
    _only_media_errors(lambda: read_offer("v=0\r\n" + text, role))
    _only_media_errors(lambda: read_fragment(text))


@given(seed=st.integers(0, 2**32), lines=st.lists(st.sampled_from(GRAMMAR), max_size=60))
def test_any_mixture_of_lines_is_read_or_refused(seed: int, lines: list[str]) -> None:
    chance = random.Random(seed)
    mixed = [
        line[: chance.randrange(len(line) + 1)] if chance.random() < 0.1 else line for line in lines
    ]
    _only_media_errors(lambda: read_offer(sdp("v=0", *mixed), Role.PUBLISH))
    _only_media_errors(lambda: read_fragment(sdp(*mixed)))
    _only_media_errors(lambda: finish_answer(sdp(*HEAD, *mixed), ("203.0.113.5",)))


def test_a_description_tells_in_which_open_sections_nobody_could_reach_us() -> None:
    sections = [
        "m=audio 9 UDP/TLS/RTP/SAVPF 111",
        "a=candidate:1 1 udp 1 192.0.2.1 5000 typ host",
        "m=video 9 UDP/TLS/RTP/SAVPF 96",
        "a=mid:1",
        "m=audio 0 UDP/TLS/RTP/SAVPF 0",
    ]
    assert sections_without_candidates("\r\n".join(["v=0", *sections]) + "\r\n") == ["video"]
    v4_only = finish_answer("\r\n".join(["v=0", *sections[:2]]) + "\r\n", ("2001:db8::1",))
    assert sections_without_candidates(v4_only) == ["audio"]


@pytest.mark.parametrize(
    ("bundle", "mid", "led"),
    [("0 1 2", "1", "1 0 2"), ("a v", "a", "a v"), ("0 1", "9", "0 1"), ("10 1", "1", "1 10")],
)
def test_a_bundle_is_led_by_the_section_asked_for(bundle: str, mid: str, led: str) -> None:
    text = with_bundle_led_by(f"v=0\r\na=group:BUNDLE {bundle}\r\n", mid)
    assert text == f"v=0\r\na=group:BUNDLE {led}\r\n"
