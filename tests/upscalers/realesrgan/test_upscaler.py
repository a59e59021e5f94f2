"""The frame path: the laws every upscaler obeys, settings, and faults."""

from __future__ import annotations

import copy
import hashlib
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from streamlift.errors import (  # noqa: E402
    ConfigError,
    NotReady,
    OutOfMemory,
    UpscaleError,
    WeightsError,
)
from streamlift.frames import Size  # noqa: E402
from streamlift.upscalers import Pixels, create_upscaler  # noqa: E402
from streamlift.upscalers.realesrgan import (  # noqa: E402
    Net,
    Precision,
    RealESRGAN,
    RRDBNet,
    RRDBNetConfig,
    SRVGGConfig,
    SRVGGNetCompact,
    build_net,
    interpolate,
)
from streamlift.upscalers.weights import Checkpoint, WeightStore  # noqa: E402

if TYPE_CHECKING:
    from tests.upscalers.realesrgan.conftest import Reference
    from torch import Tensor

SMALLEST = Size(4, 4)
TINY_FILE = Path(__file__).parents[2] / "data/realesrgan/rrdbnet/tiny_params_and_ema.pth"


def tiny_net(scale: int = 2) -> Net:
    torch.manual_seed(3)
    return RRDBNet(RRDBNetConfig(scale, blocks=1, features=8, growth=4)).eval()


def tiny_srvgg(scale: int = 4) -> Net:
    torch.manual_seed(4)
    return SRVGGNetCompact(SRVGGConfig(scale, convs=1, features=4)).eval()


def upscaler_of(net: Net, **options: Any) -> RealESRGAN:
    return RealESRGAN(net, name="realesrgan-x2", device=torch.device("cpu"), **options)


def frames(count: int, size: Size = SMALLEST, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.rand(1, 3, size.height, size.width, generator=generator) for _ in range(count)]


def run(upscaler: RealESRGAN, given: list[Tensor]) -> list[Tensor]:
    session = upscaler.open(Size(given[0].shape[-1], given[0].shape[-2]))
    out = [hr for lr in given for hr in session.push(lr)]
    return [*out, *session.finish()]


def test_the_spec_is_that_of_a_per_frame_rgb_model() -> None:
    spec = upscaler_of(tiny_net()).spec

    assert (spec.first, spec.step, spec.lag, spec.max_owed) == (1, 1, 0, 0)
    assert (spec.scale, spec.multiple, spec.pixels) == (2, 2, Pixels.RGB)


def test_as_many_frames_come_out_as_went_in_over_a_long_stream() -> None:
    upscaler = upscaler_of(tiny_srvgg())
    session = upscaler.open(SMALLEST)
    (lr,) = frames(1)
    (expected,) = session.push(lr)
    for _ in range(5000):
        (hr,) = session.push(lr)
    assert list(session.finish()) == []
    assert torch.equal(hr, expected)


def test_each_frame_is_out_before_the_next_goes_in() -> None:
    session = upscaler_of(tiny_net()).open(SMALLEST)
    for lr in frames(3):
        assert session.wanted == 1
        (hr,) = session.push(lr)
        assert hr.shape == (1, 3, 8, 8)


def test_two_interleaved_sessions_equal_two_separate_ones() -> None:
    upscaler = upscaler_of(tiny_net())
    first, second = frames(4, seed=1), frames(4, Size(8, 6), seed=2)
    one, two = upscaler.open(SMALLEST), upscaler.open(Size(8, 6))
    mixed = [(next(one.push(a)), next(two.push(b))) for a, b in zip(first, second, strict=True)]

    assert all(torch.equal(a, b) for (a, _), b in zip(mixed, run(upscaler, first), strict=True))
    assert all(torch.equal(a, b) for (_, a), b in zip(mixed, run(upscaler, second), strict=True))


def test_a_result_stays_what_it_was_when_the_next_frame_is_computed() -> None:
    session = upscaler_of(tiny_net()).open(SMALLEST)
    first, second = frames(2)
    (hr,) = session.push(first)
    kept = hr.clone()
    list(session.push(second))

    assert torch.equal(hr, kept)


def test_results_are_in_range_and_the_input_is_untouched() -> None:
    (lr,) = frames(1)
    before = lr.clone()

    (hr,) = run(upscaler_of(tiny_srvgg()), [lr * 1.0])
    list(upscaler_of(tiny_net()).open(SMALLEST).push(lr))

    assert float(hr.min()) >= 0.0
    assert float(hr.max()) <= 1.0
    assert torch.equal(lr, before)


def test_a_frame_gets_the_original_nets_picture_clamped(rrdbnet: Reference) -> None:
    expected = rrdbnet.arrays("forward_2block_taps.npz")
    upscaler = upscaler_of(build_net(rrdbnet.weights("x2_2block"), where="x"))

    (hr,) = run(upscaler, [torch.from_numpy(expected["input"])])

    assert np.abs(hr.numpy() - expected["output"].clip(0, 1)).max() <= 1e-5


