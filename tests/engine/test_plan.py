"""Which picture a machine can afford: by made-up measurements, for no test measures a machine."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from streamlift.engine.costs import costs_file, known_costs, repeatable
from streamlift.engine.ladder import Rung
from streamlift.engine.plan import PAIR_CORES, Costs, Plan, make_plan
from streamlift.upscalers.compact import Precision, Tier

VNNI = Costs(
    decode_ms=2.0,
    bicubic_ms=0.5,
    tiers_ms={"xs": 5.5, "s": 7.7, "m": 11.0},
    steady_ms=3.5,
    presets_ms={"superfast": 7.3, "ultrafast": 4.0},
    resample_ms=1.5,
    repeatable=True,
)
AVX2 = Costs(
    decode_ms=3.0,
    bicubic_ms=1.1,
    tiers_ms={"xs": 14.0, "s": 29.0, "m": 45.0},
    steady_ms=12.0,
    presets_ms={"superfast": 13.8, "ultrafast": 8.1},
    resample_ms=3.0,
    repeatable=True,
)


def plan(costs: Costs, cores: int, *, stabilised: bool = True) -> Plan:
    return make_plan(costs, cores=cores, preset="superfast", stabilised=stabilised)


def test_a_fast_machine_of_two_cores_has_the_best_picture() -> None:
    found = plan(VNNI, 2)
    assert (found.tier, found.rung) == (Tier.M, Rung.FULL)
    assert found.fits


def test_a_slow_machine_of_two_cores_has_what_fits() -> None:
    found = plan(AVX2, 2)
    assert found.fits
    assert found.frame_ms <= found.budget_ms == 36.0
    assert found.rung in (Rung.SMALL, Rung.FAST_CODING)


def test_more_cores_give_a_better_picture_but_no_thread_more_than_a_frames_time() -> None:
    found = plan(AVX2, 16)
    # m alone, and s with its stabiliser, take longer than a frame on the engine's one thread.
    assert (found.tier, found.rung) == (Tier.S, Rung.UNSTEADIED)


def test_a_larger_output_is_paid_for_in_coding_and_a_smaller_one_spares_some() -> None:
    def frame_ms(scale: float | None) -> float:
        found = make_plan(VNNI, cores=16, preset="superfast", stabilised=True, scale=scale)
        return found.frame_ms

    assert frame_ms(None) == frame_ms(2.0)
    assert frame_ms(3.0) == pytest.approx(frame_ms(None) + 1.25 * 7.3 + 2.25 * 1.5)
    assert frame_ms(1.5) == pytest.approx(frame_ms(None) - 0.4375 * 7.3 + 1.5)


def test_what_does_not_fit_at_a_larger_output_is_a_cheaper_picture() -> None:
    own = make_plan(VNNI, cores=2, preset="superfast", stabilised=True)
    large = make_plan(VNNI, cores=2, preset="superfast", stabilised=True, scale=3.0)
    assert large.fits
    assert large.rung > own.rung or large.tier is not own.tier


def test_one_slow_core_begins_with_bicubic_and_says_so() -> None:
    found = plan(AVX2, 1)
    assert found.rung is Rung.BICUBIC
    words = found.words()
    assert words.startswith("bicubic without stabiliser")
    assert words.endswith("on one core")


def test_one_fast_core_begins_with_a_small_network_and_says_so() -> None:
    found = plan(VNNI, 1)
    assert found.fits
    assert found.words().startswith("tier xs without stabiliser")


PAIRED = replace(AVX2, pairs_ms={"xs": 8.0, "s": 16.0, "m": 25.0})
"""Two threads take a little more processor time than one, and little more than half its time."""


@pytest.mark.parametrize("cores", [8, 12, 16])
def test_many_cores_give_the_network_two_threads_and_so_a_better_picture(cores: int) -> None:
    alone, found = plan(AVX2, cores), plan(PAIRED, cores)
    assert (alone.threads, found.threads) == (1, 2)
    assert found.fits
    assert (alone.rung, found.rung) == (Rung.UNSTEADIED, Rung.FULL)
    assert "network on two threads" in found.words()


@pytest.mark.parametrize("cores", range(1, PAIR_CORES))
def test_few_cores_never_do(cores: int) -> None:
    assert plan(PAIRED, cores) == plan(AVX2, cores)


@pytest.mark.parametrize("cores", [4, 8, 16])
def test_two_threads_that_shorten_nothing_are_not_taken(cores: int) -> None:
    slow = replace(AVX2, pairs_ms={"xs": 13.0, "s": 28.0, "m": 44.0})
    assert plan(slow, cores) == plan(AVX2, cores)


@pytest.mark.parametrize("costs", [VNNI, AVX2, PAIRED])
@pytest.mark.parametrize("cores", [1, 2, 4, 8, 16])
def test_what_the_api_tells_is_the_plan(costs: Costs, cores: int) -> None:
    found = plan(costs, cores)
    told = found.info()
    assert (told.words, told.cores, told.threads) == (found.words(), cores, found.threads)
    assert (told.frame_ms, told.budget_ms) == (found.frame_ms, found.budget_ms)
    assert told.words.startswith(told.picture)


def test_where_nothing_fits_the_cheapest_is_taken_and_it_says_so() -> None:
    slow = replace(AVX2, decode_ms=30.0)
    found = plan(slow, 1)
    assert found.rung is Rung.BICUBIC
    assert not found.fits
    assert "exceeds" in found.words()


def test_without_a_stabiliser_none_is_paid_for() -> None:
    assert plan(AVX2, 16, stabilised=False).rung is Rung.FULL
    calm, plain = plan(VNNI, 2), plan(VNNI, 2, stabilised=False)
    assert calm.frame_ms - plain.frame_ms == pytest.approx(VNNI.steady_ms)


@pytest.mark.parametrize("cores", range(1, 9))
@pytest.mark.parametrize("costs", [VNNI, AVX2])
def test_a_core_more_never_makes_the_frame_cheaper(costs: Costs, cores: int) -> None:
    fewer, more = plan(costs, cores), plan(costs, cores + 1)
    assert not fewer.fits or more.fits
    assert fewer.rung >= more.rung


def test_its_words_name_the_picture_and_what_it_costs() -> None:
    assert plan(VNNI, 2).words() == (
        "tier m with stabiliser: 27.8 CPU ms a frame of 36.0 on 2 cores"
    )


def test_halves_that_differ_by_over_a_fifth_are_not_to_be_remembered() -> None:
    assert repeatable([[10.0, 10.5, 10.2, 10.1], [0.1, 0.1, 0.4, 0.4]])
    assert not repeatable([[10.0, 10.0, 12.5, 12.5]])


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("STREAMLIFT_CACHE_DIR", str(tmp_path))
    return costs_file(os.environ)


class Measured:
    """Counts measurements; each costs more than the one before."""

    def __init__(self, *, repeatable: bool = True) -> None:
        self.count = 0
        self.costs = replace(VNNI, repeatable=repeatable)

    def __call__(self, preset: str, precision: Precision) -> Costs:
        self.count += 1
        return self.costs


def ask(measured: Measured, preset: str = "superfast") -> Costs:
    return known_costs(preset, Precision.INT8, measure=measured)


def test_a_machine_is_measured_once(cache: Path) -> None:
    measured = Measured()
    assert [ask(measured), ask(measured)] == [VNNI, VNNI]
    assert measured.count == 1


def test_another_preset_is_measured_beside_the_first(cache: Path) -> None:
    measured = Measured()
    for preset in ("superfast", "veryfast", "superfast", "veryfast"):
        ask(measured, preset)
    assert measured.count == 2


def test_what_did_not_repeat_is_used_but_not_remembered(cache: Path) -> None:
    measured = Measured(repeatable=False)
    for _ in range(2):
        assert ask(measured).tiers_ms == VNNI.tiers_ms
    assert measured.count == 2
    assert not cache.exists()


def test_the_cache_lies_where_the_user_keeps_such_things() -> None:
    home = Path.home() / ".cache" / "streamlift" / "costs.json"
    assert costs_file({}) == home
    assert costs_file({"XDG_CACHE_HOME": "/x"}) == Path("/x/streamlift/costs.json")
    assert costs_file({"XDG_CACHE_HOME": "/x", "STREAMLIFT_CACHE_DIR": "/y"}) == Path(
        "/y/costs.json"
    )


@pytest.mark.parametrize("content", ["", "no JSON", "[1]", '{"x": 1}'])
def test_a_damaged_cache_is_measured_over(cache: Path, content: str) -> None:
    cache.parent.mkdir(parents=True, exist_ok=True)
    cache.write_text(content)
    assert ask(Measured()) == VNNI


def test_remembered_costs_of_another_shape_are_measured_over(cache: Path) -> None:
    ask(Measured())
    remembered = json.loads(cache.read_text())
    cache.write_text(json.dumps({key: {"decode_ms": 1.0} for key in remembered}))
    measured = Measured()
    assert ask(measured) == VNNI
    assert measured.count == 1


def test_a_cache_that_cannot_be_written_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("STREAMLIFT_CACHE_DIR", str(tmp_path / "file"))
    assert ask(Measured()) == VNNI
