"""The work of one steady chunk at full size, counted: a pass over memory that is added fails here.

1024 x 1024, bfloat16, 8 frames. Attention itself is a stand-in (its work is given by its lists).
"""

from __future__ import annotations

import pytest
import torch
from tests.upscalers.counting import Counting
from tests.upscalers.flashvsr.test_waits import run_chunk, without_values

from streamlift.frames import Size
from streamlift.upscalers.flashvsr.settings import Settings
from streamlift.upscalers.flashvsr.upscaler import FlashVsr


@pytest.fixture(scope="module")
def counts() -> dict[str, Counting]:
    chunks = without_values()
    run_chunk(chunks)
    height, width = chunks.memory.clips.shape[3:]
    found = {name: Counting() for name in ("frames", "denoise", "decode")}
    frame = torch.empty(3, height, width, device="meta")
    with found["frames"]:
        for _ in range(chunks.wanted):
            chunks.add(frame)
    with found["denoise"]:
        latents = chunks._denoise()
    with found["decode"]:
        for number in range(2):
            chunks._decode(latents[number : number + 1], 6 + number)
    return found


def test_the_denoiser_moves_at_most_12_gb_between_its_products(counts: dict[str, Counting]) -> None:
    made = counts["denoise"]
    # Cross-attention's CUDA kernels write heads of a token side by side; "meta" copies them so.
    laid_out = made.bytes["flatten.using_ints"]
    assert laid_out <= 1.6e9
    assert made.elementwise_bytes - laid_out <= 12e9
    # A block: three norms, one of cross-attention's queries, queries and keys, the choice.
    names = ("layer_norm", "rms_norm", "qkv_into_ring")
    assert [made.kernels[f"{name}.default"] for name in names] == [91, 30, 30]
    assert made.kernels["choose_lists.default"] == 30
    assert made.kernels["linear_gelu.default"] == 30
    assert sum(made.kernels.values()) <= 500
    assert made.tflop == pytest.approx(20.5, abs=0.3)


def test_the_decoder_moves_at_most_20_gb(counts: dict[str, Counting]) -> None:
    made = counts["decode"]
    own = sum(n for name, n in made.bytes.items() if "conv" in name)
    assert own <= 20e9
    assert sum(made.bytes.values()) <= 24e9  # with limits, folding and colour
    assert sum(made.kernels.values()) <= 160
    assert made.tflop == pytest.approx(11.86, abs=0.1)


def test_the_frames_on_their_way_in_are_the_projectors_work(counts: dict[str, Counting]) -> None:
    made = counts["frames"]
    assert made.tflop == pytest.approx(5.6, abs=0.2)
    assert sum(made.kernels.values()) <= 70


def test_what_a_computation_needs_is_what_admission_counts_with(
    counts: dict[str, Counting],
) -> None:
    chunks = without_values()
    upscaler = FlashVsr("counted", chunks.model, Settings())
    promised = upscaler.workspace_bytes(Size(512, 512))
    most = max(made.peak for made in counts.values())
    assert 0.5 * promised < most <= promised
