"""Names of tensors and wrappers as people have them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from streamlift.upscalers.weights.spelling import rrdb_names, unwrapped, without_prefix

Names = dict[str, Any]


def rrdb(blocks: int = 2) -> Names:
    """Real-ESRGAN's names, each with a number of its own."""
    names = ["conv_first", "conv_body", "conv_up1", "conv_up2", "conv_hr", "conv_last"]
    names += [
        f"body.{b}.rdb{r}.conv{c}" for b in range(blocks) for r in (1, 2, 3) for c in range(1, 6)
    ]
    return {f"{n}.{kind}": (n, kind) for n in names for kind in ("weight", "bias")}


def first_esrgan(names: Names) -> Names:
    layers = {"conv_first": 0, "conv_up1": 3, "conv_up2": 6, "conv_hr": 8, "conv_last": 10}
    blocks = 1 + max(int(n.split(".")[1]) for n in names if n.startswith("body."))

    def old(name: str) -> str:
        parts = name.split(".")
        if parts[0] == "conv_body":
            return f"model.1.sub.{blocks}.{parts[1]}"
        if parts[0] in layers:
            return f"model.{layers[parts[0]]}.{parts[1]}"
        return f"model.1.sub.{parts[1]}.{parts[2].upper()}.{parts[3]}.0.{parts[4]}"

    return {old(n): v for n, v in names.items()}


def bsrgan(names: Names) -> Names:
    layers = {
        "conv_body": "trunk_conv",
        "conv_up1": "upconv1",
        "conv_up2": "upconv2",
        "conv_hr": "HRconv",
    }

    def old(name: str) -> str:
        parts = name.split(".")
        if parts[0] == "body":
            return f"RRDB_trunk.{parts[1]}.{parts[2].upper()}.{parts[3]}.{parts[4]}"
        return ".".join((layers.get(parts[0], parts[0]), parts[1]))

    return {old(n): v for n, v in names.items()}


def gan(names: Names) -> Names:
    return {
        **{f"generator.{n}": v for n, v in names.items()},
        "discriminator.conv1.weight": 1,
        "loss.vgg.0.weight": 2,
    }


FORMS: dict[str, Callable[[Names], Any]] = {
    "plain": lambda n: n,
    "params_ema": lambda n: {"params_ema": n, "params": {"worse": 1}},
    "params": lambda n: {"params": n},
    "state_dict": lambda n: {"state_dict": n, "epoch": 3},
    "model": lambda n: {"model": n, "optimizer": {}},
    "generator": lambda n: {"generator": n},
    "net_g": lambda n: {"net_g": n},
    "two wrappers": lambda n: {"state_dict": {"model": n}},
    "module.": lambda n: {"params_ema": {f"module.{k}": v for k, v in n.items()}},
    "model.": lambda n: {f"model.{k}": v for k, v in n.items()},
    "model.module.": lambda n: {f"model.module.{k}": v for k, v in n.items()},
    "_orig_mod.": lambda n: {f"_orig_mod.{k}": v for k, v in n.items()},
    "net_g.": lambda n: {"state_dict": {f"net_g.{k}": v for k, v in n.items()}},
    "a GAN as trained": lambda n: {"state_dict": gan(n)},
}


@pytest.mark.parametrize("net", [dict, first_esrgan, bsrgan])
@pytest.mark.parametrize("form", FORMS)
def test_every_spelling_leads_to_the_same_names(form: str, net: Callable[[Names], Names]) -> None:
    found = rrdb_names(without_prefix(unwrapped(FORMS[form](net(rrdb())))))
    assert found == rrdb()


def test_other_nets_keep_their_names() -> None:
    srvgg = {"body.0.weight": 1, "body.0.bias": 2, "body.1.weight": 3}
    assert rrdb_names(without_prefix(srvgg)) == srvgg
    mixed = {"module.a": 1, "b": 2}
    assert without_prefix(mixed) == mixed


@pytest.mark.parametrize("net", [first_esrgan, bsrgan])
def test_an_old_checkpoint_computes_what_the_new_one_does(
    net: Callable[[Names], Names], tmp_path: Path
) -> None:
    torch = pytest.importorskip("torch")
    from streamlift.upscalers.realesrgan import RRDBNet, RRDBNetConfig, load_net

    torch.manual_seed(0)
    made = RRDBNet(RRDBNetConfig(scale=4, blocks=2, features=8, growth=4)).eval()
    torch.save(net(dict(made.state_dict())), tmp_path / "old.pth")
    picture = torch.rand(1, 3, 8, 8)
    with torch.no_grad():
        assert torch.equal(load_net(tmp_path / "old.pth")(picture), made(picture))
