"""Who asks: addresses, and those who guess at tokens."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamlift.clock import ManualClock
from streamlift.service.callers import GUESSES, LONGEST_S, SHORTEST_S, WITHIN_S, Guesses, address_of


@pytest.mark.parametrize(
    ("host", "whose"),
    [
        ("203.0.113.9", "203.0.113.9"),
        ("::ffff:203.0.113.9", "203.0.113.9"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("no address", "no address"),
    ],
)
def test_an_address_is_an_ipv4_address_or_an_ipv6_network(host: str, whose: str) -> None:
    assert address_of(host) == whose


def test_wrong_tokens_wait_longer_and_longer_and_then_are_not_looked_at() -> None:
    guesses = Guesses(ManualClock(100.0))
    waits = [guesses.wrong("a") for _ in range(GUESSES + 5)]
    assert waits[:5] == [0.5, 1.0, 1.5, 2.0, 2.0]
    assert waits[GUESSES:] == 5 * [None]
    assert guesses.wrong("b") == 0.5  # another address is not meant


def test_a_minute_later_guesses_are_forgotten() -> None:
    clock = ManualClock(100.0)
    guesses = Guesses(clock)
    for _ in range(GUESSES + 1):
        guesses.wrong("a")
    assert 1 <= guesses.retry_s("a") <= WITHIN_S
    clock.advance(guesses.retry_s("a") + 1)
    assert guesses.wrong("a") == SHORTEST_S


@given(st.lists(st.tuples(st.integers(0, 3), st.floats(0, 30)), max_size=100))
def test_never_more_than_ten_a_minute_are_looked_at(tries: list[tuple[int, float]]) -> None:
    clock = ManualClock(0.0)
    guesses = Guesses(clock)
    looked_at: dict[str, list[float]] = {}
    for address, pause_s in tries:
        clock.advance(pause_s)
        wait_s = guesses.wrong(str(address))
        if wait_s is not None:
            assert SHORTEST_S <= wait_s <= LONGEST_S
            looked_at.setdefault(str(address), []).append(clock.now_s())
    for times in looked_at.values():
        for at in times:
            assert sum(at - WITHIN_S <= other <= at for other in times) <= GUESSES


def test_many_addresses_take_little_memory() -> None:
    guesses = Guesses(ManualClock(0.0))
    for number in range(30_000):
        guesses.wrong(str(number))
    assert len(guesses._wrong) <= 10_000
