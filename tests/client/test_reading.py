"""Answers become values, and what does not fit is said with its place."""

from __future__ import annotations

from typing import Any

import pytest

from streamlift.client.reading import UnexpectedAnswer, read
from streamlift.client.shapes import Event, Output, Publisher, Readiness, Slots, Source


def test_an_answer_becomes_a_value() -> None:
    told = {"codec": "h264", "size": [512, 288], "fps": 25}
    assert read(Publisher, told) == Publisher("h264", (512, 288), 25.0)


def test_what_is_null_or_left_out_is_none() -> None:
    told = {"id": "a", "type": "file", "state": "live", "reason": "", "files": ["x.mp4"]}
    output = read(Output, told)
    assert (output.files, output.url, output.bytes_written) == (("x.mp4",), None, None)
    assert read(Publisher, {"codec": None, "size": [2, 2], "fps": None}).fps is None


def test_fields_and_words_of_a_newer_service_do_not_break_it() -> None:
    told = {"total": 1, "used": 0, "reserved": 7}
    assert read(Slots, told) == Slots(1, 0)
    newer: Any = {"stream": "a", "kind": "x", "state": "asleep", "reason": ""}
    state: str = read(Source, {**newer, "connections": 1, "jumps": 0}).state
    assert state == "asleep"


def test_words_that_are_words_of_python_have_other_names() -> None:
    told = {"kind": "switched", "seq": 1, "time": 2, "stream": "a", "from": "x", "to": None}
    event = read(Event, {**told, "gap_ms": 40.5, "reason": ""})
    assert (event.before, event.after, event.time) == ("x", None, 2.0)


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ({"total": 1}, "the answer has no used"),
        ({"total": "1", "used": 0}, "the answer.total is not"),
        ({"total": True, "used": 0}, "the answer.total is not"),
        ({"total": None, "used": 0}, "the answer.total is not"),
        ([], "the answer is no object"),
    ],
)
def test_what_does_not_fit_is_said_with_its_place(told: object, said: str) -> None:
    with pytest.raises(UnexpectedAnswer, match=said):
        read(Slots, told)


def test_lists_and_maps_are_checked_inside() -> None:
    with pytest.raises(UnexpectedAnswer, match=r"the answer\.backends\.a is not"):
        read(Readiness, {"ready": True, "reasons": [], "backends": {"a": 5}})
    with pytest.raises(UnexpectedAnswer, match=r"size is not"):
        read(Publisher, {"codec": None, "size": [1, 2, 3], "fps": None})
