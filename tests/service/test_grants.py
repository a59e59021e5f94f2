"""What tokens allow: configured ones, and links with all the ways to forge one."""

from __future__ import annotations

import base64
import json
from typing import Any

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamlift.clock import ManualClock
from streamlift.config import AuthConfig, TokenConfig
from streamlift.errors import ConfigError, TokenExpired, TokenUnknown
from streamlift.service.grants import Grants, Scope

SECRET = "north" * 16
OTHER = "south" * 16
NOW_S = 1_800_000_000
VIEW, PUBLISH, CONTROL = (Scope.VIEW,), (Scope.PUBLISH,), (Scope.CONTROL,)


@pytest.fixture
def wall() -> ManualClock:
    return ManualClock(NOW_S)


@pytest.fixture
def grants(wall: ManualClock) -> Grants:
    limited = TokenConfig("limited", ("a", "b"))
    auth = AuthConfig(("p",), ("v", limited), ("c", limited), link_secret=SECRET)
    return Grants(auth, wall.now_s)


def forged(secret: str = SECRET, algorithm: str = "HS256", **changes: Any) -> str:
    claims: dict[str, Any] = {"exp": NOW_S + 60, "stream": "a", "right": "view"}
    claims.update(changes)
    return jwt.encode({k: v for k, v in claims.items() if v is not ...}, secret, algorithm)


def test_a_configured_token_opens_its_door_for_all_streams(grants: Grants) -> None:
    grant = grants.read("v")
    assert grant.allows(VIEW)
    assert grant.allows(VIEW, "any")
    assert not grant.allows(PUBLISH)
    assert not grant.allows(CONTROL, "any")


def test_a_token_for_some_streams_opens_each_of_its_doors_for_those_only(grants: Grants) -> None:
    grant = grants.read("limited")
    for door in (VIEW, CONTROL):
        assert grant.allows(door, "a")
        assert grant.allows(door, "b")
        assert not grant.allows(door, "c")
    assert not grant.allows(PUBLISH, "a")


def test_a_token_that_is_listed_twice_allows_both(wall: ManualClock) -> None:
    twice = Grants(AuthConfig(view=(TokenConfig("t", ("a",)), TokenConfig("t", ("b",)))))
    assert twice.read("t").allows(VIEW, "a")
    assert twice.read("t").allows(VIEW, "b")
    assert not twice.read("t").allows(VIEW, "c")


def test_a_grant_tells_tokens_apart_and_holds_none(grants: Grants) -> None:
    keys = [grants.read(token).key for token in ("p", "v", "c", "limited")]
    assert len(set(keys)) == 4
    assert "limited" not in repr(grants.read("limited"))


@pytest.mark.parametrize("right", [Scope.VIEW, Scope.PUBLISH])
def test_a_link_opens_one_door_for_one_stream_until_it_ends(
    grants: Grants, wall: ManualClock, right: Scope
) -> None:
    link = grants.link("a", right, 600)
    assert link.expires_s == NOW_S + 600
    grant = grants.read(link.token)
    assert [scope for scope in Scope if grant.allows((scope,), "a")] == [right]
    assert not grant.allows((right,), "b")
    wall.advance(599)
    assert grants.holds(grants.read(link.token))
    wall.advance(1)
    with pytest.raises(TokenExpired):
        grants.read(link.token)
    assert not grants.holds(grant)


def test_a_revoked_link_ends_and_its_sisters_go_on(grants: Grants) -> None:
    link, sister = (grants.link("a", Scope.VIEW, 600) for _ in range(2))
    grant = grants.read(link.token)
    grants.revoke("b", link.id)  # of another stream: none of theirs
    assert grants.holds(grant)
    grants.revoke("a", link.id)
    assert not grants.holds(grant)
    with pytest.raises(TokenExpired):
        grants.read(link.token)
    assert grants.holds(grants.read(sister.token))


