"""The laws that every upscaler keeps; a new one adds a line to `UPSCALERS`.

As many frames out as in, in order; never more owed than the spec says; sessions know nothing of
each other; sizes that are no multiple work (the engine pads); constant memory.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import zip_longest

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.clips import picture

from streamlift.clock import ManualClock
from streamlift.engine.chain import UpscaleChain
from streamlift.frames import Colour, Frame, Planes, Size, Stabilise
from streamlift.upscalers import Pixels, Upscaler, create_upscaler
from streamlift.upscalers.bicubic import Bicubic
from streamlift.upscalers.compact import Compact, Tier
from streamlift.upscalers.toy import Toy, ToyKnobs


def _realesrgan() -> Upscaler:
    """The frame path with a net that only enlarges: an untrained one shows noise."""
    torch = pytest.importorskip("torch", reason="RealESRGAN needs torch")
    from streamlift.upscalers.realesrgan import RealESRGAN, SRVGGConfig, SRVGGNetCompact

    net = SRVGGNetCompact(SRVGGConfig(2, convs=1, features=4)).eval()
    for weights in net.parameters():
        weights.data.mul_(0.01)
    return RealESRGAN(net, name="realesrgan-x2", device=torch.device("cpu"))


def _flashvsr(start: str) -> Upscaler:
    """The tiny network with random weights: the real one's data flow."""
    pytest.importorskip("torch", reason="FlashVSR needs torch")
    return create_upscaler("flashvsr-tiny-random", device="cpu", settings={"start": start})


def _basicvsr() -> Upscaler:
    """Its windows and sizes, around a net that only enlarges: even a tiny one takes seconds."""
    torch = pytest.importorskip("torch", reason="BasicVSR++ needs torch")
    from tests.upscalers.basicvsr.tiny import plain_net

    from streamlift.upscalers.basicvsr import BasicVSR, BasicVSRSettings

    settings = BasicVSRSettings.read("basicvsrpp", {})
    return BasicVSR("basicvsrpp", plain_net(), settings, device=torch.device("cpu"))


def _swiftvr(**settings: object) -> Upscaler:
    """The tiny network with made-up weights: the real one's data flow."""
    pytest.importorskip("torch", reason="SwiftVR needs torch")
    return create_upscaler("swiftvr-tiny-random", device="cpu", settings=settings)


UPSCALERS: dict[str, Callable[[], Upscaler]] = {
    "basicvsrpp": _basicvsr,
    "bicubic": Bicubic,
    "bicubic-x4": lambda: Bicubic(4),
    "compact": lambda: Compact(Tier.XS),
    "flashvsr-full": lambda: _flashvsr("full"),
    "flashvsr-primed": lambda: _flashvsr("primed"),
    "realesrgan": _realesrgan,
    "swiftvr-full": lambda: _swiftvr(start="full"),
    "swiftvr-primed": _swiftvr,
    "swiftvr-one-latent": lambda: _swiftvr(latents=1, overlap=1),
    "toy": Toy,
    "toy-full": lambda: Toy(ToyKnobs(first=25, step=8, lag=4)),
    "toy-primed": lambda: Toy(ToyKnobs(first=1, step=8, lag=4)),
    "toy-lag-only": lambda: Toy(ToyKnobs(first=3, step=1, lag=2)),
    "toy-step-only": lambda: Toy(ToyKnobs(first=5, step=5, lag=0)),
}
SMALL = Size(128, 128)


@pytest.fixture(params=UPSCALERS)
def upscaler(request: pytest.FixtureRequest) -> Upscaler:
    return UPSCALERS[request.param]()


@pytest.mark.parametrize("count", [0, 1, 2, 7, 25, 26, 61])
def test_as_many_frames_come_out_as_went_in_and_in_order(upscaler: Upscaler, count: int) -> None:
    chain = _chain(upscaler)
    out = [done.frame.pts for n in range(count) for done in chain.push(_frame(n))]
    out += [done.frame.pts for done in chain.finish()]
    assert out == list(range(count))


