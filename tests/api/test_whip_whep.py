"""Bad offers: each a precise 4xx, and nothing left open."""

from __future__ import annotations

import random

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.peers import SDP, make_offer

from streamlift.api.whip_whep import MAX_SDP_BYTES, ice_link
from streamlift.config import IceServer
from streamlift.frames import Codec


@pytest.mark.parametrize("door", ["/whip/live", "/whep/live"])
@pytest.mark.parametrize(
    ("content_type", "body", "status", "slug"),
    [
        ("application/json", b"v=0\r\n", 415, "content-type"),
        ("", b"v=0\r\n", 415, "content-type"),
        ("application/sdp", b"", 400, "malformed-sdp"),
        ("application/sdp", b"hello", 400, "malformed-sdp"),
        ("application/sdp", b"\xff\xfe\x00", 400, "malformed-sdp"),
        ("application/sdp", b"v=0\r\n", 422, "unsupported-offer"),
        ("application/sdp; charset=utf-8", b"hello", 400, "malformed-sdp"),
        ("Application/SDP", b"hello", 400, "malformed-sdp"),
        ("application/sdp", b"v=0\r\n" + b"a" * MAX_SDP_BYTES, 413, "sdp-too-large"),
    ],
)
async def test_what_is_no_offer_is_refused(
    http: httpx.AsyncClient, door: str, content_type: str, body: bytes, status: int, slug: str
) -> None:
    answer = await http.post(door, content=body, headers={"Content-Type": content_type})
    assert answer.status_code == status
    assert answer.json()["type"] == f"urn:streamlift:problem:{slug}"


async def test_a_body_is_refused_before_all_of_it_has_come(http: httpx.AsyncClient) -> None:
    taken = 0

    async def endless() -> object:
        nonlocal taken
        while taken < 100 * MAX_SDP_BYTES:
            taken += 8192
            yield b"a" * 8192

    answer = await http.post("/whip/live", content=endless(), headers=SDP)  # type: ignore[arg-type]
    assert answer.status_code == 413
    assert taken <= 2 * MAX_SDP_BYTES


@pytest.mark.parametrize(
    ("kind", "door"), [("view", "/whip/live"), ("send", "/whep/live")], ids=["whip", "whep"]
)
async def test_a_direction_that_does_not_fit_is_refused(
    http: httpx.AsyncClient, kind: str, door: str
) -> None:
    answer = await http.post(door, content=await make_offer(kind), headers=SDP)
    assert answer.status_code == 422
    assert answer.json()["type"] == "urn:streamlift:problem:unsupported-offer"


@pytest.mark.parametrize("attribute", ["a=ice-ufrag:", "a=ice-pwd:", "a=fingerprint:"])
async def test_an_offer_without_its_transport_is_malformed(
    http: httpx.AsyncClient, attribute: str
) -> None:
    lines = (await make_offer("send")).splitlines()
    offer = "\r\n".join(line for line in lines if not line.startswith(attribute)) + "\r\n"
    answer = await http.post("/whip/live", content=offer, headers=SDP)
    assert answer.status_code == 400
    assert answer.json()["expected"] == attribute


async def test_candidates_beyond_the_bound_are_ignored(http: httpx.AsyncClient) -> None:
    offer = await make_offer("send")
    candidate = "a=candidate:1 1 udp 1 10.0.0.1 9 typ host\r\n"
    answer = await http.post("/whip/live", content=offer + 65 * candidate, headers=SDP)
    assert answer.status_code == 201
    assert (await http.delete(answer.headers["location"])).status_code == 200


async def test_an_answer_is_201_with_a_location_that_cannot_be_guessed(
    http: httpx.AsyncClient,
) -> None:
    offer = await make_offer("send")
    first = await http.post("/whip/live", content=offer, headers=SDP)
    second = await http.post("/whip/live", content=offer, headers=SDP)
    assert (first.status_code, first.headers["content-type"]) == (201, "application/sdp")
    places = [answer.headers["location"] for answer in (first, second)]
    assert len(set(places)) == 2
    assert all(len(place.removeprefix("/sessions/")) >= 21 for place in places)  # 122 bits, base 64
    assert "a=recvonly" in first.text
    assert "a=rtcp-mux-only" in first.text
    for place in places:
        assert (await http.delete(place)).status_code == 200


async def test_an_offer_without_a_direction_means_both(http: httpx.AsyncClient) -> None:
    offer = (await make_offer("send")).replace("a=sendonly\r\n", "")
    answer = await http.post("/whip/live", content=offer, headers=SDP)
    assert answer.status_code == 201
    assert "a=recvonly" in answer.text


async def test_a_pending_session_is_connecting(http: httpx.AsyncClient) -> None:
    answer = await http.post("/whip/live", content=await make_offer("send"), headers=SDP)
    place = answer.headers["location"]
    read = (await http.get(f"/api/v1{place}")).json()
    assert (read["state"], read["role"], read["stream"]) == ("connecting", "publish", "live")
    assert (await http.delete(place)).status_code == 200


def test_a_link_quotes_what_would_end_it() -> None:
    link = ice_link(IceServer("turn:t", 'a"b', "c\\d"))
    assert 'username="a\\"b"' in link
    assert 'credential="c\\\\d"' in link


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(seed=st.integers(0, 2**32), changes=st.integers(1, 12))
async def test_no_damaged_offer_gives_a_5xx(
    http: httpx.AsyncClient, seed: int, changes: int
) -> None:
    offer = _damaged(await make_offer("send", list(Codec)), random.Random(seed), changes)
    answer = await http.post("/whip/fuzz", content=offer.encode(), headers=SDP)
    if answer.status_code == 201:
        assert (await http.delete(answer.headers["location"])).status_code == 200
        return
    assert answer.status_code in (400, 413, 422), answer.text
    assert answer.headers["content-type"] == "application/problem+json"


def _damaged(offer: str, chance: random.Random, changes: int) -> str:
    lines = offer.split("\r\n")
    for _ in range(changes):
        at = chance.randrange(len(lines))
        how = chance.choice(("drop", "double", "swap", "cut", "digit", "noise"))
        if how == "drop":
            lines[at : at + 1] = [""] if len(lines) == 1 else []
        elif how == "double":
            lines.insert(at, lines[at])
        elif how == "swap":
            other = chance.randrange(len(lines))
            lines[at], lines[other] = lines[other], lines[at]
        elif how == "cut":
            lines[at] = lines[at][: chance.randrange(len(lines[at]) + 1)]
        elif how == "digit":
            lines[at] = "".join(chance.choice("0918") if c.isdigit() else c for c in lines[at])
        else:
            lines[at] += "".join(chr(chance.randrange(1, 0x2FF)) for _ in range(5))
    return "\r\n".join(lines)
