"""The laws of an upscale session, on the tiny made-up model."""

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
from streamlift.upscalers.swiftvr.config import DitConfig, ModelConfig, ReaeConfig, swiftvr
from streamlift.upscalers.swiftvr.model import Model
from streamlift.upscalers.swiftvr.session import SwiftVrSession
from streamlift.upscalers.swiftvr.settings import Settings
from streamlift.upscalers.swiftvr.tiny import create_tiny_random, random_model
from streamlift.upscalers.swiftvr.upscaler import SwiftVr

near = partial(torch.testing.assert_close, rtol=0)
SMALL = Size(32, 32)


@pytest.fixture(scope="module")
def tiny() -> SwiftVr:
    return create_tiny_random("cpu", {})


def _made(**settings: Any) -> SwiftVr:
    return create_tiny_random("cpu", settings)


# Counts ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("start", ["primed", "full"])
@pytest.mark.parametrize("latents", [1, 2])
def test_as_many_frames_come_out_as_went_in(start: str, latents: int) -> None:
    upscaler = _made(start=start, latents=latents)
    for count in range(4 * latents + 10):
        assert len(_all(upscaler.open(SMALL), _video(count))) == count


@pytest.mark.parametrize("overlap", [1, 6])
def test_six_latents_a_chunk_and_overlap_lose_no_frame(overlap: int) -> None:
    upscaler = _made(start="full", latents=6, overlap=overlap)
    assert upscaler.spec.first == upscaler.spec.step == 24
    for count in (1, 23, 24, 25, 49):
        assert len(_all(upscaler.open(SMALL), _video(count))) == count


@pytest.mark.parametrize(
    ("settings", "first", "counts"),
    [
        ({"start": "primed"}, 1, [1] + [0] * 7 + [5] + ([0] * 7 + [8]) * 2),
        ({"start": "full"}, 8, [0] * 7 + [5] + ([0] * 7 + [8]) * 2),
        ({"start": "primed", "latents": 1}, 1, [1] + [0] * 3 + [1] + ([0] * 3 + [4]) * 3),
        ({"start": "full", "latents": 1}, 4, [0] * 3 + [1] + ([0] * 3 + [4]) * 3),
    ],
)
def test_answers_come_in_chunks_three_frames_behind(
    settings: dict[str, Any], first: int, counts: list[int]
) -> None:
    upscaler = _made(**settings)
    spec, session = upscaler.spec, upscaler.open(SMALL)
    step = 4 * settings.get("latents", 2)
    assert (spec.first, spec.step, spec.lag, spec.multiple) == (first, step, 3, 16)
    found, wanted = [], []
    for frame in _video(len(counts)):
        wanted.append(session.wanted)
        found.append(sum(group.shape[0] for group in session.push(frame)))
    assert found == counts
    assert wanted[: first + step] == [*range(first, 0, -1), *range(step, 0, -1)]
    owed = [taken + 1 - sum(found[: taken + 1]) for taken in range(len(counts))]
    assert max(owed) == spec.max_owed


def test_the_first_latent_of_a_chunk_is_given_before_the_second(tiny: SwiftVr) -> None:
    session = tiny.open(SMALL)
    groups = [[g.shape[0] for g in session.push(frame)] for frame in _video(17)]
    assert groups[8] == [1, 4]
    assert groups[16] == [4, 4]


def test_decoding_together_gives_the_same_frames_in_one_group(tiny: SwiftVr) -> None:
    together, video = _made(decode_together=True), _video(17)
    session = together.open(SMALL)
    assert [[g.shape[0] for g in session.push(frame)] for frame in video][16] == [8]
    near(_joined(together, video), _joined(tiny, video), atol=1e-5)


# Content ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("start", ["primed", "full"])
def test_a_stamp_drawn_into_the_input_is_read_from_the_output(start: str) -> None:
    session = _made(start=start).open(Size(128, 128))
    numbers = []
    for frame in _all(session, [_stamped(number) for number in range(14)]):
        assert frame.shape == (1, 3, 256, 256)
        assert frame.dtype is torch.float32
        stamp = read_stamp((frame[0, 1] * 255).round().byte().numpy(), scale=2)
        numbers.append(None if stamp is None else stamp.number)
    assert numbers == list(range(14))


def test_a_primed_stream_equals_a_plain_one_with_three_more_copies_of_its_first_frame() -> None:
    video = _video(9)
    primed = _made().open(SMALL)
    given = torch.cat([group for frame in video for group in primed.push(frame)])
    plain = _made(start="full").open(SMALL)._chunks
    out: list[Tensor] = []
    for frames in ([video[0]] * 4, video[1:9]):  # the same chunks: one latent, then two
        for frame in frames:
            plain.add(frame)
        out += list(plain.run())
    expected = torch.cat(out)
    near(given[0], expected[0], atol=1e-6)
    near(given[1:], expected[4:], atol=1e-6)  # delivered frame m is output m + 3


