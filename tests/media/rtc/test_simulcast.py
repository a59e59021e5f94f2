"""Publishers that offer one picture in several sizes."""

from __future__ import annotations

import pytest

from streamlift.media.rtc.simulcast import largest_layer, with_layer

SIZE = "max-width={};max-height={}"


def section(simulcast: str, *rids: str) -> list[str]:
    return ["m=video 9 X 96", *(f"a=rid:{rid}" for rid in rids), f"a=simulcast:{simulcast}"]


def named(*rids: str) -> list[str]:
    return section("send " + ";".join(rids), *(f"{rid} send" for rid in rids))


@pytest.mark.parametrize(
    ("offered", "largest"),
    [
        (named("q", "h", "f"), "f"),
        (named("f", "h", "q"), "f"),
        (named("h", "m", "l"), "h"),
        (named("l", "m", "h"), "h"),
        (named("low", "mid", "high"), "high"),
        (named("h", "q"), "h"),
        (named("r0", "r1", "r2"), "r2"),
        (named("1", "2", "10"), "10"),
        (named("small", "big"), "big"),  # unknown names: mostly they rise
        (
            section(
                "send a;b",
                "a send max-width=640;max-height=360",
                "b send max-width=64;max-height=36",
            ),
            "a",
        ),
        (section("send ~a;b,c", "a send", "b send", "c send"), "b"),
        (section("recv x send q;f", "q send", "f send"), "f"),
        (section("recv q;f", "q recv", "f recv"), None),
        (section("send a;b"), None),  # not described
        (["m=video 9 X 96"], None),
    ],
)
def test_the_largest_picture_is_found(offered: list[str], largest: str | None) -> None:
    assert largest_layer(offered) == largest


def test_an_answer_asks_for_it_alone() -> None:
    answer = "v=0\r\nm=audio 9 X 111\r\na=mid:0\r\nm=video 9 X 96\r\na=mid:1\r\n"
    added = "a=rid:f recv\r\na=simulcast:recv f\r\n"
    assert with_layer(answer, "f") == answer + added
    swapped = "v=0\r\nm=video 9 X 96\r\na=mid:1\r\nm=audio 9 X 111\r\na=mid:0\r\n"
    assert with_layer(swapped, "f") == swapped.replace("m=audio", added + "m=audio")
