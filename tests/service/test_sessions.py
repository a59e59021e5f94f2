"""How many sessions one address and one token may have."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from streamlift.clock import ManualClock
from streamlift.config import LimitsConfig
from streamlift.errors import Overloaded, TooMany
from streamlift.frames import Codec
from streamlift.service.callers import Caller
from streamlift.service.grants import Grant
from streamlift.service.sessions import Role, Session, Sessions

LIMITS = LimitsConfig(
    handshakes=10,
    handshakes_per_address=6,
    handshakes_per_token=3,
    publishers_per_token=4,
    viewers_per_token=5,
)


class Peer:
    """A peer in any state."""

    codec: Codec | None = None
    rtp_origin: int | None = None
    media_bytes = 0

    def __init__(self, state: str) -> None:
        self.state = state

    async def packets_lost(self) -> int:
        return 0

    async def add_candidates(self, candidates: Sequence[str]) -> None:
        raise AssertionError("not in these tests")

    async def aclose(self, reason: str) -> None:
        self.state = "closed"


def caller(address: str = "10.0.0.1", token: str = "") -> Caller:
    return Caller(address, Grant(token))


@pytest.fixture
def sessions() -> Sessions:
    return Sessions(ManualClock(), LIMITS)


def come(
    sessions: Sessions,
    who: Caller,
    *,
    role: Role = Role.VIEW,
    stream: str = "live",
    state: str = "connecting",
) -> Session:
    with sessions.answering(role, stream, who):
        pass
    return sessions.open(role, stream, Peer(state), who)


def test_one_address_takes_its_share_of_handshakes_and_no_more(sessions: Sessions) -> None:
    for _ in range(LIMITS.handshakes_per_address):
        come(sessions, caller())
    with pytest.raises(TooMany, match="address"):
        come(sessions, caller())
    come(sessions, caller("10.0.0.2"))


def test_one_token_takes_its_share_of_handshakes_from_wherever(sessions: Sessions) -> None:
    for number in range(LIMITS.handshakes_per_token):
        come(sessions, caller(f"10.0.0.{number}", "t"))
    with pytest.raises(TooMany, match="token"):
        come(sessions, caller("10.0.0.9", "t"))
    come(sessions, caller("10.0.0.9", "another"))


def test_all_together_have_a_bound(sessions: Sessions) -> None:
    for number in range(LIMITS.handshakes):
        come(sessions, caller(f"10.0.0.{number}"))
    with pytest.raises(Overloaded):
        come(sessions, caller("10.0.0.99"))


def test_an_answer_in_the_making_counts(sessions: Sessions) -> None:
    who = caller(token="t")
    with (
        sessions.answering(Role.VIEW, "live", who),
        sessions.answering(Role.VIEW, "live", who),
        sessions.answering(Role.VIEW, "live", who),
    ):
        assert sessions.pending == 3
        with pytest.raises(TooMany):
            come(sessions, who)
    assert sessions.pending == 0
    come(sessions, who)


def test_a_handshake_that_ends_either_way_makes_room(sessions: Sessions) -> None:
    who = caller()
    there = [come(sessions, who) for _ in range(LIMITS.handshakes_per_address)]
    assert isinstance(there[0].peer, Peer)
    there[0].peer.state = "live"
    come(sessions, who)
    sessions.remove(there[1])
    come(sessions, who)


def test_a_token_has_so_many_viewers(sessions: Sessions) -> None:
    who = caller(token="t")
    there = [come(sessions, who, state="live") for _ in range(LIMITS.viewers_per_token)]
    with pytest.raises(TooMany, match="viewers"):
        come(sessions, who)
    come(sessions, who, role=Role.PUBLISH, state="live")  # another door
    sessions.remove(there[0])
    come(sessions, who)


def test_a_token_publishes_so_many_streams_and_one_may_come_back_at_any_time(
    sessions: Sessions,
) -> None:
    who = caller(token="t")
    for number in range(LIMITS.publishers_per_token):
        come(sessions, who, role=Role.PUBLISH, stream=f"s{number}", state="live")
    with pytest.raises(TooMany, match="publishers"):
        come(sessions, who, role=Role.PUBLISH, stream="one-more")
    come(sessions, who, role=Role.PUBLISH, stream="s0")  # its last session may linger


def test_where_there_are_no_tokens_none_is_counted(sessions: Sessions) -> None:
    for number in range(20):
        come(sessions, caller(), role=Role.PUBLISH, stream=f"s{number}", state="live")
        come(sessions, caller(), state="live")
