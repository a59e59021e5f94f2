"""The nets compute what the originals compute: manifests, outputs, inner results."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from streamlift.upscalers.realesrgan import (  # noqa: E402
    RRDBNet,
    SRVGGNetCompact,
    build_net,
    load_net,
)
from streamlift.upscalers.realesrgan.rrdbnet import (  # noqa: E402
    RRDBNetConfig,
    x2plus,
    x4plus,
    x4plus_anime_6b,
)
from streamlift.upscalers.realesrgan.srvgg import (  # noqa: E402
    Activation,
    animevideov3,
    general_x4v3,
)

if TYPE_CHECKING:
    from tests.upscalers.realesrgan.conftest import Reference

TOLERANCE = 1e-5


@pytest.mark.parametrize(
    ("folder", "checkpoint", "make"),
    [
        ("rrdbnet", "RealESRGAN_x2plus", lambda: RRDBNet(x2plus())),
        ("rrdbnet", "RealESRGAN_x4plus", lambda: RRDBNet(x4plus())),
        ("rrdbnet", "RealESRGAN_x4plus_anime_6B", lambda: RRDBNet(x4plus_anime_6b())),
        ("srvgg", "realesr-animevideov3", lambda: SRVGGNetCompact(animevideov3())),
        ("srvgg", "realesr-general-x4v3", lambda: SRVGGNetCompact(general_x4v3())),
        ("srvgg", "realesr-general-wdn-x4v3", lambda: SRVGGNetCompact(general_x4v3())),
    ],
)
def test_a_named_net_has_exactly_the_published_tensors(
    reference: Callable[[str], Reference],
    folder: str,
    checkpoint: str,
    make: Callable[[], RRDBNet | SRVGGNetCompact],
) -> None:
    manifest = reference(folder).manifest(checkpoint)
    with torch.device("meta"):
        net = make()

    ours = [(name, list(tensor.shape)) for name, tensor in net.state_dict().items()]

    assert ours == [(entry["name"], entry["shape"]) for entry in manifest["entries"]]
    assert sum(p.numel() for p in net.parameters()) == manifest["parameters"]


@pytest.mark.parametrize(
    "checkpoint", ["RealESRGAN_x2plus", "RealESRGAN_x4plus", "RealESRGAN_x4plus_anime_6B"]
)
def test_a_full_rrdbnet_gives_the_original_output(rrdbnet: Reference, checkpoint: str) -> None:
    expected = rrdbnet.arrays("forward_full.npz")
    net = build_net(rrdbnet.weights(checkpoint), where=checkpoint)

    with torch.no_grad():
        found = net(torch.from_numpy(expected[f"{checkpoint}.input"]))

    assert np.abs(found.numpy() - expected[f"{checkpoint}.output"]).max() <= TOLERANCE


@pytest.mark.parametrize(
    "checkpoint", ["realesr-animevideov3", "realesr-general-x4v3", "realesr-general-wdn-x4v3"]
)
def test_a_full_srvgg_gives_the_original_output(srvgg: Reference, checkpoint: str) -> None:
    expected = srvgg.arrays("forward.npz")
    net = build_net(srvgg.weights(checkpoint), where=checkpoint)

    with torch.no_grad():
        found = net(torch.from_numpy(expected["input"]))

    assert np.abs(found.numpy() - expected[f"{checkpoint}.output"]).max() <= TOLERANCE


def test_every_stage_of_rrdbnet_gives_the_original_result(rrdbnet: Reference) -> None:
    expected = rrdbnet.arrays("forward_2block_taps.npz")
    net = build_net(rrdbnet.weights("x2_2block"), where="x2_2block")
    taps = [name.removeprefix("tap.") for name in expected if name.startswith("tap.")]
    found: dict[str, Any] = {}
    for name in taps:
        # A copy: the activation that follows works in place.
        net.get_submodule(name).register_forward_hook(
            lambda _module, _inputs, output, name=name: found.update({name: output.clone()})
        )

    with torch.no_grad():
        output = net(torch.from_numpy(expected["input"]))

    assert np.abs(output.numpy() - expected["output"]).max() <= TOLERANCE
    for name in taps:
        tap = expected[f"tap.{name}"]
        close = 1e-5 if tap.dtype == np.float32 else 2e-3  # two taps are stored as float16
        assert np.abs(found[name].numpy() - tap.astype(np.float32)).max() <= close, name


def test_a_checkpoint_with_both_wrappers_gives_the_averaged_weights(rrdbnet: Reference) -> None:
    expected = rrdbnet.arrays("tiny_forward.npz")
    net = load_net(rrdbnet.folder / "tiny_params_and_ema.pth")

    with torch.no_grad():
        found = net(torch.from_numpy(expected["input"]))

    assert np.abs(found.numpy() - expected["output"]).max() <= TOLERANCE


@pytest.mark.parametrize("scale", [2, 4])
@pytest.mark.parametrize("activation", list(Activation))
def test_srvgg_of_any_activation_and_scale_gives_the_original_output(
    srvgg: Reference, activation: Activation, scale: int
) -> None:
    expected = srvgg.arrays("forward.npz")
    prefix = f"tiny.{activation}.x{scale}"
    weights = {
        name.removeprefix(f"{prefix}.w."): torch.from_numpy(array)
        for name, array in expected.items()
        if name.startswith(f"{prefix}.w.")
    }
    net = build_net(weights, where=prefix, activation=activation)

    with torch.no_grad():
        found = net(torch.from_numpy(expected["tiny.input"]))

    assert net.config.scale == scale
    assert np.abs(found.numpy() - expected[f"{prefix}.output"]).max() <= TOLERANCE


def test_channels_last_weights_stay_within_the_tolerance(rrdbnet: Reference) -> None:
    expected = rrdbnet.arrays("forward_2block_taps.npz")
    net = build_net(rrdbnet.weights("x2_2block"), where="x2_2block")
    net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    with torch.no_grad():
        found = net(torch.from_numpy(expected["input"]))

    assert np.abs(found.numpy() - expected["output"]).max() <= TOLERANCE


@pytest.mark.parametrize("scale", [1, 2, 4])
def test_one_pass_a_convolution_gives_the_same_picture(scale: int) -> None:
    torch.manual_seed(8)
    net = RRDBNet(RRDBNetConfig(scale, blocks=2, features=8, growth=4)).eval()
    x = torch.rand(2, 3, 8, 12, generator=torch.Generator().manual_seed(9))
    with torch.no_grad():
        torch.testing.assert_close(net.forward_fused(x), net(x), atol=2e-6, rtol=1e-5)
        # Weights that are moved or rounded are packed anew.
        net.double()
        torch.testing.assert_close(net.forward_fused(x.double()), net(x.double()))