def test_an_x4_net_serves_a_2x_stream_by_the_mean_of_each_block() -> None:
    given = frames(1)
    (four,) = run(upscaler_of(tiny_srvgg(), scale=4), given)
    (two,) = run(upscaler_of(tiny_srvgg()), given)

    blocks = four.view(1, 3, 8, 2, 8, 2).mean(dim=(3, 5))
    assert torch.allclose(two, blocks, atol=1e-6)


def test_an_x4_net_takes_any_size_and_the_x2_net_even_ones() -> None:
    assert upscaler_of(tiny_srvgg()).spec.multiple == 1
    with pytest.raises(UpscaleError, match="divide by 2"):
        upscaler_of(tiny_net()).open(Size(5, 4))


@pytest.mark.parametrize(("net", "scale"), [(tiny_net(2), 4), (tiny_srvgg(4), 3)])
def test_a_scale_the_net_cannot_serve_is_refused(net: Net, scale: int) -> None:
    with pytest.raises(ConfigError, match=f"cannot enlarge {scale} times"):
        upscaler_of(net, scale=scale)


@pytest.mark.parametrize("precision", [Precision.FP16, Precision.BF16])
def test_lower_precision_gives_nearly_the_same_picture(precision: Precision) -> None:
    given = frames(1)
    (exact,) = run(upscaler_of(tiny_net()), given)
    (lower,) = run(upscaler_of(tiny_net(), precision=precision), given)

    assert lower.dtype in (torch.float16, torch.bfloat16)
    assert torch.allclose(lower.float(), exact, atol=0.02)


def test_a_frame_of_another_shape_is_refused() -> None:
    session = upscaler_of(tiny_net()).open(SMALLEST)

    with pytest.raises(UpscaleError, match="another shape") as caught:
        list(session.push(torch.zeros(1, 3, 6, 4)))

    assert caught.value.expected == (1, 3, 4, 4)


def test_running_out_of_memory_is_told_apart() -> None:
    class Hungry(SRVGGNetCompact):
        def forward(self, x: Tensor) -> Tensor:
            raise torch.OutOfMemoryError("CUDA out of memory")

    session = upscaler_of(Hungry(SRVGGConfig(scale=2, convs=1, features=4))).open(SMALLEST)

    with pytest.raises(OutOfMemory, match="ran out of memory"):
        list(session.push(frames(1)[0]))


