"""The Wan VAE decoder against the public reference."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from streamlift.upscalers.flashvsr.config import VaeConfig
from streamlift.upscalers.flashvsr.vae import WanVae

Load = Callable[[str], Any]
near = partial(torch.testing.assert_close, rtol=0)


def test_full_size_vae_has_the_published_names_and_shapes(manifest: Load) -> None:
    published = {
        name: shape
        for name, shape in manifest("wan-vae").items()
        if name.startswith(("decoder.", "conv2."))
    }
    with torch.device("meta"):
        built = {n: tuple(t.shape) for n, t in WanVae(VaeConfig()).state_dict().items()}
    assert built == published


def test_latent_by_latent_equals_the_reference(golden: Load) -> None:
    data = golden("wan_vae_decoder")
    vae = _vae(data)
    latents = data["input.latents"].transpose(0, 1)
    memory = _memory(vae, 6, 9)
    seen: dict[str, list[Tensor]] = {}
    modules = dict(vae.decoder.named_modules())
    names = {name.split(".tap.")[1] for name in data.tensors if ".tap." in name}
    for name in {name.rsplit(".", 1)[0] for name in names if name != "post_quant"}:
        modules[name].register_forward_hook(partial(_keep, seen.setdefault(name, [])))
    with torch.inference_mode():
        parts = [vae(latents[n : n + 1], memory, first=n == 0) for n in range(5)]
    frames = torch.cat(parts).transpose(0, 1)
    near(frames[:, :, ::2, ::2], data["expect.frames_unclamped"], atol=5e-5)
    near(frames.clamp(-1, 1)[:, ::4], data["expect.frames"], atol=5e-5)
    for name in names - {"post_quant"}:
        module, call = name.rsplit(".call", 1)
        expected = data[f"expect.tap.{name}"]
        found = seen[module][int(call)]
        if found.shape != expected.shape:
            found = found[:, :, ::2, ::3]
        near(found, expected, atol=5e-5)


def test_tiles_blended_equal_the_reference(golden: Load) -> None:
    data = golden("wan_vae_decoder")
    tile, stride = tuple(data.meta["tile"]["size"]), tuple(data.meta["tile"]["stride"])
    vae = _vae(data, tile=tile, stride=stride)
    latents = data["input.latents_tiled"].transpose(0, 1)
    memory = _memory(vae, 10, 14)
    with torch.inference_mode():
        frames = [vae(latents[n : n + 1], memory, first=n == 0) for n in range(3)]
    blended = torch.cat(frames).clamp(-1, 1).transpose(0, 1)
    near(blended[:, ::4, ::2, ::2], data["expect.tiled"], atol=1e-4)


def _vae(data: Any, **tiling: Any) -> WanVae:
    vae = WanVae(VaeConfig(base=4, **tiling))
    vae.load_state_dict(data.weights())
    return vae


def _memory(vae: WanVae, height: int, width: int) -> list[Tensor]:
    return vae.new_memory(height, width, "cpu", torch.float32)


def _keep(outputs: list[Tensor], _module: Any, _inputs: Any, output: Tensor) -> None:
    outputs.append(output)
