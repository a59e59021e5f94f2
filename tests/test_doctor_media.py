"""What `doctor` says of ports, addresses and TURN."""

from __future__ import annotations

import socket

import pytest

from streamlift.config import Config, IceConfig, IceServer
from streamlift.doctor import Check, examine

TURN = IceServer("turn:turn.example.org:3478")
KNOWN = IceServer("turn:turn.example.org:3478", "user", "word")


def check(name: str, ice: IceConfig) -> Check:
    return next(c for c in examine(Config(ice=ice)).checks if c.name == name)


@pytest.mark.parametrize(
    ("ice", "ok", "word"),
    [
        (IceConfig(), True, "every address"),
        (IceConfig(announce=("127.0.0.1",)), True, "127.0.0.1"),
        (IceConfig(announce=("203.0.113.5",)), True, "not of this machine"),
        (IceConfig(announce=("127.0.0.1", "203.0.113.5")), False, "not used: 203.0.113.5"),
    ],
)
def test_the_announced_address_is_looked_at(ice: IceConfig, ok: bool, word: str) -> None:
    found = check("media", ice)
    assert found.ok is ok
    assert word in found.detail


@pytest.mark.parametrize(
    ("ice", "ok", "word"),
    [
        (IceConfig(), True, "none"),
        (IceConfig(servers=(TURN,)), False, "turn_secret"),
        (IceConfig(servers=(KNOWN,)), True, "lasting"),
        (IceConfig(servers=(TURN,), turn_secret="s"), True, "300 s"),
    ],
)
def test_turn_without_credentials_is_bad(ice: IceConfig, ok: bool, word: str) -> None:
    found = check("turn", ice)
    assert found.ok is ok
    assert word in found.detail


def test_a_range_without_a_free_port_is_bad() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("0.0.0.0", 0))
        port = taken.getsockname()[1]
        full = check("media", IceConfig(ports=(port, port)))
    assert not full.ok
    assert "0 free" in full.detail
    assert check("media", IceConfig(ports=(port, port))).ok
