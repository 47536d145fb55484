"""Readers run in child processes, their samples merged in order of arrival."""

from __future__ import annotations

import multiprocessing
import pickle
import queue
import traceback
from collections.abc import Callable, Iterator, Sequence
from multiprocessing import connection
from typing import Any

from ..errors import NotSupportedError

__all__ = ["merge_pipes", "merge_queue"]

Reader = Callable[[], Any]

# Message kinds sent by a child: a sample, its end, or (exception or None, traceback text).
_SAMPLE, _END, _FAILURE = 0, 1, 2


def _fork_context() -> Any:
    """Readers are closures, which only a forked child can inherit."""
    if "fork" not in multiprocessing.get_all_start_methods():
        raise NotSupportedError(
            "paddle.reader.multiprocess_reader needs the `fork` start method, which this platform "
            "lacks. Hint: use paddle.reader.xmap_readers or paddle.reader.buffered (threads)"
        )
    return multiprocessing.get_context("fork")


def _portable(error: BaseException) -> BaseException | None:
    """`error` if it survives the trip between processes, else None."""
    try:
        copy = pickle.loads(pickle.dumps(error))  # bytes made on this very line
    except Exception:
        return None
    return copy if isinstance(copy, BaseException) else None


def _run_reader(reader: Reader, send: Callable[[tuple[int, Any]], None]) -> None:
    try:
        for sample in reader():
            if sample is None:
                raise ValueError("paddle.reader.multiprocess_reader: a reader yielded None; every sample must be a value")
            send((_SAMPLE, sample))
        send((_END, None))
    except (BrokenPipeError, KeyboardInterrupt):
        pass  # the consumer went away
    except BaseException as error:
        send((_FAILURE, (_portable(error), traceback.format_exc())))


def _raise_failure(payload: tuple[BaseException | None, str]) -> None:
    error, trace = payload
    origin = RuntimeError(f"multiprocess_reader: a reader process failed:\n{trace}")
    if error is None:
        raise origin
    raise error from origin


def _died(process: Any) -> RuntimeError:
    return RuntimeError(
        f"paddle.reader.multiprocess_reader: reader process {process.name} ended without "
        f"finishing its reader (exit code {process.exitcode}). Hint: a negative code is the "
        "signal that killed it; -9 often means memory ran out"
    )


def _stop(processes: Sequence[Any]) -> None:
    for process in processes:
        if process.is_alive():
            process.terminate()
    for process in processes:
        process.join()


def _pipe_child(reader: Reader, sender: Any, inherited: Sequence[Any]) -> None:
    for end in inherited:  # else a dead consumer would never break this child's pipe
        end.close()
    _run_reader(reader, sender.send)
    sender.close()


def merge_pipes(readers: Sequence[Reader]) -> Iterator[Any]:
    """One pipe for each reader; back-pressure is the pipe's own buffer."""
    context = _fork_context()
    processes: list[Any] = []
    live: dict[Any, Any] = {}
    try:
        for reader in readers:
            receiver, sender = context.Pipe(duplex=False)
            inherited = [*live, receiver]
            process = context.Process(target=_pipe_child, args=(reader, sender, inherited), daemon=True)
            process.start()
            sender.close()
            processes.append(process)
            live[receiver] = process
        while live:
            for receiver in connection.wait(list(live)):
                pipe: Any = receiver
                try:
                    kind, payload = pipe.recv()
                except EOFError:
                    live[pipe].join()
                    raise _died(live[pipe]) from None
                if kind == _SAMPLE:
                    yield payload
                elif kind == _END:
                    live.pop(pipe)
                    pipe.close()
                else:
                    _raise_failure(payload)
    finally:
        for receiver in live:
            receiver.close()
        _stop(processes)


def merge_queue(readers: Sequence[Reader], queue_size: int) -> Iterator[Any]:
    """One shared queue of at most `queue_size` samples."""
    context = _fork_context()
    shared = context.Queue(queue_size)
    processes = [
        context.Process(target=_queue_child, args=(index, reader, shared), daemon=True)
        for index, reader in enumerate(readers)
    ]
    unfinished = dict(enumerate(processes))
    try:
        for process in processes:
            process.start()
        while unfinished:
            dead = [p for p in unfinished.values() if p.exitcode is not None]
            try:
                index, (kind, payload) = shared.get(timeout=0.5)
            except queue.Empty:
                # Only a process seen dead before an empty wait is lost: its feeder thread
                # flushes everything it sent before the process exits.
                if dead:
                    raise _died(dead[0]) from None
                continue
            if kind == _SAMPLE:
                yield payload
            elif kind == _END:
                del unfinished[index]
            else:
                _raise_failure(payload)
    finally:
        _stop(processes)
        shared.close()
        shared.cancel_join_thread()


def _queue_child(index: int, reader: Reader, shared: Any) -> None:
    def send(message: tuple[int, Any]) -> None:
        if message[0] == _SAMPLE:
            # Queue pickles in its own thread, where a failure would be printed and lost.
            pickle.dumps(message[1])
        shared.put((index, message))

    _run_reader(reader, send)
