"""Queues of batches between the thread that makes them and the Program that reads them."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from typing import Any

import torch

from millstream.errors import EOFException, FeedError, InvalidProgramError
from millstream.ir.block import Block
from millstream.ir.program import Program
from millstream.ir.types import VarType
from millstream.ir.variable import Variable
from millstream.runtime.executor import feed_value
from millstream.runtime.scope import ScopeVar
from millstream.runtime.tensor import LoDTensor

Batch = list[LoDTensor]
Slot = tuple[tuple[int, ...], VarType, int, bool]


class LoDTensorBlockingQueue:
    """Batches, each a list of LoDTensors, at most `capacity` of them (``core.LoDTensorBlockingQueue``).

    A queue is open; *closed*, when what is in it can still be taken; or *killed*, when nobody waits any more and
    nothing can be taken. :meth:`reopen` empties it for another pass.
    """

    def __init__(self, capacity: int = 0, ordered: bool = False) -> None:
        if capacity < 0:
            raise ValueError(f"LoDTensorBlockingQueue: capacity must not be negative, received {capacity}")
        self._capacity = int(capacity)
        self._items: deque[Batch] = deque()
        self._state = threading.Condition()
        self._closed = False
        self._killed = False
        self._error: BaseException | None = None
        self.epoch = 0  # counts reopenings: a thread left over from an earlier pass can tell
        # Whose start() fills it: reading from it before that would wait for ever.
        self.owner: str | None = None
        self.started = False
        self._reader: QueueReader | None = None

    # ---- the side that fills it --------------------------------------------------------------
    def push(self, tensors: Sequence[LoDTensor], epoch: int | None = None) -> bool:
        """Append a batch, waiting for room; False when the queue is closed or killed, or in another pass than `epoch`."""
        with self._state:
            if epoch is None:
                self.owner = None  # filled by hand: whoever does it needs no start()
                epoch = self.epoch
            while self._is_open(epoch) and 0 < self._capacity <= len(self._items):
                self._state.wait()
            if not self._is_open(epoch):
                return False
            self._items.append(list(tensors))
            self._state.notify_all()
            return True

    def _is_open(self, epoch: int) -> bool:
        return not self._closed and not self._killed and self.epoch == epoch

    def close(self, error: BaseException | None = None, epoch: int | None = None) -> None:
        """No more batches will come; whoever asks for one after the last gets `error`."""
        with self._state:
            if epoch is None or epoch == self.epoch:
                self._error = error
                self._closed = True
                self._state.notify_all()

    def kill(self) -> None:
        """Drop what is in it and release everybody who waits."""
        with self._state:
            self._killed = True
            self._items.clear()
            self._state.notify_all()

    def reopen(self) -> None:
        """Empty and open again."""
        with self._state:
            self._items.clear()
            self._closed = self._killed = False
            self.epoch += 1
            self._error = None
            self._state.notify_all()

    # ---- the side that takes from it ---------------------------------------------------------
    def pop(self) -> Batch | None:
        """The oldest batch, waiting for one; None when the queue is closed and empty, or killed."""
        with self._state:
            epoch = self.epoch
            while not self._items and self._is_open(epoch):
                if self.owner is not None and not self.started:
                    raise InvalidProgramError(
                        f"{self.owner} was not started: call its start() before running a program that reads from it"
                    )
                self._state.wait()
            if self.epoch != epoch:
                return None
            if self._items:
                item = self._items.popleft()
                self._state.notify_all()
                return item
            if self._error is not None and not self._killed:
                raise self._error
            return None

    def size(self) -> int:
        return len(self._items)

    def capacity(self) -> int:
        return self._capacity

    def is_closed(self) -> bool:
        return self._closed or self._killed

    def wait_for_inited(self, milliseconds: int = 0) -> bool:
        """True: a queue is ready as soon as it exists."""
        return True

    # ---- as a variable of the Scope ----------------------------------------------------------
    def reader(self, slots: Sequence[Slot], device: torch.device) -> QueueReader:
        """The reader over this queue: one, however often the operator that makes it runs."""
        found = self._reader
        if found is None or found.slots != tuple(slots) or found.device != device:
            found = self._reader = QueueReader(self, tuple(slots), device)
        return found

    def __reduce__(self) -> Any:
        raise TypeError("a LoDTensorBlockingQueue belongs to this process; it can't be pickled")


def init_lod_tensor_blocking_queue(var: ScopeVar, capacity: int, is_ordered: bool = False) -> LoDTensorBlockingQueue:
    """A new queue in the variable `var` of a Scope; InvalidProgramError when it already holds one."""
    if var.obj is not None:
        raise InvalidProgramError(
            f"variable {var.name!r} holds a {type(var.obj).__name__} already: a queue is made once; give the two readers "
            "different names, or build the second Program under another Scope (fluid.scope_guard)"
        )
    queue = LoDTensorBlockingQueue(capacity, is_ordered)
    var.obj = queue
    return queue


class QueueReader:
    """What a variable of kind READER holds: batches from a queue, checked against the declared slots.

    Args:
        slots: (shape, dtype, lod_level, whether fed shapes are checked) of each tensor of a batch.
    """

    def __init__(self, queue: LoDTensorBlockingQueue, slots: tuple[Slot, ...], device: torch.device) -> None:
        self.queue = queue
        self.slots = slots
        self.device = device
        scratch = Block(Program(), 0, -1)
        self._declared = [
            Variable(scratch, f"read output {k}", shape, dtype, level, is_data=check, need_check_feed=check)
            for k, (shape, dtype, level, check) in enumerate(slots)
        ]
        self._ahead: Prefetch | None = None
        self.over: dict[str, Any] = {}  # readers made over this one

    @property
    def epoch(self) -> int:
        return self.queue.epoch

    def buffered(self) -> QueueReader | Prefetch:
        """The same batches, brought to the device ahead of their use (main memory needs no copy, so no thread)."""
        if self.device.type == "cpu":
            return self
        if self._ahead is None:
            self._ahead = Prefetch(self)
        return self._ahead

    def read_next(self) -> list[tuple[torch.Tensor, Any]]:
        """(tensor, LoD) of one batch; EOFException at the end."""
        batch = self.queue.pop()
        if batch is None:
            raise EOFException(
                "the reader has no more data: catch fluid.core.EOFException, then call reset() and start() for another pass"
            )
        if len(batch) != len(self.slots):
            raise FeedError(f"read: a batch of {len(batch)} tensors came, {len(self.slots)} are declared")
        return [feed_value(var, tensor, self.device, any_rank=True) for var, tensor in zip(self._declared, batch)]


class Prefetch:
    """Reads one batch ahead in a thread, so that copies to the device run while the Program computes."""

    def __init__(self, source: QueueReader) -> None:
        self.source = source
        self.slots = source.slots
        self._turn = threading.Lock()
        self._next: _Job | None = None
        self.over: dict[str, Any] = {}

    @property
    def epoch(self) -> int:
        return self.source.epoch

    def buffered(self) -> Prefetch:
        return self

    def read_next(self) -> list[tuple[torch.Tensor, Any]]:
        with self._turn:
            job, self._next = self._next, None
            if job is None or job.epoch != self.source.queue.epoch:
                job = _Job(self.source)
            batch = job.result()
            self._next = _Job(self.source)
            return batch


class _Job:
    """One read in a thread of its own."""

    def __init__(self, source: QueueReader) -> None:
        self.epoch = source.queue.epoch
        self._value: Any = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, args=(source,), daemon=True, name="millstream-prefetch")
        self._thread.start()

    def _run(self, source: QueueReader) -> None:
        try:
            self._value = source.read_next()
        except BaseException as error:
            self._error = error

    def result(self) -> Any:
        self._thread.join()
        if self._error is not None:
            raise self._error
        return self._value
