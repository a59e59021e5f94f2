"""Reading nets off their tensors, and refusing what is not one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

torch = pytest.importorskip("torch")

from streamlift.errors import ConfigError, WeightsError  # noqa: E402
from streamlift.upscalers.realesrgan import (  # noqa: E402
    RRDBNet,
    RRDBNetConfig,
    SRVGGConfig,
    SRVGGNetCompact,
    build_net,
    interpolate,
    load_net,
    read_config,
)

if TYPE_CHECKING:
    from torch import Tensor


def small_rrdbnet(scale: int = 2, blocks: int = 1) -> dict[str, Tensor]:
    return RRDBNet(RRDBNetConfig(scale, blocks, features=8, growth=4)).state_dict()


def small_srvgg() -> dict[str, Tensor]:
    return SRVGGNetCompact(SRVGGConfig(scale=4, convs=2, features=8)).state_dict()


@pytest.mark.parametrize("scale", [1, 2, 4])
def test_the_sizes_of_an_rrdbnet_are_read_from_its_tensors(scale: int) -> None:
    config = read_config(small_rrdbnet(scale, blocks=3), where="x")

    assert config == RRDBNetConfig(scale, 3, features=8, growth=4)


def test_the_sizes_of_an_srvgg_are_read_from_its_tensors() -> None:
    assert read_config(small_srvgg(), where="x") == SRVGGConfig(scale=4, convs=2, features=8)


def test_missing_and_unexpected_tensors_are_named() -> None:
    tensors = small_rrdbnet()
    del tensors["conv_hr.bias"]
    tensors["conv_extra.weight"] = torch.zeros(1)

    with pytest.raises(WeightsError, match=r"missing conv_hr\.bias; unexpected conv_extra\.weight"):
        build_net(tensors, where="mine.pth")


def test_a_misshapen_tensor_is_named_with_both_shapes() -> None:
    tensors = small_rrdbnet()
    tensors["conv_hr.bias"] = torch.zeros(9)

    with pytest.raises(WeightsError, match=r"conv_hr\.bias \(9,\) instead of \(8,\)"):
        build_net(tensors, where="mine.pth")


def test_a_file_of_another_architecture_is_named(tmp_path: Path) -> None:
    path = tmp_path / "other.pth"
    torch.save({"encoder.weight": torch.zeros(3)}, path)

    with pytest.raises(WeightsError, match=r"other\.pth is not a checkpoint .*encoder\.weight"):
        load_net(path)


def test_a_forged_block_number_builds_nothing() -> None:
    tensors = small_rrdbnet()
    tensors["body.999999.rdb1.conv1.bias"] = torch.zeros(4)

    with pytest.raises(WeightsError, match="without a gap"):
        build_net(tensors, where="forged.pth")


def test_a_forged_layer_number_builds_nothing() -> None:
    tensors = small_srvgg()
    tensors["body.999998.weight"] = torch.zeros(48, 8, 3, 3)

    with pytest.raises(WeightsError, match=r"layer body\.999998"):
        build_net(tensors, where="forged.pth")


def test_an_odd_number_of_input_channels_is_refused() -> None:
    tensors = small_rrdbnet()
    tensors["conv_first.weight"] = torch.zeros(8, 5, 3, 3)

    with pytest.raises(WeightsError, match="conv_first with 5 input channels"):
        build_net(tensors, where="x")


def test_an_srvgg_without_slopes_needs_its_activation_named() -> None:
    tensors = {k: v for k, v in small_srvgg().items() if v.dim() != 1 or "weight" not in k}

    with pytest.raises(WeightsError, match="no PReLU slopes"):
        build_net(tensors, where="x")


def test_half_precision_files_are_loaded_as_float32() -> None:
    net = build_net({k: v.half() for k, v in small_rrdbnet().items()}, where="x")

    assert {p.dtype for p in net.parameters()} == {torch.float32}


def test_interpolation_mixes_every_tensor() -> None:
    first = {"a": torch.tensor([0.0, 1.0])}
    second = {"a": torch.tensor([4.0, 3.0])}

    assert interpolate(first, second, 0.75, where="x")["a"].tolist() == [1.0, 1.5]


def test_nets_of_different_shape_cannot_be_mixed() -> None:
    with pytest.raises(WeightsError, match=r"wdn\.pth"):
        interpolate(small_srvgg(), small_rrdbnet(), 0.5, where="wdn.pth")


def test_a_share_outside_zero_to_one_is_refused() -> None:
    with pytest.raises(ConfigError, match="share"):
        interpolate(small_srvgg(), small_srvgg(), 1.5, where="x")
