"""Golden data of the public reference, see tests/data/swiftvr/README.md, and the nets it is of."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.upscalers.golden import Golden, read_golden
from torch import Tensor

from streamlift.upscalers.swiftvr.config import DitConfig, ModelConfig, ReaeConfig
from streamlift.upscalers.swiftvr.fold import fold_dit, fold_reae
from streamlift.upscalers.swiftvr.model import Model


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def ops() -> Golden:
    return read_golden("swiftvr", "ops")


@pytest.fixture(scope="session")
def reae() -> Golden:
    return read_golden("swiftvr", "reae")


@pytest.fixture(scope="session")
def stream() -> Golden:
    """The denoiser over several chunks."""
    return read_golden("swiftvr", "dit_stream")


@pytest.fixture(scope="session")
def pipeline() -> Golden:
    return read_golden("swiftvr", "pipeline")


@pytest.fixture(scope="session")
def reae_model(reae: Golden) -> Model:
    config = reae.meta["config"]
    small = DitConfig(dim=8, heads=1, blocks=1, ffn_dim=8, text_dim=8, freq_dim=8)
    return _model(
        ModelConfig(
            small,
            ReaeConfig(
                config["encoder_width"], tuple(config["decoder_widths"]), config["latent_channels"]
            ),
        ),
        reae=reae.weights(),
    )


@pytest.fixture(scope="session")
def dit_model(stream: Golden) -> Model:
    c = stream.meta["config"]
    dit = DitConfig(
        dim=c["heads"] * c["head_dim"],
        heads=c["heads"],
        blocks=c["blocks"],
        ffn_dim=c["ffn"],
        channels=c["channels"],
        text_dim=c["text"],
        freq_dim=c["freq"],
        window=tuple(c["window"]),
    )
    tiny = ReaeConfig(4, (4, 4, 4, 4), c["channels"])
    return _model(ModelConfig(dit, tiny), dit=stream.weights(), prompt=stream["input.prompt"])


@pytest.fixture(scope="session")
def whole_model(pipeline: Golden) -> Model:
    c = pipeline.meta["config"]
    dit = DitConfig(
        dim=c["heads"] * c["hd"],
        heads=c["heads"],
        blocks=c["blocks"],
        ffn_dim=c["ffn"],
        channels=c["z"],
        text_dim=c["text"],
        freq_dim=c["freq"],
        window=tuple(c["window"]),
    )
    return _model(
        ModelConfig(dit, ReaeConfig(c["enc"], tuple(c["dec"]), c["z"])),
        dit=pipeline.weights("weights.dit."),
        reae=pipeline.weights("weights.reae."),
        prompt=pipeline["input.prompt"],
    )


def _model(
    config: ModelConfig,
    *,
    dit: dict[str, Tensor] | None = None,
    reae: dict[str, Tensor] | None = None,
    prompt: Tensor | None = None,
) -> Model:
    """The networks with published tensors folded in, as loading does it."""
    state: dict[str, Any] = {}
    if dit is not None and prompt is not None:
        folded = fold_dit(dit.__getitem__, config.dit, prompt)
        state |= {f"dit.{name}": tensor for name, tensor in folded}
    if reae is not None:
        state |= dict(fold_reae(reae.__getitem__, list(reae)))
    model = Model.build(config, len(state.get("dit.context_weight", [0])))
    for name, network in model.networks().items():
        own = {k.removeprefix(f"{name}."): t for k, t in state.items() if k.startswith(f"{name}.")}
        if own:
            network.load_state_dict({k: t.float() for k, t in own.items()})
    return model.prepare(torch.device("cpu"), torch.float32)
