"""Noise of a live stream: keyed, portable, never the same for two chunks."""

from __future__ import annotations

import torch

from streamlift.upscalers.flashvsr.noise import ContinuousNoise, NoisePolicy, noise_source

SHAPE = (16, 2, 16, 16)


def test_a_chunks_noise_does_not_depend_on_the_order_of_asking() -> None:
    first, second = ContinuousNoise(5), ContinuousNoise(5)
    forwards = [first.draw(chunk, SHAPE) for chunk in range(3)]
    backwards = [second.draw(chunk, SHAPE) for chunk in (2, 1, 0)]
    for one, other in zip(forwards, reversed(backwards), strict=True):
        assert torch.equal(one, other)


def test_every_chunk_and_every_seed_has_its_own_noise() -> None:
    drawn = [ContinuousNoise(seed).draw(chunk, SHAPE) for seed in (0, 1) for chunk in (0, 1, 2**40)]
    for index, one in enumerate(drawn):
        for other in drawn[:index]:
            similarity = torch.corrcoef(torch.stack((one.flatten(), other.flatten())))[0, 1]
            assert abs(similarity) < 0.05


def test_the_noise_is_standard_normal() -> None:
    drawn = ContinuousNoise(0).draw(0, (16, 6, 32, 32))
    assert drawn.dtype is torch.float32
    assert abs(float(drawn.mean())) < 0.01
    assert abs(float(drawn.std()) - 1) < 0.01


def test_negative_seeds_are_seeds_too() -> None:
    for policy in NoisePolicy:
        noise_source(policy, -1).draw(0, SHAPE)


def test_repeated_noise_is_the_same_for_every_chunk_as_in_the_reference() -> None:
    noise = noise_source(NoisePolicy.REPEATED, 3)
    assert torch.equal(noise.draw(1, SHAPE), noise.draw(2, SHAPE))
