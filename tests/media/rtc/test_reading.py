"""What waits in a media socket is read in runs, however seldom the event loop has a turn."""

from __future__ import annotations

import asyncio
import socket

from aioice import Connection

from streamlift.media.rtc.guard import Guard
from streamlift.media.rtc.ice import RUN, enlarge_receive_buffers, prepare_gathering


async def test_a_turn_of_the_loop_reads_a_run_of_datagrams() -> None:
    ice, guard = (
        Connection(ice_controlling=True, local_username="ab12", local_password="c" * 22),
        Guard(),
    )
    prepare_gathering(ice, (), guard)
    await ice.get_component_candidates(1, ["127.0.0.1"])
    enlarge_receive_buffers(ice)
    address = ice._protocols[0].transport.get_extra_info("sockname")
    sent = 2 * RUN + 5
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
            for _ in range(sent):
                stranger.sendto(b"\xff" * 20, address)
        turns = 0
        while guard.refused["kind"] < sent:
            turns += 1
            assert turns <= 20, guard.refused
            await asyncio.sleep(0)
        assert turns <= 5, "one datagram a turn?"
    finally:
        await ice.close()


async def test_a_socket_that_closes_amid_a_run_ends_it() -> None:
    ice, guard = (
        Connection(ice_controlling=True, local_username="ab12", local_password="c" * 22),
        Guard(),
    )
    prepare_gathering(ice, (), guard)
    await ice.get_component_candidates(1, ["127.0.0.1"])
    transport = ice._protocols[0].transport
    address = transport.get_extra_info("sockname")
    take = guard._objection
    seen = 0

    def close_at_the_second(*arguments: object) -> str | None:
        nonlocal seen
        seen += 1
        if seen == 2:
            transport.close()
        return take(*arguments)  # type: ignore[arg-type]

    guard._objection = close_at_the_second  # type: ignore[assignment,method-assign]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        for _ in range(5):
            stranger.sendto(b"\xff" * 20, address)
    for _ in range(10):
        await asyncio.sleep(0)
    assert seen == 2
    await ice.close()
