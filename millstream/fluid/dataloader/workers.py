"""Worker processes that make batches.

Every worker takes tasks and answers them in order over its own socket, so the parent needs no thread, keeps the
order by asking the workers in turn, and sees the death of a worker as the end of its socket.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import pickle
import random
import socket
import traceback
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from millstream.errors import NotSupportedError
from millstream.fluid.dataloader import wire

__all__ = ["EndOfData", "Pool", "WorkerInfo", "get_worker_info"]

_VALUE, _END, _FAILURE = 0, 1, 2

# What a worker does with a task; made inside the worker from its number.
Answer = Callable[[Any], Any]


class EndOfData(Exception):
    """A worker has nothing more to give."""


class WorkerInfo(NamedTuple):
    """Which worker this process is.

    Attributes:
        id: 0 … num_workers - 1.
        num_workers: of the DataLoader.
        dataset: this worker's copy.
        seed: what numpy's and Python's generators were seeded with here.
    """

    id: int
    num_workers: int
    dataset: Any
    seed: int


class _Here:
    info: WorkerInfo | None = None


def get_worker_info() -> WorkerInfo | None:
    """The worker this process is; None in the main process."""
    return _Here.info


class Pool:
    """Some worker processes.

    Args:
        count: number of workers.
        make: called in each worker with its number; returns the function that answers tasks.
        init: called in each worker with its number first (`worker_init_fn`).
        dataset: what :func:`get_worker_info` shows.
        timeout: seconds to wait for an answer; 0: for ever.
        share: hand over arrays in shared memory.
    """

    def __init__(
        self,
        count: int,
        make: Callable[[int], Answer],
        init: Callable[[int], Any] | None = None,
        dataset: Any = None,
        timeout: float = 0,
        share: bool = True,
    ) -> None:
        if "fork" not in multiprocessing.get_all_start_methods():
            raise NotSupportedError(
                "worker processes need the `fork` start method, which this platform lacks: use num_workers=0"
            )
        context: Any = multiprocessing.get_context("fork")
        self._timeout = timeout
        self._sockets: list[socket.socket] = []
        self._processes: list[Any] = []
        seed = int(np.random.randint(0, 2**31 - count))
        try:
            for k in range(count):
                mine, theirs = socket.socketpair()
                mine.settimeout(timeout or None)
                inherited = [*self._sockets, mine]  # a worker that held them would keep dead sockets open
                info = WorkerInfo(k, count, dataset, seed + k)
                process = context.Process(
                    target=_main, args=(theirs, inherited, info, make, init, share), daemon=True, name=f"worker {k}"
                )
                self._sockets.append(mine)
                process.start()
                theirs.close()
                self._processes.append(process)
        except BaseException:
            self.stop()
            raise

    def submit(self, worker: int, task: Any) -> None:
        """Give a task to a worker."""
        # The answers of a worker up to its death can still be received; receive() reports the death.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            wire.send(self._sockets[worker], task, False)

    def receive(self, worker: int) -> Any:
        """The answer to that worker's oldest task.

        Raises:
            EndOfData: it has nothing more. RuntimeError: it died, or did not answer in time.
            Whatever the worker raised.
        """
        try:
            kind, payload = wire.receive(self._sockets[worker])
        except TimeoutError:
            raise RuntimeError(f"DataLoader: worker {worker} gave no batch within timeout={self._timeout} seconds") from None
        except (EOFError, ConnectionResetError):
            process = self._processes[worker]
            process.join(5)
            raise RuntimeError(
                f"DataLoader worker {worker} (process {process.pid}) exited unexpectedly with exit code {process.exitcode}. "
                "Hint: a negative code is the signal that killed it; -9 often means memory ran out"
            ) from None
        if kind == _END:
            raise EndOfData
        if kind == _FAILURE:
            error, trace = payload
            origin = RuntimeError(f"DataLoader worker {worker} raised:\n{trace}")
            if error is None:
                raise origin
            raise error from origin
        return payload

    def stop(self) -> None:
        """End all workers; safe to call twice."""
        for sock in self._sockets:
            sock.close()
        for process in self._processes:
            if process.is_alive():
                process.terminate()
        for process in self._processes:
            process.join(5)
            if process.is_alive():  # it ignores SIGTERM
                process.kill()
                process.join()
        self._sockets, self._processes = [], []


def _portable(error: BaseException) -> BaseException | None:
    """`error` if it survives the trip between processes, else None."""
    try:
        copy = pickle.loads(pickle.dumps(error))
    except Exception:
        return None
    return copy if isinstance(copy, BaseException) else None


def _main(
    sock: socket.socket,
    inherited: list[socket.socket],
    info: WorkerInfo,
    make: Callable[[int], Answer],
    init: Callable[[int], Any] | None,
    share: bool,
) -> None:
    for other in inherited:
        other.close()
    try:
        _prepare(info)
        if init is not None:
            init(info.id)
        answer = make(info.id)
    except BaseException as error:
        failed = (_FAILURE, (_portable(error), traceback.format_exc()))
        answer = _always(failed)
    try:
        _serve(sock, answer, share)
    except (EOFError, OSError, KeyboardInterrupt):
        pass  # the parent went away
    finally:
        sock.close()
        os._exit(0)  # not the parent's atexit functions


def _prepare(info: WorkerInfo) -> None:
    import torch

    torch.set_num_threads(1)  # the threads of the parent did not survive the fork
    random.seed(info.seed)
    np.random.seed(info.seed)
    _Here.info = info


def _always(message: tuple[int, Any]) -> Answer:
    def answer(_: Any) -> Any:
        raise _Ready(message)

    return answer


class _Ready(Exception):
    """A message that is finished already."""

    def __init__(self, message: tuple[int, Any]) -> None:
        self.message = message


def _serve(sock: socket.socket, answer: Answer, share: bool) -> None:
    while True:
        task = wire.receive(sock)
        try:
            message: tuple[int, Any] = (_VALUE, answer(task))
        except _Ready as ready:
            message = ready.message
        except EndOfData:
            message = (_END, None)
        except BaseException as error:
            message = (_FAILURE, (_portable(error), traceback.format_exc()))
        try:
            wire.send(sock, message, share)
        except (pickle.PicklingError, TypeError, AttributeError) as error:
            text = f"a batch can't be sent between processes: {error}"
            wire.send(sock, (_FAILURE, (TypeError(text), text)), False)
