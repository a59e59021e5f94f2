"""Publishers that offer one picture in several sizes."""

from __future__ import annotations

import pytest

from streamlift.media.rtc.simulcast import read_simulcast, with_layers

SIZE = "max-width={};max-height={}"


def section(simulcast: str, *rids: str) -> list[str]:
    return ["m=video 9 X 96", *(f"a=rid:{rid}" for rid in rids), f"a=simulcast:{simulcast}"]


def named(*rids: str) -> list[str]:
    return section("send " + ";".join(rids), *(f"{rid} send" for rid in rids))


@pytest.mark.parametrize(
    ("offered", "asked"),
    [
        (named("q", "h", "f"), ["f"]),
        (named("f", "h", "q"), ["f"]),
        (named("h", "m", "l"), ["h"]),
        (named("l", "m", "h"), ["h"]),
        (named("low", "mid", "high"), ["high"]),
        (named("h", "q"), ["h"]),
        # Numbers and unknown names rise in some peers and fall in others.
        (named("r0", "r1", "r2"), ["r2"]),
        (named("r0", "r1"), ["r0", "r1"]),
        (named("0", "1", "2"), ["0", "1", "2"]),
        (named("1", "2", "10"), ["10"]),
        (named("small", "big"), ["small", "big"]),
        (
            section(
                "send a;b",
                "a send max-width=640;max-height=360",
                "b send max-width=64;max-height=36",
            ),
            ["a"],
        ),
        (section("send ~a;b,c", "a send", "b send", "c send"), ["a", "b"]),
        (section("recv x send q;f", "q send", "f send"), ["f"]),
        (section("recv q;f", "q recv", "f recv"), []),
        (section("send a;b"), []),  # not described
        (["m=video 9 X 96"], []),
    ],
)
def test_the_largest_is_asked_for_or_several_where_the_offer_does_not_tell(
    offered: list[str], asked: list[str]
) -> None:
    read = read_simulcast(offered)
    assert list(read.rids) == asked
    assert read.several == bool(asked)


def test_an_answer_asks_for_them() -> None:
    answer = "v=0\r\nm=audio 9 X 111\r\na=mid:0\r\nm=video 9 X 96\r\na=mid:1\r\n"
    added = "a=rid:f recv\r\na=simulcast:recv f\r\n"
    assert with_layers(answer, ["f"]) == answer + added
    swapped = "v=0\r\nm=video 9 X 96\r\na=mid:1\r\nm=audio 9 X 111\r\na=mid:0\r\n"
    assert with_layers(swapped, ["f"]) == swapped.replace("m=audio", added + "m=audio")
    assert with_layers(answer, ["0", "1"]).endswith(
        "a=rid:0 recv\r\na=rid:1 recv\r\na=simulcast:recv 0;1\r\n"
    )


def test_sizes_told_by_ssrc_alone_are_several_with_their_retransmissions() -> None:
    offered = [
        "m=video 9 X 96 97",
        "a=ssrc-group:SIM 1 2 3",
        *(f"a=ssrc-group:FID {n} {n + 10}" for n in (1, 2, 3)),
        "a=ssrc-group:FID x 5",
        "a=ssrc-group:",
    ]
    read = read_simulcast(offered)
    assert read.several
    assert read.rids == ()
    assert read.repairs == {11: 1, 12: 2, 13: 3}
    assert not read_simulcast(["m=video 9 X 96 97", "a=ssrc-group:FID 1 2"]).several
