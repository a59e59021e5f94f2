"""The optional package: a clear error without it, and its descriptor made a spec."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

torch = pytest.importorskip("torch")

from streamlift.errors import ConfigError, NotReady, UpscaleError  # noqa: E402
from streamlift.frames import Size  # noqa: E402
from streamlift.upscalers import create_upscaler  # noqa: E402
from streamlift.upscalers.spandrel import Spandrel  # noqa: E402

if TYPE_CHECKING:
    from torch import Tensor


@dataclass
class Requirements:
    minimum: int = 0
    multiple_of: int = 4
    square: bool = False


@dataclass
class Architecture:
    name: str = "Nearest"


@dataclass
class Descriptor:
    """The part of spandrel's ImageModelDescriptor that is used, around a trivial net."""

    input_channels: int = 3
    output_channels: int = 3
    scale: int = 2
    supports_half: bool = True
    size_requirements: Requirements = field(default_factory=Requirements)
    architecture: Architecture = field(default_factory=Architecture)

    def to(self, device: Any, dtype: Any) -> Descriptor:
        del device, dtype
        return self

    def eval(self) -> Descriptor:
        return self

    def __call__(self, image: Tensor) -> Tensor:
        return image.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)


def test_without_the_package_the_extra_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "spandrel", None)  # as if it were not installed

    with pytest.raises(NotReady, match=r"pip install 'streamlift\[spandrel\]'"):
        create_upscaler("spandrel", settings={"path": str(tmp_path / "net.pth")})


@pytest.mark.parametrize("settings", [{}, {"path": 3}, {"path": "a", "tile": 2}])
def test_settings_without_a_file_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="path"):
        create_upscaler("spandrel", settings=settings)


def test_the_descriptor_makes_the_spec_and_runs_frames() -> None:
    upscaler = Spandrel(Descriptor(), torch.device("cpu"), half=True)
    session = upscaler.open(Size(8, 4))
    lr = torch.rand(1, 3, 4, 8)

    (hr,) = session.push(lr)

    assert (upscaler.spec.scale, upscaler.spec.multiple) == (2, 4)
    assert torch.equal(hr[..., ::2, ::2], lr)
    assert list(session.finish()) == []
    with pytest.raises(UpscaleError, match="another shape"):
        list(session.push(torch.rand(1, 3, 8, 8)))


def test_a_net_that_is_not_rgb_is_refused() -> None:
    with pytest.raises(ConfigError, match="no net for RGB"):
        Spandrel(Descriptor(input_channels=1), torch.device("cpu"), half=False)
