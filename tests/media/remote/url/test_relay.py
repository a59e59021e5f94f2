"""The relay between FFmpeg and an RTSP server: what it passes on, and what not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamlift.media.remote.url.ending import Refused
from streamlift.media.remote.url.relay import RtspGuard

GOOD = (
    b"RTSP/1.0 200 OK\r\nCSeq: 1\r\nContent-Length: 5\r\n\r\nv=0\r\n"
    b"$\x00\x00\x05RTSP/$\x01\x00\x02ab"
    b"RTSP/1.0 404 Not Found\r\nCSeq: 2\r\n\r\n"
    b"ANNOUNCE rtsp://x RTSP/1.0\r\nCSeq: 3\r\n\r\n"
    b"$\x00\x00\x00"
)
MOVED = b"RTSP/1.0 302 Moved\r\nCSeq: 1\r\nLocation: rtsp://10.0.0.1/\r\n\r\n"


@given(st.lists(st.integers(1, 30), max_size=40))
def test_all_of_a_conversation_passes_however_it_is_cut(cuts: list[int]) -> None:
    guard, passed, at = RtspGuard(), b"", 0
    for cut in (*cuts, len(GOOD)):
        passed += guard.passed(GOOD[at : at + cut])
        at += cut
    assert passed == GOOD


@given(st.integers(1, len(MOVED) - 1))
def test_a_redirection_never_passes_however_it_is_cut(cut: int) -> None:
    guard = RtspGuard()
    assert guard.passed(GOOD) == GOOD
    assert guard.passed(MOVED[:cut]) == b""
    with pytest.raises(Refused, match="another address"):
        guard.passed(MOVED[cut:])


def test_a_head_without_end_is_refused() -> None:
    guard = RtspGuard()
    piece = b"X-Long: yes\r\n" * 1000
    for _ in range(5):
        assert guard.passed(piece[:13000]) == b""
    with pytest.raises(Refused, match="without end"):
        guard.passed(piece)
