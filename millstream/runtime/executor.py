"""Executor: feeds, Plans from a cache, fetches."""

from __future__ import annotations

import warnings
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch

from millstream.config import flag
from millstream.errors import ArgumentError, FeedError, InvalidProgramError, MemoryLimitError, OperatorError, ShapeError
from millstream.ir import walk
from millstream.ir.operator import Operator
from millstream.ir.program import Program, default_main_program
from millstream.ir.types import dtype_name
from millstream.ir.variable import Variable
from millstream.ops._values import NO_LOD, TORCH_DTYPE, LoD, SelectedRows, TensorArray
from millstream.passes import pipelines
from millstream.runtime import profiler
from millstream.runtime.dataset_run import run_from_dataset
from millstream.runtime.lower import Options
from millstream.runtime.memory import keep_freed_memory
from millstream.runtime.place import CPUPlace, Place
from millstream.runtime.plan import Context, Plan
from millstream.runtime.scope import Scope, global_scope
from millstream.runtime.tensor import LoDTensor, LoDTensorArray, lod_error, numbers_of
from millstream.runtime.tensor import SelectedRows as PublicRows

PLAN_CACHE_SIZE = 256
_FORMS = 4096  # of fed arrays that are remembered for a Program


class Executor:
    """Runs Programs on a place.

    Args:
        place: CPUPlace() (the default) or CUDAPlace(n).
    """

    def __init__(self, place: Place | None = None) -> None:
        if place is not None and not isinstance(place, Place):
            raise TypeError(f"Executor takes a place such as fluid.CPUPlace(), received {type(place).__name__}: {place!r}")
        self.place = place if place is not None else CPUPlace()
        self._device = self.place.torch_device()
        keep_freed_memory()
        self._plans: OrderedDict[Any, Plan] = OrderedDict()
        self._rngs: WeakKeyDictionary[Program, _SeededGenerator] = WeakKeyDictionary()
        self._taken: WeakKeyDictionary[Program, tuple[int, set[Any]]] = WeakKeyDictionary()
        self.passes = pipelines.PLAN  # names of the passes that Plans made from now on go through
        self.dataset_batches = 0  # of the first thread, over all datasets: `print_period` counts them
        self._closed = False

    # ---- running -------------------------------------------------------------------------------
    def run(
        self,
        program: Any = None,
        feed: Any = None,
        fetch_list: Any = None,
        feed_var_name: str = "feed",
        fetch_var_name: str = "fetch",
        scope: Scope | None = None,
        return_numpy: bool = True,
        use_program_cache: bool = False,
        return_merged: bool = True,
        use_prune: bool = False,
    ) -> list[Any]:
        """Run `program` once.

        Args:
            program: a Program or CompiledProgram; the default main Program when None.
            feed: name -> numpy array, LoDTensor or list; a list of such dicts for data-parallel programs.
            fetch_list: Variables or names whose values to return; what ``minimize`` returned may stand beside them.
            scope: where persistable variables live; the global scope when None.
            return_numpy: numpy arrays, else LoDTensors (needed for results with LoD).
            use_prune: where variables that the Program reads are not fed, run only the operators that the fetches need.

        Returns:
            One value per fetch, in order.

        Raises:
            FeedError, UninitializedError, OperatorError: see millstream.errors.
        """
        if self._closed:
            raise InvalidProgramError("this Executor is closed; make a new one")
        program = default_main_program() if program is None else program
        scope = global_scope() if scope is None else scope
        if not isinstance(program, Program):
            if not hasattr(program, "_run"):
                raise TypeError(f"Executor.run takes a Program or CompiledProgram, received {type(program).__name__}")
            return program._run(self, feed, fetch_list, scope, return_numpy, return_merged)
        if isinstance(feed, (list, tuple)):
            if len(feed) != 1:
                raise FeedError(f"feed: a plain Program takes one dict, received a list of {len(feed)}")
            feed = feed[0]
        results = self.run_raw(program, feed, fetch_list, scope, use_prune)
        return [as_result(value, lod, return_numpy) for value, lod in results]

    def run_raw(
        self, program: Program, feed: Any, fetch_list: Any, scope: Scope, use_prune: bool = False, capture: bool = False
    ) -> list[tuple[Any, LoD]]:
        """Like :meth:`run`, with kernel values (torch tensors) and LoD as the result.

        `capture` compiles runs of operators (``BuildStrategy.enable_compiler``).
        """
        names, tensors, lods = self._prepare_feed(program, {} if feed is None else feed)
        return self.run_prepared(program, names, tensors, lods, fetch_names(fetch_list), scope, use_prune, capture)

    def run_prepared(
        self, program: Program, names: list[str], tensors: list[Any], lods: list[LoD], fetches: list[str], scope: Scope,
        use_prune: bool = False, capture: bool = False,
    ) -> list[tuple[Any, LoD]]:  # fmt: skip
        """:meth:`run_raw` of kernel values, as another Program made them."""
        plan = self._plan(program, names, lods, fetches, scope, use_prune, capture)
        ctx = Context(scope, self._rng(program), self, self._device)
        recorder = profiler.active()
        if recorder is None:
            try:
                return plan.run(tensors, lods, ctx)
            except (ShapeError, OperatorError) as error:  # not the end of a reader, nor a parameter without a value
                for name, tensor in () if isinstance(error, OperatorError) and error.by_user else zip(names, tensors):
                    _explain_rank(program.global_block().var(name), tensor, error)
                raise
        ctx.recorder = recorder
        recorder.run(plan.lowered)
        try:
            return plan.run(tensors, lods, ctx)
        except BaseException:
            recorder.abandon()
            raise
        finally:
            recorder.leave(None)

    def train_from_dataset(
        self,
        program: Any = None,
        dataset: Any = None,
        scope: Scope | None = None,
        thread: int = 0,
        debug: bool = False,
        fetch_list: Any = None,
        fetch_info: Any = None,
        print_period: int = 100,
        fetch_handler: Any = None,
    ) -> None:
        """Run `program` for every batch of a ``fluid.dataset``.

        Args:
            thread: threads that train the same parameters without waiting for each other; 0: as the dataset has.
            debug: accepted: errors name the operator and the line in any case (fluid.profiler times operators).
            fetch_list, fetch_info: what to print every `print_period` batches, and under which names. As in Fluid the
                batches of the first thread count, on from call to call.
            fetch_handler: a FetchHandler, called from time to time with fetched values.
        """
        run_from_dataset(self, program, dataset, scope, thread, fetch_list, fetch_info, print_period, fetch_handler)

    def infer_from_dataset(
        self,
        program: Any = None,
        dataset: Any = None,
        scope: Scope | None = None,
        thread: int = 0,
        debug: bool = False,
        fetch_list: Any = None,
        fetch_info: Any = None,
        print_period: int = 100,
        fetch_handler: Any = None,
    ) -> None:
        """Like :meth:`train_from_dataset`; give it a Program without backward operators."""
        run_from_dataset(self, program, dataset, scope, thread, fetch_list, fetch_info, print_period, fetch_handler)

    def close(self) -> None:
        """Forget all Plans; the Executor can't run afterwards."""
        self._plans.clear()
        self._closed = True

    def _plan(
        self, program: Program, names: list[str], lods: list[LoD], fetches: list[str], scope: Scope, use_prune: bool,
        capture: bool,
    ) -> Plan:  # fmt: skip
        key = (
            id(program),
            program._version,
            tuple(names),
            tuple(bool(lod) for lod in lods),
            tuple(fetches),
            id(scope),
            use_prune,
            flag("check_nan_inf"),
            profiler.active() is not None,
            self.passes,
            capture,
        )
        plan = self._plans.get(key)
        if plan is None:
            feeds = {n: bool(lod) for n, lod in zip(names, lods)}
            profiled = profiler.active() is not None
            options = Options(False, bool(flag("check_nan_inf")), profiled, self._device, tuple(self.passes), capture)
            source = program
            if use_prune and fetches and _lacks_feeds(program, names):
                source = program._prune_with_input(names, fetches)
            plan = Plan(source, feeds, fetches, scope, options)
            plan.owner = (program, scope)
            self._plans[key] = plan
            if len(self._plans) > PLAN_CACHE_SIZE:
                self._plans.popitem(last=False)
        else:
            self._plans.move_to_end(key)
        return plan

    def _rng(self, program: Program) -> torch.Generator:
        """One generator a Program, so that runs with program.random_seed repeat."""
        rng = self._rngs.get(program)
        if rng is None or rng.seed_asked != program._seed:
            rng = self._rngs[program] = _SeededGenerator(self._device)
            rng.start(program._seed)
        return rng

    # ---- feeds ---------------------------------------------------------------------------------
    def _prepare_feed(self, program: Program, feed: Mapping[str, Any]) -> tuple[list[str], list[torch.Tensor], list[LoD]]:
        if not isinstance(feed, Mapping):
            raise ArgumentError(f"feed must be a dict of name -> array, received {type(feed).__name__}")
        declared, taken = program.global_block().vars, self._taken_by(program)
        names, tensors, lods = [], [], []
        for name, value in feed.items():
            var = declared.get(name)
            if var is None:
                text = f"feed: the program has no variable {name!r} (misspelt, or pruned); it is ignored"
                warnings.warn(text, stacklevel=4)
                continue
            if type(value) is np.ndarray and value.flags.carray:
                form = (name, value.dtype, value.shape, var.need_check_feed, var.is_data)
                if form in taken:
                    t, lod = torch.from_numpy(value), NO_LOD
                else:
                    t, lod = feed_value(var, value, self._device, any_rank=True)
                    if t.is_cpu and t.dtype is torch.from_numpy(value).dtype:
                        taken.add(form)
            else:
                t, lod = feed_value(var, value, self._device, any_rank=True)
            names.append(name)
            tensors.append(t)
            lods.append(lod)
        return names, tensors, lods


    def _taken_by(self, program: Program) -> set[Any]:
        """Forms of arrays that the declarations of `program` take as they are: each form is checked once."""
        known = self._taken.get(program)
        if known is None or known[0] != program._version or len(known[1]) >= _FORMS:
            known = self._taken[program] = (program._version, set())
        return known[1]