def test_every_output_shows_the_frame_it_is_said_to_show(upscaler: Upscaler) -> None:
    chain = _chain(upscaler)
    scale = upscaler.spec.scale
    done = [d for n in range(30) for d in chain.push(_frame(n))] + list(chain.finish())
    for upscaled in done:
        middle = upscaled.planes.y[scale // 2 :: scale, scale // 2 :: scale]
        if upscaler.spec.name.startswith("swiftvr"):
            # The made-up one carries each latent's brightness: the right one is the nearest.
            number = upscaled.frame.pts
            near = range(number - 3, number + 4)
            assert min(near, key=lambda n: _apart(middle, _frame(n).planes.y, 8)) == number
            continue
        # The right picture is far nearer than its neighbours, which are shifted by 3 pixels.
        assert _apart(middle, upscaled.frame.planes.y) < 12, upscaled.frame.pts


def test_never_more_is_owed_than_the_spec_allows(upscaler: Upscaler) -> None:
    chain, owed = _chain(upscaler), 0
    for number in range(3 * (upscaler.spec.first + upscaler.spec.step)):
        owed += 1 - len(list(chain.push(_frame(number))))
        assert 0 <= owed <= upscaler.spec.max_owed


def test_wanted_counts_down_to_the_next_computation(upscaler: Upscaler) -> None:
    session = upscaler.open(SMALL)
    counts, wanted = [], []
    for number in range(2 * (upscaler.spec.first + upscaler.spec.step)):
        wanted.append(session.wanted)
        counts.append(len(list(session.push(_input(upscaler, number)))))
    spec = upscaler.spec
    assert wanted[: spec.first + spec.step] == [
        *range(spec.first, 0, -1),
        *range(spec.step, 0, -1),
    ]
    assert next(n for n, count in enumerate(counts) if count) == spec.first - 1
    assert all(left == 1 for left, count in zip(wanted, counts, strict=True) if count)


@pytest.mark.parametrize("size", [Size(64, 64), Size(130, 66), Size(66, 190), Size(254, 254)])
def test_any_even_size_gives_exactly_its_multiple(upscaler: Upscaler, size: Size) -> None:
    chain = _chain(upscaler)
    done = [*chain.push(_frame(0, size)), *chain.finish()]
    assert [d.planes.size for d in done] == [size.times(upscaler.spec.scale)]


def test_two_interleaved_sessions_equal_two_separate_ones(upscaler: Upscaler) -> None:
    alone = [_run(upscaler, range(start, start + 20)) for start in (0, 500)]
    chains, mixed = (_chain(upscaler), _chain(upscaler)), ([], [])  # type: ignore[var-annotated]
    for number in range(20):
        for start, chain, out in zip((0, 500), chains, mixed, strict=True):
            out += [d.planes for d in chain.push(_frame(start + number))]
    for chain, out in zip(chains, mixed, strict=True):
        out += [d.planes for d in chain.finish()]
    for separate, together in zip(alone, mixed, strict=True):
        assert _same(separate, together)


def test_no_session_remembers_an_earlier_one(upscaler: Upscaler) -> None:
    first = _run(upscaler, range(20))
    _run(upscaler, range(700, 731))
    assert _same(first, _run(upscaler, range(20)))


def test_an_abandoned_session_leaves_no_trace(upscaler: Upscaler) -> None:
    first = _run(upscaler, range(10))
    session = upscaler.open(SMALL)
    for number in range(3):
        list(session.push(_input(upscaler, 900 + number)))
    assert _same(first, _run(upscaler, range(10)))


def test_a_finished_session_owes_nothing(upscaler: Upscaler) -> None:
    session = upscaler.open(SMALL)
    list(session.push(_input(upscaler, 0)))
    list(session.finish())
    assert list(session.finish()) == []


@pytest.mark.long
def test_thousands_of_frames_pass(upscaler: Upscaler) -> None:
    chain, count = _chain(upscaler), 0
    frame = _frame(0, Size(64, 64))
    # The tests of FlashVSR and SwiftVR run 5,000 through their smallest networks.
    frames = 200 if upscaler.spec.name.startswith(("flashvsr", "swiftvr", "basicvsr")) else 5000
    for _ in range(frames):
        count += sum(1 for _ in chain.push(frame))
    count += sum(1 for _ in chain.finish())
    assert count == frames


def test_the_memory_a_session_takes_is_told_before(upscaler: Upscaler) -> None:
    assert 0 <= upscaler.session_bytes(Size(64, 64)) <= upscaler.session_bytes(Size(512, 512))


@settings(max_examples=25, deadline=None)
@given(
    first=st.integers(1, 9),
    step=st.integers(1, 9),
    lag=st.integers(0, 9),
    count=st.integers(0, 40),
    cut=st.integers(0, 40),
)
def test_the_laws_hold_for_any_chunking_and_any_change_of_size(
    first: int, step: int, lag: int, count: int, cut: int
) -> None:
    if lag >= first + step:
        return
    chain = _chain(Toy(ToyKnobs(first=first, step=step, lag=lag)))
    sizes = [Size(64, 64) if number < cut else Size(66, 64) for number in range(count)]
    done = [d for n, size in enumerate(sizes) for d in chain.push(_frame(n, size))]
    done += chain.finish()
    assert [d.frame.pts for d in done] == list(range(count))
    assert [d.planes.size for d in done] == [size.times(2) for size in sizes]


def _apart(one: np.ndarray, other: np.ndarray, block: int = 1) -> float:
    """The mean difference of two planes, each averaged over square blocks."""
    difference = one.astype(float) - other
    height, width = difference.shape
    cells = difference.reshape(height // block, block, width // block, block)
    return float(np.abs(cells.mean((1, 3))).mean())


def _chain(upscaler: Upscaler) -> UpscaleChain:
    return UpscaleChain(upscaler, "cpu", Stabilise.OFF, clock=ManualClock())


def _run(upscaler: Upscaler, numbers: range) -> list[Planes]:
    chain = _chain(upscaler)
    out = [d.planes for number in numbers for d in chain.push(_frame(number))]
    return out + [d.planes for d in chain.finish()]


def _same(a: list[Planes], b: list[Planes]) -> bool:
    return all(
        p is not None
        and q is not None
        and all(np.array_equal(getattr(p, c), getattr(q, c)) for c in "yuv")
        for p, q in zip_longest(a, b)
    )


def _frame(number: int, size: Size = SMALL) -> Frame:
    shown = picture(size, number, stamped=False)
    return Frame(number, size, shown, Colour(), arrived_s=0.0)


def _input(upscaler: Upscaler, number: int) -> object:
    """A picture in the form that the model itself takes."""
    planes = picture(SMALL, number, stamped=False)
    if upscaler.spec.pixels is Pixels.YUV420:
        return planes
    from streamlift.engine.yuv import planes_to_rgb

    return planes_to_rgb(planes, Colour(), "cpu")
