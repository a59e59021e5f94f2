"""What Scope may rely on of the post-processor; called as Scope calls it, without Scope."""

from __future__ import annotations

import logging
import queue
import sys
import threading
from fractions import Fraction
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from tests.integrations.scope.conftest import MakeUpscale
from tests.integrations.scope.models_for_tests import NearestChunks
from tests.integrations.scope.player import SIDE, number_in, picture
from torch import Tensor

from streamlift.clock import ManualClock
from streamlift.errors import WeightsError
from streamlift.frames import Stabilise
from streamlift.integrations.scope.postprocessor import (
    Upscale,
    UpscaleFlashVsr,
    UpscaleRealEsrgan,
)
from streamlift.upscalers import create_upscaler
from streamlift.upscalers.base import OnCut, Upscaler


def feed(
    upscale: Upscale, numbers: range, *, pause_s: float = 1 / 16, **params: Any
) -> list[Tensor]:
    """One frame a call; the frames (H, W, 3) that came back."""
    assert isinstance(upscale.clock, ManualClock)
    out: list[Tensor] = []
    for number in numbers:
        upscale.clock.advance(pause_s)
        video = upscale(video=[picture(number)], **params)["video"]
        out.extend(() if video is None else video)
    return out


def numbers_of(frames: list[Tensor]) -> list[int]:
    return [number_in(frame) for frame in frames]


def test_it_asks_for_one_frame_always(make: MakeUpscale) -> None:
    assert make(upscale_model="bicubic").prepare(video=True, anything=1).input_size == 1


def test_until_a_step_is_complete_the_video_is_none_and_then_a_whole_step(
    make: MakeUpscale,
) -> None:
    upscale = make(upscale_model="realesrgan-x2")
    results = [upscale(video=[picture(n)])["video"] for n in range(4)]
    assert results[:3] == [None] * 3
    assert results[3].shape == (4, 2 * SIDE, 2 * SIDE, 3)
    assert results[3].dtype == torch.uint8


def test_a_chunked_model_gets_its_steps_and_owes_what_it_must(make: MakeUpscale) -> None:
    upscale = make(upscale_model="flashvsr")
    sizes = []
    for n in range(25):
        video = upscale(video=[picture(n)])["video"]
        sizes.append(0 if video is None else video.shape[0])
    assert [s for s in sizes if s] == [1, 4, 8, 8]


def test_each_step_says_at_what_rate_to_play(make: MakeUpscale, clock: ManualClock) -> None:
    upscale = make(upscale_model="bicubic")
    rate = 0.0
    for n in range(80):
        clock.advance(1 / 20)
        rate = upscale(video=[picture(n)]).get("frame_rate", rate)
    assert rate == pytest.approx(20.0, rel=0.05)


def test_off_gives_frames_back_untouched(make: MakeUpscale) -> None:
    noise = torch.randint(0, 256, (4, 1, 34, 62, 3), dtype=torch.uint8)
    upscale = make(upscale_model="off")
    results = [upscale(video=[noise[n]])["video"] for n in range(4)]
    assert torch.equal(results[-1], noise[:, 0])


def test_heights_widths_and_strange_parameters_are_taken_and_ignored(make: MakeUpscale) -> None:
    upscale = make(height=512, width=512, base_seed=42, upscale_model="bicubic")
    frames = feed(upscale, range(4), prompts=[{"text": "x"}], upscale_model="not ours", noise=0.1)
    assert numbers_of(frames) == list(range(4))


def test_no_timestamps_go_out_so_that_the_rate_is_followed(make: MakeUpscale) -> None:
    upscale = make(upscale_model="flashvsr")
    for n in range(9):
        stamp = SimpleNamespace(pts=n, time_base=Fraction(1, 16))
        result = upscale(video=[picture(n)], video_timestamps=[stamp])
        assert not [key for key in result if key.endswith("timestamps")]


