"""The whole of SwiftVR against the public reference, and the steady step as a graph."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from tests.upscalers.golden import Golden
from tests.upscalers.swiftvr.clip import restore_clip
from torch import Tensor

from streamlift.frames import Size
from streamlift.upscalers.flashvsr.settings import Start
from streamlift.upscalers.swiftvr.chunks import ChunkOptions, Chunks
from streamlift.upscalers.swiftvr.config import LATENT_FRAMES
from streamlift.upscalers.swiftvr.memory import StreamMemory
from streamlift.upscalers.swiftvr.model import Model
from streamlift.upscalers.swiftvr.picture import Canvas
from streamlift.upscalers.swiftvr.settings import Settings
from streamlift.upscalers.swiftvr.tiny import create_tiny_random
from streamlift.upscalers.swiftvr.together import run_together
from streamlift.upscalers.swiftvr.upscaler import SwiftVr
from streamlift.upscalers.swiftvr.windows import Seam

near = partial(torch.testing.assert_close, rtol=0)


@pytest.mark.parametrize(("case", "overlap"), [("a", 0), ("a", 1), ("b", 0), ("b", 2)])
def test_streamed_frames_equal_the_reference(
    pipeline: Golden, whole_model: Model, case: str, overlap: int
) -> None:
    run = _Run(pipeline, whole_model, case, overlap)
    r0, c0, rs, cs = run.case["sub"]
    name = f"expect.{case}.overlap{overlap}"
    assert [len(part) for part in run.calls] == pipeline[f"{name}.frames_per_call"].tolist()
    frames = torch.cat(run.calls)
    near(frames[:, :, r0::rs, c0::cs], pipeline[f"{name}.frames_sub"], atol=3e-5)
    if overlap == 0:
        near(frames[-1, :, :32], pipeline[f"{name}.frame_last_top"], atol=3e-5)
        for way, found in (("in", run.latents_in), ("out", run.latents_out)):
            latents = torch.cat(found, 1)[0].transpose(0, 1)
            near(latents, pipeline[f"{name}.latents_{way}"], atol=5e-5)
        levels = (frames[:, :, 1::8, 3::8] * 255).to(torch.uint8)
        differ = (levels.int() - pipeline[f"{name}.u8_sub"].int()).abs()
        assert differ.max() <= 1  # the reference cuts off where we would round: by chance at a step
        assert int(differ.sum()) <= 8


@pytest.mark.parametrize("case", ["a", "b"])
def test_the_file_form_equals_the_reference(
    pipeline: Golden, whole_model: Model, case: str
) -> None:
    chosen = pipeline.meta["config"]["cases"][case]
    r0, c0, rs, cs = chosen["sub"]
    frames, target = _input(pipeline, case)
    found = restore_clip(whole_model, frames, target, latents=chosen["offline"] // LATENT_FRAMES)
    near(found[:, :, r0::rs, c0::cs], pipeline[f"expect.{case}.offline.frames_sub"], atol=3e-5)


def test_bfloat16_stays_near_float32(pipeline: Golden, whole_model: Model) -> None:
    expected = torch.cat(_Run(pipeline, whole_model, "a", 0).calls)
    half = Model.build(whole_model.config, len(whole_model.dit.context_weight))
    for name, network in half.networks().items():
        network.load_state_dict(whole_model.networks()[name].state_dict())
    half.prepare(torch.device("cpu"), torch.bfloat16)
    found = torch.cat(_Run(pipeline, half, "a", 0).calls)
    assert found.dtype is torch.float32
    assert 1e-5 < float((found - expected).norm() / expected.norm()) < 0.05


# The steady step -------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", [{}, {"overlap": 1}, {"latents": 1, "start": "full"}])
def test_a_replayed_step_equals_the_eager_one(settings: dict[str, Any]) -> None:
    tiny = create_tiny_random("cpu", settings)
    video = _video(40)
    expected = _frames(tiny, video, None)
    recorder = _Recorder()
    found = _frames(tiny, video, recorder)
    assert recorder.recorded == 1
    assert recorder.replayed >= 3
    near(found, expected, atol=1e-5)


@pytest.mark.parametrize("settings", [{"start": "full"}, {}, {"overlap": 1}])
def test_a_step_recorded_before_the_first_frame_serves_the_whole_stream(
    settings: dict[str, Any],
) -> None:
    tiny, video, recorder = create_tiny_random("cpu", settings), _video(30), _Recorder()
    expected = _frames(tiny, video, None)
    found = _frames(tiny, video, recorder, prepared=True)
    assert recorder.recorded == 1
    assert recorder.replayed == 4  # three chunks, and the one that finishing fills with copies
    near(found, expected, atol=1e-5)


def test_a_stream_that_was_parked_records_anew() -> None:
    tiny, video, recorder = create_tiny_random("cpu", {}), _video(60), _Recorder()
    expected = _frames(tiny, video, None)
    found = _frames(tiny, video, recorder, parked_at=(30, 44))
    assert recorder.recorded == 3
    near(found, expected, atol=1e-5)


class _Recorder:
    """Keeps CUDA's rules on a CPU: recording computes nothing, inputs and outputs are fixed."""

    def __init__(self) -> None:
        self.recorded = self.replayed = 0
        self.chunks: Chunks

    def __call__(self, step: Callable[[], Tensor]) -> tuple[Callable[[], None], Tensor]:
        self.recorded += 1
        fixed = self.chunks.memory.tensors()
        before = [tensor.clone() for tensor in fixed]
        result = step().clone()
        for tensor, kept in zip(fixed, before, strict=True):
            tensor.copy_(kept)
        result.fill_(float("nan"))
        places = [tensor.data_ptr() for tensor in fixed]

        def replay() -> None:
            self.replayed += 1
            assert [tensor.data_ptr() for tensor in self.chunks.memory.tensors()] == places
            result.copy_(step())

        return replay, result


