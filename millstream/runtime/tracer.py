"""Eager mode: operators run as layers make them, on the same declarations and kernels as Programs.

Operators whose gradient the library declares come in through the bridge of ops/_grad.py, so a gradient here is the
one that a Program would have. What can be known of an operator type beforehand is kept in a call plan.
"""

from __future__ import annotations

import weakref
from contextlib import nullcontext
from typing import Any

import torch

from millstream.errors import InvalidProgramError, MillstreamError, NotSupportedError, OperatorError, UninitializedError
from millstream.ir import names
from millstream.ir.program import default_main_program, default_startup_program
from millstream.ir.site import user_site
from millstream.ir.types import AttrType, VarType, to_var_type
from millstream.ops._grad import differentiable
from millstream.ops._infer import coerce_value, lod_sources
from millstream.ops._opdef import REGISTRY, REQUIRED, OpDef
from millstream.ops._parts import WORTH, Whole
from millstream.ops._values import NO_LOD, LoD, Ragged, SelectedRows
from millstream.runtime.eager import RESULTS, ParamBase, VarBase
from millstream.runtime.memory import keep_freed_memory
from millstream.runtime.place import CPUPlace, Place
from millstream.runtime.plan import Context, record
from millstream.runtime.scope import global_scope

_AS_IT_IS = {AttrType.INT: int, AttrType.BOOLEAN: bool, AttrType.STRING: str, AttrType.LONG: int}


class _CallPlan:
    """What every call of one operator type does the same way."""

    def __init__(self, definition: OpDef) -> None:
        if definition.block:
            raise NotSupportedError(
                f"operator {definition.name} runs a sub-Block and has no eager form: use Python's own control flow in "
                "dygraph mode"
            )
        self.definition = definition
        self.kernel = definition.kernel
        self.bridge = differentiable(definition)
        self.sparse_bridge = differentiable(definition, sparse=True) if "is_sparse" in definition.attrs else None
        self.inputs = [(s.name, s.many, s.ragged, s.optional) for s in definition.inputs]
        self.inouts = [s.name for s in definition.outputs if s.inout]
        self.outputs = [(s.name, s.many) for s in definition.outputs]
        self.only = self.outputs[0][0] if len(self.outputs) == 1 and not self.outputs[0][1] else None
        self.defaults = {n: s.default for n, s in definition.attrs.items() if s.default is not REQUIRED}
        self.specs = {
            n: (s, None if s.is_dtype else _AS_IT_IS.get(s.type)) for n, s in definition.attrs.items()
        }
        self.shares = bool(definition.extra.get("shares"))
        self.part_of = definition.extra.get("part_of")
        self.reserved = definition.reserved & {"rng", "device", "counts", "want", "ctx", "aliased", "names", "state"}


_PLANS: dict[str, _CallPlan] = {}
_NO_LODS: dict[str, Any] = {}


def call_plan(type: str) -> _CallPlan:
    """The call plan of an operator type."""
    plan = _PLANS.get(type)
    if plan is None:
        plan = _PLANS[type] = _CallPlan(REGISTRY.get(type))
    return plan


