"""One picture in several sizes: which of the RTP streams is taken."""

from __future__ import annotations

from streamlift.frames import Size
from streamlift.media.incoming.layers import SILENT_S, Layers

SIZES = {1: Size(128, 128), 2: Size(256, 256), 3: Size(512, 512)}


def taken(layers: Layers, order: list[int], now_s: float, *, begin: bool = False) -> list[int]:
    """The streams taken of one packet of each."""
    return [s for s in order if layers.takes(s, SIZES[s] if begin else None, now_s)]


def test_the_largest_is_taken_whatever_the_order_in_which_they_begin() -> None:
    for order in ([1, 2, 3], [3, 2, 1], [2, 3, 1]):
        layers = Layers()
        taken(layers, order, 0.0, begin=True)
        assert taken(layers, order, 0.1) == [3]


def test_a_larger_one_is_gone_over_to_only_where_it_begins() -> None:
    layers = Layers()
    assert taken(layers, [1], 0.0, begin=True) == [1]
    assert taken(layers, [1, 3], 0.1) == [1]
    assert taken(layers, [3], 0.2, begin=True) == [3]
    assert taken(layers, [1], 0.3, begin=True) == []


def test_when_the_largest_rests_the_next_is_taken_and_it_comes_back() -> None:
    layers = Layers()
    taken(layers, [1, 2, 3], 0.0, begin=True)
    assert taken(layers, [1, 2], SILENT_S - 0.1) == []
    late = SILENT_S + 0.1
    # The first that comes is no reason to take the smallest.
    assert taken(layers, [1, 2], late) == [2]
    assert taken(layers, [3], late + 1) == []
    assert taken(layers, [3], late + 1, begin=True) == [3]


def test_a_stream_that_begins_anew_under_another_number_is_followed() -> None:
    layers = Layers()
    taken(layers, [3], 0.0, begin=True)
    assert layers.takes(9, Size(512, 512), 2.0)


def test_a_peer_that_invents_numbers_costs_no_memory() -> None:
    layers = Layers()
    for number in range(10_000):
        layers.takes(number, None, number / 1000)
    assert len(layers._layers) <= 8