# Several streams -------------------------------------------------------------------------------


@pytest.mark.parametrize("overlap", [0, 1])
def test_streams_computed_together_equal_streams_alone(overlap: int) -> None:
    tiny = create_tiny_random("cpu", {"start": "full", "overlap": overlap, "seam": "bridge"})
    videos = [_video(24, seed=seed) for seed in (1, 2, 3)]
    alone = []
    for video in videos:
        chunks, out = _chunks(tiny), []
        for frame in video:
            chunks.add(frame)
            if chunks.waiting == chunks.frames:
                out += list(chunks.run())
        alone.append(torch.cat(out))
    streams, together = [_chunks(tiny) for _ in videos], [[], [], []]  # type: ignore[var-annotated]
    for frames in zip(*videos, strict=True):
        for chunks, frame in zip(streams, frames, strict=True):
            chunks.add(frame)
        if streams[0].waiting == streams[0].frames:
            for groups in run_together(streams):
                for out, frames_out in zip(together, groups, strict=True):
                    out.append(frames_out)
    for found, expected in zip(together, alone, strict=True):
        near(torch.cat(found), expected, atol=2e-6)


def test_only_streams_that_are_alike_run_together() -> None:
    tiny = create_tiny_random("cpu", {"start": "full"})
    one, other = _chunks(tiny), _chunks(tiny)
    for frame in _video(8):
        one.add(frame)
    with pytest.raises(ValueError, match="alike"):
        list(run_together([one, other]))


# Helpers ---------------------------------------------------------------------------------------


class _Run:
    """The reference's stream: calls of any length, each one chunk of the denoiser, then a flush."""

    def __init__(self, pipeline: Golden, model: Model, case: str, overlap: int) -> None:
        self.case = pipeline.meta["config"]["cases"][case]
        frames, target = _input(pipeline, case)
        self.latents_in: list[Tensor] = []
        self.latents_out: list[Tensor] = []
        self.calls: list[Tensor] = []
        canvas, size = Canvas.of(target), Size(frames.shape[3], frames.shape[2])
        memory = StreamMemory.allocate(
            model, size, canvas, latents=3, overlap=overlap, device="cpu"
        )
        options = ChunkOptions(latents=3, overlap=overlap, seam=Seam.EXACT, decode_together=True)
        self._chunks = Chunks(model, memory, canvas, options)
        hooks = [
            model.encoder.register_forward_hook(lambda m, i, o: self.latents_in.append(o)),
            model.decoder.register_forward_hook(lambda m, i, o: self.latents_out.append(i[0])),
        ]
        waiting: list[Tensor] = []
        for count in self.case["calls"]:
            waiting += list(torch.split(frames[:count], 1))
            frames = frames[count:]
            whole = len(waiting) // LATENT_FRAMES * LATENT_FRAMES
            self._call(waiting[:whole])
            waiting = waiting[whole:]
        if waiting:
            self._call(waiting + [waiting[-1]] * (LATENT_FRAMES - len(waiting)))
        for hook in hooks:
            hook.remove()

    def _call(self, frames: list[Tensor]) -> None:
        for frame in frames:
            self._chunks.add(frame)
        parts = list(self._chunks.run()) if frames else []
        self.calls.append(torch.cat(parts) if parts else torch.empty(0, 3, *self._large))

    @property
    def _large(self) -> tuple[int, int]:
        return self.case["h"] * self.case["up"], self.case["w"] * self.case["up"]


def _input(pipeline: Golden, case: str) -> tuple[Tensor, Size]:
    """(T, 3, h, w) in [0, 1], and the target size."""
    frames = pipeline[f"input.{case}.frames_u8"].permute(0, 3, 1, 2).float() / 255
    up = pipeline.meta["config"]["cases"][case]["up"]
    return frames, Size(frames.shape[3] * up, frames.shape[2] * up)


def _video(count: int, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return list(torch.rand(count, 1, 3, 48, 64, generator=generator))


def _chunks(upscaler: SwiftVr) -> Chunks:
    return upscaler.open(Size(64, 48))._chunks


def _frames(
    tiny: SwiftVr,
    video: list[Tensor],
    recorder: _Recorder | None,
    parked_at: tuple[int, ...] = (),
    prepared: bool = False,
) -> Tensor:
    settings: Settings = tiny.settings
    session = tiny.open(Size(64, 48))
    old = session._chunks
    options = ChunkOptions(
        latents=settings.latents,
        overlap=settings.overlap,
        seam=settings.seam,
        decode_together=settings.start is Start.FULL,
        record=recorder,
    )
    chunks = Chunks(tiny.model, old.memory, old.canvas, options)
    if recorder is not None:
        recorder.chunks = chunks
    if prepared:
        chunks.record()
    session._chunks = chunks
    out: list[Tensor] = []
    for number, frame in enumerate(video):
        if number in parked_at:
            session.park()
            chunks.memory.frames = chunks.memory.frames.clone()
            session.resume()
        out += list(session.push(frame))
    return torch.cat([*out, *session.finish()])
