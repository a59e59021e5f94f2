"""One stream at output size: enlarged frames in, one by one; chunks of restored frames out.

Latent 0 stands for frame 0, latent j for frames 4j - 3 .. 4j, the *clip* j. The projector makes
latent j's tokens from clip j + 1 as it arrives. Chunk 0 denoises latents 0 to 5 when 25 frames
are there, chunk i latents 4 + 2i and 5 + 2i when 8 more are; so output lags input by 4 frames.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from streamlift.upscalers.flashvsr.attention import Attend
from streamlift.upscalers.flashvsr.colour import WAVELET_LEVELS, ColourFix, fix_colour
from streamlift.upscalers.flashvsr.config import (
    CLIP_FRAMES,
    FIRST_LATENTS,
    STEP_LATENTS,
    WINDOW,
)
from streamlift.upscalers.flashvsr.decoder import TcDecoder, fold_condition
from streamlift.upscalers.flashvsr.dit import Sparsity
from streamlift.upscalers.flashvsr.graphs import Record, StepGraphs
from streamlift.upscalers.flashvsr.memory import StreamMemory
from streamlift.upscalers.flashvsr.model import Model
from streamlift.upscalers.flashvsr.noise import Noise
from streamlift.upscalers.flashvsr.projector import fold_pixels
from streamlift.upscalers.flashvsr.rope import Rotation, SpatialRope
from streamlift.upscalers.flashvsr.upload import upload
from streamlift.upscalers.flashvsr.windows import local_mask

__all__ = ["FIRST_FRAMES", "STEP_FRAMES", "ChunkOptions", "Chunks"]

FIRST_FRAMES = 1 + CLIP_FRAMES * FIRST_LATENTS
STEP_FRAMES = CLIP_FRAMES * STEP_LATENTS


@dataclass(frozen=True, slots=True)
class ChunkOptions:
    """topk, local_range: see `selection`; attend: the attention; colour: the last step.

    decode_together: latents of a chunk decoded as one batch. record: how to record the steady
    step as graphs, None to run it kernel by kernel.
    """

    topk: int
    local_range: int
    attend: Attend
    colour: ColourFix = ColourFix.ADAIN
    wavelet_levels: int = WAVELET_LEVELS
    decode_together: bool = False
    record: Record | None = None


@dataclass(frozen=True, slots=True, eq=False)
class _Ready:
    """What a chunk starts from beside its frames: noise (channels, latents, h, w), and angles."""

    chunk: int
    noise: Tensor
    rotation: Rotation


class Chunks:
    """The model run over one stream's memory.

    Nothing here waits for the device: a chunk's noise and angles are made and sent while the chunk
    before is computed. With recordings the steady step is three parts, and no more, since a clip is
    projected as it arrives and the first latent's frames go out before the second's: `project` (a
    clip to tokens), `denoise` (a chunk), `decode` (a latent to frames).
    """

    def __init__(
        self,
        model: Model,
        memory: StreamMemory,
        noise: Noise,
        options: ChunkOptions,
        graphs: StepGraphs | None = None,
    ) -> None:
        """`graphs`: recordings of an earlier stream in this very memory."""
        self.model, self.memory, self.noise, self.options = model, memory, noise, options
        self._taken = 0
        self._chunk = 0
        rows, columns = (side // 2 for side in memory.latent_grid)
        head_dim = model.config.dit.head_dim
        self._rope = SpatialRope.of_grid(rows, columns, head_dim, model.device)
        allowed = local_mask(rows // WINDOW[1], columns // WINDOW[2], options.local_range)
        self._sparsity = Sparsity(allowed.to(model.device), options.topk, options.attend)
        self.graphs = graphs
        if options.record is not None and not graphs:
            self.graphs = StepGraphs(options.record)
            self._try_first()
            self.record()
        self._ready = self._make_ready(0)

    @property
    def wanted(self) -> int:
        """Frames to add before the next `run`."""
        return FIRST_FRAMES + STEP_FRAMES * self._chunk - self._taken

    @torch.inference_mode()
    def add(self, frame: Tensor) -> None:
        """Take one frame (3, H, W) in [-1, 1]; project its clip if it is the clip's last."""
        index = self._taken
        self._taken += 1
        clip = -(-index // CLIP_FRAMES)
        place = self._clip(clip)
        if index == 0:
            place[:] = frame
        else:
            place[(index - 1) % CLIP_FRAMES] = frame
        if index % CLIP_FRAMES == 0:
            self._project(clip)

    def run(self) -> Iterator[Tensor]:
        """The next chunk, when no frames are wanted: groups (n, 3, H, W) in [-1, 1], in order.

        A recorded group's tensor is written again by the next one.
        """
        latents = self._denoise()
        first = self._first_latent(self._chunk)
        self._chunk += 1
        count = latents.shape[0]
        group = count if self.options.decode_together else 1
        for start in range(0, count, group):
            yield self._decode(latents[start : start + group], first + start)
        # Some milliseconds of a CPU, while the device computes what was launched above.
        self._ready = self._make_ready(self._chunk)

    def move(self, device: torch.device | str) -> None:
        """Move the stream's memory, to the host and back; recordings of it are void then."""
        self.memory.move(device)
        if self.graphs is not None:
            self.graphs.forget()

    @torch.inference_mode()
    def _try_first(self) -> None:
        """Run the first chunk's shapes once, so that nothing is compiled when it is due.

        Before anything is remembered: what it writes into the ring is never read.
        """
        ready = self._make_ready(0)
        self._predict(ready.noise, ready.rotation.cos, ready.rotation.sin)

    @torch.inference_mode()
    def record(self) -> None:
        """Run each part of the steady step, then record it, and leave the memory as it was.

        Does nothing where nothing is to be recorded, or all is.
        """
        if self.graphs is None or self.graphs:
            return
        memory, ready = self.memory, self._make_ready(1)
        kept = [tensor.clone() for tensor in memory.changing()]
        seen, memory.kv.seen = memory.kv.seen, memory.kv.slots
        slot = memory.kv.slot.clone()
        # Past what is remembered: this slot is the next to be written anyway.
        clip = self._clip(0)
        latent = ready.noise[:, :1].transpose(0, 1)
        denoise = (ready.noise, ready.rotation.cos, ready.rotation.sin)
        parts: list[tuple[str, Callable[..., Tensor], tuple[Tensor, ...]]] = [
            ("project", self._tokens_of, (clip,)),
            ("denoise", self._predict, denoise),
        ]
        if not self.options.decode_together:
            parts.append(("decode", self._frames_of, (latent, clip[None])))
        keys = [part.clone() for part in memory.kv.next_slot()]
        for name, step, inputs in parts:
            step(*inputs)
            self.graphs.add(name, step, *inputs)
        for place, before in zip(memory.kv.next_slot(), keys, strict=True):
            place.copy_(before)
        memory.kv.seen = seen
        memory.kv.slot.copy_(slot)
        for tensor, before in zip(memory.changing(), kept, strict=True):
            tensor.copy_(before)

    def _project(self, clip: int) -> None:
        if clip == 0:
            memory = self.memory
            pixels = fold_pixels(self._clip(0).to(self.model.dtype))
            self.model.projector.start(pixels, memory.carried1, memory.carried2)
            return
        tokens = self._part("project", self._tokens_of, self._clip(clip))
        self.memory.tokens[clip - 1 - self._first_latent(self._chunk)] = tokens

    def _tokens_of(self, clip: Tensor) -> Tensor:
        """(4, 3, H, W) -> (h * w, dim)."""
        pixels = fold_pixels(clip.to(self.model.dtype))
        carried = self.memory.carried1, self.memory.carried2
        tokens: list[Tensor] = self.model.projector(pixels, *carried)
        return tokens[0][0]

    @torch.inference_mode()
    def _denoise(self) -> Tensor:
        """(latents, 16, h, w) of the chunk that is due."""
        if self._ready.chunk != self._chunk:
            self._ready = self._make_ready(self._chunk)
        noise, rotation = self._ready.noise, self._ready.rotation
        units = noise.shape[1] // STEP_LATENTS
        inputs = (noise, rotation.cos, rotation.sin)
        if self.memory.kv.full_with(units) and self._chunk > 0:
            prediction = self._part("denoise", self._predict, *inputs)
        else:
            prediction = self._predict(*inputs)
        self.memory.kv.advance(units)
        latents: Tensor = (noise - prediction).transpose(0, 1)
        return latents

    def _make_ready(self, chunk: int) -> _Ready:
        first = self._first_latent(chunk)
        count = FIRST_LATENTS if chunk == 0 else STEP_LATENTS
        shape = (self.model.config.dit.channels, count, *self.memory.latent_grid)
        noise = upload(self.noise.draw(chunk, shape), self.model.device, self.model.dtype)
        return _Ready(chunk, noise, self._rope.at(range(first, first + count)))

    def _predict(self, noise: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        memory = self.memory
        tokens, rotation = memory.tokens[: noise.shape[1]], Rotation(cos, sin)
        prediction: Tensor = self.model.dit(noise, tokens, memory.kv, rotation, self._sparsity)
        return prediction

    @torch.inference_mode()
    def _decode(self, latents: Tensor, index: int) -> Tensor:
        """Frames of consecutive latents, the first of which is latent `index` of the stream."""
        clips = torch.stack([self._clip(index + n) for n in range(latents.shape[0])])
        # The first latent's clip is frame 0 four times; only its last stands for a frame.
        if index > 0 and latents.shape[0] == 1:
            return self._part("decode", self._frames_of, latents, clips)
        return self._frames_of(latents, clips, first=index == 0)

    def _frames_of(self, latents: Tensor, clips: Tensor, *, first: bool = False) -> Tensor:
        """(k, 16, h, w) and their clips (k, 4, 3, H, W) -> (4k, 3, H, W), or 3 less."""
        decoder, memory = self.model.decoder, self.memory.decoder
        surplus = CLIP_FRAMES - 1 if first else 0
        if isinstance(decoder, TcDecoder):
            condition = fold_condition(clips.to(self.model.dtype))
            frames = decoder(latents, condition, memory)[surplus:]
        else:
            parts = [
                decoder(latents[n : n + 1], memory, first=first and n == 0)
                for n in range(latents.shape[0])
            ]
            frames = torch.cat(parts)
        return fix_colour(
            frames.float(),
            clips.flatten(0, 1)[surplus:],
            self.options.colour,
            wavelet_levels=self.options.wavelet_levels,
        )

    def _part(self, name: str, step: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
        """A part of the step, as it was recorded if it was."""
        if self.graphs is not None and name in self.graphs:
            return self.graphs.run(name, *inputs)
        return step(*inputs)

    def _clip(self, clip: int) -> Tensor:
        return self.memory.clips[clip % self.memory.clips.shape[0]]

    @staticmethod
    def _first_latent(chunk: int) -> int:
        return 0 if chunk == 0 else FIRST_LATENTS + STEP_LATENTS * (chunk - 1)
