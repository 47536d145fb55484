"""CompiledProgram and ParallelExecutor: a Program with strategies, run on one place or on several at once.

On several places the batch is split; each place runs forward and backward, the gradients of all places are
averaged (or summed), and the optimizer runs once. That is one step of synchronous data-parallel SGD, so with equal
shares and a mean loss the result is that of the whole batch on one place. Statistics that the forward pass writes
(batch norm) are those of the first place, as in Fluid.
"""

from __future__ import annotations

from enum import Enum, IntEnum
from itertools import pairwise
from typing import Any

import numpy as np
import torch

from millstream.config import settings
from millstream.errors import FeedError, InvalidProgramError
from millstream.ir.program import Program, default_main_program
from millstream.ops._values import NO_LOD, LoD
from millstream.runtime.executor import Executor, as_result, fetch_names
from millstream.runtime.place import CPUPlace, CUDAPlace
from millstream.runtime.replicas import Replicas, reading_first
from millstream.runtime.scope import Scope, global_scope
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
        self._replicas: Replicas | None = None
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
                self._reading = self._program._version, reading_first(self._program)
            results = executor.run_raw(self._reading[1], feed, fetch_list, scope, capture=capture)
            out = [as_result(value, lod, return_numpy) for value, lod in results]
            return out if return_merged else [[v] for v in out]
        replicas = self._replicas_on(executor, scope, len(places))
        feeds = _split_feed(feed, len(places), few=self._loss_name is None)
        per_place = replicas.run(feeds, fetch_names(fetch_list))
        if not return_merged:  # one list a fetch, its values in the order of the places
            return [[as_result(v, lod, return_numpy) for v, lod in values] for values in zip(*per_place)]
        return [as_result(*_merge(list(values)), return_numpy) for values in zip(*per_place)]

    def _replicas_on(self, executor: Executor, scope: Scope, n: int) -> Replicas:
        found = self._replicas
        if found is None or found.version != self._program._version or found.scope is not scope:
            one = self._build_strategy.gradient_scale_strategy == BuildStrategy.GradientScaleStrategy.One
            workers = min(n, self._exec_strategy.num_threads or n)
            capture = self._build_strategy.enable_compiler
            found = self._replicas = Replicas(self._program, executor, scope, n, 1.0 if one else 1.0 / n, workers, capture)
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


# ---- feeds and fetches of several places ---------------------------------------------------------
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
