"""One stream at output size: enlarged frames in, one by one; chunks of restored frames out.

Latent 0 stands for frame 0, latent j for frames 4j - 3 .. 4j, the *clip* j. The projector makes
latent j's tokens from clip j + 1 as it arrives. Chunk 0 denoises latents 0 to 5 when 25 frames
are there, chunk i latents 4 + 2i and 5 + 2i when 8 more are; so output lags input by 4 frames.
"""

from __future__ import annotations

from collections.abc import Iterator
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


class Chunks:
    """The model run over one stream's memory."""

    def __init__(
        self, model: Model, memory: StreamMemory, noise: Noise, options: ChunkOptions
    ) -> None:
        self.model, self.memory, self.noise, self.options = model, memory, noise, options
        self._taken = 0
        self._chunk = 0
        self._drawn = 0
        rows, columns = (side // 2 for side in memory.latent_grid)
        head_dim = model.config.dit.head_dim
        self._rope = SpatialRope.of_grid(rows, columns, head_dim, model.device)
        allowed = local_mask(rows // WINDOW[1], columns // WINDOW[2], options.local_range)
        self._sparsity = Sparsity(allowed.to(model.device), options.topk, options.attend)
        self._graphs = StepGraphs(options.record) if options.record else None

    @property
    def wanted(self) -> int:
        """Frames to add before the next `run`."""
        return FIRST_FRAMES + STEP_FRAMES * self._chunk - self._taken

    @torch.inference_mode()
    def add(self, frame: Tensor) -> None:
        """Take one frame (3, H, W) in [-1, 1]; project its clip if it is the clip's last."""
        index = self._taken
        if self._drawn <= self._chunk:
            self._draw()
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
        """The next chunk, when no frames are wanted: groups (n, 3, H, W) in [-1, 1], in order."""
        latents = self._denoise()
        first = self._first_latent(self._chunk)
        self._chunk += 1
        count = latents.shape[0]
        group = count if self.options.decode_together else 1
        for start in range(0, count, group):
            yield self._decode(latents[start : start + group], first + start)

    def move(self, device: torch.device | str) -> None:
        """Move the stream's memory, to the host and back."""
        self.memory.move(device)
        if self._graphs is not None:
            self._graphs.forget()

    def _project(self, clip: int) -> None:
        memory, projector = self.memory, self.model.projector
        pixels = fold_pixels(self._clip(clip).to(self.model.dtype))
        if clip == 0:
            projector.start(pixels, memory.carried1, memory.carried2)
            return
        tokens = projector(pixels, memory.carried1, memory.carried2)[0]
        memory.tokens[clip - 1 - self._first_latent(self._chunk)] = tokens[0]

    @torch.inference_mode()
    def _denoise(self) -> Tensor:
        """(latents, 16, h, w) of the chunk that is due."""
        count = self._count
        first = self._first_latent(self._chunk)
        noise = self.memory.noise[:, :count]
        rotation = self._rope.at(range(first, first + count))
        ring = self.memory.kv
        # The first steady chunk runs plainly, so that nothing is set up while a graph is recorded.
        if self._graphs is not None and ring.seen > ring.slots:
            slot = ring.seen % ring.slots
            prediction = self._graphs.run(slot, self._predict, noise, rotation.cos, rotation.sin)
        else:
            prediction = self._predict(noise, rotation.cos, rotation.sin)
        self.memory.kv.advance(count // STEP_LATENTS)
        latents: Tensor = (noise - prediction).transpose(0, 1)
        return latents

    def _draw(self) -> None:
        """Noise for the chunk that begins to arrive: drawing takes a CPU some milliseconds."""
        noise = self.memory.noise[:, : self._count]
        noise.copy_(self.noise.draw(self._chunk, (noise.shape[0], *noise.shape[1:])))
        self._drawn = self._chunk + 1

    @property
    def _count(self) -> int:
        return FIRST_LATENTS if self._chunk == 0 else STEP_LATENTS

    def _predict(self, noise: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        memory = self.memory
        tokens, rotation = memory.tokens[: noise.shape[1]], Rotation(cos, sin)
        prediction: Tensor = self.model.dit(noise, tokens, memory.kv, rotation, self._sparsity)
        return prediction

    @torch.inference_mode()
    def _decode(self, latents: Tensor, index: int) -> Tensor:
        """Frames of consecutive latents, the first of which is latent `index` of the stream."""
        clips = torch.stack([self._clip(index + n) for n in range(latents.shape[0])])
        decoder, memory = self.model.decoder, self.memory.decoder
        # The first latent's clip is frame 0 four times; only its last stands for a frame.
        surplus = CLIP_FRAMES - 1 if index == 0 else 0
        if isinstance(decoder, TcDecoder):
            condition = fold_condition(clips.to(self.model.dtype))
            frames = decoder(latents, condition, memory)[surplus:]
        else:
            parts = [
                decoder(latents[n : n + 1], memory, first=index + n == 0)
                for n in range(latents.shape[0])
            ]
            frames = torch.cat(parts)
        return fix_colour(
            frames.float(),
            clips.flatten(0, 1)[surplus:],
            self.options.colour,
            wavelet_levels=self.options.wavelet_levels,
        )

    def _clip(self, clip: int) -> Tensor:
        return self.memory.clips[clip % self.memory.clips.shape[0]]

    @staticmethod
    def _first_latent(chunk: int) -> int:
        return 0 if chunk == 0 else FIRST_LATENTS + STEP_LATENTS * (chunk - 1)