class _SeededGenerator(torch.Generator):
    """A torch.Generator that remembers which program seed it started from."""

    seed_asked = 0

    def start(self, seed: int) -> None:
        self.seed_asked = seed
        if seed:
            self.manual_seed(seed)
        else:
            self.manual_seed(int(torch.randint(2**62, (1,)).item()))


def _lacks_feeds(program: Program, names: list[str]) -> bool:
    """Whether operators read data that is not fed."""
    block = program.global_block()
    missing = {n for n, v in block.vars.items() if v.is_data}.difference(names)
    return any(not missing.isdisjoint(walk.reads_of(op)) for op in block.ops)


def _is_of_minimize(item: Any) -> bool:
    """Whether `item` is what an optimizer's minimize returns: its operators, and pairs of parameters and gradients."""
    operators = item[0] if isinstance(item, tuple) and len(item) == 2 else None
    return isinstance(operators, list) and all(isinstance(op, Operator) for op in operators)


def fetch_names(fetch_list: Any) -> list[str]:
    """Names of the fetches; TypeError for anything that is neither Variable nor str."""
    if fetch_list is None:
        return []
    if isinstance(fetch_list, (Variable, str)):
        fetch_list = [fetch_list]
    names = []
    for item in fetch_list:
        if isinstance(item, (list, tuple)):
            names.extend([] if _is_of_minimize(item) else fetch_names(item))
        elif isinstance(item, str):
            names.append(item)
        elif hasattr(item, "name"):
            names.append(item.name)
        else:
            raise TypeError(f"fetch_list takes Variables or their names, received {type(item).__name__}: {item!r}")
    return names


