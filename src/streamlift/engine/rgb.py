"""The way of an RGB model's pictures: planes to the device, calmed there, and bytes back.

Only the download waits for the device. On a GPU a model's groups are all launched before the
first of them is waited for, and the stabiliser runs where the pictures are, before they are
packed; on a CPU, where launching is computing, each group goes out as soon as it is there.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from streamlift.engine.yuv import (
    Download,
    begin_download,
    join_levels,
    planes_to_rgb_and_luma,
    rgb_to_levels,
)
from streamlift.errors import InvalidOutput, UpscaleError
from streamlift.frames import Colour, Frame, Planes, Size, Stabilise, Target
from streamlift.sizes import placed_in
from streamlift.upscalers.base import Redoable

if TYPE_CHECKING:
    from torch import Tensor

    from streamlift.engine.stabilise_torch import TorchStabiliser

__all__ = ["RgbWay"]

_GAP_TICKS = 45_000
"""Half a second at 90 kHz: after such a gap the picture before says nothing of this one."""


@dataclass(frozen=True, slots=True, eq=False)
class _Given:
    """What the model has taken and not given back."""

    luma: Tensor
    colour: Colour
    pts: int
    size: Size  # of the frame, without padding


@dataclass(frozen=True, slots=True, eq=False)
class _History:
    """What was remembered of the pictures before a group."""

    calmed: object
    pts: int | None


@dataclass(frozen=True, slots=True, eq=False)
class _Launched:
    """A group of the model's pictures on its way to host memory; fits `launched.Group`."""

    way: RgbWay
    download: Download
    given: list[_Given]
    session: object
    before: _History
    shaped: Target | None

    @property
    def count(self) -> int:
        return len(self.given)

    @property
    def ready(self) -> bool:
        return self.download.ready

    def wait(self) -> list[Planes]:
        planes = self.download.wait()
        return planes if self.download.finite else self.way.again(self)


class RgbWay:
    """One stream's; used by one thread. `download` stands in for `begin_download` in tests."""

    def __init__(
        self,
        device: str,
        strength: Stabilise = Stabilise.OFF,
        *,
        launch_all: bool | None = None,
        download: Callable[[Any, Size], Download] = begin_download,
    ) -> None:
        self._device = device
        self.launches_all = device != "cpu" if launch_all is None else launch_all
        """Whether launching is not yet computing."""
        self._download = download
        self._owed: deque[_Given] = deque()
        self._last_pts: int | None = None
        self.wanted: Target | None = None
        """Whoever wants another size says so here; it holds for what is launched from now on."""
        self._stabiliser: TorchStabiliser | None = None
        if strength is not Stabilise.OFF:
            from streamlift.engine.stabilise_torch import TorchStabiliser

            self._stabiliser = TorchStabiliser(strength)

    def to_rgb(self, lr: Planes, frame: Frame) -> Tensor:
        """The next frame for the model, (1, 3, H, W) in [0, 1] on the device."""
        rgb, luma = planes_to_rgb_and_luma(lr, frame.colour, self._device)
        self._owed.append(_Given(luma, frame.colour, frame.pts, frame.size))
        return rgb

    def launch(self, groups: Iterable[Tensor], session: object) -> Iterator[_Launched]:
        """The model's outputs (n, 3, H, W), in order, each with all that is left to do queued."""
        launched = (
            self._begin(group, self._match(group.shape[0]), session, self.wanted)
            for group in groups
        )
        return iter(tuple(launched)) if self.launches_all else launched

    def to_planes(self, groups: Iterable[Tensor], session: object) -> Iterator[Planes]:
        """The model's outputs in host memory, in order.

        Raises InvalidOutput when a picture is not of numbers, also when `session` made it anew.
        """
        for launched in self.launch(groups, session):
            yield from launched.wait()

    def reset(self) -> None:
        """Forget the session: nothing is owed, and the next picture starts a history."""
        self._owed.clear()
        if self._stabiliser is not None:
            self._stabiliser.reset()

    def again(self, launched: _Launched) -> list[Planes]:
        """The pictures of a group that were not of numbers, once more. Raises InvalidOutput."""
        session = launched.session
        if not isinstance(session, Redoable):
            raise InvalidOutput(
                "upscaler gave a picture that is not of numbers", found="NaN", expected="a picture"
            )
        if self._stabiliser is not None:
            self._stabiliser.recall(launched.before.calmed)
            self._last_pts = launched.before.pts
        anew = self._begin(session.redo(), launched.given, session, launched.shaped)
        planes = anew.download.wait()
        if not anew.download.finite:
            raise InvalidOutput(
                "upscaler gave a picture that is not of numbers, twice",
                found="NaN",
                expected="a picture",
            )
        return planes

    def _match(self, count: int) -> list[_Given]:
        if count > len(self._owed):
            raise UpscaleError("upscaler gave more frames than it took")
        return [self._owed.popleft() for _ in range(count)]

    def _begin(
        self, group: Tensor, given: list[_Given], session: object, target: Target | None
    ) -> _Launched:
        """Queue all that is left to do; a flag travels with each picture that is none."""
        import torch

        calmed = None if self._stabiliser is None else self._stabiliser.remembered
        before = _History(calmed, self._last_pts)
        height, width = group.shape[-2:]
        with torch.no_grad():
            finite = torch.isfinite(group).flatten(1).all(1)
            # Colour tags do not change within a session's owed frames but at a new publisher.
            y, chroma = rgb_to_levels(group, given[0].colour)
            if self._stabiliser is not None:
                y, chroma = self._calmed(self._stabiliser, y, chroma, given)
            size = Size(width, height)
            if target is not None:
                y, chroma, size = _shaped(y, chroma, given[0], target)
            packed = join_levels(y, chroma, finite)
        return _Launched(self, self._download(packed, size), given, session, before, target)

    def _calmed(
        self, stabiliser: TorchStabiliser, y: Tensor, chroma: Tensor, given: list[_Given]
    ) -> tuple[Tensor, Tensor]:
        import torch

        # Rounded first: the twin on the CPU sees bytes.
        y, chroma = (levels.round().clamp(0.0, 255.0) for levels in (y, chroma))
        pictures = []
        for number, frame in enumerate(given):
            last, self._last_pts = self._last_pts, frame.pts
            if last is not None and not 0 < frame.pts - last <= _GAP_TICKS:
                stabiliser.reset()
            planes = (y[number], chroma[number, 0], chroma[number, 1])
            pictures.append(stabiliser.apply(frame.luma, planes))
        return (
            torch.stack([calm for calm, _, _ in pictures]),
            torch.stack([torch.stack((u, v)) for _, u, v in pictures]),
        )


def _shaped(
    y: Tensor, chroma: Tensor, given: _Given, target: Target
) -> tuple[Tensor, Tensor, Size]:
    """The levels in the size of a target, without what was padded."""
    from streamlift.engine.resample_torch import laid_out_levels

    whole = given.size.times(y.shape[-1] // given.luma.shape[-1])
    layout = placed_in(whole, target.output(given.size), target.fit)
    y = y[..., : whole.height, : whole.width]
    chroma = chroma[..., : (whole.height + 1) // 2, : (whole.width + 1) // 2]
    return *laid_out_levels(y, chroma, layout, given.colour), layout.out
