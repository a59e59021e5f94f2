"""NVIDIA's upscaler against a module that asserts its contract; the package itself is not here."""

from __future__ import annotations

import asyncio
import gc
import importlib.util
import re
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.engine.frames import SMALL, frame, options
from tests.offline.media import Sound, make_clip, pictures_of
from tests.routing.fakes import FakePublisher
from tests.routing.stage import BASIC
from tests.waiting import until

from streamlift.cli import OK, main
from streamlift.clock import Clock, ManualClock, MonotonicClock
from streamlift.engine import EngineBackend
from streamlift.engine.chain import UpscaleChain
from streamlift.errors import ConfigError, InvalidOutput, NotReady, UpscaleError
from streamlift.frames import BackendState, Size, Stabilise
from streamlift.metrics import Metrics
from streamlift.routing.backends import BackendTable
from streamlift.routing.events import EventLog
from streamlift.routing.stream import Stream
from streamlift.upscalers import create_upscaler, registry
from streamlift.upscalers.base import Parkable

torch = pytest.importorskip("torch")

from tests.upscalers.fake_nvvfx import FakeNvvfx  # noqa: E402

from streamlift.upscalers.rtx_vsr import QUALITIES, RtxVsr, RtxVsrSettings  # noqa: E402

ROOT = Path(__file__).parents[2]
Make = Callable[..., RtxVsr]
CPU = torch.device("cpu")


@pytest.fixture
def fake() -> FakeNvvfx:
    """Knobs of the module that stands in `sys.modules`; set them before `make`."""
    return FakeNvvfx()


@pytest.fixture
def make(fake: FakeNvvfx, monkeypatch: pytest.MonkeyPatch) -> Make:
    def made(**settings: Any) -> RtxVsr:
        module = fake.module()
        monkeypatch.setitem(sys.modules, "nvvfx", module)
        return RtxVsr(module, RtxVsrSettings.read(settings), index=0, device=CPU)

    return made


