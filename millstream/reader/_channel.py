"""A bounded queue between threads that either end can close.

`queue.Queue` before Python 3.13 cannot be closed, so a producer blocked on a full queue whose
consumer went away would stay blocked for ever. Here closing wakes everybody at once and no
thread polls.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import Generic, TypeVar

__all__ = ["Channel", "ChannelClosed"]

T = TypeVar("T")


class ChannelClosed(Exception):
    """The channel is closed: nothing more will be taken, or nothing more will come."""


class Channel(Generic[T]):
    """First in, first out; `capacity` <= 0 means unbounded."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._items: deque[T] = deque()
        self._state = threading.Condition()
        self._finished = False
        self._cancelled = False

    def put(self, item: T) -> None:
        """Append, waiting for room. ChannelClosed when the channel is finished or cancelled."""
        with self._state:
            while not self._cancelled and not self._finished and 0 < self._capacity <= len(self._items):
                self._state.wait()
            if self._cancelled or self._finished:
                raise ChannelClosed
            self._items.append(item)
            self._state.notify_all()

    def get(self) -> T:
        """Take the oldest item, waiting for one. ChannelClosed when none will come."""
        with self._state:
            while not self._items and not self._finished and not self._cancelled:
                self._state.wait()
            if self._cancelled or not self._items:
                raise ChannelClosed
            item = self._items.popleft()
            self._state.notify_all()
            return item

    def finish(self) -> None:
        """No more puts; what is queued can still be taken."""
        with self._state:
            self._finished = True
            self._state.notify_all()

    def cancel(self) -> None:
        """Nobody will take anything more: drop what is queued and release everyone."""
        with self._state:
            self._cancelled = True
            self._items.clear()
            self._state.notify_all()
