"""Pictures that were set going and are not in host memory yet, asked for without waiting."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from streamlift.frames import Planes, Target

__all__ = ["Group", "There", "Underway"]

T = TypeVar("T")


class Group(Protocol):
    """Pictures that become ready together."""

    @property
    def count(self) -> int: ...

    @property
    def ready(self) -> bool:
        """Whether `wait` would return at once."""
        ...

    @property
    def shaped(self) -> Target | None:
        """The target that they are brought to; None for the model's own size."""
        ...

    def wait(self) -> list[Planes]:
        """The pictures in host memory. Raises InvalidOutput where they are none."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class There:
    """A picture that was made in host memory."""

    planes: Planes
    count = 1
    ready = True
    shaped = None

    def wait(self) -> list[Planes]:
        return [self.planes]


class Underway(Generic[T]):
    """All that one frame set going, in order.

    On a GPU every group was launched when this was made, and `ready` tells whether the next one
    is there. Otherwise `take` is what computes.
    """

    __slots__ = ("_coming", "_launched", "_made_of")

    def __init__(
        self, groups: Iterable[Group], made_of: Callable[[Group], Iterator[T]], *, launch: bool
    ) -> None:
        """`launch`: exhaust `groups` now. `made_of`: what a group's pictures become."""
        self._launched = deque(groups if launch else ())
        self._coming = iter(() if launch else groups)
        self._made_of = made_of

    @property
    def ready(self) -> bool:
        """Whether `take` would not wait for the device."""
        return not self._launched or self._launched[0].ready

    def take(self) -> Iterator[T] | None:
        """The next group's pictures, None after the last."""
        group = self._launched.popleft() if self._launched else next(self._coming, None)
        return None if group is None else self._made_of(group)