@pytest.fixture
def on_cpu(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """`rtx-vsr` by name is the fake one, on tensors of the CPU."""
    monkeypatch.setitem(registry._FACTORIES, "rtx-vsr", lambda device, settings: make(**settings))


def noise(seed: int, size: Size = SMALL) -> Any:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(1, 3, size.height, size.width, generator=generator)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_1_a_picture_arrives_exactly(make: Make, scale: int) -> None:
    session = make(scale=scale).open(SMALL)
    lr = noise(1)
    (hr,) = session.push(lr)
    assert torch.equal(hr, lr.repeat_interleave(scale, 2).repeat_interleave(scale, 3))
    assert session.wanted == 1
    assert list(session.finish()) == []


def test_values_outside_the_range_are_clamped_before_it_sees_them(make: Make) -> None:
    (hr,) = make().open(SMALL).push((noise(1) * 3 - 1).half())
    assert float(hr.min()) == 0
    assert float(hr.max()) == 1


def test_2_a_picture_stays_when_the_next_one_is_made(make: Make) -> None:
    session = make().open(SMALL)
    (first,) = session.push(noise(1))
    held = first.clone()
    (second,) = session.push(noise(2))
    assert torch.equal(first, held)
    assert first.data_ptr() != second.data_ptr()
    assert not torch.equal(first, second)


@pytest.mark.parametrize("size", [Size(512, 512), Size(500, 300), Size(154, 138)])
def test_3_any_size_through_the_chain(make: Make, size: Size) -> None:
    model = make()
    assert model.spec.multiple == 4
    chain = UpscaleChain(model, "cpu", Stabilise.OFF, clock=ManualClock())
    (done,) = chain.push(frame(0, size=size))
    assert done.planes.size == size.times(2)
    list(chain.finish())


async def test_3_a_lane_of_a_backend(on_cpu: None, fake: FakeNvvfx) -> None:
    """Named, loaded, measured and served by an engine, as a stream uses it."""
    backend = _backend()
    await backend.start()
    assert backend.info().state is BackendState.READY, backend.info().reason
    lane = await backend.open_lane(Size(154, 130), options())
    for number in range(5):
        assert lane.offer(frame(number, size=Size(154, 130)))
        await until(lambda: not lane._inbox, "the model to take it")
    lane.finish()
    assert len([item.pts async for item in lane]) == 5
    await lane.aclose()
    fake.zeros_from = fake.runs + 3
    lane = await backend.open_lane(Size(154, 130), options())
    for number in range(5):
        lane.offer(frame(number, size=Size(154, 130)))
    # Routing opens the fallback for a lane that ends so: tests/routing/test_fallback.py.
    with pytest.raises(InvalidOutput, match="known driver fault"):
        async for _ in lane:
            pass
    await lane.aclose()
    await backend.aclose()
    assert fake.loads == fake.closes > 0


def test_4_without_the_package_the_extra_and_the_licence_are_named() -> None:
    if importlib.util.find_spec("nvvfx") is not None:
        pytest.skip("nvidia-vfx is installed here")
    with pytest.raises(NotReady, match=r"streamlift\[rtx\].*accept NVIDIA's licence"):
        create_upscaler("rtx-vsr", device="cuda:0", settings={})


def test_5_on_a_cpu_it_is_not_ready(make: Make) -> None:
    make()  # the module is there
    with pytest.raises(NotReady, match="not on cpu: use cuda:0"):
        create_upscaler("rtx-vsr", device="cpu", settings={})


@pytest.mark.parametrize(
    ("code", "hint"),
    [
        (-14, "libnvidia-ngx.so"),
        (-1, "driver or the library"),
        (-12, "Turing or later"),
        (-13, "Turing or later"),
        (-99, "NVIDIA's requirements"),
    ],
)
def test_6_why_it_does_not_load_is_said(make: Make, fake: FakeNvvfx, code: int, hint: str) -> None:
    fake.load_code = code
    with pytest.raises(NotReady, match=hint) as raised:
        make().open(SMALL)
    assert raised.value.found == code
    assert all(effect.closed for effect in fake.effects)


def test_7_a_quality_that_the_installed_sdk_lacks_is_named(make: Make, fake: FakeNvvfx) -> None:
    make(quality="streaming_ultra").open(SMALL)
    assert fake.levels[-1].name == "STREAMING_ULTRA"
    make(strength=0.5).open(SMALL)
    assert fake.effects[-1].strength == 0.5
    fake.sdk = "1.2"
    with pytest.raises(ConfigError, match=r"no quality streaming_ultra; it has low, medium"):
        make(quality="streaming_ultra")
    with pytest.raises(ConfigError, match="no strength"):
        make(strength=0.5)
    assert make().open(SMALL)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"quality": "best"}, "quality"),
        ({"quality": "deblur_high"}, "quality"),
        ({"scale": 1}, "scale"),
        ({"scale": True}, "scale"),
        ({"strength": 2}, "strength"),
        ({"level": 3}, "unknown"),
    ],
)
def test_a_setting_that_cannot_be_is_named(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        RtxVsrSettings.read(settings)
    assert RtxVsrSettings().quality in QUALITIES


def test_8_black_pictures_without_an_error_are_a_fault(make: Make, fake: FakeNvvfx) -> None:
    fake.zeros_from = 4
    session = make().open(SMALL)
    list(session.push(noise(1)))
    (dark,) = session.push(torch.zeros(1, 3, SMALL.height, SMALL.width))
    assert not dark.any()  # a black picture may be black
    with pytest.raises(InvalidOutput, match=r"580\.x or 590\.x"):
        list(session.push(noise(2)))
    fake.zeros_from = 1
    with pytest.raises(NotReady, match="known driver fault"):
        make().open(SMALL)
    assert fake.loads == fake.closes


async def test_8_the_fallback_serves_a_stream_whose_pictures_went_black(
    on_cpu: None, fake: FakeNvvfx
) -> None:
    clock = MonotonicClock()
    backends = [_backend(clock), _backend(clock, "bicubic")]
    for backend in backends:
        await backend.start()
    fake.zeros_from = fake.runs + 6
    table = BackendTable(backends, clock=clock, fallback="bicubic")
    events = EventLog(clock.now_s)
    stream = Stream(
        "cam", table, "rtx-vsr", clock=clock, metrics=Metrics(), settings=BASIC, events=events
    )
    owner = asyncio.ensure_future(stream.run())
    publisher = FakePublisher()
    done = asyncio.ensure_future(stream.publish(publisher))
    viewer = stream.watch()
    number = 0

    async def served() -> bool:
        nonlocal number
        publisher.push(frame(number, arrived_s=clock.now_s()))
        number += 1
        await asyncio.sleep(0.04)
        return stream.snapshot().backend == "bicubic"

    await until(served, "the fallback", timeout_s=60)
    told = stream.snapshot()
    assert told.degraded
    assert "known driver fault" in told.reason
    publisher.end()
    await asyncio.wait([done])
    with viewer:
        await stream.close("test over")
    await asyncio.wait([owner])
    for backend in backends:
        await backend.aclose()
    assert fake.loads == fake.closes


@pytest.mark.parametrize("knob", ["wrong_shape", "half"])
def test_what_it_must_not_give_is_refused(make: Make, fake: FakeNvvfx, knob: str) -> None:
    session = make().open(SMALL)
    del session
    setattr(fake, knob, True)
    with pytest.raises(NotReady, match="expected"):
        make().open(SMALL)


def test_9_a_fault_ends_the_session_and_another_takes_its_place(
    make: Make, fake: FakeNvvfx
) -> None:
    fake.fail_at = 3
    model = make()
    session = model.open(SMALL)
    list(session.push(noise(1)))
    with pytest.raises(UpscaleError, match="code -1"):
        list(session.push(noise(2)))
    with pytest.raises(UpscaleError, match="finished"):
        list(session.push(noise(2)))
    assert fake.loads == fake.closes == 1
    another = model.open(SMALL)
    assert len(list(another.push(noise(2)))) == 1
    list(another.finish())
    assert fake.loads == fake.closes == 2


def test_9_a_session_that_is_thrown_away_closes_its_effect(make: Make, fake: FakeNvvfx) -> None:
    session = make().open(SMALL)
    list(session.push(noise(1)))
    del session
    gc.collect()
    assert fake.loads == fake.closes == 1


def test_10_a_parked_session_gives_its_memory_back_and_goes_on(make: Make, fake: FakeNvvfx) -> None:
    session = make().open(SMALL)
    assert isinstance(session, Parkable)
    session.park()
    assert (fake.loads, fake.closes) == (1, 1)
    with pytest.raises(UpscaleError, match="parked"):
        list(session.push(noise(1)))
    session.resume()
    assert len(list(session.push(noise(1)))) == 1
    list(session.finish())
    session.park()  # both twice, without harm
    assert (fake.loads, fake.closes) == (2, 2)


def test_11_many_sessions_load_one_by_one_and_share_nothing(make: Make, fake: FakeNvvfx) -> None:
    model, sessions = make(), list[Any]()
    threads = [
        threading.Thread(target=lambda: sessions.append(model.open(SMALL))) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert fake.most_loading == 1
    assert fake.loads == len({id(effect) for effect in fake.effects}) == 8
    pictures = [noise(number) for number in range(8)]
    for session, lr in zip(sessions, pictures, strict=True):
        (hr,) = session.push(lr)
        assert torch.equal(hr[..., ::2, ::2], lr)


def test_12_nothing_imports_the_package_before_it_is_asked_for() -> None:
    code = (
        "import sys, types\n"
        "from importlib.machinery import ModuleSpec\n"
        "class Forbidden:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'nvvfx': return ModuleSpec(name, self)\n"
        "    def create_module(self, spec): raise AssertionError('nvvfx was imported')\n"
        "    def exec_module(self, module): pass\n"
        "sys.meta_path.insert(0, Forbidden())\n"
        "import streamlift, streamlift.app, streamlift.doctor, streamlift.upscalers\n"
        "import streamlift.integrations.scope.plugin\n"
        "import streamlift.upscalers.rtx_vsr\n"
        "streamlift.upscalers.upscaler_names()\n"
        "assert 'nvvfx' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_13_a_file_with_sound(on_cpu: None, fake: FakeNvvfx, tmp_path: Path) -> None:
    source = make_clip(tmp_path / "in.mp4", frames=9, sounds=[Sound()])
    target = tmp_path / "out.mp4"
    assert main(["upscale", str(source), str(target), "--backend", "rtx-vsr"]) == OK
    after = pictures_of(target)
    assert len(after) == 9
    assert {(f.width, f.height) for f in after} == {(192, 128)}
    assert fake.loads == fake.closes == 1


def test_sizes_it_cannot_take_are_refused(make: Make) -> None:
    for settings, size in (({}, Size(98, 64)), ({"scale": 4}, Size(2050, 64)), ({}, Size(28, 64))):
        with pytest.raises(UpscaleError):
            make(**settings).open(size)
    multiples = [make(scale=scale).spec.multiple for scale in (2, 3, 4)]
    assert multiples == [4, 8, 2]


def test_it_is_in_no_other_extra_in_no_lock_and_not_in_ci() -> None:
    import tomllib

    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    holders = [n for n, r in extras["optional-dependencies"].items() if "nvidia-vfx" in str(r)]
    assert holders == ["rtx"]
    assert "nvidia-vfx" not in str(extras["dependencies"])
    files = [ROOT / n for n in ("constraints.txt", ".ci/run", "scripts/environment.sh")]
    files += [ROOT / "scripts" / "test", *(p for p in (ROOT / "docker").rglob("*") if p.is_file())]
    for file in files:
        told = file.read_text()
        assert "nvidia-vfx" not in told, file
        assert not re.search(r"\brtx\b(?!\d)", told), file


def _backend(clock: Clock | None = None, name: str = "rtx-vsr") -> EngineBackend:
    return EngineBackend(
        name,
        name,
        preset="ultrafast",
        max_age_s=60.0,
        # One that stands: no frame is late, however slow this machine is.
        clock=clock or ManualClock(100.0),
        settings={},
        slots=1,
    )


@pytest.mark.gpu
def test_on_a_real_card() -> None:
    """The real package, where it is installed: never yet run by us."""
    pytest.importorskip("nvvfx")
    model = create_upscaler("rtx-vsr", device="cuda:0", settings={})
    size = Size(512, 512)
    sessions = [model.open(size) for _ in range(2)]
    white, black = (torch.full((1, 3, 512, 512), v, device="cuda") for v in (1.0, 0.0))
    for _ in range(3):
        (light,), (dark,) = (list(s.push(x)) for s, x in zip(sessions, (white, black), strict=True))
        assert float(light.mean()) > 0.9
        assert float(dark.mean()) < 0.1
    smooth = torch.nn.functional.interpolate(
        torch.rand(1, 3, 32, 32, device="cuda"), size=(512, 512), mode="bicubic"
    ).clamp(0, 1)
    (hr,) = sessions[0].push(smooth)
    plain = torch.nn.functional.interpolate(smooth, scale_factor=2.0, mode="bicubic").clamp(0, 1)
    error = float(((hr - plain) ** 2).mean())
    assert 0 < error < 10**-2.5  # over 25 dB, and not bicubic itself
    before = torch.cuda.mem_get_info()[0]
    for _ in range(1000):
        list(sessions[0].push(smooth))
    assert before - torch.cuda.mem_get_info()[0] < 50_000_000
