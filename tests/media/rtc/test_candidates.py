"""Which of a peer's candidates are checked."""

from __future__ import annotations

import pytest

from streamlift.media.rtc.candidates import MAX_CANDIDATES, MAX_HOSTS, Candidates


def host(address: str, port: int = 5000) -> str:
    return f"a=candidate:1 1 udp 1 {address} {port} typ host"


@pytest.mark.parametrize(
    "address",
    [
        *("255.255.255.255", "240.0.0.1", "224.0.0.1", "239.255.255.250", "0.0.0.0", "::"),
        *("169.254.169.254", "169.254.1.1", "fe80::1", "ff02::1", "ff05::1:3"),
        *("168.63.129.16", "100.100.100.200", "192.0.0.192", "fd00:ec2::254"),
        *("::ffff:169.254.169.254", "::ffff:224.0.0.1", "64:ff9b::a9fe:a9fe", "64:ff9b::ffff:ffff"),
    ],
)
def test_addresses_where_no_peer_can_be_are_never_checked(address: str) -> None:
    candidates = Candidates()
    assert candidates.take([host(address)]) == []
    assert candidates.refused == {"address": 1}


@pytest.mark.parametrize(
    "address",
    [
        *("10.0.0.1", "172.16.0.1", "192.168.1.7", "127.0.0.1", "::1", "fd12::1", "100.64.0.1"),
        *("::ffff:10.0.0.1", "64:ff9b::c0a8:101"),
    ],
)
def test_private_addresses_are_checked_unless_they_are_denied(address: str) -> None:
    assert Candidates().take([host(address)]) == [host(address)]
    denying = Candidates(deny_private=True)
    assert denying.take([host(address), host("1.1.1.1"), host("2606:4700::1")]) == [
        host("1.1.1.1"),
        host("2606:4700::1"),
    ]
    assert denying.refused == {"private": 1}


def test_what_cannot_be_used_takes_no_place() -> None:
    candidates = Candidates()
    tcp = "a=candidate:1 1 tcp 1 192.0.2.1 9 typ host tcptype active"
    named = "a=candidate:1 1 udp 1 4f2a.local 5000 typ host"
    junk = [tcp, named, "a=candidate:nonsense"] * 100
    usable = [host("192.0.2.1", 5000 + n) for n in range(MAX_CANDIDATES)]
    assert candidates.take([*junk, *usable]) == usable
    assert candidates.refused == {"unusable": 300}


def test_surplus_is_ignored_over_a_description_and_what_comes_later() -> None:
    candidates = Candidates()
    lines = [host("192.0.2.1", 5000 + n) for n in range(100)]
    assert len(candidates.take(lines[:40])) == 40
    assert candidates.take(lines[40:]) == lines[40:MAX_CANDIDATES]
    assert candidates.take([host("192.0.2.1", 9000)]) == []
    assert candidates.refused["surplus"] == 100 - MAX_CANDIDATES + 1


def test_a_session_reaches_eight_hosts_at_most_each_at_any_port() -> None:
    candidates = Candidates()
    lines = [host(f"198.51.100.{n}", port) for n in range(1, 20) for port in (5000, 5001)]
    assert candidates.take(lines) == lines[: 2 * MAX_HOSTS]


def test_what_bundled_sections_repeat_counts_once() -> None:
    candidates = Candidates()
    assert candidates.take([host("192.0.2.1")] * 3 + [host("::ffff:192.0.2.1")]) == [
        host("192.0.2.1")
    ]
    assert not candidates.refused
