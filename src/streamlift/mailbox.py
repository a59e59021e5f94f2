"""A bounded queue between two parts of one event loop, for media, where late is lost."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from enum import StrEnum
from typing import Generic, TypeVar

__all__ = ["Full", "Mailbox"]

T = TypeVar("T")


class Full(StrEnum):
    """Which item goes when there is no room."""

    DROP_OLDEST = "drop oldest"
    DROP_NEW = "drop new"


class Mailbox(Generic[T]):
    """An async iterator of what was put in, for one reader; `dropped` counts what it never gets.

    It keeps what is in it past `end()`: the reader gets that first, then the end or the error.
    """

    def __init__(
        self,
        bound: int,
        full: Full = Full.DROP_OLDEST,
        *,
        bridge: Callable[[T, T], T] | None = None,
    ) -> None:
        """`bridge(next, dropped)`: what becomes of the item after an oldest one that goes."""
        self.dropped = 0
        self._bridge = bridge
        self._bound = bound
        self._full = full
        self._items: deque[T] = deque()
        self._arrived = asyncio.Event()
        self._ended = False
        self._error: BaseException | None = None

    def __len__(self) -> int:
        return len(self._items)

    def put(self, item: T) -> bool:
        """Take `item`, never wait. False if that cost an item, the oldest or this one; after the
        end it is always this one."""
        fits = len(self._items) < self._bound and not self._ended
        if not fits:
            self.dropped += 1
            if self._ended or self._full is Full.DROP_NEW:
                return False
            left_out = self._items.popleft()
            self._items.append(item)
            if self._bridge is not None:
                self._items[0] = self._bridge(self._items[0], left_out)
        else:
            self._items.append(item)
        self._arrived.set()
        return fits

    def end(self, error: BaseException | None = None) -> None:
        """No more will come. Of several errors the first is raised, after what is still here."""
        self._error = self._error or error
        self._ended = True
        self._arrived.set()

    def __aiter__(self) -> Mailbox[T]:
        return self

    async def __anext__(self) -> T:
        while not self._items:
            if self._error is not None:
                raise self._error
            if self._ended:
                raise StopAsyncIteration
            self._arrived.clear()
            await self._arrived.wait()
        return self._items.popleft()
