"""Eager mode: operators run as layers make them, on the same declarations and kernels as Programs.

torch's autograd is the tape. Operators whose gradient the library declares come in through the bridge of ops/_grad.py,
so a gradient here is the one that a Program would have.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from millstream.errors import InvalidProgramError, MillstreamError, OperatorError, UninitializedError
from millstream.ir import mode, names
from millstream.ir.program import Program
from millstream.ir.site import user_site
from millstream.ir.types import VarType, dtype_name, to_var_type
from millstream.ops._grad import as_tuple, differentiable
from millstream.ops._infer import lod_sources
from millstream.ops._opdef import REGISTRY, REQUIRED, OpDef, Slot
from millstream.ops._values import NO_LOD, TORCH_DTYPE, VAR_DTYPE, LoD, Ragged, SelectedRows
from millstream.runtime.place import CPUPlace, Place
from millstream.runtime.scope import Scope, global_scope
from millstream.runtime.tensor import LoDTensor


class VarBase:
    """An eager variable: a torch tensor with Fluid's attributes.

    Attributes:
        stop_gradient: no gradient flows into it (True for data, False for parameters and what comes of them).
        persistable: belongs to a layer's state.
    """

    def __init__(
        self,
        value: Any = None,
        name: str | None = None,
        *,
        dtype: Any = None,
        stop_gradient: bool = True,
        persistable: bool = False,
        lod: LoD = NO_LOD,
    ) -> None:
        self.name = name if name is not None else names.generate("generated_var")
        self.persistable = persistable
        self._ivar: Any = value
        self._declared_dtype = to_var_type(dtype) if dtype is not None else VarType.FP32
        self._stop_gradient = stop_gradient
        self._lod = lod
        self.type = VarType.LOD_TENSOR
        self._retained: torch.Tensor | None = None

    # ---- value ---------------------------------------------------------------------------------
    @property
    def tensor(self) -> torch.Tensor:
        """The torch tensor; UninitializedError when there is none."""
        if self._ivar is None:
            raise UninitializedError(f"eager variable {self.name!r} has no value")
        return self._ivar

    def numpy(self) -> np.ndarray:
        """A copy of the value."""
        t = self.tensor.detach()
        return (t.float() if t.dtype is torch.bfloat16 else t).cpu().numpy().copy()

    def set_value(self, value: Any) -> None:
        """Replace the value; shape and dtype must stay."""
        new = value.tensor.detach() if isinstance(value, VarBase) else value
        if isinstance(new, LoDTensor):
            new = new.torch()
        new = new if isinstance(new, torch.Tensor) else torch.from_numpy(np.ascontiguousarray(new))
        if self._ivar is not None:
            old = self.tensor
            if tuple(new.shape) != tuple(old.shape):
                raise InvalidProgramError(
                    f"set_value of {self.name!r}: expected shape {list(old.shape)}, received {list(new.shape)}"
                )
            if new.dtype != old.dtype:
                raise InvalidProgramError(
                    f"set_value of {self.name!r}: expected {old.dtype}, received {new.dtype}"
                )
        self._assign(new.clone())

    def _assign(self, new: torch.Tensor) -> None:
        """Put a value in; a leaf that autograd knows stays the same leaf."""
        if isinstance(self._ivar, torch.Tensor) and self._ivar.is_leaf and self._ivar.shape == new.shape:
            self._ivar.data = new.detach()
        else:
            self._ivar = new.detach()
            self._apply_stop()

    def value(self) -> VarBase:
        """Fluid reaches the tensor as ``var.value().get_tensor()``."""
        return self

    def get_tensor(self) -> LoDTensor:
        """The value as a LoDTensor (shares memory)."""
        return LoDTensor.of(self.tensor.detach(), self._lod)

    def _copy_to(self, place: Place, blocking: bool = True) -> VarBase:
        return VarBase(self.tensor.detach().to(place.torch_device()).clone(), stop_gradient=self.stop_gradient)

    # ---- facts ---------------------------------------------------------------------------------
    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self._ivar.shape) if self._ivar is not None else ()

    @property
    def has_shape(self) -> bool:
        return self._ivar is not None

    @property
    def dtype(self) -> VarType:
        return VAR_DTYPE[self._ivar.dtype] if isinstance(self._ivar, torch.Tensor) else self._declared_dtype

    @property
    def has_dtype(self) -> bool:
        return True

    @property
    def lod_level(self) -> int:
        return len(self._lod)

    @property
    def block(self) -> Any:
        """Eager variables are in no Block; the default main Program's stands in for code that asks."""
        from millstream.ir.program import default_main_program

        return default_main_program().global_block()

    def describe(self) -> str:
        """``name: float32[2, 3]``."""
        return f"{self.name}: {dtype_name(self.dtype)}{list(self.shape)}"

    @property
    def stop_gradient(self) -> bool:
        return self._stop_gradient

    @stop_gradient.setter
    def stop_gradient(self, value: bool) -> None:
        self._stop_gradient = bool(value)
        self._apply_stop()

    def _apply_stop(self) -> None:
        t = self._ivar
        if isinstance(t, torch.Tensor) and t.is_floating_point():
            if self._stop_gradient and t.requires_grad:
                self._ivar = t.detach()
            elif not self._stop_gradient and not t.requires_grad:
                self._ivar = t.detach().requires_grad_()

    # ---- gradient ------------------------------------------------------------------------------
    def backward(self, backward_strategy: Any = None, retain_graph: bool = False) -> None:
        """Gradients of this variable (of ones of its shape) with respect to all that it came from."""
        t = self.tensor
        if not t.requires_grad:
            raise InvalidProgramError(
                f"backward: {self.describe()} depends on nothing that needs a gradient (stop_gradient is True everywhere, "
                "or it was made inside no_grad)"
            )
        t.backward(torch.ones_like(t), retain_graph=retain_graph)

    def gradient(self) -> np.ndarray | None:
        """A copy of the gradient, or None before backward()."""
        g = self._grad()
        return None if g is None else g.detach().cpu().numpy().copy()

    def _grad(self) -> torch.Tensor | None:
        t = self._ivar
        if not isinstance(t, torch.Tensor) or not (t.is_leaf or t.retains_grad):
            return None
        return t.grad

    def _grad_ivar(self) -> VarBase | None:
        g = self._grad()
        return None if g is None else VarBase(g, names.grad_name(self.name))

    def _grad_name(self) -> str:
        return names.grad_name(self.name)

    def clear_gradient(self) -> None:
        """Forget the gradient."""
        if isinstance(self._ivar, torch.Tensor):
            self._ivar.grad = None

    def detach(self) -> VarBase:
        """The same value, cut from the graph."""
        return VarBase(self.tensor.detach(), stop_gradient=True, lod=self._lod)

    # ---- python --------------------------------------------------------------------------------
    def __len__(self) -> int:
        return int(self.tensor.shape[0])

    def __bool__(self) -> bool:
        t = self.tensor
        if t.numel() != 1:
            raise InvalidProgramError(f"bool() of {self.describe()}: only a variable of one element has a truth value")
        return bool(t)

    def __int__(self) -> int:
        return int(self.tensor)

    def __float__(self) -> float:
        return float(self.tensor)

    def __index__(self) -> int:
        return int(self.tensor)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        a = self.numpy()
        return a if dtype is None else a.astype(dtype)

    def __hash__(self) -> int:
        return id(self)

    def to_string(self, throw_on_error: bool = False, with_details: bool = False) -> str:
        return repr(self)

    def __repr__(self) -> str:
        if self._ivar is None:
            return f"Variable: {self.name}, not initialized"
        return f"Variable: {self.name}\n  - shape: {list(self.shape)}\n  - dtype: {dtype_name(self.dtype)}\n  - data: {self.numpy()}"

    __str__ = __repr__


