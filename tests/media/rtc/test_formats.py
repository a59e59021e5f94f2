"""Which of the formats that a peer offers are taken."""

from __future__ import annotations

import base64

import pytest

from streamlift.media.rtc.formats import Format, chosen, read_formats, with_known_h264

BASE = {"packetization-mode": "1", "profile-level-id": "42e01f"}
HIGH = {"packetization-mode": "1", "profile-level-id": "640c1f"}
MODE_0 = {"profile-level-id": "42e01f"}


def h264(payload_type: int, parameters: dict[str, str]) -> Format:
    return Format(payload_type, "H264", parameters)


VP8 = Format(120, "VP8")


def test_formats_are_read_in_the_order_of_the_section() -> None:
    formats = read_formats(
        [
            "m=video 9 UDP/TLS/RTP/SAVPF 102 35 97 0",
            "a=rtpmap:97 rtx/90000",
            "a=fmtp:97 apt=102",
            "a=rtpmap:35 vp8/90000",
            "a=rtpmap:102 h264/90000",
            "a=fmtp:102 Profile-Level-Id=64001f; packetization-mode=1;;x",
            "a=rtpmap:111 opus/48000/2",
        ]
    )
    assert [(f.payload_type, f.name) for f in formats] == [(102, "H264"), (35, "VP8"), (97, "RTX")]
    assert formats[0].answered == {"profile-level-id": "64001f", "packetization-mode": "1"}


@pytest.mark.parametrize(
    ("offered", "received", "sent"),
    [
        ([h264(96, BASE)], [96], [96]),
        ([h264(96, HIGH)], [96], [96]),
        ([h264(96, MODE_0)], [96], []),
        ([h264(96, {})], [96], []),
        ([h264(96, HIGH), h264(98, BASE)], [98], [98]),  # what everybody can do comes first
        ([h264(96, MODE_0), h264(98, HIGH)], [98], [98]),
        ([h264(96, MODE_0), VP8], [96, 120], [120]),
        ([VP8, h264(96, BASE), h264(97, BASE)], [96, 97, 120], [96, 97, 120]),
        ([h264(35, BASE), VP8], [35, 120], [35, 120]),
        ([h264(72, BASE), VP8], [120], [120]),  # it would look like RTCP
        ([Format(98, "H265"), Format(99, "AV1")], [], []),
    ],
)
def test_what_is_taken_to_receive_and_to_send(
    offered: list[Format], received: list[int], sent: list[int]
) -> None:
    for sending, expected in ((False, received), (True, sent)):
        taken = chosen(offered, ["H264", "VP8"], sending=sending)
        assert [f.payload_type for f in taken] == expected


def test_parameter_sets_of_the_sdp_are_annex_b() -> None:
    text = ",".join(base64.b64encode(unit).decode() for unit in (b"\x67sps", b"\x68pps"))
    told = h264(96, {"sprop-parameter-sets": text})
    assert told.parameter_sets == b"\0\0\0\1\x67sps\0\0\0\1\x68pps"
    assert "sprop-parameter-sets" not in told.answered


@pytest.mark.parametrize("text", ["", ",", "not base64!", "Z0IAH5WoFAFu@A=="])
def test_parameter_sets_that_are_none_are_no_error(text: str) -> None:
    assert h264(96, {"sprop-parameter-sets": text}).parameter_sets == b""


def test_all_h264_is_shown_to_the_library_as_what_it_knows() -> None:
    text = (
        "v=0\r\nm=video 9 X 96 97\r\na=rtpmap:96 h264/90000\r\n"
        "a=fmtp:96 profile-level-id=64001f\r\n"
        "a=rtpmap:97 VP8/90000\r\na=fmtp:97 max-fr=30\r\n"
    )
    known = with_known_h264(text)
    assert known.count("a=fmtp:96 ") == 1
    assert "profile-level-id=42e01f" in known
    assert "64001f" not in known
    assert "a=fmtp:97 max-fr=30" in known