class EagerTracer:
    """Runs operators on :class:`VarBase` as they are made.

    Attributes:
        has_grad: operators leave a graph for backward(); off inside no_grad and after Layer.eval().
        recorder: is told of every operator (TracedLayer).
    """

    def __init__(self, place: Place | None = None) -> None:
        keep_freed_memory()
        self.place = place or CPUPlace()
        self.device = self.place.torch_device()
        self.has_grad = True
        self.recorder: Any = None
        self._rng: torch.Generator | None = None
        self._rng_seed = 0
        self._context: Context | None = None
        self._parameters: weakref.WeakValueDictionary[str, ParamBase] = weakref.WeakValueDictionary()

    # ---- what LayerHelper asks -----------------------------------------------------------------
    def new_variable(self, name: str | None, dtype: Any, **kwargs: Any) -> VarBase:
        """An eager variable without a value."""
        return VarBase(
            None,
            name,
            dtype=dtype,
            shape=kwargs.get("shape"),
            stop_gradient=bool(kwargs.get("stop_gradient", False)),
            persistable=bool(kwargs.get("persistable", False)),
        )

    @staticmethod
    def new_result(dtype: Any, stop_gradient: bool = False) -> VarBase:
        """An eager variable of an element type, for an operator to fill."""
        var = VarBase.__new__(VarBase)  # each operator makes some: what a plain one needs, and no more
        var._name = None
        var._stop_gradient = stop_gradient
        if dtype is not None:
            var._declared_dtype = dtype if type(dtype) is VarType else to_var_type(dtype)
        return var

    def create_parameter(self, name: str, shape: Any, dtype: Any, initializer: Any, **kwargs: Any) -> ParamBase:
        """An eager parameter, initialised."""
        kwargs.pop("seed", None)
        holder = VarBase(None, name, dtype=dtype, shape=shape)
        self.initialize(holder, initializer)
        param = self._parameters[name] = ParamBase(holder.tensor, name, **kwargs)
        return param

    def parameter(self, name: str) -> ParamBase:
        """The living parameter made last with this name; ValueError when there is none."""
        found = self._parameters.get(name)
        if found is None:
            raise ValueError(f"there is no parameter {name!r} in dygraph mode (it must be held by a layer or a variable)")
        return found

    def initialize(self, var: VarBase, initializer: Any) -> None:
        """Fill `var`, which has a declared shape and dtype, by `initializer`."""
        recorder, self.recorder = self.recorder, None  # a value, not part of what is traced
        try:
            with self.no_grad():
                initializer(var, EagerBlock(startup=True))
        finally:
            self.recorder = recorder

    @property
    def rng(self) -> torch.Generator:
        """The generator of operators without a seed; it starts anew when the main Program's random_seed changes."""
        seed = default_main_program().random_seed
        if self._rng is None or seed != self._rng_seed:
            self._rng = torch.Generator(device=self.device)
            self._rng.manual_seed(seed or int(torch.randint(2**62, (1,)).item()))
            self._rng_seed = seed
        return self._rng

    def _ctx(self) -> Context:
        if self._context is None:
            self._context = Context(global_scope(), self.rng, None, self.device)
        self._context.rng = self.rng
        return self._context

    # ---- operators -----------------------------------------------------------------------------
    def trace_op(
        self,
        type: str,
        inputs: dict[str, Any],
        outputs: dict[str, Any],
        attrs: dict[str, Any] | None = None,
        stop_gradient: bool = False,
    ) -> None:
        """Run operator `type`.

        Args:
            inputs, outputs: slot -> VarBase or list of VarBase; outputs are filled in.
        """
        plan = _PLANS.get(type) or call_plan(type)
        kwargs = self.keywords(plan, attrs, inputs, outputs)
        try:
            args, wants_grad, with_lod, missing = _arguments(plan, inputs, outputs)
        except AttributeError:
            raise _not_eager(type, _slots(inputs)) from None
        wants_grad = wants_grad and self.has_grad and not stop_gradient
        try:
            if missing is not None:
                raise UninitializedError(f"eager variable {missing.name!r} has no value")
            if plan.shares:
                args = _apart(plan, inputs, args, wants_grad)
            kernel = plan.kernel
            if wants_grad:
                kernel = plan.sparse_bridge if plan.sparse_bridge and kwargs.get("is_sparse") else plan.bridge
                if plan.part_of is not None:
                    kernel = _of_whole(kernel, _of_slot(inputs, plan.part_of)[0])
            if torch.is_grad_enabled() is wants_grad or not (wants_grad or stop_gradient or not self.has_grad):
                result = kernel(*args, **kwargs)
            else:
                recording = torch.is_grad_enabled()
                record(wants_grad)
                try:
                    result = kernel(*args, **kwargs)
                finally:
                    record(recording)
        except Exception as error:
            raise explain(plan.definition, _slots(inputs), attrs or {}, error) from error
        lods = _lods(plan.definition, _slots(inputs), kwargs) if with_lod else _NO_LODS
        if plan.only is not None and isinstance(result, torch.Tensor):
            target = outputs.get(plan.only)
            if isinstance(target, VarBase):
                put(target, result, lods.get(plan.only, NO_LOD))
            elif target:
                put(target[0], result, lods.get(plan.only, NO_LOD))
        else:
            _fill(plan, outputs, result, lods)
        if self.recorder is not None:
            given = {k: v for k, v in (attrs or {}).items() if v is not None}
            self.recorder.record(type, _slots(inputs), _slots(outputs), given)

    def keywords(
        self, plan: _CallPlan, given: dict[str, Any] | None, inputs: dict[str, Any], outputs: dict[str, Any]
    ) -> dict[str, Any]:
        """The kernel's keyword arguments: attributes as declared, and what it is given beside them."""
        kwargs = plan.defaults.copy()
        if given:
            specs = plan.specs
            for name, value in given.items():
                found = specs.get(name)
                if found is None or value is None:  # only declared attributes reach a kernel
                    continue
                spec, exact = found
                kwargs[name] = value if type(value) is exact else coerce_value(plan.definition.name, name, spec, value)
        if plan.reserved:
            self._give_reserved(plan, kwargs, _slots(inputs), _slots(outputs))
        return kwargs

    def _give_reserved(
        self, plan: _CallPlan, kwargs: dict[str, Any], ins: dict[str, list[VarBase]], outs: dict[str, list[VarBase]]
    ) -> None:
        reserved = plan.reserved
        if "rng" in reserved:
            seed = int(kwargs.get("seed", 0) or 0)
            kwargs["rng"] = torch.Generator(device=self.device).manual_seed(seed) if seed > 0 else self.rng
        if "device" in reserved:
            kwargs["device"] = self.device
        if "counts" in reserved:
            kwargs["counts"] = tuple(len(outs.get(s, ())) for s, _ in plan.outputs)
        if "want" in reserved:
            kwargs["want"] = tuple(bool(outs.get(s)) for s, _ in plan.outputs)
        if "ctx" in reserved:
            kwargs["ctx"] = self._ctx()
        if "state" in reserved:
            kwargs["state"] = {}
        if "aliased" in reserved:
            read = {id(v) for vs in ins.values() for v in vs}
            kwargs["aliased"] = frozenset(s for s, vs in outs.items() if any(id(v) in read for v in vs))
        if "names" in reserved:
            kwargs["names"] = {s: [v.name for v in vs] for s, vs in (*ins.items(), *outs.items())}

    # ---- gradient or not -----------------------------------------------------------------------
    def no_grad(self) -> _NoGraph:
        """Operators inside leave no graph."""
        return _NoGraph(self)

    def train_mode(self) -> None:
        """Operators leave a graph for backward()."""
        self.has_grad = True

    def eval_mode(self) -> None:
        """Operators leave no graph."""
        self.has_grad = False