class EagerTracer:
    """Runs operators on :class:`VarBase` as they are made."""

    def __init__(self, place: Place | None = None) -> None:
        self.place = place or CPUPlace()
        self.device = self.place.torch_device()
        self.train_mode = True
        self.has_grad = True
        self.recorder: Any = None  # TracedLayer listens here
        self._rng: torch.Generator | None = None
        self._rng_seed = 0
        self.scope: Scope = global_scope()

    # ---- what LayerHelper asks -----------------------------------------------------------------
    def new_variable(self, name: str, dtype: Any, **kwargs: Any) -> VarBase:
        return VarBase(None, name, dtype=dtype, stop_gradient=bool(kwargs.get("stop_gradient", False)),
                       persistable=bool(kwargs.get("persistable", False)))

    def create_parameter(self, name: str, shape: Any, dtype: Any, initializer: Any, **kwargs: Any) -> Any:
        from millstream.runtime.executor import Executor

        startup = Program()
        startup.random_seed = kwargs.pop("seed", 0)
        block = startup.global_block()
        var = block.create_var(name=name, shape=shape, dtype=dtype, persistable=True)
        old = mode.switch_tracer(None)
        try:
            initializer(var, block)
            scope = Scope()
            Executor(self.place).run(startup, scope=scope)
        finally:
            mode.switch_tracer(old)
        found = scope.find_var(name)
        assert found is not None
        return ParamBase(found.get_tensor().torch(), name, **kwargs)

    @property
    def rng(self) -> torch.Generator:
        from millstream.ir.program import default_main_program

        seed = default_main_program().random_seed
        if self._rng is None or seed != self._rng_seed:
            self._rng = torch.Generator(device=self.device)
            self._rng.manual_seed(seed or int(torch.randint(2**62, (1,)).item()))
            self._rng_seed = seed
        return self._rng

    def trace_op(
        self, type: str, inputs: dict[str, Any], outputs: dict[str, Any], attrs: dict[str, Any] | None = None
    ) -> dict[str, list[VarBase]]:
        """Run operator `type`.

        Args:
            inputs, outputs: slot -> VarBase or list of VarBase; outputs are filled in.
        """
        definition = REGISTRY.get(type)
        ins = {s: _listed(v) for s, v in inputs.items() if v is not None}
        outs = {s: _listed(v) for s, v in outputs.items() if v is not None}
        given = {k: v for k, v in (attrs or {}).items() if v is not None}
        kwargs = self._keywords(definition, given, outs)
        args = [_argument(slot, ins.get(slot.name, [])) for slot in definition.inputs]
        args += [_present(outs.get(s.name, [])) for s in definition.outputs if s.inout]
        wants_grad = self.has_grad and any(not v.stop_gradient for vs in ins.values() for v in vs)
        try:
            with torch.set_grad_enabled(wants_grad):
                kernel = differentiable(definition) if wants_grad else definition.kernel
                results = as_tuple(kernel(*args, **kwargs))
        except MillstreamError:
            raise
        except Exception as error:
            raise _explain(definition, ins, given, error) from error
        self._fill(definition, ins, outs, given, results, wants_grad)
        if self.recorder is not None:
            self.recorder.record(type, ins, outs, given)
        return outs

    def _keywords(self, definition: OpDef, given: dict[str, Any], outs: dict[str, list[VarBase]]) -> dict[str, Any]:
        from millstream.ops._infer import coerce_value

        kwargs: dict[str, Any] = {}
        for name, spec in definition.attrs.items():
            if name in given:
                kwargs[name] = coerce_value(definition.name, name, spec, given[name])
            elif spec.default is not REQUIRED:
                kwargs[name] = spec.default
        reserved = definition.reserved
        if "rng" in reserved:
            seed = int(kwargs.get("seed", 0) or 0)
            kwargs["rng"] = torch.Generator(device=self.device).manual_seed(seed) if seed > 0 else self.rng
        if "device" in reserved:
            kwargs["device"] = self.device
        if "counts" in reserved:
            kwargs["counts"] = tuple(len(outs.get(s.name, ())) for s in definition.outputs)
        if "want" in reserved:
            kwargs["want"] = tuple(bool(outs.get(s.name)) for s in definition.outputs)
        if "ctx" in reserved:
            kwargs["ctx"] = self
        return kwargs

    def _fill(
        self,
        definition: OpDef,
        ins: dict[str, list[VarBase]],
        outs: dict[str, list[VarBase]],
        attrs: dict[str, Any],
        results: tuple[Any, ...],
        wants_grad: bool,
    ) -> None:
        lods = _lods(definition, ins, attrs)
        for slot, result in zip(definition.outputs, results):
            targets = outs.get(slot.name, [])
            values = result if slot.many and isinstance(result, list) else [result]
            for target, value in zip(targets, values):
                lod = lods.get(slot.name, NO_LOD)
                if isinstance(value, Ragged):
                    value, lod = value
                if value is None:
                    continue
                _put(target, value, lod, wants_grad)

    @contextmanager
    def no_grad(self) -> Iterator[None]:
        """Operators inside leave no graph."""
        old, self.has_grad = self.has_grad, False
        try:
            with torch.no_grad():
                yield
        finally:
            self.has_grad = old


