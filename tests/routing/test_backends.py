"""The table of backends: they come and go, and streams with them."""

from __future__ import annotations

import asyncio

import pytest
from tests.routing.fakes import FakeBackend
from tests.routing.stage import live
from tests.routing.virtual_time import LoopClock, in_virtual_time

from streamlift.clock import ManualClock
from streamlift.errors import NoCapacity, NotReady, UnknownBackend
from streamlift.frames import BackendInfo, BackendState
from streamlift.routing.backends import BackendTable


def table(*names: str) -> BackendTable:
    clock = ManualClock()
    return BackendTable([FakeBackend(clock, name) for name in names], clock=clock)


def fake(known: BackendTable, name: str) -> FakeBackend:
    backend = known[name]
    assert isinstance(backend, FakeBackend)
    return backend


def test_an_unknown_name_is_told_with_those_there_are() -> None:
    with pytest.raises(UnknownBackend, match="no backend named 'x'") as told:
        table("b", "a").must_be_free("x")
    assert (told.value.found, told.value.expected) == ("x", ["a", "b"])


def test_the_fallback_is_there_only_while_it_is_in_the_table() -> None:
    known = table("ai", "bicubic")
    assert known.fallback == "bicubic"
    known.remove("bicubic")
    assert known.fallback is None


def test_a_removed_backend_is_not_usable_and_says_so() -> None:
    known = table("ai", "bicubic")
    assert known.usable("ai")
    known.remove("ai")
    assert not known.usable("ai")
    assert known.why_not("ai") == "ai was removed"
    with pytest.raises(UnknownBackend):
        known.remove("ai")


def test_a_backend_that_comes_again_starts_without_faults() -> None:
    known = table("ai")
    known.faults("ai").fault(0.0, "x", "cam")
    assert not known.usable("ai", "cam")
    known.add(FakeBackend(ManualClock(), "ai"))
    assert known.usable("ai", "cam")


def test_what_is_not_ready_or_full_is_refused_with_its_reason() -> None:
    known = table("ai")
    ai = fake(known, "ai")
    ai.state, ai.reason = BackendState.LOADING, "reading weights"
    with pytest.raises(NotReady, match="ai is loading: reading weights"):
        known.must_be_free("ai")
    ai.state, ai.used = BackendState.READY, ai.total
    with pytest.raises(NoCapacity, match="all 4 slots of backend ai are taken"):
        known.must_be_free("ai")


def test_each_change_of_state_is_told_once() -> None:
    known = table("ai")
    told: list[tuple[BackendState, BackendState]] = []

    def tell(before: BackendState, info: BackendInfo) -> None:
        told.append((before, info.state))

    known.watch(tell)
    fake(known, "ai").state = BackendState.LOADING
    known.watch(tell)
    known.watch(tell)
    assert told == [(BackendState.READY, BackendState.LOADING)]


@in_virtual_time
async def test_a_stream_leaves_a_removed_backend_without_a_gap_and_returns_to_it() -> None:
    async with live("ai", "bicubic") as stage:
        removed = stage.table.remove("ai")
        await asyncio.sleep(2.0)
        told = stage.stream.snapshot()
        assert (told.backend, told.degraded, told.reason) == ("bicubic", True, "ai was removed")
        assert stage.backends["ai"].used == 0
        stage.table.add(removed)
        await asyncio.sleep(2.0)
        told = stage.stream.snapshot()
        assert (told.backend, told.degraded) == ("ai", False)
        viewer = stage.viewer
        viewer.assert_decodable()
        assert viewer.pts == [n * 3600 for n in range(len(viewer.pts))]
        assert max(viewer.gaps(1.0)) < 0.12


@in_virtual_time
async def test_a_backend_that_comes_while_streams_run_can_be_switched_to() -> None:
    async with live("ai", "bicubic") as stage:
        stage.backends["new"] = FakeBackend(LoopClock(), "new")
        stage.table.add(stage.backends["new"])
        stage.stream.switch("new")
        await asyncio.sleep(2.0)
        assert stage.viewer.sources[-1] == "new"