def feed_value(var: Variable, value: Any, device: torch.device, any_rank: bool = False) -> tuple[Any, LoD]:
    """The tensor and LoD of one feed, checked against its declaration.

    With `any_rank`, what ``fluid.layers.data`` declares takes any shape, as in Fluid: the operators decide.
    """
    lod: LoD = NO_LOD
    if isinstance(value, LoDTensor):
        t = value._t
        lod = value._lod
        if t is None:
            raise FeedError(f"feed {var.describe()}: the LoDTensor is empty")
        if lod:
            wrong = lod_error(lod, t.shape[0])
            if wrong:
                raise FeedError(f"feed {var.describe()}: bad LoD for a tensor of shape {list(t.shape)}: {wrong}")
    elif isinstance(value, torch.Tensor):
        t = value.detach()
    elif isinstance(value, SelectedRows):
        return value, NO_LOD
    else:
        t = _from_array(var, value)
    if t.device != device:
        t = t.to(device)
    if var._dtype is not None and t.dtype is not TORCH_DTYPE.get(var._dtype):
        t = _fit_dtype(var, t)
    if var.has_shape:
        _check_shape(var, t, any_rank)
    return t, lod


def _from_array(var: Variable, value: Any) -> torch.Tensor:
    try:
        a = value if isinstance(value, np.ndarray) else np.array(value)
    except ValueError:  # rows of different lengths
        a = np.empty(0, object)
    if a.dtype == object:
        raise FeedError(
            f"feed {var.describe()}: received a ragged or non-numeric list; variable-length data is fed as a LoDTensor "
            "(fluid.create_lod_tensor, or DataFeeder)"
        )
    if not isinstance(value, np.ndarray) and var._dtype is not None and a.dtype.kind in "ifb":
        return torch.from_numpy(a).to(TORCH_DTYPE[var._dtype])
    if not a.flags.c_contiguous or not a.flags.writeable:
        a = a.copy(order="C")
    try:
        return torch.from_numpy(a)
    except TypeError:
        raise FeedError(f"feed {var.describe()}: no tensor type for numpy dtype {a.dtype}") from None