@pytest.mark.parametrize("splits", [(4, 4, 4, 4, 4, 4), (8, 4, 12), (24,)])
def test_the_autoencoder_is_the_same_in_any_split(tiny: SwiftVr, splits: tuple[int, ...]) -> None:
    model = tiny.model
    video = torch.cat(_video(24, Size(64, 64)))[None]
    found = []
    for parts in ((12, 12), splits):
        encoder, decoder = (
            [torch.zeros(1, *shape) for shape in net.memory_shapes(4, 4)]
            for net in (model.encoder, model.decoder)
        )
        with torch.inference_mode():
            latents = [model.encoder(v, encoder) for v in torch.split(video, list(parts), 1)]
            frames = [model.decoder(z, decoder) for z in latents]
        found.append((torch.cat(latents, 1), torch.cat(frames, 1)))
    near(found[0], found[1], atol=1e-5)


@pytest.mark.parametrize("latents", [1, 2])
def test_a_new_stream_fed_the_last_seventy_frames_is_in_the_same_state(latents: int) -> None:
    upscaler = _made(start="full", latents=latents)
    chunk, chunks = 4 * latents, -(-(16 + latents) // latents)
    video = _video(chunk * (chunks + 3))
    old, new = upscaler.open(SMALL), upscaler.open(SMALL)
    for session, frames in ((old, video), (new, video[-chunk * chunks :])):
        for frame in frames:
            list(session.push(frame))
    states = (session._chunks.memory.tensors() for session in (old, new))
    assert all(torch.equal(one, other) for one, other in zip(*states, strict=True))


def test_overlap_changes_what_follows_but_not_the_order(tiny: SwiftVr) -> None:
    video, large = [_stamped(number) for number in range(24)], Size(128, 128)
    plain, seen = (torch.cat(_all(u.open(large), video)) for u in (tiny, _made(overlap=2)))
    assert torch.equal(plain[:1], seen[:1])  # nothing came before
    assert not torch.equal(plain, seen)
    near(plain, seen, atol=0.1)


def test_a_four_times_enlargement_runs() -> None:
    upscaler = _made(scale=4)
    assert upscaler.spec.multiple == 8
    frames = torch.cat(_all(upscaler.open(Size(24, 16)), _video(5, Size(24, 16))))
    assert frames.shape == (5, 3, 64, 96)


# Independence ----------------------------------------------------------------------------------


def test_interleaved_streams_equal_separate_ones(tiny: SwiftVr) -> None:
    videos = [_video(21, seed=1), _video(21, seed=2)]
    separate = [_joined(tiny, video) for video in videos]
    sessions = [tiny.open(SMALL) for _ in range(2)]
    outputs: list[list[Tensor]] = [[], []]
    for pair in zip(*videos, strict=True):
        for session, frame, out in zip(sessions, pair, outputs, strict=True):
            out.extend(session.push(frame))
    for session, out in zip(sessions, outputs, strict=True):
        out.extend(session.finish())
    for found, expected in zip(outputs, separate, strict=True):
        assert torch.equal(torch.cat(found), expected)


def test_a_session_after_another_equals_one_of_a_fresh_model(tiny: SwiftVr) -> None:
    _joined(tiny, _video(20, seed=5))
    video = _video(13)
    assert torch.equal(_joined(tiny, video), _joined(_made(), video))


def test_the_seed_changes_nothing(tiny: SwiftVr) -> None:
    one, other = (torch.cat(_all(tiny.open(SMALL, seed=seed), _video(9))) for seed in (1, 2))
    assert torch.equal(one, other)


def test_parking_between_frames_changes_nothing(tiny: SwiftVr) -> None:
    video = _video(15)
    session = tiny.open(SMALL)
    assert isinstance(session, Parkable)
    out: list[Tensor] = []
    for frame in video:
        out.extend(session.push(frame))
        session.park()
        session.resume()
    out.extend(session.finish())
    assert torch.equal(torch.cat(out), _joined(tiny, video))


# Endless ---------------------------------------------------------------------------------------


@pytest.mark.long
def test_five_thousand_frames_pass_and_nothing_grows() -> None:
    config = ModelConfig(
        DitConfig(dim=12, heads=1, blocks=2, ffn_dim=8, channels=4, freq_dim=8, text_dim=8),
        ReaeConfig(2, (2, 2, 2, 2), 4),
    )
    model = random_model(config, seed=2).prepare(torch.device("cpu"), torch.float32)
    settings = Settings(latents=6, decode_together=True)  # the fewest kernels a frame
    session = SwiftVr("smallest", model, settings).open(Size(16, 16))
    video = _video(8, Size(16, 16))
    before, given = session.nbytes(), 0
    for number in range(5000):
        for group in session.push(video[number % 8]):
            given += group.shape[0]
    assert torch.isfinite(group).all()
    assert len(session._chunks._grids) == 2  # the primed start's and the steady one
    given += sum(group.shape[0] for group in session.finish())
    assert given == 5000
    assert session.nbytes() == before


# Memory ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings", [{}, {"start": "full"}, {"latents": 6, "overlap": 2}, {"scale": 4}]
)
def test_the_size_of_a_session_is_known_before_it_is_opened(settings: dict[str, Any]) -> None:
    upscaler, size = _made(**settings), Size(64, 32)
    session = upscaler.open(size)
    assert upscaler.session_bytes(size) == session.nbytes()
    list(session.push(_video(1, size)[0]))
    assert upscaler.session_bytes(size) == session.nbytes()


