"""CompiledProgram and ParallelExecutor: a Program with strategies, run on one place or on several at once.

On several places the batch is split; each place runs forward and backward, the gradients of all places are
averaged (or summed), and the optimizer runs once. That is one step of synchronous data-parallel SGD, so with equal
shares and a mean loss the result is that of the whole batch on one place. Statistics that the forward pass writes
(batch norm) are those of the first place, as in Fluid.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from enum import Enum, IntEnum
from itertools import pairwise
from typing import Any

import numpy as np
import torch

from millstream.config import settings
from millstream.errors import EOFException, FeedError, InvalidProgramError
from millstream.ir import walk
from millstream.ir.operator import OP_ROLE_VAR, ROLE_BACKWARD, ROLE_OPTIMIZE, Operator
from millstream.ir.program import Program, default_main_program
from millstream.ir.types import VarType
from millstream.kernels.threads import Shares
from millstream.ops._grad import rebuild
from millstream.ops._values import NO_LOD, LoD, SelectedRows
from millstream.runtime.executor import Executor, as_result, fetch_names
from millstream.runtime.liveness import in_memory_of_state
from millstream.runtime.place import CPUPlace, CUDAPlace
from millstream.runtime.scope import Scope, ScopeVar, global_scope
from millstream.runtime.switches import Switches
from millstream.runtime.tensor import LoDTensor


class BuildStrategy(Switches):
    """How a CompiledProgram is built.

    `reduce_strategy`, `gradient_scale_strategy`, `num_trainers` and `trainer_id` have their documented meaning. The
    fusion and memory switches are accepted: fusing and freeing are decided by the Plan.

    `enable_compiler` (not in Fluid) compiles runs of operators (forward, backward, update) with torch's compiler. It needs a
    C++ compiler, and some seconds to minutes at the second step with new shapes; :meth:`CompiledProgram.explain` tells what
    it could not take, and why.
    """

    class ReduceStrategy(IntEnum):
        """Where the sum of the gradients is used: on every place, or on one that sends the parameters back."""

        AllReduce = 0
        Reduce = 1

        __str__ = Enum.__str__

    class GradientScaleStrategy(IntEnum):
        """What the loss gradient of a place starts from: 1 / places, 1, or what the user feeds."""

        CoeffNumDevice = 0
        One = 1
        Customized = 2

        __str__ = Enum.__str__

    def __init__(self) -> None:
        self.reduce_strategy = BuildStrategy.ReduceStrategy.AllReduce
        self.gradient_scale_strategy = BuildStrategy.GradientScaleStrategy.CoeffNumDevice
        self.debug_graphviz_path = ""
        self.enable_sequential_execution = False
        self.remove_unnecessary_lock = True
        self.num_trainers = 1
        self.trainer_id = 0
        self.trainers_endpoints: list[str] = []
        self.fuse_elewise_add_act_ops = False
        self.fuse_bn_act_ops = False
        self.fuse_relu_depthwise_conv = False
        self.fuse_broadcast_ops = True
        self.fuse_all_optimizer_ops = False
        self.fuse_all_reduce_ops = True
        self.enable_auto_fusion = False
        self.sync_batch_norm = False
        self.memory_optimize: bool | None = None
        self.enable_inplace = True
        self.enable_backward_optimizer_op_deps = True
        self.cache_runtime_context = False
        self.is_distribution = False
        self.async_mode = False
        self.nccl_comm_num = 1
        self.use_hierarchical_allreduce = False
        self.hierarchical_allreduce_inter_nranks = 0
        self.mkldnn_enabled_op_types: set[str] = set()
        self.enable_parallel_graph = False
        self.enable_compiler = False


class ExecutionStrategy(Switches):
    """How a CompiledProgram is run: `num_threads` places run at a time; the other switches are accepted."""

    class ExecutorType(IntEnum):
        """Kinds of executor; one kind exists here."""

        Default = 0
        Experimental = 1

    def __init__(self) -> None:
        self.num_threads = 0
        self.num_iteration_per_drop_scope = 100
        self.num_iteration_per_run = 1
        self.use_experimental_executor = False
        self.allow_op_delay = False
        self.use_cuda = False
        self.use_thread_barrier = False


class CompiledProgram:
    """A Program ready to run with strategies.

    Args:
        program_or_graph: the Program.
        build_strategy: see :class:`BuildStrategy`.
    """

    def __init__(self, program_or_graph: Any, build_strategy: BuildStrategy | None = None) -> None:
        program = getattr(program_or_graph, "program", program_or_graph)
        if not isinstance(program, Program):
            raise TypeError(f"CompiledProgram takes a Program, received {type(program_or_graph).__name__}")
        self._program = program
        self._build_strategy = build_strategy if build_strategy is not None else BuildStrategy()
        self._exec_strategy = ExecutionStrategy()
        self._is_data_parallel = False
        self._loss_name: str | None = None
        self._places: list[Any] | None = None
        self._replicas: _Replicas | None = None
        self._shared: CompiledProgram | None = None
        self._reading: tuple[int, Program] | None = None
        self._executor: Executor | None = None

    def with_data_parallel(
        self,
        loss_name: str | None = None,
        build_strategy: BuildStrategy | None = None,
        exec_strategy: ExecutionStrategy | None = None,
        share_vars_from: CompiledProgram | None = None,
        places: Any = None,
    ) -> CompiledProgram:
        """Run over several places; returns self.

        Args:
            loss_name: the loss; needed to train.
            share_vars_from: a compiled Program whose variables this one uses, also those that each place has for itself
                (the running statistics of batch_norm). Without it a Program for testing reads the first place's.
            places: places, or None for CPU_NUM CPU places.
        """
        if self._is_data_parallel:
            raise InvalidProgramError("CompiledProgram.with_data_parallel can be called once")
        if share_vars_from is not None and not isinstance(share_vars_from, CompiledProgram):
            raise TypeError("share_vars_from must be a CompiledProgram")
        self._is_data_parallel = True
        self._loss_name = loss_name
        self._shared = share_vars_from if share_vars_from is not self else None
        if build_strategy is not None:
            self._build_strategy = build_strategy
        if exec_strategy is not None:
            self._exec_strategy = exec_strategy
        if places is not None:
            self._places = list(places) if isinstance(places, (list, tuple)) else [places]
        return self

    def with_inference_optimize(self, config: Any) -> CompiledProgram:
        """Accepted: the Program runs as it is; use the predictor for optimised inference."""
        self._is_data_parallel = False
        return self

    def explain(self) -> str:
        """What the compiler took of the Plans made so far (``BuildStrategy.enable_compiler``), and what not and why."""
        programs = [self._program, *(self._reading[1:] if self._reading else ())]
        if self._replicas is not None:
            programs += [self._replicas.compute, self._replicas.update]
        plans = list(self._executor._plans.values()) if self._executor is not None else []
        mine = [p.capture for p in plans if p.owner is not None and any(p.owner[0] is program for program in programs)]
        text = "\n".join(capture.explain() for capture in mine if capture is not None)
        return text or "nothing was captured: set BuildStrategy.enable_compiler, then run"

    def _run(
        self, executor: Executor, feed: Any, fetch_list: Any, scope: Scope, return_numpy: bool, return_merged: bool
    ) -> list[Any]:
        places = self._devices(executor)
        self._executor = executor
        if not self._is_data_parallel or len(places) == 1:
            if isinstance(feed, (list, tuple)):
                if len(feed) != 1:
                    raise FeedError(f"feed: one place takes one dict, received a list of {len(feed)}")
                feed = feed[0]
            capture = self._build_strategy.enable_compiler
            if self._reading is None or self._reading[0] != self._program._version:
                self._reading = self._program._version, _reading_first(self._program)
            results = executor.run_raw(self._reading[1], feed, fetch_list, scope, capture=capture)
            out = [as_result(value, lod, return_numpy) for value, lod in results]
            return out if return_merged else [[v] for v in out]
        replicas = self._replicas_on(executor, scope, len(places))
        feeds = _split_feed(feed, len(places), few=self._loss_name is None)
        per_place = replicas.run(feeds, fetch_names(fetch_list))
        if not return_merged:  # one list a fetch, its values in the order of the places
            return [[as_result(v, lod, return_numpy) for v, lod in values] for values in zip(*per_place)]
        return [as_result(*_merge(list(values)), return_numpy) for values in zip(*per_place)]

    def _replicas_on(self, executor: Executor, scope: Scope, n: int) -> _Replicas:
        found = self._replicas
        if found is None or found.version != self._program._version or found.scope is not scope:
            found = self._replicas = _Replicas(self, executor, scope, n)
        other = self._shared
        if other is not None and other._is_data_parallel and (other._replicas is None or other._replicas.scope is scope):
            scopes = other._replicas_on(executor, scope, n).scopes
            if len(scopes) == n:
                found.scopes = scopes
        return found

    def _devices(self, executor: Executor) -> list[Any]:
        if not self._is_data_parallel:
            return [executor.place]
        if self._places is not None:
            return self._places
        if isinstance(executor.place, CUDAPlace):
            return [CUDAPlace(i) for i in range(max(1, torch.cuda.device_count()))]
        return [CPUPlace()] * settings().cpu_num


class ParallelExecutor:
    """The older form of data parallelism: a Program on all places.

    Args:
        use_cuda: on all CUDA devices instead of CPU_NUM CPU places.
        loss_name: the loss; needed to train.
        main_program: the default main Program when None.
        share_vars_from: a ParallelExecutor whose scope to use.
        num_trainers, trainer_id: only 1 and 0 here; distributed training has its own rooms.
    """

    def __init__(
        self,
        use_cuda: bool,
        loss_name: str | None = None,
        main_program: Program | None = None,
        share_vars_from: ParallelExecutor | None = None,
        exec_strategy: ExecutionStrategy | None = None,
        build_strategy: BuildStrategy | None = None,
        num_trainers: int = 1,
        trainer_id: int = 0,
        scope: Scope | None = None,
    ) -> None:
        if num_trainers != 1 or trainer_id != 0:
            raise InvalidProgramError(
                f"ParallelExecutor: num_trainers={num_trainers}, trainer_id={trainer_id}: one process trains alone here"
            )
        if share_vars_from is not None and not isinstance(share_vars_from, ParallelExecutor):
            raise TypeError("share_vars_from must be a ParallelExecutor")
        self._scope: Scope = scope or (share_vars_from._scope if share_vars_from is not None else global_scope())
        self._executor = Executor(CUDAPlace(0) if use_cuda else CPUPlace())
        self._compiled = CompiledProgram(main_program if main_program is not None else default_main_program())
        shared = share_vars_from._compiled if share_vars_from is not None else None
        self._compiled.with_data_parallel(loss_name, build_strategy, exec_strategy, shared)

    def run(self, fetch_list: Any, feed: Any = None, feed_dict: Any = None, return_numpy: bool = True) -> list[Any]:
        """One step; `feed` is a dict that is split over the places, or a list with one dict a place."""
        feed = feed if feed is not None else feed_dict
        return self._compiled._run(self._executor, feed, fetch_list, self._scope, return_numpy, True)

    @property
    def device_count(self) -> int:
        return len(self._compiled._devices(self._executor))

    def drop_local_exe_scopes(self) -> None:
        """Nothing is kept between runs, so there is nothing to drop."""


# ---- replicas ------------------------------------------------------------------------------------
class _Replicas:
    """The two halves of a Program, and a Scope for each place."""

    def __init__(self, compiled: CompiledProgram, executor: Executor, scope: Scope, n: int) -> None:
        program = compiled._program
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
        behind = [op for op in self.update.global_block().ops if not op.role & ROLE_OPTIMIZE]
        self.made_last = {n for op in behind for n in walk.writes_of(op)}
        one = compiled._build_strategy.gradient_scale_strategy == BuildStrategy.GradientScaleStrategy.One
        self.scale = 1.0 if one else 1.0 / n
        self.capture = compiled._build_strategy.enable_compiler
        self.scopes = [scope] + [_shadow(scope, self.compute) for _ in range(n - 1)]
        threads = compiled._exec_strategy.num_threads or n
        self.in_state = in_memory_of_state(self.compute.global_block())
        self.shares = Shares(min(n, threads))
        self.pool = ThreadPoolExecutor(min(n, threads), initializer=self.shares.take)

    def run(self, feeds: Sequence[Mapping[str, Any]], fetches: list[str]) -> list[list[tuple[Any, LoD]]]:
        """One step; per place, (value, LoD) of every fetch."""
        feeds = self._read(feeds) if self.reads_out else feeds
        made = {n for op in self.compute.global_block().ops for n in walk.writes_of(op)}
        root = self.compute.global_block()
        last = [n for n in fetches if n in self.made_last]
        early = [
            n for n in fetches
            if n not in last and (n in made or not root._has_var_recursive(n) or not root.var(n).persistable)
        ]  # fmt: skip
        asked = [*early, *(g for g in (*self.grads, *self.carried) if g not in early)]
        jobs = [
            self.pool.submit(self.executor.run_raw, self.compute, feed, asked, scope, capture=self.capture)
            for feed, scope in zip(feeds, self.scopes)
        ]
        results = [dict(zip(asked, job.result())) for job in jobs]
        self.shares.restore()
        for name in self.in_state.intersection(asked):  # the update would change them
            for r in results:
                r[name] = (rebuild(r[name][0], torch.Tensor.clone), r[name][1])
        if self.update.global_block().ops:
            scale = self.scale * len(self.scopes) / len(results) if self.scale != 1.0 else 1.0
            feed = {n: results[0][n][0] for n in self.carried}
            feed.update(zip(self.grads, _averages([[r[g][0] for g in self.grads] for r in results], scale)))
            values = dict(zip(last, self.executor.run_raw(self.update, feed, last, self.scope, capture=self.capture)))
            for r in results:
                r.update(values)
        late = [n for n in fetches if n not in early and n not in last]
        if late:
            values = dict(zip(late, self.executor.run_raw(self.update, {}, late, self.scope)))
            for r in results:
                r.update(values)
        return [[r[n] for n in fetches] for r in results]

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


def _reading_first(program: Program) -> Program:
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


def _split_feed(feed: Any, n: int, few: bool) -> list[dict[str, Any]]:
    """Shares of the feed for each place; with `few` a small batch may leave the last places without work."""
    if feed is None:
        return [{} for _ in range(n)]
    if isinstance(feed, (list, tuple)):
        if len(feed) != n:
            raise FeedError(f"feed: {n} places need a list of {n} dicts, received {len(feed)}")
        return [dict(f) for f in feed]
    pieces = {name: _split_value(name, value, n, few) for name, value in feed.items()}
    counts = {name: len(shares) for name, shares in pieces.items()}
    if len(set(counts.values())) > 1:
        raise FeedError(f"feed: the batches fill different numbers of the {n} places: {counts}")
    used = max(counts.values(), default=n)
    return [{name: shares[k] for name, shares in pieces.items()} for k in range(used)]


def _bounds(name: str, what: str, count: int, n: int, few: bool) -> list[int]:
    """Shares of ceil(count / n), the last one smaller: Fluid's way, so uneven batches weigh as they did there."""
    step = -(-count // n)
    bounds = [*range(0, count, step), count] if count else [0]
    if len(bounds) - 1 < (1 if few else n):
        raise FeedError(
            f"feed {name}: {count} {what} can't be split over {n} places (shares of {step}); "
            "hint: feed more, leave out the small last batch, or set CPU_NUM"
        )
    return bounds


def _split_value(name: str, value: Any, n: int, few: bool) -> list[Any]:
    if isinstance(value, LoDTensor) and value._lod:
        return _split_sequences(name, value, n, few)
    array = value.torch() if isinstance(value, LoDTensor) else np.asarray(value)
    return [array[a:b] for a, b in pairwise(_bounds(name, "rows", array.shape[0], n, few))]


def _split_sequences(name: str, value: LoDTensor, n: int, few: bool) -> list[LoDTensor]:
    bounds = _bounds(name, "sequences", value._lod[0].size - 1, n, few)
    parts = []
    for a, b in pairwise(bounds):
        lod = []
        for level in value._lod:
            lod.append(level[a : b + 1] - level[a])
            a, b = int(level[a]), int(level[b])
        parts.append(LoDTensor.of(value.torch()[a:b], tuple(lod)))
    return parts


def _merge(values: list[tuple[Any, LoD]]) -> tuple[Any, LoD]:
    """One fetch of all places, joined along dimension 0."""
    first, lod = values[0]
    if not isinstance(first, torch.Tensor):
        return values[0]
    joined = torch.cat([v.reshape(1) if v.dim() == 0 else v for v, _ in values])
    if not lod:
        return joined, NO_LOD
    levels = []
    for k in range(len(lod)):
        lengths = np.concatenate([np.diff(part[k]) for _, part in values])
        levels.append(np.concatenate(([0], np.cumsum(lengths))).astype(np.int64))
    return joined, tuple(levels)