class ParamBase(VarBase):
    """An eager parameter."""

    def __init__(
        self,
        value: torch.Tensor,
        name: str,
        *,
        trainable: bool = True,
        optimize_attr: dict[str, Any] | None = None,
        regularizer: Any = None,
        gradient_clip_attr: Any = None,
        do_model_average: bool | None = None,
        is_distributed: bool = False,
        stop_gradient: bool | None = None,
        need_clip: bool = True,
    ) -> None:
        super().__init__(value, name, persistable=True)
        self._trainable = trainable
        self.optimize_attr = optimize_attr if optimize_attr is not None else {"learning_rate": 1.0}
        self.regularizer = regularizer
        self.gradient_clip_attr = gradient_clip_attr
        self.do_model_average = do_model_average
        self.is_distributed = is_distributed
        self.need_clip = need_clip
        self.stop_gradient = not trainable if stop_gradient is None else stop_gradient or not trainable

    @property
    def trainable(self) -> bool:
        return self._trainable

    @trainable.setter
    def trainable(self, value: bool) -> None:
        if not isinstance(value, bool):
            raise ValueError(f"trainable must be a bool, received {value!r}")
        self._trainable = value
        self.stop_gradient = not value


def _listed(value: Any) -> list[VarBase]:
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _argument(slot: Slot, values: list[VarBase]) -> Any:
    def one(v: VarBase) -> Any:
        if v._ivar is None:
            raise UninitializedError(f"eager variable {v.name!r} has no value")
        return Ragged(v._ivar, v._lod) if slot.ragged else v._ivar

    if slot.many:
        return [one(v) for v in values]
    return one(values[0]) if values else None


