"""The reference's other form, a whole clip in chunks, put together from our parts."""

from __future__ import annotations

import torch
from torch import Tensor

from streamlift.frames import Size
from streamlift.upscalers.swiftvr.config import LATENT_FRAMES
from streamlift.upscalers.swiftvr.grid import Grid
from streamlift.upscalers.swiftvr.model import Model
from streamlift.upscalers.swiftvr.picture import Canvas
from streamlift.upscalers.swiftvr.windows import Seam

__all__ = ["Context", "clip_schedule", "restore_clip"]

FIRST, MIDDLE, LAST = 0, 1, 2


class Context:
    """Denoising by calls, (1, n, C, h, w) each, with the last input latents seen again."""

    def __init__(self, model: Model, overlap: int) -> None:
        self.model, self.overlap = model, overlap
        self._before: Tensor | None = None

    def restore(self, latents: Tensor) -> Tensor:
        before = self._before
        kept = 0 if before is None else before.shape[1]
        seen = latents if before is None else torch.cat((before, latents), 1)
        if self.overlap:
            self._before = latents[:, -self.overlap :]
        return self._denoise(seen)[:, kept:]

    def restore_last(self, new: Tensor, *, before: Tensor | None, latents: int) -> Tensor:
        """The last chunk of a clip: filled up in front to one latent more than a chunk."""
        missing = max(0, latents + 1 - new.shape[1])
        if missing:
            if before is None:
                before = torch.zeros_like(new[:, :1]).expand(-1, missing, -1, -1, -1)
            new = torch.cat((before[:, -missing:], new), 1)
        return self._denoise(new)[:, missing:]

    @torch.inference_mode()
    def _denoise(self, latents: Tensor) -> Tensor:
        shape = (latents.shape[1], latents.shape[3] // 2, latents.shape[4] // 2)
        grid = Grid.build(self.model.config.dit, shape, Seam.EXACT, self.model.device)
        restored: Tensor = latents - self.model.dit(latents, grid)
        return restored


def clip_schedule(frames: int, *, latents: int) -> list[list[int]]:
    """Of each chunk: kind, first frame, frames, and of the last its latents less one."""
    step = LATENT_FRAMES * latents
    frames = (frames - 1) // LATENT_FRAMES * LATENT_FRAMES + 1
    chunks, done = [], 0
    if frames > step + LATENT_FRAMES:
        chunks.append([FIRST, 0, step + LATENT_FRAMES, 0])
        done = step + LATENT_FRAMES
        while frames - done > step:
            chunks.append([MIDDLE, done, step, 0])
            done += step
    rest = frames - done
    return [*chunks, [LAST, done, rest, (rest - 1) // LATENT_FRAMES]]


@torch.inference_mode()
def restore_clip(model: Model, frames: Tensor, target: Size, *, latents: int) -> Tensor:
    """(N, 3, h, w) in [0, 1] -> (N cut to 4a + 1, 3, H, W)."""
    canvas = Canvas.of(target)
    rows, columns = (2 * side for side in canvas.tokens)
    encoder, decoder = (
        [torch.zeros(1, *shape) for shape in network.memory_shapes(rows, columns)]
        for network in (model.encoder, model.decoder)
    )
    context, before, out = Context(model, 0), None, []
    for kind, start, count, _ in clip_schedule(frames.shape[0], latents=latents):
        part = frames[start : start + count]
        if kind == LAST:
            part = torch.cat((part, part[-1:].expand(LATENT_FRAMES - 1, -1, -1, -1)))
        found = model.encoder(canvas.spread(part)[None], encoder)
        if kind == LAST:
            restored = context.restore_last(found, before=before, latents=latents)
        else:
            restored = context.restore(found)
        before = found
        out.append(model.decoder(restored, decoder)[0])
    return canvas.crop(torch.cat(out)[LATENT_FRAMES - 1 :])
