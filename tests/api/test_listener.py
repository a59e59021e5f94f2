"""Places for connections: who gets one, who has to go, and what happens without descriptors."""

from __future__ import annotations

import contextlib
import os
import resource
import socket
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamlift.api.listener import Listener, Places, places_for
from streamlift.clock import ManualClock

Connect = Callable[..., socket.socket]


@pytest.fixture
def connect() -> Iterator[Connect]:
    """`connect(listener, source)`: a client's end, from an address of this machine."""
    with contextlib.ExitStack() as stack:

        def start(listener: Listener, source: str = "127.0.0.1") -> socket.socket:
            client = stack.enter_context(
                socket.create_connection(
                    listener.getsockname(), timeout=5, source_address=(source, 0)
                )
            )
            return client

        yield start


@contextlib.contextmanager
def listening(most: int) -> Iterator[Listener]:
    with Listener(socket.AF_INET, Places(most, ManualClock())) as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(16)
        listener.setblocking(False)
        yield listener


def take(places: Places, peer: tuple[str, int]) -> socket.socket | None:
    """A connection with a place, or None if there was none."""
    ours, theirs = socket.socketpair()
    theirs.close()
    if places.take(peer, ours):
        return ours
    ours.close()
    return None


def test_when_all_places_are_taken_the_longest_idle_of_the_greediest_address_goes() -> None:
    clock = ManualClock()
    places = Places(4, clock)
    user = take(places, ("10.0.0.1", 1))
    greedy = []
    for port in range(3):
        clock.advance(1)
        greedy.append(take(places, ("10.0.0.2", port)))
    newcomer = take(places, ("10.0.0.3", 1))
    assert newcomer is not None
    assert greedy[0] is not None
    assert greedy[0].recv(1) == b""  # shut down, so its owner will close it
    assert len(places) == 4
    for connection in (user, newcomer, *greedy):
        assert connection is not None
        connection.close()


def test_a_connection_with_a_request_in_progress_keeps_its_place() -> None:
    places = Places(1, ManualClock())
    first = take(places, ("10.0.0.1", 1))
    assert first is not None
    places.mark(("10.0.0.1", 1), busy=True)
    assert take(places, ("10.0.0.2", 1)) is None
    places.mark(("10.0.0.1", 1), busy=False)
    second = take(places, ("10.0.0.2", 1))
    assert second is not None
    first.close()
    second.close()


@given(st.lists(st.tuples(st.integers(0, 3), st.booleans()), max_size=60), st.integers(1, 5))
def test_there_are_never_more_than_the_places(comings: list[tuple[int, bool]], most: int) -> None:
    places = Places(most, ManualClock())
    with contextlib.ExitStack() as stack:
        for port, (address, busy) in enumerate(comings):
            peer = (f"10.0.0.{address}", port)
            connection = take(places, peer)
            if connection is not None:
                stack.enter_context(connection)
                places.mark(peer, busy=busy)
            assert len(places) <= most


def test_a_closed_connection_gives_its_place_back(connect: Connect) -> None:
    with listening(1) as listener:
        connect(listener)
        connection, _ = listener.accept()
        assert len(listener.places) == 1
        connection.close()
        assert len(listener.places) == 0


def test_who_gets_no_place_is_told_so_and_the_next_is_looked_at(connect: Connect) -> None:
    with listening(1) as listener:
        connect(listener)
        connection, peer = listener.accept()
        listener.places.mark(peer, busy=True)
        refused = connect(listener)
        with pytest.raises(BlockingIOError):
            listener.accept()
        assert refused.recv(100).startswith(b"HTTP/1.1 503 ")
        connection.close()
        connect(listener)
        listener.accept()[0].close()


def test_without_descriptors_newcomers_are_turned_away_and_said_once(
    connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    with listening(1000) as listener, contextlib.ExitStack() as taken:
        clients = [connect(listener) for _ in range(5)]
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        highest = max(int(name) for name in os.listdir("/proc/self/fd"))
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1, hard))
            with contextlib.suppress(OSError):
                while True:
                    taken.callback(os.close, os.open(os.devnull, os.O_RDONLY))
            for _ in clients:
                with pytest.raises(BlockingIOError):
                    listener.accept()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for client in clients:
            assert client.recv(100).startswith(b"HTTP/1.1 503 ")
        assert len(caplog.records) == 1
        connect(listener)
        taken.close()
        listener.accept()[0].close()


def test_few_descriptors_leave_half_of_them_to_media(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (256, 256))
    assert places_for(512) == (256 - 64) // 2
    assert places_for(20) == 20
