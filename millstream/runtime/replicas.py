"""A Program on several places at once: its two halves, and how they run."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple

import torch

from millstream.errors import EOFException
from millstream.ir import walk
from millstream.ir.operator import OP_ROLE_VAR, ROLE_BACKWARD, ROLE_OPTIMIZE, Operator
from millstream.ir.program import Program
from millstream.ir.types import VarType
from millstream.kernels.threads import Shares
from millstream.ops._grad import rebuild
from millstream.ops._values import NO_LOD, LoD, SelectedRows
from millstream.runtime.executor import Executor
from millstream.runtime.liveness import in_memory_of_state
from millstream.runtime.scope import Scope, ScopeVar
from millstream.runtime.tensor import LoDTensor

_TURNS = 3  # of each way, then the faster one is known
_SOON, _AGAIN = 30, 1000  # steps after which the ways take turns once more: the first turns of a process are not its best
_LONG, _CLEAR = 0.02, 1.3  # one turn each decides steps of so many seconds that are so far apart


class _Way:
    """Whether places run in threads (`apart`) or one after the other; measured, for numbers are the same.

    Threads that run operators of a few microseconds wait for the interpreter, and for each other's waking, longer than the
    operators take: ten layers of 256 x 64, 5 ms in two threads, 3.6 one after the other.
    """

    def __init__(self) -> None:
        self.apart = False
        self._rest = 1  # steps until the ways take turns: the first compiles operators
        self._pause = _SOON
        self._times: tuple[list[float], list[float]] = ([], [])  # one after the other, in threads

    def took(self, seconds: float) -> None:
        """Tell how long a step took; sets the way of the next one."""
        if self._rest:
            self._rest -= 1
            if not self._rest:
                self.apart, self._times = False, ([], [])
            return
        self._times[self.apart].append(seconds)
        self.apart = not self.apart
        one_by_one, apart = self._times
        if len(one_by_one) == len(apart):
            best = min(one_by_one), min(apart)
            clear = min(best) > _LONG and max(best) > _CLEAR * min(best)
            if clear or len(apart) == _TURNS:
                self.apart, self._rest, self._pause = best[1] <= best[0], self._pause, _AGAIN


class _Ask(NamedTuple):
    """What a list of fetches asks of whom."""

    first: list[str]  # of the places, gradients included
    copied: list[str]  # of those, what the updates would change
    last: list[str]  # of the updates
    late: list[str]  # of the state behind them


class Replicas:
    """The two halves of a Program, and a Scope for each place."""

    def __init__(
        self, program: Program, executor: Executor, scope: Scope, n: int, scale: float, workers: int, capture: bool
    ) -> None:
        self.version = program._version
        self.scope = scope
        self.executor = executor
        self.grads = _parameter_gradients(program)
        updates = _updates(program)
        self.carried = _carried(program, self.grads, updates)
        # Batches are read here and handed out in order, so that a run repeats and places never race for the last one.
        self.read = _half(program, [_reads(op) for op in program.global_block().ops])
        self.reads_out = [
            n for op in self.read.global_block().ops for n in op.output_arg_names if not _is_reader(op, n)
        ]
        self.drop_last = all(op.attrs.get("drop_last", True) for op in self.read.global_block().ops)
        ops = program.global_block().ops
        self.compute = _half(program, [not last and not _reads(op) for op, last in zip(ops, updates)])
        self.update = _half(program, updates)
        self.made = {n for op in self.compute.global_block().ops for n in walk.writes_of(op)}
        behind = [op for op in self.update.global_block().ops if not op.role & ROLE_OPTIMIZE]
        self.made_last = {n for op in behind for n in walk.writes_of(op)}
        self.scale = scale
        self.capture = capture
        self.scopes = [scope] + [_shadow(scope, self.compute) for _ in range(n - 1)]
        self.in_state = in_memory_of_state(self.compute.global_block())
        self.workers = workers
        self.way = _Way()
        self.pool: tuple[tuple[int, int], ThreadPoolExecutor] | None = None
        self.asks: dict[tuple[str, ...], _Ask] = {}

    def run(self, feeds: Sequence[Mapping[str, Any]], fetches: list[str]) -> list[list[tuple[Any, LoD]]]:
        """One step; per place, (value, LoD) of every fetch."""
        feeds = self._read(feeds) if self.reads_out else feeds
        key = tuple(fetches)
        ask = self.asks.get(key)
        if ask is None:
            ask = self.asks[key] = self._ask(fetches)
        results = self._compute(feeds, ask.first)
        for name in ask.copied:
            for r in results:
                r[name] = (rebuild(r[name][0], torch.Tensor.clone), r[name][1])
        if self.update.global_block().ops:
            scale = self.scale * len(self.scopes) / len(results) if self.scale != 1.0 else 1.0
            fed = [results[0][n][0] for n in self.carried]
            fed += _averages([[r[g][0] for g in self.grads] for r in results], scale)
            values = self.executor.run_prepared(
                self.update, [*self.carried, *self.grads], fed, [NO_LOD] * len(fed), ask.last, self.scope,
                capture=self.capture,
            )  # fmt: skip
            for r in results:
                r.update(zip(ask.last, values))
        if ask.late:
            values = self.executor.run_raw(self.update, {}, ask.late, self.scope)
            for r in results:
                r.update(zip(ask.late, values))
        return [[r[n] for n in fetches] for r in results]

    def _ask(self, fetches: list[str]) -> _Ask:
        root = self.compute.global_block()
        last = [n for n in fetches if n in self.made_last]
        early = [
            n for n in fetches
            if n not in last and (n in self.made or not root._has_var_recursive(n) or not root.var(n).persistable)
        ]  # fmt: skip
        late = [n for n in fetches if n not in early and n not in last]
        first = [*early, *(g for g in (*self.grads, *self.carried) if g not in early)]
        return _Ask(first, [n for n in first if n in self.in_state], last, late)

    def _compute(self, feeds: Sequence[Mapping[str, Any]], asked: list[str]) -> list[dict[str, tuple[Any, LoD]]]:
        """The first half on all places; per place, {name: (value, LoD)}."""
        results: list[Any] = [None] * len(feeds)

        def on_place(k: int) -> None:
            values = self.executor.run_raw(self.compute, feeds[k], asked, self.scopes[k], capture=self.capture)
            results[k] = dict(zip(asked, values))

        shares = Shares(self.workers)
        if shares.in_team:
            begin = time.perf_counter()
            shares.run([partial(on_place, k) for k in range(len(feeds))], self.way.apart)
            self.way.took(time.perf_counter() - begin)
            return results
        for job in [self._pool(shares).submit(on_place, k) for k in range(len(feeds))]:
            job.result()
        shares.restore()
        return results

    def _pool(self, shares: Shares) -> ThreadPoolExecutor:
        """Threads with shares of several cores each, which keep teams of their own."""
        if self.pool is None or self.pool[0] != (shares.each, shares.workers):
            made = ThreadPoolExecutor(shares.workers, initializer=shares.take)
            self.pool = (shares.each, shares.workers), made
        return self.pool[1]

    def _read(self, feeds: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
        """`feeds` with a batch for each place; fewer when the reader ends and its last batches are wanted."""
        given: list[Mapping[str, Any]] = []
        for feed in feeds:
            try:
                values = self.executor.run_raw(self.read, {}, self.reads_out, self.scope)
            except EOFException:
                if self.drop_last or not given:
                    raise
                break
            batch = {n: LoDTensor.of(t, lod) for n, (t, lod) in zip(self.reads_out, values)}
            given.append({**batch, **feed})
        return given


def _averages(places: list[list[Any]], scale: float) -> list[Any]:
    """`scale` times the sums of the gradients of all places; dense ones make one new tensor each."""
    found: list[Any] = list(places[0])
    dense = [k for k, g in enumerate(found) if not isinstance(g, SelectedRows)]
    if dense:
        columns = [[grads[k] for k in dense] for grads in places]
        totals = list(torch._foreach_add(columns[0], columns[1])) if len(columns) > 1 else columns[0]
        for column in columns[2:]:
            torch._foreach_add_(totals, column)
        if scale != 1.0:  # with one place the totals are that place's own values
            if len(columns) > 1:
                torch._foreach_mul_(totals, scale)
            else:
                totals = list(torch._foreach_mul(totals, scale))
        for k, total in zip(dense, totals):
            found[k] = total
    for k, g in enumerate(found):
        if isinstance(g, SelectedRows):
            rows = torch.cat([grads[k].rows for grads in places])
            found[k] = SelectedRows(rows, torch.cat([grads[k].values for grads in places]).mul_(scale), g.height)
    return found


def _parameter_gradients(program: Program) -> list[str]:
    """Gradients that the optimizer half reads: what the places must agree on."""
    made: set[str] = set()
    for op in program.global_block().ops:
        if op.role & ROLE_BACKWARD:
            pairs = op.attrs.get(OP_ROLE_VAR) or []
            made.update(pairs[1::2])
    reads = {n for op in program.global_block().ops if op.role & ROLE_OPTIMIZE for n in walk.reads_of(op)}
    computed = {
        n for op in program.global_block().ops if not op.role & ROLE_OPTIMIZE for n in op.output_arg_names
    }
    return sorted((made | {n for n in reads if "@GRAD" in n}) & reads & computed)


def _updates(program: Program) -> list[bool]:
    """Which operators run once, after the places: the optimizer half, and what stands behind it and uses its results."""
    found, updated = [], set[str]()
    for op in program.global_block().ops:
        uses = not updated.isdisjoint(walk.reads_of(op)) or not updated.isdisjoint(walk.writes_of(op))
        found.append(bool(op.role & ROLE_OPTIMIZE) or uses)
        if found[-1]:
            updated.update(walk.writes_of(op))
    return found


def _carried(program: Program, grads: list[str], updates: list[bool]) -> list[str]:
    """Other values that the optimizer half reads and the first half makes, as a decayed rate: the first place's hold."""
    root = program.global_block()
    computed, updated, found = set(), set(), dict[str, None]()
    for op, last in zip(root.ops, updates):
        if not last:
            computed.update(op.output_arg_names)
            continue
        for name in walk.reads_of(op):
            if name in computed and name not in updated and name not in grads and not root.var(name).persistable:
                found[name] = None
        updated.update(op.output_arg_names)
    return list(found)