class _NoGraph:
    """A context without a graph: one of contextlib's around torch's own costs an operator's time."""

    __slots__ = ("had_grad", "recording", "tracer")

    def __init__(self, tracer: EagerTracer) -> None:
        self.tracer = tracer

    def __enter__(self) -> None:
        self.had_grad, self.tracer.has_grad = self.tracer.has_grad, False
        self.recording = torch.is_grad_enabled()
        record(False)

    def __exit__(self, *error: object) -> None:
        record(self.recording)
        self.tracer.has_grad = self.had_grad


def listed(value: Any) -> list[VarBase]:
    """The variables of a slot as a list."""
    if isinstance(value, list):
        return value
    return list(value) if isinstance(value, tuple) else [value]


def _of_slot(given: dict[str, Any], slot: str) -> list[VarBase]:
    """A slot's variables as a list, empty where it has none."""
    found = given.get(slot)
    if found is None:
        return []
    return found if type(found) is list else listed(found)


def _slots(given: dict[str, Any]) -> dict[str, list[VarBase]]:
    """Each slot's variables as a list."""
    return {s: v if isinstance(v, list) else listed(v) for s, v in given.items() if v is not None}


def _arguments(
    plan: _CallPlan, inputs: dict[str, Any], outputs: dict[str, Any]
) -> tuple[list[Any], bool, bool, VarBase | None]:
    """The kernel's arguments; whether a gradient flows into one, whether one has a LoD; a variable that has no value."""
    args: list[Any] = []
    wants_grad = with_lod = False
    missing = None
    for name, many, ragged, optional in plan.inputs:
        variables = inputs.get(name)
        if variables is not None and type(variables) is not list:
            variables = listed(variables)
        if not variables:
            args.append([] if many else None)
            continue
        for var in variables:
            if not var._stop_gradient:
                wants_grad = True
            if var._lod:
                with_lod = True
            if var._ivar is None and missing is None and not (optional and var.persistable):
                missing = var  # else a state that nothing has written yet
        if ragged:
            values = [Ragged(v._ivar, v._lod) for v in variables]
            args.append(values if many else values[0])
        else:
            args.append([v._ivar for v in variables] if many else variables[0]._ivar)
    for name in plan.inouts:
        found = _of_slot(outputs, name)
        args.append(found[0]._ivar if found else None)
    return args, wants_grad, with_lod, missing


