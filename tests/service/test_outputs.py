"""The table of outputs: what is kept of those that ended."""

from __future__ import annotations

from pathlib import Path

import pytest

from streamlift.clock import ManualClock
from streamlift.config import IceConfig, OutputsConfig
from streamlift.errors import Overloaded
from streamlift.media.outgoing.packetizer import Packetizer
from streamlift.metrics import Metrics
from streamlift.service.outputs import FAILED_SHOWN_S, MAX_OUTPUTS, Output, Outputs
from streamlift.service.pushes import PushOrder

ORDER = PushOrder("whip", "http://127.0.0.1:9/")


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(100.0)


@pytest.fixture
def outputs(clock: ManualClock, tmp_path: Path) -> Outputs:
    config = OutputsConfig(allowed_hosts=("127.0.0.1",), save=str(tmp_path))
    return Outputs(config, clock=clock, packetizer=Packetizer())


def push(outputs: Outputs, stream: str = "live") -> Output:
    return outputs.push(stream, ORDER, ice=IceConfig(), metrics=Metrics())


def test_an_output_that_ended_with_its_stream_is_forgotten_at_once(outputs: Outputs) -> None:
    output = outputs.record("live")
    assert outputs.of("live") == (output,)
    outputs.ended(output)
    assert outputs.of("live") == ()


@pytest.mark.parametrize("kind", ["push", "recording"])
def test_one_that_failed_is_shown_with_its_reason_for_a_while_and_then_goes(
    outputs: Outputs, clock: ManualClock, kind: str
) -> None:
    output = push(outputs) if kind == "push" else outputs.record("live")
    outputs.ended(output, "no room")
    clock.advance(FAILED_SHOWN_S - 1)
    assert outputs.get("live", output.id).error == "no room"
    clock.advance(2)
    assert outputs.of("live") == ()
    assert list(outputs) == []


def test_failures_of_streams_that_nobody_asks_for_leave_the_table_too(
    outputs: Outputs, clock: ManualClock
) -> None:
    for number in range(100):
        outputs.ended(outputs.record(f"stream-{number}"), "no room")
        clock.advance(FAILED_SHOWN_S / 10)
    assert len(outputs._outputs) <= 11


def test_what_failed_is_not_in_the_way_of_another_try(outputs: Outputs) -> None:
    for _ in range(3 * MAX_OUTPUTS):
        outputs.ended(push(outputs), "refused")
    running = [push(outputs) for _ in range(MAX_OUTPUTS)]
    with pytest.raises(Overloaded):
        push(outputs)
    outputs.end(running[0])
    push(outputs)
    push(outputs, "another")
