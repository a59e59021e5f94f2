"""The laws of an upscale session, on the tiny random model."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from streamlift.errors import ConfigError, OutOfMemory, UpscaleError
from streamlift.frames import Size
from streamlift.stamp import draw_stamp, read_stamp
from streamlift.upscalers import Parkable, create_upscaler
from streamlift.upscalers.flashvsr.chunks import Chunks
from streamlift.upscalers.flashvsr.colour import ColourFix
from streamlift.upscalers.flashvsr.config import (
    DecoderConfig,
    DitConfig,
    ModelConfig,
    ProjectorConfig,
    VaeConfig,
    flashvsr,
    flashvsr_full,
)
from streamlift.upscalers.flashvsr.model import Model
from streamlift.upscalers.flashvsr.rope import Rotation, SpatialRope
from streamlift.upscalers.flashvsr.session import FlashVsrSession
from streamlift.upscalers.flashvsr.settings import Settings, Start
from streamlift.upscalers.flashvsr.tiny import create_tiny_random, random_model
from streamlift.upscalers.flashvsr.upscaler import FlashVsr

near = partial(torch.testing.assert_close, rtol=0)
SMALL = Size(64, 64)


@pytest.fixture(scope="module")
def primed() -> FlashVsr:
    return create_tiny_random("cpu", {})


@pytest.fixture(scope="module")
def full() -> FlashVsr:
    return create_tiny_random("cpu", {"start": "full"})


# Counts ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [0, 1, 2, 4, 5, 8, 9, 12, 13, 16, 17, 18])
def test_a_primed_stream_gives_back_as_many_frames_as_it_took(primed: FlashVsr, count: int) -> None:
    assert len(_all(primed.open(SMALL), _video(count))) == count


@pytest.mark.parametrize("count", [0, 1, 20, 21, 24, 25, 26, 29, 32, 33, 34])
def test_a_full_stream_gives_back_as_many_frames_as_it_took(full: FlashVsr, count: int) -> None:
    assert len(_all(full.open(SMALL), _video(count))) == count


def test_a_primed_stream_answers_the_first_frame_at_once_then_eight_by_eight(
    primed: FlashVsr,
) -> None:
    counts, wanted = _counts(primed, 25)
    assert counts == [1] + [0] * 7 + [4] + ([0] * 7 + [8]) * 2
    assert wanted == [1, *([8, 7, 6, 5, 4, 3, 2, 1] * 3)]


def test_a_full_stream_answers_after_25_frames_then_eight_by_eight(full: FlashVsr) -> None:
    counts, wanted = _counts(full, 41)
    assert counts == [0] * 24 + [21] + ([0] * 7 + [8]) * 2
    assert wanted == [*range(25, 0, -1), *([8, 7, 6, 5, 4, 3, 2, 1] * 2)]


@pytest.mark.parametrize("name", ["primed", "full"])
def test_never_more_is_owed_than_the_spec_says(name: str, request: pytest.FixtureRequest) -> None:
    upscaler = request.getfixturevalue(name)
    counts, _ = _counts(upscaler, 50)
    owed = [taken + 1 - sum(counts[: taken + 1]) for taken in range(50)]
    assert max(owed) == upscaler.spec.max_owed


def test_the_first_latent_of_a_chunk_is_given_before_the_second(primed: FlashVsr) -> None:
    session = primed.open(SMALL)
    video = _video(17)
    groups = [[g.shape[0] for g in session.push(frame)] for frame in video]
    assert groups[16] == [4, 4]


# Content ---------------------------------------------------------------------------------------


def test_outputs_are_twice_as_large_and_within_range(primed: FlashVsr) -> None:
    frames = torch.cat(_all(primed.open(Size(128, 64)), _video(9, Size(128, 64))))
    assert frames.shape == (9, 3, 128, 256)
    assert frames.dtype is torch.float32
    assert frames.min() >= 0
    assert frames.max() <= 1


def test_every_output_shows_the_input_of_the_same_number(primed: FlashVsr) -> None:
    video = torch.cat(_video(21))
    out = torch.cat(_all(primed.open(SMALL), list(torch.split(video, 1))))
    brightness = video.mean((1, 2, 3))
    near(out.mean((1, 2, 3)), brightness, atol=0.02)


@pytest.mark.parametrize("start", ["primed", "full"])
def test_a_stamp_drawn_into_the_input_is_read_from_the_output(start: str) -> None:
    session = create_tiny_random("cpu", {"start": start}).open(Size(128, 128))
    numbers = []
    for frame in _all(session, [_stamped(number) for number in range(27)]):
        luma = (frame[0, 1] * 255).round().byte().numpy()
        stamp = read_stamp(luma, scale=2)
        numbers.append(None if stamp is None else stamp.number)
    assert numbers == list(range(27))


def test_a_four_times_enlargement_runs() -> None:
    upscaler = create_tiny_random("cpu", {"scale": 4})
    assert upscaler.spec.multiple == 32
    frames = torch.cat(_all(upscaler.open(Size(32, 32)), _video(5, Size(32, 32))))
    assert frames.shape == (5, 3, 128, 128)


def test_decoding_together_gives_the_same_frames(primed: FlashVsr) -> None:
    together = create_tiny_random("cpu", {"decode_together": True})
    video = _video(13)
    near(_joined(together, video), _joined(primed, video), atol=1e-5)


@pytest.mark.long
def test_full_and_tiny_decoders_share_the_session() -> None:
    settings = {"start": "full", "decode_together": True}
    tiny = create_tiny_random("cpu", settings)
    model = _with_vae(tiny)
    upscaler = FlashVsr("full", model, tiny.settings)
    assert len(_all(upscaler.open(SMALL), _video(30))) == 30


# Independence ----------------------------------------------------------------------------------


def test_interleaved_streams_equal_separate_ones(primed: FlashVsr) -> None:
    videos = [_video(13, seed=1), _video(13, seed=2)]
    separate = [_joined(primed, video, seed=n) for n, video in enumerate(videos)]
    sessions = [primed.open(SMALL, seed=n) for n in range(2)]
    outputs: list[list[Tensor]] = [[], []]
    for pair in zip(*videos, strict=True):
        for session, frame, out in zip(sessions, pair, outputs, strict=True):
            out.extend(session.push(frame))
    for session, out in zip(sessions, outputs, strict=True):
        out.extend(session.finish())
    for found, expected in zip(outputs, separate, strict=True):
        assert torch.equal(torch.cat(found), expected)


def test_a_session_after_another_equals_one_of_a_fresh_model(primed: FlashVsr) -> None:
    _joined(primed, _video(20, seed=5))
    video = _video(13)
    assert torch.equal(_joined(primed, video), _joined(create_tiny_random("cpu", {}), video))


def test_the_seed_changes_the_noise_and_nothing_else_does(primed: FlashVsr) -> None:
    video = _video(9)
    assert torch.equal(_joined(primed, video, seed=3), _joined(primed, video, seed=3))
    assert not torch.equal(_joined(primed, video, seed=3), _joined(primed, video, seed=4))


def test_parking_between_frames_changes_nothing(primed: FlashVsr) -> None:
    video = _video(15)
    session = primed.open(SMALL)
    assert isinstance(session, Parkable)
    out: list[Tensor] = []
    for frame in video:
        out.extend(session.push(frame))
        session.park()
        session.resume()
    out.extend(session.finish())
    assert torch.equal(torch.cat(out), _joined(primed, video))


# Endless ---------------------------------------------------------------------------------------


@pytest.mark.long
@pytest.mark.timeout(400)
def test_more_chunks_than_the_references_rope_table_has_room_for() -> None:
    session = _smallest().open(Size(32, 32))
    video = _video(8, Size(32, 32))
    before = session.nbytes()
    given = sum(group.shape[0] for group in session.push(video[0]))
    for chunk in range(625):
        for frame in video:
            for group in session.push(frame):
                given += group.shape[0]
        if chunk == 624:
            assert torch.isfinite(group).all()
    given += sum(group.shape[0] for group in session.finish())
    assert given == 1 + 625 * 8
    assert session.nbytes() == before


def test_where_the_temporal_index_starts_changes_nothing(primed: FlashVsr) -> None:
    class Shifted:
        def __init__(self, rope: SpatialRope) -> None:
            self._rope = rope

        def at(self, positions: range) -> Rotation:
            return self._rope.at([position + 10**8 for position in positions])

    video, session = _video(20), primed.open(SMALL)
    chunks = session._chunks
    chunks._rope = Shifted(chunks._rope)  # type: ignore[assignment]
    chunks._ready = chunks._make_ready(0)
    near(torch.cat(_all(session, video)), _joined(primed, video), atol=1e-5)


# Memory ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", [{}, {"start": "full"}, {"kv_units": 1}, {"scale": 4}])
def test_the_size_of_a_session_is_known_before_it_is_opened(settings: dict[str, Any]) -> None:
    upscaler = create_tiny_random("cpu", settings)
    size = Size(128, 64)
    session = upscaler.open(size)
    assert upscaler.session_bytes(size) == session.nbytes()
    list(session.push(_video(1, size)[0]))
    assert upscaler.session_bytes(size) == session.nbytes()


@pytest.mark.parametrize("config", [flashvsr(), flashvsr_full()])
def test_the_published_sizes_fit_together_from_512_to_1024(config: ModelConfig) -> None:
    """On the meta device: every shape of a stream, no arithmetic."""
    meta = torch.device("meta")
    with meta:
        model = Model.build(config, context_rows=512).prepare(meta, torch.bfloat16)
    session = FlashVsr("meta", model, Settings(start=Start.FULL)).open(Size(512, 512))
    chunks = session._chunks
    options = replace(chunks.options, attend=lambda q, k, v, blocks: torch.empty_like(q))
    chunks = Chunks(model, chunks.memory, chunks.noise, options)
    shapes: list[tuple[int, ...]] = []
    for _ in range(33):
        chunks.add(torch.empty(3, 1024, 1024, device=meta))
        if chunks.wanted == 0:
            shapes.extend(group.shape for group in chunks.run())
    first = [(1, 3, 1024, 1024)] + [(4, 3, 1024, 1024)] * 5
    assert shapes == first + [(4, 3, 1024, 1024)] * 2


# Refusals --------------------------------------------------------------------------------------


def test_a_size_that_is_no_multiple_is_refused(primed: FlashVsr) -> None:
    with pytest.raises(UpscaleError, match="cannot take 100x64"):
        primed.open(Size(100, 64))
    with pytest.raises(UpscaleError, match="cannot take 100x64"):
        primed.session_bytes(Size(100, 64))


def test_a_frame_of_another_shape_is_refused(primed: FlashVsr) -> None:
    with pytest.raises(UpscaleError, match="does not fit the session"):
        primed.open(SMALL).push(torch.zeros(1, 3, 64, 128))


def test_a_finished_session_takes_nothing(primed: FlashVsr) -> None:
    session = primed.open(SMALL)
    list(session.finish())
    with pytest.raises(UpscaleError, match="finished"):
        session.push(_video(1)[0])


def test_a_parked_session_takes_nothing(primed: FlashVsr) -> None:
    session = primed.open(SMALL)
    session.park()
    with pytest.raises(UpscaleError, match="parked"):
        session.push(_video(1)[0])


def test_a_push_before_the_last_ones_outputs_were_taken_is_refused(primed: FlashVsr) -> None:
    session = primed.open(SMALL)
    session.push(_video(1)[0])
    with pytest.raises(UpscaleError, match="outputs not taken"):
        session.push(_video(1)[0])


def test_a_full_device_is_reported_as_such(
    primed: FlashVsr, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = primed.open(SMALL)

    def fail(*_args: object) -> None:
        raise torch.OutOfMemoryError("no room")

    monkeypatch.setattr(session._chunks, "_denoise", fail)
    with pytest.raises(OutOfMemory, match="FlashVSR ran out of memory"):
        list(session.push(_video(1)[0]))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"sparsity": 2}, "unknown FlashVSR setting"),
        ({"scale": 3}, "scale 3"),
        ({"scale": "2"}, "setting scale"),
        ({"start": "slow"}, "setting start"),
        ({"sparse_ratio": 0}, "sparse_ratio 0"),
    ],
)
def test_wrong_settings_are_refused_by_name(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        create_tiny_random("cpu", settings)


def test_the_registry_knows_the_tests_only_model() -> None:
    upscaler = create_upscaler("flashvsr-tiny-random", settings={"start": "full"})
    assert (upscaler.spec.first, upscaler.spec.step, upscaler.spec.lag) == (25, 8, 4)
    assert upscaler.spec.multiple == 64


# Helpers ---------------------------------------------------------------------------------------


def _video(count: int, size: Size = SMALL, seed: int = 0) -> list[Tensor]:
    """Frames (1, 3, H, W) of different brightness and moving texture."""
    generator = torch.Generator().manual_seed(seed)
    texture = torch.rand(1, 3, size.height, size.width, generator=generator) * 0.2
    levels = torch.rand(count, generator=generator) * 0.7 + 0.05
    return [texture.roll(n, 3) + level for n, level in enumerate(levels)]


def _stamped(number: int) -> Tensor:
    luma = np.full((128, 128), 120, np.uint8)
    draw_stamp(luma, number, now_s=number / 25)
    return torch.from_numpy(luma)[None, None].expand(1, 3, -1, -1) / 255


def _all(session: FlashVsrSession, video: list[Tensor]) -> list[Tensor]:
    """Single frames (1, 3, H, W)."""

    def groups() -> Iterator[Tensor]:
        for frame in video:
            yield from session.push(frame)
        yield from session.finish()

    return [frame for group in groups() for frame in torch.split(group, 1)]


def _joined(upscaler: FlashVsr, video: list[Tensor], seed: int = 0) -> Tensor:
    return torch.cat(_all(upscaler.open(SMALL, seed=seed), video))


def _counts(upscaler: FlashVsr, frames: int) -> tuple[list[int], list[int]]:
    """Outputs of each push, and what was wanted before it."""
    session = upscaler.open(SMALL)
    counts, wanted = [], []
    for frame in _video(frames):
        wanted.append(session.wanted)
        counts.append(sum(group.shape[0] for group in session.push(frame)))
    return counts, wanted


def _smallest() -> FlashVsr:
    """128 x 128 pixels, one block, two channels: for long runs."""
    config = ModelConfig(
        dit=DitConfig(dim=32, heads=1, blocks=1, ffn_dim=8, freq_dim=8, text_dim=8),
        projector=ProjectorConfig(hidden1=2, hidden2=2, dim=32),
        decoder=DecoderConfig(channels=(2, 2, 2, 2)),
    )
    model = random_model(config, seed=2).prepare(torch.device("cpu"), torch.float32)
    return FlashVsr("smallest", model, Settings(scale=4, colour=ColourFix.OFF))


def _with_vae(tiny: FlashVsr) -> Model:
    config = replace(tiny.model.config, decoder=VaeConfig(base=4))
    return random_model(config, seed=1).prepare(torch.device("cpu"), torch.float32)