def test_sound_comes_back_once_with_the_frame_it_came_with(make: MakeUpscale) -> None:
    upscale = make(upscale_model="flashvsr")
    pieces = [torch.full((2, 480), float(n)) for n in range(3)]
    got: list[tuple[float, int]] = []
    given = 0
    for n in range(40):
        # A generator's piece stays among the parameters until the next one.
        result = upscale(video=[picture(n)], audio=pieces[min(n // 8, 2)], audio_sample_rate=48_000)
        given += 0 if result["video"] is None else len(result["video"])
        if "audio" in result:
            assert result["audio_sample_rate"] == 48_000
            got.append((float(result["audio"][0, 0]), given))
    assert [piece for piece, _ in got] == [0.0, 1.0, 2.0]
    for piece, frames in got:
        assert frames > 8 * piece  # frame 8 came with piece 1, and has been given back
    assert got[0][1] == 1


def test_sound_without_a_rate_or_of_a_session_that_was_reset_is_not_given_back(
    make: MakeUpscale,
) -> None:
    upscale = make(upscale_model="flashvsr")
    piece = torch.zeros(1, 480)
    results = [upscale(video=[picture(0)], audio=piece, init_cache=False)]
    results += [
        upscale(video=[picture(n)], audio=piece, audio_sample_rate=24_000) for n in range(1, 6)
    ]
    results += [upscale(video=[picture(n)], init_cache=True) for n in range(6, 30)]
    assert not [r for r in results if "audio" in r]


def test_without_prepare_a_call_may_bring_any_number_of_frames(make: MakeUpscale) -> None:
    upscale = make(upscale_model="flashvsr")
    shown: list[Tensor] = []
    for first in range(0, 40, 5):
        video = upscale(video=[picture(n) for n in range(first, first + 5)])["video"]
        shown.extend(() if video is None else video)
    assert numbers_of(shown) == list(range(len(shown)))
    assert len(shown) > 24


def test_a_size_that_is_no_multiple_is_padded_and_cropped_back(make: MakeUpscale) -> None:
    upscale = make(lambda choice, device: NearestChunks(multiple=32), upscale_model="flashvsr")
    video = upscale(video=[torch.full((1, 50, 70, 3), 77, dtype=torch.uint8)])["video"]
    assert video.shape == (1, 100, 140, 3)
    assert (video == 77).all()


def test_a_change_of_size_inside_a_call_loses_no_frame(make: MakeUpscale) -> None:
    upscale = make(upscale_model="flashvsr")
    small, large = [picture(n) for n in range(3)], [picture(n, 128) for n in range(3, 12)]
    frames: list[Tensor] = []
    for call in ([small[0]], [small[1], small[2], *large], [], []):
        video = upscale(video=call)["video"]
        frames.extend(() if video is None else video)
    assert [f.shape[0] for f in frames] == [128] * 3 + [256] * 5
    assert [number_in(f, f.shape[0] // 2) for f in frames] == [*range(8)]


def test_init_cache_forgets_what_was_collected_once(make: MakeUpscale) -> None:
    upscale = make(upscale_model="flashvsr")
    feed(upscale, range(5), init_cache=False)
    # Scope repeats the flag until a call has given something.
    frames = feed(upscale, range(100, 110), init_cache=True)
    assert numbers_of(frames) == [100, 101, 102, 103, 104]


def test_out_of_memory_gives_every_frame_back_bicubic_and_says_so(
    make: MakeUpscale, caplog: pytest.LogCaptureFixture
) -> None:
    upscale = make(
        lambda choice, device: NearestChunks(out_of_memory_at=12), upscale_model="flashvsr"
    )
    frames = feed(upscale, range(40))
    assert numbers_of(frames) == list(range(len(frames)))
    assert len(frames) > 32
    assert "bicubic takes its place" in caplog.text


def test_any_other_failure_of_a_model_loses_no_frame_either(make: MakeUpscale) -> None:
    upscale = make(lambda choice, device: NearestChunks(fail_at=3), upscale_model="flashvsr")
    frames = feed(upscale, range(20))
    assert numbers_of(frames) == list(range(len(frames)))


def test_after_a_failure_the_model_is_tried_again_in_a_new_session(make: MakeUpscale) -> None:
    made: list[NearestChunks] = []

    def create(choice: str, device: torch.device) -> Upscaler:
        made.append(NearestChunks(out_of_memory_at=0 if not made else -1))
        return made[-1]

    upscale = make(create, upscale_model="flashvsr")
    feed(upscale, range(12))
    feed(upscale, range(1), init_cache=True)
    upscale._models.wait("flashvsr")
    assert len(made) == 2


def missing(choice: str, device: torch.device) -> Upscaler:
    raise WeightsError("not there")


def test_missing_weights_are_said_once_and_bicubic_takes_their_place(
    make: MakeUpscale, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        upscale = make(missing)
        frames = feed(upscale, range(16))
    assert numbers_of(frames) == list(range(16))
    assert caplog.text.count("not there") == 1


def test_missing_weights_are_told_in_the_picture_until_another_choice(make: MakeUpscale) -> None:
    pytest.importorskip("PIL")
    upscale = make(missing)

    def lowest_row(choice: str) -> int:
        grey = [torch.full((1, 256, 256, 3), 90, dtype=torch.uint8)] * 4
        video = upscale(video=grey, upscale_model=choice)["video"]
        assert video is not None
        assert (video[:, : 2 * 256 - 40] == 90).all()  # the picture itself is left alone
        return int(video[-1, -20:, :, 0].max()) - int(video[-1, -20:, :, 0].min())

    assert lowest_row("realesrgan-x2") > 150
    assert lowest_row("bicubic") == 0


@pytest.mark.parametrize(
    ("stage", "params"),
    [
        (UpscaleFlashVsr, {}),
        (UpscaleRealEsrgan, {}),
        (Upscale, {"upscale_model": "flashvsr"}),
        (UpscaleRealEsrgan, {"upscale_model": "flashvsr"}),
    ],
)
def test_a_model_named_at_loading_that_is_not_there_stops_the_loading(
    make: MakeUpscale, stage: type[Upscale], params: dict[str, Any]
) -> None:
    make(missing, upscale_model="bicubic")
    with pytest.raises(WeightsError, match="not there"):
        stage(**params)


def test_a_queue_that_is_emptied_for_one_frame_is_found_out_and_asked_for_more(
    make: MakeUpscale, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Drains:
        def prepare_chunk(self, waiting: queue.Queue[Any], size: int) -> list[Any]:
            return [[waiting.get_nowait() for _ in range(waiting.qsize())][-1]]

    class Samples:
        def prepare_chunk(self, waiting: queue.Queue[Any], size: int) -> list[Any]:
            return [waiting.get_nowait()]

    class Unknown:
        def prepare_chunk(self, waiting: queue.Queue[Any], size: int) -> list[Any]:
            return [self.nothing_like_it]  # type: ignore[attr-defined]

    asked = {}
    for processor in (Drains, Samples, Unknown):
        module = ModuleType("scope.server.pipeline_processor")
        vars(module)["PipelineProcessor"] = processor
        for name in ("scope", "scope.server"):
            monkeypatch.setitem(sys.modules, name, ModuleType(name))
        monkeypatch.setitem(sys.modules, module.__name__, module)
        upscale = make(upscale_model="bicubic")
        before = upscale.prepare(video=True).input_size
        for _ in range(3):
            upscale(video=[picture(n) for n in range(12)])
            assert isinstance(upscale.clock, ManualClock)
            upscale.clock.advance(0.5)
        asked[processor.__name__] = (before, upscale.prepare(video=True).input_size)
    assert asked == {"Drains": (4, 12), "Samples": (1, 1), "Unknown": (1, 1)}
    assert caplog.text.count("drops the others") == 1


def test_a_model_that_loads_while_the_stream_runs_does_not_hold_it_up(make: MakeUpscale) -> None:
    may_load = threading.Event()

    def create(choice: str, device: torch.device) -> Upscaler:
        if choice == "realesrgan-x2":
            assert may_load.wait(10)
        return NearestChunks(first=1, step=1, lag=0)

    upscale = make(create, upscale_model="bicubic")
    before = feed(upscale, range(8), upscale_model="realesrgan-x2")
    may_load.set()
    upscale._models.wait("realesrgan-x2")
    after = feed(upscale, range(8, 16), upscale_model="realesrgan-x2")
    assert numbers_of(before + after) == list(range(16))
    (session,) = (seat.session for seat in upscale._sessions.values())
    assert session._current().choice == "realesrgan-x2"


def test_a_second_session_gets_its_own_frames_back_bicubic(
    make: MakeUpscale, caplog: pytest.LogCaptureFixture
) -> None:
    upscale = make(upscale_model="flashvsr")
    first = feed(upscale, range(1))
    second: list[Tensor] = []
    thread = threading.Thread(target=lambda: second.extend(feed(upscale, range(500, 508))))
    thread.start()
    thread.join()
    first += feed(upscale, range(1, 9))
    assert numbers_of(first) == [0, 1, 2, 3, 4]
    assert numbers_of(second) == list(range(500, 508))
    assert caplog.text.count("second session") == 1


def test_when_the_first_session_has_ended_the_next_gets_the_model(make: MakeUpscale) -> None:
    upscale = make(upscale_model="flashvsr")
    thread = threading.Thread(target=feed, args=(upscale, range(2)))
    thread.start()
    thread.join()
    assert len(feed(upscale, range(1))) == 1  # a primed chunked model answers the first frame


def test_a_cut_restarts_a_model_that_asks_for_it(make: MakeUpscale) -> None:
    model = NearestChunks(on_cut=OnCut.RESTART)
    upscale = make(lambda choice, device: model, upscale_model="flashvsr")
    shades = [*range(60, 69), *range(200, 211)]
    shown: list[int] = []
    for shade in shades:
        video = upscale(video=[torch.full((1, 32, 32, 3), shade, dtype=torch.uint8)])["video"]
        shown.extend(() if video is None else (int(v) for v in video[:, 0, 0, 0]))
    assert len(model.opened) == 2
    assert shown == shades[: len(shown)]
    assert len(shown) >= 10


def test_slower_than_the_source_whole_steps_are_skipped_and_counted(
    make: MakeUpscale, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    upscale = make(upscale_model="flashvsr")
    frames: list[Tensor] = []
    for number in range(961):
        # Never a pause: a step of eight takes as long as the calls between two clock readings.
        video = upscale(video=[picture(number)])["video"]
        frames.extend(() if video is None else video)
        if number % 8 == 0:
            upscale._sessions[threading.current_thread()].session._backlog.returned(
                clock.now_s() + 0.1
            )
            clock.advance(0.1)
    (session,) = (seat.session for seat in upscale._sessions.values())
    shown = numbers_of(frames)
    assert session.counts["skipped"] >= 40
    assert session.counts["skipped"] % 8 == 0
    assert shown == sorted(set(shown))
    assert "slower than the source" in caplog.text


def test_the_stabiliser_calms_flicker_and_keeps_every_frame(make: MakeUpscale) -> None:
    def flicker_of(stabilise: str) -> float:
        generator = torch.Generator().manual_seed(1)
        still = torch.randint(60, 180, (1, 64, 64, 3), generator=generator, dtype=torch.uint8)
        upscale = make(upscale_model="off", upscale_stabilise=stabilise)
        out: list[Tensor] = []
        for _ in range(16):
            noise = torch.randint(-3, 4, still.shape, generator=generator)
            frame = (still.int() + noise).to(torch.uint8)
            video = upscale(video=[frame])["video"]
            out.extend(() if video is None else video)
        assert len(out) == 16
        late = torch.stack(out[8:]).float().mean(dim=-1)
        return float((late[1:] - late[:-1]).abs().mean())

    pytest.importorskip("cv2")
    assert flicker_of("strong") < 0.75 * flicker_of("off")


def test_the_form_offers_the_model_as_a_runtime_field_of_a_video_postprocessor() -> None:
    config = Upscale.get_config_class()
    assert config.usage == ["postprocessor"]
    assert list(config.modes) == ["video"]
    assert not config.supports_prompts
    field: Any = config.upscale_model
    assert field.json_schema_extra["ui"]["is_load_param"] is False


def test_the_gpus_stabiliser_calms_too_and_leaves_a_still_picture_alone() -> None:
    from streamlift.integrations.scope.calming import GpuCalming

    generator = torch.Generator().manual_seed(1)
    still = torch.randint(60, 180, (1, 64, 64, 3), generator=generator, dtype=torch.uint8)
    calming = GpuCalming(Stabilise.STRONG)
    flicker, before = 0.0, still
    for _ in range(8):
        noise = torch.randint(-6, 7, (1, 128, 128, 3), generator=generator)
        large = still.repeat_interleave(2, 1).repeat_interleave(2, 2)
        after = calming.apply(still, (large.int() + noise).to(torch.uint8))
        if before.shape == after.shape:
            flicker = float((after.float() - before.float()).abs().mean())
        before = after
    assert flicker < 3.0  # the noise alone: 4.3
    calming.reset()
    for _ in range(3):
        assert (calming.apply(still, large).int() - large.int()).abs().max() <= 1


@pytest.mark.parametrize("model", ["flashvsr", "swiftvr"])
def test_the_networks_of_a_video_model_run_as_the_stages_model(
    make: MakeUpscale, model: str
) -> None:
    def create(choice: str, device: torch.device) -> Upscaler:
        return create_upscaler(f"{model}-tiny-random", device=str(device), settings={})

    upscale = make(create, upscale_model=model)
    frames = feed(upscale, range(17))
    frames += feed(upscale, range(17, 80), upscale_model="bicubic")
    assert {tuple(f.shape) for f in frames} == {(2 * SIDE, 2 * SIDE, 3)}
    assert numbers_of(frames) == list(range(77))  # three wait for their step