def test_the_published_sizes_fit_together_from_512_to_1024() -> None:
    """On the meta device: every shape of a stream, no arithmetic."""
    meta, config = torch.device("meta"), swiftvr()
    few = replace(config, dit=replace(config.dit, blocks=2))  # all blocks have one shape
    with meta:
        model = Model.build(few, context_rows=512).prepare(meta, torch.bfloat16)
    upscaler = SwiftVr("meta", model, Settings())
    encoder = 3 * 64 * (1 / 16 + 1 / 64 + 1 / 256)
    decoder = 3 * (512 / 256 + 256 / 64 + 128 / 16)
    states = 2 * 1024**2 * (encoder + decoder)
    assert states == pytest.approx(121e6, rel=0.01)
    frames, latents = 8 * 3 * 512**2 * 4, 2 * 48 * 64 * 64 * 2
    assert upscaler.session_bytes(Size(512, 512)) == states + frames + latents
    session = upscaler.open(Size(512, 512))
    shapes = [
        tuple(group.shape)
        for _ in range(17)
        for group in session.push(torch.empty(1, 3, 512, 512, device=meta))
    ]
    assert shapes == [(n, 3, 1024, 1024) for n in (1, 1, 4, 4, 4)]


# Refusals --------------------------------------------------------------------------------------


def test_a_size_that_is_no_multiple_is_refused(tiny: SwiftVr) -> None:
    for ask in (tiny.open, tiny.session_bytes):
        with pytest.raises(UpscaleError, match="cannot take 40x32"):
            ask(Size(40, 32))


def test_a_frame_of_another_shape_is_refused(tiny: SwiftVr) -> None:
    with pytest.raises(UpscaleError, match="does not fit the session"):
        tiny.open(SMALL).push(torch.zeros(1, 3, 64, 32))


def test_a_finished_a_parked_and_a_busy_session_take_nothing(tiny: SwiftVr) -> None:
    frame = _video(1)[0]
    finished, parked, busy = (tiny.open(SMALL) for _ in range(3))
    list(finished.finish())
    parked.park()
    busy.push(frame)
    for session, words in ((finished, "finished"), (parked, "parked"), (busy, "not taken")):
        with pytest.raises(UpscaleError, match=words):
            session.push(frame)


def test_a_full_device_is_reported_as_such(tiny: SwiftVr, monkeypatch: pytest.MonkeyPatch) -> None:
    session = tiny.open(SMALL)

    def fail(*_args: object) -> None:
        raise torch.OutOfMemoryError("no room")

    monkeypatch.setattr(session._chunks, "_denoise", fail)
    with pytest.raises(OutOfMemory, match="SwiftVR ran out of memory"):
        list(session.push(_video(1)[0]))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"sparsity": 2}, "unknown SwiftVR setting"),
        ({"scale": 3}, "scale 3"),
        ({"latents": 3}, "latents 3"),
        ({"overlap": 3}, "overlap 3"),
        ({"seam": "zip"}, "setting seam"),
        ({"linears": "int8"}, "setting linears"),
        ({"graph": 1}, "setting graph"),
    ],
)
def test_wrong_settings_are_refused_by_name(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        create_tiny_random("cpu", settings)


def test_the_registry_knows_the_tests_only_model() -> None:
    upscaler = create_upscaler("swiftvr-tiny-random", settings={"latents": 6})
    assert (upscaler.spec.first, upscaler.spec.step, upscaler.spec.lag) == (1, 24, 3)


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


def _all(session: SwiftVrSession, video: list[Tensor]) -> list[Tensor]:
    """Single frames (1, 3, H, W)."""

    def groups() -> Iterator[Tensor]:
        for frame in video:
            yield from session.push(frame)
        yield from session.finish()

    return [frame for group in groups() for frame in torch.split(group, 1)]


def _joined(upscaler: SwiftVr, video: list[Tensor]) -> Tensor:
    return torch.cat(_all(upscaler.open(SMALL), video))