def _apart(plan: _CallPlan, inputs: dict[str, Any], args: list[Any], wants_grad: bool) -> list[Any]:
    """`args` with copies of parameters and other persistable variables: optimizers update these in place, and what a
    sharing operator makes of them must not change with them."""
    for k, (name, many, _, _) in enumerate(plan.inputs):
        if args[k] is None:
            continue
        for j, var in enumerate(_of_slot(inputs, name)):
            if var.persistable and isinstance(var._ivar, torch.Tensor):
                own = (var._ivar if wants_grad else var._ivar.detach()).clone()
                old = args[k][j] if many else args[k]
                new = Ragged(own, old.lod) if isinstance(old, Ragged) else own
                if many:
                    args[k][j] = new
                else:
                    args[k] = new
    return args


def _of_whole(kernel: Any, var: VarBase) -> Any:
    """`kernel` as one that takes a part of `var`; itself where autograd's own way is no worse."""
    t = var._ivar
    if not isinstance(t, torch.Tensor) or t.numel() < WORTH or not t.requires_grad or not torch.is_grad_enabled():
        return kernel
    if var._whole is None or var._whole.tensor is not t:
        var._whole = Whole(t)
    whole = var._whole
    return lambda _, *args, **kwargs: whole.part(kernel, args, kwargs)


def _fill(plan: _CallPlan, outputs: dict[str, Any], result: Any, lods: dict[str, Any]) -> None:
    results = result if isinstance(result, tuple) and not isinstance(result, Ragged) else (result,)
    for (name, many), values in zip(plan.outputs, results):
        targets = outputs.get(name)
        if targets is not None and type(targets) is not list:
            targets = listed(targets)
        if not targets:
            continue
        lod = lods.get(name, NO_LOD) if lods else NO_LOD
        if many and isinstance(values, (list, tuple)):
            each = lod if isinstance(lod, list) else [lod] * len(targets)
            for target, value, one in zip(targets, values, each):
                put(target, value, one)
        else:
            put(targets[0], values, lod)


def put(target: VarBase, value: Any, lod: LoD) -> None:
    """Give an output its value."""
    if type(value) is Ragged:
        value, lod = value
    if value is None:
        return
    if target.persistable:
        if value is target._ivar:  # updates write in place
            return
        if isinstance(value, SelectedRows):
            value = value.to_dense()
        if type(target) is VarBase and target._stop_gradient and not getattr(value, "requires_grad", True):
            target._ivar = value
            return
        if target._stop_gradient or isinstance(target, ParamBase):
            target._replace(value)
            return
    target._ivar = value
    if lod or target._lod:
        target._lod = lod
    if isinstance(value, torch.Tensor) and value.requires_grad:
        if target._stop_gradient:
            target._ivar = value.detach()
        elif not value.is_leaf:
            RESULTS.add(target)
    else:
        target._stop_gradient = True


