"""Windows over a clip without end, memory that is short, settings, and files that are not right."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.upscalers.basicvsr.tiny import tiny_checkpoint, tiny_net
from torch import Tensor

from streamlift.errors import ConfigError, OutOfMemory, UpscaleError, WeightsError
from streamlift.frames import Size
from streamlift.upscalers import create_upscaler
from streamlift.upscalers.base import Parkable
from streamlift.upscalers.basicvsr import (
    SMALLEST_WINDOW,
    BasicVSR,
    BasicVSRSettings,
    Window,
    WindowSession,
    generator_tensors,
    load_net,
)
from streamlift.upscalers.basicvsr.blocks import one_by_one
from streamlift.upscalers.basicvsr.upscaler import _check_published

NAMES = ("basicvsrpp", "realbasicvsr")
SHORT = {"past": 2, "step": 3, "ahead": 1}
SIZE = Size(64, 68)


def upscaler(name: str, **settings: Any) -> BasicVSR:
    read = BasicVSRSettings.read(name, {**SHORT, **settings})
    return BasicVSR(name, tiny_net(name), read, device=torch.device("cpu"))


def clip(frames: int, size: Size = SIZE) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    picture = torch.rand(3, size.height + 100, size.width + 100, generator=generator)
    picture = torch.nn.functional.avg_pool2d(picture, 5, stride=1)
    return torch.stack(
        [picture[:, n : n + size.height, 2 * n : 2 * n + size.width] for n in range(frames)]
    )


def through(session: WindowSession, frames: Tensor) -> list[Tensor]:
    out = [hr for frame in one_by_one(frames) for hr in session.push(frame)]
    return out + list(session.finish())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("count", [1, 4, 10])
def test_each_frame_equals_the_net_on_the_frames_its_window_sees(name: str, count: int) -> None:
    """Windows overlap as documented, whatever the length; nothing else is carried along."""
    model, frames = upscaler(name), clip(count)
    out = through(model.open(SIZE), frames)
    assert [tuple(hr.shape) for hr in out] == [(1, 3, 136, 128)] * count
    past, step, ahead = SHORT.values()
    for begin in range(0, count, step):
        end = min(begin + step, count)
        if count < begin + step + ahead and begin:  # paid out by finish: one run for all owed
            end = count
        seen = slice(max(0, begin - past), min(count, end + ahead))
        whole = torch.cat(list(model.enlarge(frames[seen])))
        for number in range(begin, end):
            assert (out[number] - whole[number - seen.start]).abs().max() <= 1e-5


def test_what_is_seen_ahead_changes_a_frame() -> None:
    frames = clip(4)
    with_ahead = through(upscaler("realbasicvsr", ahead=2, step=2).open(SIZE), frames)
    without = through(upscaler("realbasicvsr", ahead=0, step=2).open(SIZE), frames)
    assert any(not torch.equal(a, b) for a, b in zip(with_ahead, without, strict=True))


@pytest.mark.parametrize("name", NAMES)
def test_windows_that_look_ahead_come_nearer_to_the_whole_clip(name: str) -> None:
    frames = clip(9)
    whole = torch.cat(list(upscaler(name).enlarge(frames)))
    errors = []
    for ahead in (2, 0):
        out = torch.cat(through(upscaler(name, step=5, ahead=ahead).open(SIZE), frames))
        errors.append(float(((out - whole)[:5] ** 2).mean()))
    assert errors[0] < errors[1]


def test_a_frame_that_its_owner_fills_again_stays_as_it_was_given() -> None:
    model, frames = upscaler("realbasicvsr"), clip(5)
    given, out = torch.empty(1, 3, SIZE.height, SIZE.width), list[Tensor]()
    session = model.open(SIZE)
    for frame in frames:
        given.copy_(frame)
        out += session.push(given)
    out += session.finish()
    plain = through(model.open(SIZE), frames)
    assert all(torch.equal(a, b) for a, b in zip(plain, out, strict=True))


def counting_session(window: Window, most: int) -> tuple[WindowSession, list[int]]:
    """A session on a fake net that enlarges nothing and has memory for `most` frames."""
    runs: list[int] = []

    def run(frames: Tensor, first: int) -> Iterator[Tensor]:
        runs.append(frames.shape[0])
        if frames.shape[0] > most:
            raise OutOfMemory("no memory for this window")
        yield from one_by_one(frames[first:])

    session = WindowSession("fake", window, (1, 3, 2, 2), lambda frame: frame, run)
    return session, runs


def numbered(count: int) -> Tensor:
    return torch.arange(float(count)).view(-1, 1, 1, 1).expand(count, 3, 2, 2)


@pytest.mark.parametrize("count", range(1, 41))
def test_as_many_come_out_in_order_and_wanted_tells_when(count: int) -> None:
    window = Window(past=4, step=8, ahead=4)
    session, _ = counting_session(window, most=99)
    owed, got = 0, list[float]()
    for number, frame in enumerate(one_by_one(numbered(count)), start=1):
        came = [float(hr[0, 0, 0, 0]) for hr in session.push(frame)]
        got += came
        owed += 1 - len(came)
        assert owed <= window.step + window.ahead - 1
        assert bool(came) == (number >= 12 and (number - 12) % 8 == 0)
        left = 12 - number if number < 12 else 8 - (number - 12) % 8
        assert session.wanted == left
    got += [float(hr[0, 0, 0, 0]) for hr in session.finish()]
    assert got == [float(n) for n in range(count)]


def test_what_is_kept_between_windows_does_not_grow() -> None:
    session, runs = counting_session(Window(past=5, step=30, ahead=5), most=99)
    assert len(through(session, numbered(200))) == 200
    assert set(runs[1:-1]) == {40}
    assert max(runs) == 40


@pytest.mark.parametrize("most", [39, 20, 19, 10, 6])
def test_a_window_that_memory_is_too_small_for_is_halved(
    most: int, caplog: pytest.LogCaptureFixture
) -> None:
    session, runs = counting_session(Window(past=5, step=30, ahead=5), most)
    with caplog.at_level(logging.WARNING):
        out = through(session, numbered(90))
    assert [float(hr[0, 0, 0, 0]) for hr in out] == [float(n) for n in range(90)]
    assert session.window.frames <= most
    assert sum(run > most for run in runs) == len(caplog.records) > 0  # each size is tried once


def test_memory_that_ends_in_mid_window_repeats_and_loses_nothing() -> None:
    calls = 0

    def run(frames: Tensor, first: int) -> Iterator[Tensor]:
        nonlocal calls
        calls += 1
        for number, frame in enumerate(one_by_one(frames[first:])):
            if calls == 1 and number == 7:
                raise OutOfMemory("while enlarging the eighth frame")
            yield frame

    session = WindowSession("fake", Window(5, 30, 5), (1, 3, 2, 2), lambda frame: frame, run)
    out = through(session, numbered(50))
    assert [float(hr[0, 0, 0, 0]) for hr in out] == [float(n) for n in range(50)]


def test_without_memory_for_the_smallest_window_the_error_stands() -> None:
    session, runs = counting_session(Window(past=5, step=30, ahead=5), SMALLEST_WINDOW - 1)
    with pytest.raises(OutOfMemory):
        through(session, numbered(60))
    assert runs[-1] == session.window.frames == SMALLEST_WINDOW


@pytest.mark.parametrize("name", NAMES)
def test_settings_reach_the_picture(name: str) -> None:
    frames = clip(4)
    x4 = through(upscaler(name, scale=4).open(SIZE), frames)
    x2 = through(upscaler(name).open(SIZE), frames)
    assert x4[0].shape == (1, 3, 272, 256)
    mean = torch.nn.functional.avg_pool2d(x4[1], 2)
    assert (mean - x2[1]).abs().max() < 1e-6
    size = Size(160, 144)
    half = upscaler(name, presize="half")
    assert half.spec.multiple == 8
    out = through(half.open(size), clip(4, size))
    assert out[0].shape == (1, 3, 288, 320)
    small = Size(32, 24)  # below what the flow's pyramid needs
    out = through(upscaler(name).open(small), clip(4, small))
    assert out[0].shape == (1, 3, 48, 64)


@pytest.mark.parametrize("name", NAMES)
def test_half_precision_gives_nearly_the_same_picture(name: str) -> None:
    frames = clip(5)
    full, half = (through(upscaler(name, precision=p).open(SIZE), frames) for p in ("fp32", "fp16"))
    assert half[0].dtype == torch.float16
    for a, b in zip(full, half, strict=True):
        assert (a - b.float()).abs().max() < 0.02


@pytest.mark.parametrize("name", NAMES)
def test_a_parked_stream_goes_on_as_if_it_had_not_been(name: str) -> None:
    model, frames = upscaler(name), clip(9)
    plain = through(model.open(SIZE), frames)
    session = model.open(SIZE)
    assert isinstance(session, Parkable)
    out = [hr for frame in one_by_one(frames[:5]) for hr in session.push(frame)]
    session.park()
    session.resume()
    out += through(session, frames[5:])
    assert all(torch.equal(a, b) for a, b in zip(plain, out, strict=True))


def test_a_frame_of_another_shape_and_one_after_the_end_are_refused() -> None:
    session = upscaler("basicvsrpp").open(SIZE)
    with pytest.raises(UpscaleError):
        session.push(torch.zeros(1, 3, 64, 64))
    assert list(session.finish()) == []
    with pytest.raises(UpscaleError, match="finished"):
        session.push(clip(1))
    with pytest.raises(UpscaleError, match="divide by 4"):
        upscaler("basicvsrpp").open(Size(66, 64))


@pytest.mark.parametrize("name", NAMES)
def test_live_waits_little_and_files_work_little(name: str) -> None:
    live, files = (BasicVSRSettings.read(name, {"use": u}).window for u in ("live", "files"))
    assert (live.past, live.step, live.ahead) == (4, 8, 4)
    assert (files.past, files.step, files.ahead) == (5, 30, 5)
    passes = {u: BasicVSRSettings.read(name, {"use": u}).cleaning for u in ("live", "files")}
    assert (passes["live"].threshold, passes["files"].threshold) == (255, 5)


@pytest.mark.parametrize(
    ("name", "settings", "said"),
    [
        ("basicvsrpp", {"scale": 3}, "scale"),
        ("basicvsrpp", {"scale": True}, "scale"),
        ("basicvsrpp", {"step": 0}, "step"),
        ("basicvsrpp", {"ahead": -1}, "ahead"),
        ("basicvsrpp", {"checkpoint": "reds"}, "checkpoint"),
        ("realbasicvsr", {"checkpoint": "reds4"}, "unknown"),
        ("basicvsrpp", {"clean_threshold": 5}, "unknown"),
        ("realbasicvsr", {"clean_threshold": 300}, "clean_threshold"),
        ("realbasicvsr", {"clean_passes": 4}, "clean_passes"),
        ("realbasicvsr", {"presize": "half", "scale": 4}, "presize"),
        ("realbasicvsr", {"precision": "bf16"}, "precision"),
    ],
)
def test_a_setting_that_cannot_be_is_named(name: str, settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        create_upscaler(name, settings=settings)


@pytest.mark.parametrize("name", NAMES)
def test_a_checkpoint_as_trained_is_loaded_strictly(name: str, tmp_path: Path) -> None:
    path = tiny_checkpoint(tmp_path, name)
    loaded, made = load_net(path).state_dict(), tiny_net(name).state_dict()
    assert loaded.keys() == made.keys()
    assert all(torch.equal(loaded[key], made[key]) for key in made)
    assert create_upscaler(name, settings={"path": str(path)}).spec.name == name
    other = NAMES[1 - NAMES.index(name)]
    with pytest.raises(ConfigError, match="use that backend"):
        create_upscaler(other, settings={"path": str(path)})
    with pytest.raises(ConfigError, match="another size"):
        _check_published(name, load_net(path))


def test_of_what_was_trained_the_average_wins() -> None:
    one, two = torch.ones(1), torch.full((1,), 2.0)
    together = {"generator.a": one, "generator_ema.a": two, "discriminator.a": one}
    for loaded in ({"state_dict": together}, together):
        assert generator_tensors(loaded, where="x")["a"] is two
    assert generator_tensors({"state_dict": {"generator.a": one}}, where="x") == {"a": one}
    assert generator_tensors({"a": one, "step_counter": two}, where="x") == {"a": one}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t.pop("generator.{p}upsample1.upsample_conv.weight"), "missing"),
        (lambda t: t.update({"generator.more": torch.zeros(1)}), "unexpected more"),
        (lambda t: t.update({"generator.{p}conv_last.bias": torch.zeros(4)}), "misshapen"),
        (lambda t: t.pop("generator.{p}conv_hr.weight"), "conv_hr"),
    ],
)
def test_a_file_that_is_not_the_net_is_refused(
    name: str, change: Callable[[dict[str, Tensor]], object], said: str, tmp_path: Path
) -> None:
    path = tiny_checkpoint(tmp_path, name)
    loaded = torch.load(path, weights_only=True)
    prefix = "basicvsr." if name == "realbasicvsr" else ""

    class Named(dict[str, Tensor]):
        def pop(self, key: str) -> Tensor:  # type: ignore[override]
            return super().pop(key.format(p=prefix))

        def update(self, more: dict[str, Tensor]) -> None:  # type: ignore[override]
            super().update({key.format(p=prefix): value for key, value in more.items()})

    tensors = Named(loaded["state_dict"])
    change(tensors)
    torch.save({"state_dict": dict(tensors)}, path)
    with pytest.raises(WeightsError, match=said):
        load_net(path)


class Malicious:
    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("harm"),))


def test_code_in_a_checkpoint_is_never_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": Malicious()}, tmp_path / "bad.pth")
    with pytest.raises(WeightsError, match="code or objects"):
        load_net(tmp_path / "bad.pth")
    assert not (tmp_path / "harm").exists()


@pytest.mark.parametrize("name", NAMES)
def test_the_memory_of_a_session_grows_with_window_and_picture(name: str) -> None:
    short, long = upscaler(name), upscaler(name, step=30)
    assert short.session_bytes(SIZE) < long.session_bytes(SIZE)
    assert short.session_bytes(SIZE) < short.session_bytes(Size(512, 512))
    half = upscaler(name, presize="half")
    assert half.session_bytes(Size(512, 512)) == short.session_bytes(Size(256, 256))