def _is_reader(op: Operator, name: str) -> bool:
    var = op.block._find_var_recursive(name)
    return var is not None and var.type is VarType.READER


def _reads(op: Operator) -> bool:
    """Whether the operator makes or reads a reader."""
    return any(_is_reader(op, n) for n in (*op.input_arg_names, *op.output_arg_names))


def reading_first(program: Program) -> Program:
    """`program`, or a copy that reads its readers before anything else.

    Fluid's compiled Programs read first: at a reader's end no counter of steps has moved, unlike in a Program run as it is.
    """
    ops = program.global_block().ops
    reads = [op for op in ops if _reads(op)]
    if ops[: len(reads)] == reads:
        return program
    copy = walk.clone(program)
    copy.global_block().ops.sort(key=lambda op: not _reads(op))
    copy._touch()
    return copy


def _half(program: Program, keep: Sequence[bool]) -> Program:
    half = walk.clone(program)
    root = half.global_block()
    root.ops[:] = [op for op, kept in zip(root.ops, keep, strict=True) if kept]
    half._touch()
    return half


def _written(program: Program) -> list[str]:
    root = program.global_block()
    found: dict[str, None] = {}

    def visit(op: Operator) -> None:
        for name in walk.writes_of(op):
            var = root._find_var_recursive(name)
            # what an operator for testing writes in place is what it has read
            if var is not None and var.persistable and not (op.attrs.get("is_test") and name in op.input_arg_names):
                found[name] = None

    for op in root.ops:
        visit(op)
    return list(found)


def _shadow(scope: Scope, program: Program) -> Scope:
    """A Scope in which what the forward pass writes is the place's own; everything else is shared."""
    kid = Scope(scope)
    for name in _written(program):
        original = scope.find_var(name)
        var: ScopeVar = kid.var(name)
        if original is not None and isinstance(original.obj, LoDTensor) and original.obj._t is not None:
            var.get_tensor()._t = original.obj._t.clone()
    return kid