def _present(values: list[VarBase]) -> Any:
    return values[0]._ivar if values else None


def _put(target: VarBase, value: Any, lod: LoD, wants_grad: bool) -> None:
    if isinstance(target, ParamBase) or target.persistable:
        if isinstance(value, SelectedRows):
            value = value.to_dense()
        target._assign(value)
        return
    target._ivar = value
    target._lod = lod
    if isinstance(value, torch.Tensor):
        if target._stop_gradient and value.requires_grad:
            target._ivar = value.detach()
        else:
            target._stop_gradient = not value.requires_grad


def _lods(definition: OpDef, ins: dict[str, list[VarBase]], attrs: dict[str, Any]) -> dict[str, LoD]:
    if not any(v._lod for vs in ins.values() for v in vs):
        return {}
    if callable(definition.lod):
        many = definition.in_slots
        lods = {s: [v._lod for v in vs] if many[s].many else vs[0]._lod for s, vs in ins.items() if vs and s in many}
        values = {s: [v._ivar for v in vs] if many[s].many else vs[0]._ivar for s, vs in ins.items() if vs and s in many}
        return definition.lod(lods, definition.kernel_attrs(attrs), values)
    return {out: ins[src][0]._lod for out, src in lod_sources(definition).items() if ins.get(src)}


def _explain(definition: OpDef, ins: dict[str, list[VarBase]], attrs: dict[str, Any], error: Exception) -> Exception:
    lines = [f"operator {definition.name} failed: {type(error).__name__}: {error}"]
    lines += [f"    input {slot}: {v.describe()}" for slot, vs in ins.items() for v in vs]
    if attrs:
        lines.append("    attributes: " + ", ".join(f"{k}={v!r}"[:60] for k, v in list(attrs.items())[:12]))
    site = user_site()
    if site is not None:
        lines.append(f"    at {site}")
    return OperatorError("\n".join(lines))


def to_eager(value: Any, name: str | None = None, place: Place | None = None) -> VarBase:
    """A numpy array (or LoDTensor, number, list) as an eager variable that stops the gradient."""
    if isinstance(value, VarBase):
        return value
    if isinstance(value, LoDTensor):
        return VarBase(value.torch().clone(), name, lod=value._lod)
    if isinstance(value, torch.Tensor):
        return VarBase(value, name)
    array = np.ascontiguousarray(value)
    if array.dtype == object:
        raise TypeError(f"to_variable takes a rectangular numeric array, received {type(value).__name__}")
    t = torch.from_numpy(array).clone().reshape(np.shape(value))
    if place is not None:
        t = t.to(place.torch_device())
    return VarBase(t, name)


def dtype_of(value: Any) -> torch.dtype:
    """The torch dtype of a Fluid dtype."""
    return TORCH_DTYPE[to_var_type(value)]