def _fit_dtype(var: Variable, t: torch.Tensor) -> torch.Tensor:
    """Same kind of number in another width converts when nothing is lost; everything else is an error."""
    want = TORCH_DTYPE.get(var.dtype)
    if want is None:
        return t
    if not var.need_check_feed and not var.is_data:
        return t
    ok = t.is_floating_point() and want.is_floating_point
    ok = ok or (t.dtype in (torch.int64, torch.int32) and want in (torch.int64, torch.int32))
    if not ok:
        raise FeedError(
            f"feed {var.describe()}: expected {dtype_name(var.dtype)}, received {str(t.dtype).removeprefix('torch.')} "
            f"of shape {list(t.shape)}; convert it with .astype({dtype_name(var.dtype)!r})"
        )
    return t.to(want)


def _explain_rank(var: Variable, t: torch.Tensor, error: Exception | None = None) -> None:
    """Raise FeedError where `t` has another rank than `var` (what it led to: `error`)."""
    if var.is_data and var.op is None and len(var.shape) != t.dim():
        why = "" if error is None else f"; the operators did not take that: {error}"
        raise FeedError(
            f"feed {var.describe()}: expected rank {len(var.shape)}, received rank {t.dim()} (shape {list(t.shape)}){why}"
        ) from error


def _check_shape(var: Variable, t: torch.Tensor, any_rank: bool) -> None:
    want = var.shape
    if not var.is_data or var.op is not None:  # an operator writes over it (reshape in place): its shape is the later one
        return
    if not var.need_check_feed and (any_rank or len(want) == t.dim() or _is_only_flattened(var, t.dim())):
        return  # fluid.layers.data promises nothing: programs feed other sizes, and [1] for a number, than they declared
    if not any_rank or not 0 < t.dim() < len(want):  # as in Fluid, [batch] is taken for [-1, 1]: what is there counts
        _explain_rank(var, t)
    for k, (d, got) in enumerate(zip(want, t.shape)):
        if d >= 0 and d != got:
            raise FeedError(
                f"feed {var.describe()}: dimension {k} must be {d}, received {got} (shape {list(t.shape)})"
            )


def _is_only_flattened(var: Variable, rank: int) -> bool:
    """Whether all that read `var` make a matrix of it anyway, as ``fc`` does: images are fed for ``data("x", [784])``."""
    readers = [op for block in var.block.program.blocks for op in block.ops if var.name in op.input_arg_names]
    return bool(readers) and all(
        op.has_attr("x_num_col_dims") and op.input("X") == [var.name] and op.attr("x_num_col_dims") < rank
        for op in readers
        if op.forward is None  # a gradient follows its forward
    )


def as_result(value: Any, lod: LoD, return_numpy: bool) -> Any:
    """A fetched kernel value as the user gets it."""
    if isinstance(value, torch.Tensor):
        if not return_numpy:
            return LoDTensor.of(_own(value.detach()), lod)  # never shares memory with the Scope or a feed
        if lod:
            raise InvalidProgramError(
                "a fetched value has a LoD, which a numpy array can't hold: call Executor.run(..., return_numpy=False)"
            )
        return _copied(value) if value.is_cpu else numbers_of(value)
    if isinstance(value, SelectedRows):
        return PublicRows.of(value)
    if isinstance(value, TensorArray):
        return LoDTensorArray(LoDTensor.of(v.values, v.lod) for v in value if v is not None)
    if value is None:
        raise InvalidProgramError("a fetched variable got no value in this run")
    return value


def _copied(t: torch.Tensor) -> np.ndarray:
    """The numbers of a tensor in main memory, in memory of their own."""
    if t.dtype is torch.bfloat16:
        return numbers_of(_own(t.detach()))
    try:
        return numbers_of(t).copy()
    except MemoryError:
        raise _no_memory(t) from None


def _own(t: torch.Tensor) -> torch.Tensor:
    """A copy that shares no memory; a view of a few values expanded to many may have none to get."""
    try:
        return t.clone(memory_format=torch.contiguous_format)
    except RuntimeError as error:
        raise _no_memory(t) from error


def _no_memory(t: torch.Tensor) -> MemoryLimitError:
    size = t.numel() * t.element_size()
    return MemoryLimitError(f"no memory for a fetched value of shape {list(t.shape)}: {size:,} bytes")


def as_lod_tensor(data: Any, place: Place) -> LoDTensor:
    """`data` (array or LoDTensor) as a LoDTensor on `place`."""
    if isinstance(data, LoDTensor):
        return data
    tensor = LoDTensor()
    tensor.set(np.asarray(data), place)
    return tensor


__all__ = ["Executor", "as_lod_tensor", "feed_value", "fetch_names"]
