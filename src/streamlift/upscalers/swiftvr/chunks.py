"""One stream of chunks: the publisher's frames in, one by one; restored frames out.

Latent j is made from frames 4j .. 4j + 3. Latent 0 gives frame 0, latent j frames 4j - 3 .. 4j, so
output lags input by 3 frames. A chunk is n latents; only the denoiser sees chunks, the autoencoder
is the same in any split. So each latent is encoded as soon as its four frames are there.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from streamlift.upscalers.flashvsr.graphs import Record, StepGraphs
from streamlift.upscalers.swiftvr.config import LATENT_FRAMES, LOOK_AHEAD
from streamlift.upscalers.swiftvr.grid import Grid
from streamlift.upscalers.swiftvr.memory import StreamMemory
from streamlift.upscalers.swiftvr.model import Model
from streamlift.upscalers.swiftvr.picture import Canvas
from streamlift.upscalers.swiftvr.windows import Seam

__all__ = ["ChunkOptions", "Chunks"]


@dataclass(frozen=True, slots=True)
class ChunkOptions:
    """latents: of a chunk; overlap: earlier latents that the denoiser sees again, as context.

    decode_together: all latents of a chunk decoded as one batch. record: how to record the steady
    step as a graph, None to run it kernel by kernel.
    """

    latents: int = 2
    overlap: int = 0
    seam: Seam = Seam.BRIDGE
    decode_together: bool = False
    record: Record | None = None


class Chunks:
    """The model run over one stream's memory."""

    def __init__(
        self, model: Model, memory: StreamMemory, canvas: Canvas, options: ChunkOptions
    ) -> None:
        self.model, self.memory, self.canvas, self.options = model, memory, canvas, options
        self.waiting = 0  # frames of the chunk that comes in
        self._encoded = 0  # latents of it that are there
        self.kept = 0  # latents of the chunk before that are seen again
        self._given = 0  # frames the decoder has made, the surplus included
        self._warm = False  # whether all that a steady chunk uses has been set up
        self._grids: dict[int, Grid] = {}
        self._graphs = StepGraphs(options.record) if options.record else None

    @property
    def frames(self) -> int:
        """Of a whole chunk."""
        return LATENT_FRAMES * self.options.latents

    @property
    def wanted(self) -> int:
        """Frames to add before a whole chunk waits."""
        return self.frames - self.waiting

    def add(self, frame: Tensor) -> None:
        """Take one frame (1, 3, h, w) in [0, 1]; encode its latent if it is the latent's last."""
        self.memory.frames[self.waiting] = frame[0]
        self.waiting += 1
        if not self._by_graph:
            self._encode_due()

    @torch.inference_mode()
    def record(self) -> None:
        """Record the steady step where steps are recorded, so that no frame waits for it later.

        Before the first frame, and after the memory has moved; what it holds stays as it is.
        """
        if self._graphs is None or "step" in self._graphs:
            return
        before = [tensor.clone() for tensor in self.memory.tensors()]
        kept, self.kept = self.kept, self.options.overlap
        self.step()  # a recording may set nothing up
        self._graphs.add("step", self.step)
        for tensor, held in zip(self.memory.tensors(), before, strict=True):
            tensor.copy_(held)
        self.kept, self._warm = kept, True

    def run(self) -> Iterator[Tensor]:
        """The chunk that waits, of whole latents: groups (n, 3, H, W) in [0, 1], in order."""
        whole = self.waiting == self.frames
        if whole and self._by_graph:
            frames = self._replay()
            self.waiting = self._encoded = 0
            yield self.without_surplus(frames)
            return
        latents = self.context()
        restored = self._denoise(latents)
        self.keep_context()
        for part in torch.split(restored, self.group(restored.shape[1]), 1):
            yield self.without_surplus(self._decode(part))

    def context(self) -> Tensor:
        """What the denoiser sees of the chunk that waits: kept latents, then new ones."""
        self._encode_due()
        # What a graph needs is set up by a steady chunk that runs plainly.
        whole = self.waiting == self.frames
        self._warm = self._warm or (whole and self.kept == self.options.overlap)
        return self._seen(self._encoded)

    @torch.inference_mode()
    def keep_context(self) -> None:
        """The chunk was denoised: the next one begins, with this one's last latents before it."""
        overlap, count = self.options.overlap, self._encoded
        if overlap:
            self.kept = min(overlap, count)
            self._shift(count)
        self.waiting = self._encoded = 0

    def group(self, latents: int) -> int:
        """How many latents of a chunk are decoded as one batch."""
        return latents if self.options.decode_together else 1

    def alike(self) -> tuple[object, ...]:
        """What must be the same in streams whose chunks are computed together."""
        return self.waiting, self.kept, self.memory.frames.shape, self.canvas, self.options

    def move(self, device: torch.device | str) -> None:
        """Move the stream's memory, to the host and back."""
        self.memory.move(device)
        if self._graphs is not None:
            self._graphs.forget()

    @property
    def _by_graph(self) -> bool:
        """Whether whole chunks are replayed; a short one, a stream's last, never is."""
        return self._graphs is not None and self._warm and self.kept == self.options.overlap

    @torch.inference_mode()
    def _replay(self) -> Tensor:
        assert self._graphs is not None
        # Its result is overwritten by the next replay, of this stream or of another.
        if "step" not in self._graphs:
            self._graphs.add("step", self.step)
        return self._graphs.run("step").clone()

    def step(self) -> Tensor:
        """A whole steady chunk: a pure function of the memory, with fixed shapes."""
        count = self.options.latents
        self._encode(0, count)
        restored = self._denoise(self._seen(count))
        if self.options.overlap:
            self._shift(count)
        return self._decode(restored)

    def _encode_due(self) -> None:
        ready = self.waiting // LATENT_FRAMES
        if ready > self._encoded:
            self._encode(self._encoded, ready)
            self._encoded = ready

    @torch.inference_mode()
    def _encode(self, first: int, last: int) -> None:
        memory = self.memory
        frames = memory.frames[LATENT_FRAMES * first : LATENT_FRAMES * last]
        spread = self.canvas.spread(frames)
        latents = self.model.encoder(spread[None], memory.encoder)
        overlap = self.options.overlap
        memory.latents[:, overlap + first : overlap + last] = latents

    def _seen(self, count: int) -> Tensor:
        overlap = self.options.overlap
        return self.memory.latents[:, overlap - self.kept : overlap + count]

    def _shift(self, count: int) -> None:
        """The last input latents move to the place of those before."""
        overlap, latents = self.options.overlap, self.memory.latents
        keep = min(overlap, count)
        last = latents[:, overlap + count - keep : overlap + count].clone()
        latents[:, overlap - keep : overlap] = last

    @torch.inference_mode()
    def _denoise(self, seen: Tensor) -> Tensor:
        """Restored latents (1, count, C, h, w)."""
        velocity = self.model.dit(seen, self.grid(seen.shape[1]))
        restored: Tensor = (seen - velocity)[:, self.kept :]
        return restored

    @torch.inference_mode()
    def _decode(self, latents: Tensor) -> Tensor:
        frames: Tensor = self.model.decoder(latents, self.memory.decoder)
        return self.canvas.crop(frames[0])

    def without_surplus(self, frames: Tensor) -> Tensor:
        """A stream's first latent decodes to one frame, and three before it."""
        first, self._given = self._given, self._given + frames.shape[0]
        return frames[max(0, LOOK_AHEAD - first) :]

    def grid(self, latents: int) -> Grid:
        """The tables for that many latents, made at their first use: few differ in a stream."""
        if latents not in self._grids:
            shape = (latents, *self.canvas.tokens)
            dit = self.model.config.dit
            self._grids[latents] = Grid.build(dit, shape, self.options.seam, self.model.device)
        return self._grids[latents]