def test_revocations_are_bounded_and_outlive_every_link(grants: Grants, wall: ManualClock) -> None:
    link = grants.link("a", Scope.VIEW, 600)
    for number in range(20_000):
        grants.revoke("b", str(number))
    assert len(grants._revoked) <= 10_000
    grants.revoke("a", link.id)
    wall.advance(599)
    with pytest.raises(TokenExpired):
        grants.read(link.token)


def test_tokens_that_are_taken_back_hold_no_longer(grants: Grants) -> None:
    kept, gone = grants.read("v"), grants.read("p")
    link = grants.read(grants.link("a", Scope.VIEW, 600).token)
    grants.replace(AuthConfig(("p2",), ("v",), ("c",)))
    assert grants.holds(kept)
    assert not grants.holds(gone)
    assert not grants.holds(link)  # its secret is gone
    with pytest.raises(TokenUnknown):
        grants.read("p")


def _unsigned(**header: Any) -> str:
    def part(value: object) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()

    claims = {"exp": NOW_S + 60, "stream": "a", "right": "view"}
    return f"{part(header)}.{part(claims)}."


FORGED = {
    "no algorithm": _unsigned(alg="none"),
    "no algorithm, otherwise spelt": _unsigned(alg="NoNe"),
    "an algorithm we do not read": forged(algorithm="HS512"),
    "another secret": forged(OTHER),
    "an empty secret": jwt.api_jws.encode(b"{}", "", "none") + "x",
    "no end": forged(exp=...),
    "no stream": forged(stream=...),
    "no right": forged(right=...),
    "another right": forged(right="control"),
    "a right that is a list": forged(right=["view"]),
    "a stream that is a pattern": forged(stream="*"),
    "a stream that is a list": forged(stream=["a"]),
    "a name with a slash": forged(stream="a/b"),
    "an end that is text": forged(exp="never"),
    "an end that is null": forged(exp=None),
    "an end that is true": forged(exp=True),
    "an end that is no number": forged(exp=float("nan")),
    "an end that never comes": forged(exp=float("inf")),
    "an end in milliseconds": forged(exp=NOW_S * 1000),
    "an end that no float holds": forged(exp=10**400),
    "a name that is a number": forged(jti=7),
    "two dots": "..",
    "nothing": "",
    "not text": "\udcff".encode("utf-8", "surrogateescape").decode("latin-1"),
    "a long one": 8000 * "a." + "b",
}


@pytest.mark.parametrize("token", FORGED.values(), ids=FORGED)
def test_what_is_no_link_of_ours_is_unknown(grants: Grants, token: str) -> None:
    with pytest.raises(TokenUnknown):
        grants.read(token)


def test_an_end_that_is_past_is_past_however_it_is_written(grants: Grants) -> None:
    for end in (0, -1, NOW_S - 1, NOW_S, float(NOW_S)):
        with pytest.raises(TokenExpired):
            grants.read(forged(exp=int(end)))


@given(st.text(max_size=300))
def test_no_text_is_a_token_by_chance(text: str) -> None:
    auth = AuthConfig(("secret-p",), ("secret-v",), ("secret-c",), link_secret=SECRET)
    with pytest.raises(TokenUnknown):
        Grants(auth).read(text)


def test_without_a_secret_there_are_no_links(wall: ManualClock) -> None:
    plain = Grants(AuthConfig(("p",), ("v",), ("c",)), wall.now_s)
    with pytest.raises(ConfigError, match="LINK_SECRET"):
        plain.link("a", Scope.VIEW, 60)
    with pytest.raises(TokenUnknown):
        plain.read(forged())


def test_a_door_without_tokens_is_open_to_all() -> None:
    half = Grants(AuthConfig(publish=("p",)))
    assert half.open_to_all(VIEW)
    assert half.open_to_all((Scope.PUBLISH, Scope.VIEW))
    assert not half.open_to_all(PUBLISH)