def _lods(definition: OpDef, ins: dict[str, list[VarBase]], kwargs: dict[str, Any]) -> dict[str, Any]:
    if callable(definition.lod):
        many = definition.in_slots
        lods = {s: [v._lod for v in vs] if many[s].many else vs[0]._lod for s, vs in ins.items() if vs and s in many}
        values = {s: [v._ivar for v in vs] if many[s].many else vs[0]._ivar for s, vs in ins.items() if vs and s in many}
        return definition.lod(lods, {k: v for k, v in kwargs.items() if k in definition.attrs}, values)
    return {out: ins[src][0]._lod for out, src in lod_sources(definition).items() if ins.get(src)}


def _not_eager(type: str, ins: dict[str, list[Any]]) -> Exception:
    found = next(v for vs in ins.values() for v in vs if not isinstance(v, VarBase))
    what = found.describe() if hasattr(found, "describe") else repr(found)[:60]
    return InvalidProgramError(
        f"operator {type}: {what} is a {found.__class__.__name__}, not an eager variable: it has no value in "
        "dygraph mode"
    )


def _describe(ins: dict[str, list[VarBase]]) -> list[str]:
    lines = [f"    input {slot}: {v.describe()}" for slot, vs in ins.items() for v in vs]
    site = user_site()
    return lines + ([f"    at {site}"] if site is not None else [])


def _located(definition: OpDef, ins: dict[str, list[VarBase]], error: MillstreamError) -> Exception:
    try:
        return type(error)("\n".join([f"operator {definition.name}: {error}", *_describe(ins)]))
    except TypeError:
        return error


def explain(definition: OpDef, ins: dict[str, list[VarBase]], attrs: dict[str, Any], error: Exception) -> Exception:
    """`error` of an operator with what it was given; our own errors keep their class."""
    if isinstance(error, MillstreamError):
        return _located(definition, ins, error)
    lines = [f"operator {definition.name} failed: {type(error).__name__}: {error}"]
    if attrs:
        lines.append("    attributes: " + ", ".join(f"{k}={v!r}"[:60] for k, v in list(attrs.items())[:12]))
    return OperatorError("\n".join([*lines, *_describe(ins)]))


class EagerBlock:
    """Stands where code written for Programs expects a Block: operators appended to it run at once.

    Optimizers, initialisers and regularisers work on it unchanged.
    """

    idx = 0
    parent_idx = -1

    def __init__(self, startup: bool = False) -> None:
        self.program = default_startup_program() if startup else default_main_program()

    @staticmethod
    def _tracer() -> EagerTracer:
        from millstream.ir import mode

        tracer = mode.tracer()
        if not isinstance(tracer, EagerTracer):
            raise InvalidProgramError("an eager variable is used outside of fluid.dygraph.guard()")
        return tracer

    def append_op(
        self, type: str, inputs: Any = None, outputs: Any = None, attrs: Any = None, stop_gradient: bool = False
    ) -> Any:
        """Run operator `type`; returns None, as there is no Operator."""
        self._tracer().trace_op(type, inputs or {}, outputs or {}, attrs, stop_gradient)

    _prepend_op = append_op

    @staticmethod
    def updates(pairs: list[tuple[Any, VarBase]]) -> Any:
        """A Block for the optimizer that updates `pairs`, which runs its updates together."""
        from millstream.runtime.eager_updates import Updates

        return Updates(pairs)

    def create_var(self, name: str | None = None, dtype: Any = None, **kwargs: Any) -> VarBase:
        """An eager variable without a value."""
        return self._tracer().new_variable(name or names.generate("_generated_var"), dtype, **kwargs)

    def _find_var_recursive(self, name: str) -> None:
        return None

    def _optimized_guard(self, pair: Any) -> Any:
        return nullcontext()