def test_on_a_cpu_it_says_so_in_one_line(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        upscaler_of(tiny_net())

    (record,) = caplog.records
    assert "runs on the CPU" in record.getMessage()


def test_a_session_at_twice_the_side_is_estimated_four_times_as_large() -> None:
    upscaler = upscaler_of(tiny_net())
    small = upscaler.session_bytes(Size(64, 64))

    assert upscaler.session_bytes(Size(128, 128)) == pytest.approx(4 * small, rel=0.01)


def test_any_compatible_file_is_loaded_by_path() -> None:
    upscaler = create_upscaler("realesrgan-x2", settings={"path": str(TINY_FILE)})

    (hr,) = upscaler.open(SMALLEST).push(frames(1)[0])
    assert hr.shape == (1, 3, 8, 8)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"tile": 3}, "tile"),
        ({"scale": "2"}, "scale"),
        ({"scale": True}, "scale"),
        ({"precision": "fp8"}, "precision"),
        ({"path": "a.pth", "weights": "b.pth"}, "not both"),
        ({"denoise": 0.5}, "denoise"),
        ({"path": str(TINY_FILE), "denoise": 0.5}, "denoise"),
        ({"path": str(TINY_FILE), "scale": 4}, "4 times"),
    ],
)
def test_a_bad_setting_is_named(settings: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        create_upscaler("realesrgan-x2", settings=settings)


def test_a_denoise_outside_its_range_is_named() -> None:
    with pytest.raises(ConfigError, match="0 to 1"):
        create_upscaler("realesrgan-general", settings={"denoise": 2})


def test_denoise_mixes_the_two_general_checkpoints(tmp_path: Path) -> None:
    table, nets = [], []
    for file in ("realesr-general-x4v3.pth", "realesr-general-wdn-x4v3.pth"):
        nets.append(SRVGGNetCompact(SRVGGConfig(scale=4, convs=1, features=4)))
        path = tmp_path / "realesrgan" / file
        path.parent.mkdir(exist_ok=True)
        torch.save({"params": nets[-1].state_dict()}, path)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        table.append(Checkpoint(f"realesrgan/{file}", "", None, digest, "", ""))
    store = WeightStore(tmp_path, checkpoints=tuple(table))

    mixed = RealESRGAN.from_settings("realesrgan-general", "cpu", {"denoise": 0.25}, store=store)

    weights = interpolate(nets[0].state_dict(), nets[1].state_dict(), 0.25, where="x")
    (expected,) = run(upscaler_of(build_net(weights, where="x")), frames(1))
    assert torch.equal(run(mixed, frames(1))[0], expected)


@pytest.mark.parametrize("name", ["realesrgan-x2", "realesrgan-general", "realesrgan-anime"])
def test_without_its_checkpoint_the_command_that_mends_it_is_named(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STREAMLIFT_WEIGHTS_DIR", str(tmp_path))

    with pytest.raises(WeightsError, match="streamlift weights pull realesrgan/"):
        create_upscaler(name, settings={})


def test_another_checkpoint_of_the_table_can_be_asked_for(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"RealESRGAN_x4plus_anime_6B\.pth is missing"):
        RealESRGAN.from_settings(
            "realesrgan-x2",
            "cpu",
            {"weights": "RealESRGAN_x4plus_anime_6B.pth"},
            store=WeightStore(tmp_path),
        )


def test_a_device_that_is_not_there_is_named() -> None:
    with pytest.raises(NotReady, match="cuda:99"):
        create_upscaler("realesrgan-x2", device="cuda:99", settings={"path": str(TINY_FILE)})
    with pytest.raises(NotReady, match="abacus"):
        create_upscaler("realesrgan-x2", device="abacus", settings={"path": str(TINY_FILE)})


def test_without_torch_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)

    with pytest.raises(NotReady, match=r"pip install 'streamlift\[torch\]'"):
        create_upscaler("realesrgan-x2", settings={})


def test_what_float16_cannot_hold_is_made_anew_in_bfloat16(
    caplog: pytest.LogCaptureFixture,
) -> None:
    net = tiny_net()
    assert isinstance(net, RRDBNet)
    with torch.no_grad():
        net.conv_first.weight.mul_(5e5)  # its sums pass 65504
        net.conv_last.weight.mul_(1e-5)
    narrow = RealESRGAN(
        copy.deepcopy(net), name="n", device=torch.device("cpu"), precision=Precision.FP16
    )
    wide = RealESRGAN(net, name="n", device=torch.device("cpu"), precision=Precision.BF16)
    session, expected = narrow.open(Size(16, 12)), wide.open(Size(16, 12))
    for frame in frames(2, Size(16, 12)):
        (found,), (wanted,) = session.push(frame), expected.push(frame)
        assert not torch.isfinite(found).all()
        torch.testing.assert_close(session.redo(), wanted, atol=0.02, rtol=0)
    assert sum("bfloat16" in record.message for record in caplog.records) == 1


def test_an_overflow_in_the_last_layer_is_no_white_point() -> None:
    net = tiny_net()
    assert isinstance(net, RRDBNet)
    with torch.no_grad():
        net.get_parameter("conv_last.bias")[0] = torch.inf
    (hr,) = run(upscaler_of(net), frames(1))
    assert not hr[:, 0].isfinite().any()
    assert hr[:, 1:].isfinite().all()


def test_a_batch_gives_the_pictures_of_one_by_one_and_all_that_is_owed() -> None:
    size = Size(12, 8)
    single = upscaler_of(tiny_net())
    batched = single.batched(4)
    spec = batched.spec
    assert (spec.first, spec.step, spec.lag, single.spec.step) == (4, 4, 0, 1)
    assert batched.session_bytes(size) == 4 * single.session_bytes(size)
    given = frames(6, size)
    session = batched.open(size)
    groups, wanted = [], []
    for lr in given:
        wanted.append(session.wanted)
        groups += list(session.push(lr))
    assert wanted == [4, 3, 2, 1, 4, 3]
    assert [group.shape[0] for group in groups] == [4]
    torch.testing.assert_close(session.redo(), groups[0], atol=1e-6, rtol=0)
    groups += list(session.finish())
    assert [group.shape[0] for group in groups] == [4, 2]
    assert list(session.finish()) == []
    torch.testing.assert_close(torch.cat(groups), torch.cat(run(single, given)), atol=1e-6, rtol=0)


def test_two_batched_sessions_do_not_mix() -> None:
    size = Size(12, 8)
    batched = upscaler_of(tiny_net()).batched(3)
    streams = [frames(7, size, seed) for seed in range(2)]
    sessions = [batched.open(size) for _ in streams]
    found: list[list[Tensor]] = [[], []]
    for number in range(7):
        for stream, session, out in zip(streams, sessions, found, strict=True):
            out += list(session.push(stream[number]))
    for stream, session, out in zip(streams, sessions, found, strict=True):
        out += list(session.finish())
        torch.testing.assert_close(torch.cat(out), torch.cat(run(batched, stream)))
