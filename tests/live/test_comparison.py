"""Two backends on one live stream, watched by real peers."""

from __future__ import annotations

import httpx
import pytest
from tests.machine import in_time
from tests.peers import SDP, make_offer
from tests.serving import until
from tests.staged import stage, toy, used
from tests.stamped import lost, viewing

from streamlift.config import BackendConfig

pytestmark = pytest.mark.peer

PLAIN = toy("plain")
TWIN = toy("twin")
CHUNKED = toy("chunked", first=1, step=8, lag=4)
ONE = BackendConfig("one", "toy", slots=1)
FULL = BackendConfig("full", "toy", slots=0)


async def test_two_viewers_see_the_same_frames_of_two_backends() -> None:
    async def run() -> list[str]:
        async with stage(PLAIN, TWIN) as on:
            async with viewing(on.service.whep(backend="twin")) as other:
                await other.more(40)
                told = (await on.service.stream())["compare"]
                assert [(one["backend"], one["viewers"]) for one in told] == [("twin", 1)]
                assert used(on.service, "twin") == 1
                other.assert_unbroken()
                on.viewer.assert_unbroken()
            shown = {one.number: one for one in on.viewer.shown}
            pairs = [(shown[one.number], one) for one in other.shown if one.number in shown]
            await until(lambda: used(on.service, "twin") == 0, "the slot to be free")
            assert "compare.ended" in on.kinds("live")
            assert (await on.service.stream())["compare"] == []
            found = [] if len(pairs) >= 30 else [f"{len(pairs)} pairs of {len(other.shown)}"]
            # Both count pts from the same origin of the stream: pictures of one number share it.
            steps = {one.pts - other.pts for one, other in pairs}
            if len(steps) > 1:
                found.append(f"the same pictures are {steps} apart")
            if lost(on.viewer.shown):
                found.append(f"{lost(on.viewer.shown)} lost of the stream itself")
            return found

    await in_time(run)


async def test_a_model_that_collects_frames_is_compared_without_delaying_the_other() -> None:
    async def run() -> list[str]:
        async with stage(PLAIN, CHUNKED) as on:
            async with viewing(on.service.whep(backend="chunked")) as other:
                await other.more(50)
                other.assert_unbroken()
            behind_ms = [one.latency_ms for one in on.viewer.shown[-40:] if one.latency_ms]
            return [] if max(behind_ms) < 300 else [f"the stream is {max(behind_ms):.0f} ms late"]

    await in_time(run)


async def test_what_cannot_be_compared_is_refused_with_a_reason() -> None:
    async with stage(PLAIN, ONE, FULL) as on:
        async with viewing(on.service.whep(backend="one")):
            again = await _ask(on.http, "one")  # shares the lane
            assert again.status_code == 201
            await on.http.delete(again.headers["location"])
        await until(lambda: used(on.service, "one") == 0, "the slot to be free")
        full = await _ask(on.http, "full")
        assert (full.status_code, full.headers["retry-after"]) == (503, "5")
        assert "backend full is full" in full.json()["detail"]
        for query, status, slug in (
            ("backend=nothing", 422, "unknown-backend"),
            ("backend=plain&view=source", 422, "invalid-request"),
            ("backend=no%20name", 422, "invalid-request"),
        ):
            answer = await on.http.post(
                f"/whep/live?{query}", content=await make_offer(), headers=SDP
            )
            assert answer.status_code == status, answer.text
            assert answer.json()["type"] == f"urn:streamlift:problem:{slug}"


async def _ask(http: httpx.AsyncClient, backend: str) -> httpx.Response:
    offer = await make_offer()
    return await http.post(f"/whep/live?backend={backend}", content=offer, headers=SDP)
