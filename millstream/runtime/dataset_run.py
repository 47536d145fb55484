"""Running a Program over a whole dataset."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

from millstream.errors import InvalidProgramError
from millstream.ir.program import Program, default_main_program
from millstream.kernels.threads import Shares
from millstream.ops._values import LoD
from millstream.runtime.scope import Scope, global_scope
from millstream.runtime.tensor import LoDTensor


class FetchHandler:
    """Called with the latest values of some variables every `period_secs` seconds while a dataset is run over.

    Args:
        var_dict: name in the handler's dict -> Variable.
    """

    def __init__(self, var_dict: dict[str, Any] | None = None, period_secs: float = 60) -> None:
        if not var_dict:
            raise InvalidProgramError("FetchHandler: var_dict must name the Variables to hand over")
        self.var_dict = var_dict
        self.period_secs = period_secs

    def handler(self, res_dict: dict[str, Any]) -> None:
        """Define this; a value is a numpy array, or None before the first batch."""
        raise NotImplementedError("FetchHandler: define handler(self, res_dict)")


class _Pass:
    """One pass: batches are handed to threads that all train the same parameters."""

    def __init__(
        self, executor: Any, program: Any, scope: Scope, fetches: list[Any], period: int, titles: list[str]
    ) -> None:
        self.executor = executor
        self.program = program
        self.scope = scope
        self.fetches = fetches
        self.period = period
        self.titles = titles
        self.latest: dict[str, Any] = {}
        self.error: BaseException | None = None
        self._turn = threading.Lock()

    def step(self, feed: Any, extra: dict[str, Any], shown: bool = True) -> None:
        """One batch; those that are `shown` count for `print_period`."""
        watched = [*self.fetches, *extra.values()]
        values = self.executor.run_raw(self.program, feed, watched, self.scope)
        with self._turn:
            for key, (value, _) in zip(extra, values[len(self.fetches) :]):
                self.latest[key] = value.numpy().copy()
            self.executor.dataset_batches += shown
            if self.fetches and shown and self.executor.dataset_batches % self.period == 0:
                for title, var, (value, lod) in zip(self.titles, self.fetches, values):
                    print(_line(title, var if isinstance(var, str) else var.name, value, lod), flush=True)

    def work(self, batches: Any, extra: dict[str, Any], shown: bool = True) -> None:
        while self.error is None:
            with self._turn:
                feed = next(batches, None)
            if feed is None:
                return
            self.step(feed, extra, shown)

    def run(self, batches: Any, threads: int, extra: dict[str, Any]) -> None:
        shares = Shares(threads)

        def guarded(k: int) -> None:
            shares.take()
            try:
                self.work(batches, extra, shown=k == 0)
            except BaseException as error:
                self.error = error

        feed = next(batches, None)  # the first batch makes the Plan, which the threads then share
        if feed is not None:
            self.step(feed, extra)
        if threads == 1:
            self.work(batches, extra)
            return
        names = [f"millstream-train-{k}" for k in range(threads)]
        team = [threading.Thread(target=guarded, args=(k,), daemon=True, name=name) for k, name in enumerate(names)]
        for thread in team:
            thread.start()
        for thread in team:
            thread.join()
        shares.restore()
        if self.error is not None:
            raise self.error


def _line(title: str, name: str, value: Any, lod: LoD) -> str:
    """Title, name and tensor in Fluid's form."""
    tensor = LoDTensor.of(value, lod)
    return f"{title}\t{name}\t\t{str(tensor).removeprefix(chr(9))}\t"


def run_from_dataset(
    executor: Any,
    program: Any,
    dataset: Any,
    scope: Scope | None,
    thread: int,
    fetch_list: Sequence[Any] | None,
    fetch_info: Sequence[str] | None,
    print_period: int,
    fetch_handler: FetchHandler | None,
) -> None:
    """Run `program` once for every batch of `dataset`, on `thread` threads (0: as many as the dataset reads with)."""
    if dataset is None or not hasattr(dataset, "_batches"):
        raise InvalidProgramError(
            f"dataset is needed and should be initialized (fluid.DatasetFactory), received {dataset!r}"
        )
    program = default_main_program() if program is None else program
    program = getattr(program, "_program", program)
    if not isinstance(program, Program):
        raise TypeError(f"program must be a Program or CompiledProgram, received {type(program).__name__}")
    if thread < 0 or print_period < 1:
        raise ValueError(f"thread must not be negative and print_period positive, received {thread} and {print_period}")
    fetches = list(fetch_list or [])
    titles = list(fetch_info) if fetch_info is not None else [v if isinstance(v, str) else v.name for v in fetches]
    if len(titles) != len(fetches):
        raise InvalidProgramError(f"fetch_info has {len(titles)} names for {len(fetches)} fetches")
    current = _Pass(executor, program, scope if scope is not None else global_scope(), fetches, print_period, titles)
    extra = dict(fetch_handler.var_dict) if fetch_handler is not None else {}
    stop = threading.Event()
    watcher = None
    if fetch_handler is not None:

        def watch() -> None:
            while not stop.wait(fetch_handler.period_secs):
                fetch_handler.handler({k: current.latest.get(k) for k in extra})

        watcher = threading.Thread(target=watch, daemon=True, name="millstream-fetch-handler")
        watcher.start()
    batches = dataset._batches()
    try:
        current.run(batches, thread or dataset.thread_num, extra)
    finally:
        stop.set()
        batches.close()
        if watcher is not None:
            watcher.join()
