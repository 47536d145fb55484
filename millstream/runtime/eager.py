"""Eager variables: torch tensors with Fluid's attributes. torch's autograd is the tape."""

from __future__ import annotations

import warnings
import weakref
from typing import Any

import numpy as np
import torch

from millstream.errors import ArgumentError, InvalidProgramError, OperatorError, UninitializedError
from millstream.ir import names
from millstream.ir.types import VarType, dtype_name, to_var_type
from millstream.ops._values import NO_LOD, TORCH_DTYPE, VAR_DTYPE, LoD, SelectedRows
from millstream.runtime.place import CPUPlace, Place
from millstream.runtime.tensor import LoDTensor, numbers_of
from millstream.runtime.tensor import SelectedRows as UserRows

_PRUNE_AT = 4096
_ALIGNED = 4096  # bytes from which on memory of torch's, which begins on a line of the cache, is worth its price
# torch.autograd.backward() looks its arguments over and imports modules for that, which costs more than a small graph.
_sweep = torch.autograd.Variable._execution_engine.run_backward  # type: ignore[attr-defined]


class _Watch:
    """Weak references to eager variables; the dead are dropped when there are many."""

    def __init__(self) -> None:
        self.refs: list[Any] = []
        self.limit = _PRUNE_AT

    def add(self, var: VarBase) -> None:
        self.refs.append(weakref.ref(var))
        if len(self.refs) > self.limit:
            self.refs = [r for r in self.refs if r() is not None]
            self.limit = max(_PRUNE_AT, 2 * len(self.refs))

    def alive(self) -> list[VarBase]:
        return [v for v in (r() for r in self.refs) if v is not None]


LEAVES = _Watch()  # variables whose gradients autograd accumulates: Fluid's backward() replaces them instead
RESULTS = _Watch()  # results of operators: gradient() of one needs a word to autograd before backward()


class BackwardStrategy:
    """How backward() adds gradients up.

    Attributes:
        sort_sum_gradient: accepted for Fluid's programs; sums are always made in the order of the graph.
    """

    def __init__(self) -> None:
        self.sort_sum_gradient = False


class _SharedTensor(LoDTensor):
    """The tensor of an eager variable: what is set here is the variable's new value."""

    __slots__ = ("_owner",)
    _owner: VarBase

    def set(self, array: Any, place: Any = None, zero_copy: bool = False) -> None:
        super().set(array, place, zero_copy)
        self._owner._replace(self.torch())

    def set_lod(self, lod: Any) -> None:
        super().set_lod(lod)
        self._owner._lod = self._lod

    def set_recursive_sequence_lengths(self, lengths: Any) -> None:
        super().set_recursive_sequence_lengths(lengths)
        self._owner._lod = self._lod


class VarBase:
    """An eager variable: a torch tensor with Fluid's attributes.

    Attributes:
        stop_gradient: no gradient flows into it (True for data, False for parameters and what comes of them).
        persistable: belongs to a layer's state.
    """

    _name: str | None = None
    _declared_dtype: VarType = VarType.FP32
    _declared_shape: tuple[int, ...] = ()
    _stop_gradient = True
    _swept: Any = None  # the value whose graph backward() has freed
    _cleared = False  # clear_gradient() was called on a dense gradient: it reads as zeros
    _lod: LoD = NO_LOD
    _ivar: Any = None
    _named_grad: Any = None  # a name, and what its gradient is called
    _whole: Any = None  # the value as one that parts were taken of (ops/_parts.py)
    persistable = False
    error_clip: Any = None
    trainable = True

    def __init__(
        self,
        value: Any = None,
        name: str | None = None,
        *,
        dtype: Any = None,
        shape: Any = None,
        stop_gradient: bool = True,
        persistable: bool = False,
        lod: LoD = NO_LOD,
    ) -> None:
        if isinstance(value, np.ndarray):
            value = torch.from_numpy(np.ascontiguousarray(value).reshape(value.shape)).clone()
        self._name = name
        self._ivar = value
        self._stop_gradient = stop_gradient
        if dtype is not None:
            self._declared_dtype = to_var_type(dtype)
        if shape is not None:
            self._declared_shape = tuple(int(d) for d in shape)
        if persistable:
            self.persistable = True
        if lod:
            self._lod = lod

    @property
    def name(self) -> str:
        if self._name is None:
            self._name = names.generate("generated_var")
        return self._name

    @name.setter
    def name(self, value: str) -> None:
        self._name = value

    # ---- value ---------------------------------------------------------------------------------
    @property
    def tensor(self) -> torch.Tensor:
        """The torch tensor; UninitializedError when there is none."""
        if self._ivar is None:
            raise UninitializedError(f"eager variable {self.name!r} has no value")
        return self._ivar.to_dense() if isinstance(self._ivar, SelectedRows) else self._ivar

    def numpy(self) -> np.ndarray:
        """A copy of the value."""
        return numbers_of(self.tensor).copy()

    def set_value(self, value: Any) -> None:
        """Replace the value; shape and dtype must stay.

        Args:
            value: numpy array, VarBase or LoDTensor.
        """
        new = value.tensor.detach() if isinstance(value, VarBase) else value
        if isinstance(new, LoDTensor):
            new = new.torch()
        if not isinstance(new, torch.Tensor):
            array = np.ascontiguousarray(new).reshape(np.shape(new))
            if array.dtype.kind not in "bifu":
                raise ArgumentError(
                    f"set_value of {self.name!r}: expected an array, VarBase or LoDTensor, received {type(value).__name__}"
                )
            new = torch.from_numpy(array)
        if self._ivar is not None:
            old = self.tensor
            if tuple(new.shape) != tuple(old.shape):
                raise InvalidProgramError(
                    f"set_value of {self.name!r}: expected shape {list(old.shape)}, received {list(new.shape)}"
                )
            if new.dtype != old.dtype:
                raise InvalidProgramError(
                    f"set_value of {self.name!r}: expected {dtype_name(self.dtype)}, "
                    f"received {dtype_name(VAR_DTYPE[new.dtype])}"
                )
        self._replace(new.clone())

    def _replace(self, new: Any) -> None:
        """Put a value in; a leaf that autograd knows stays the same leaf."""
        old = self._ivar
        if (
            isinstance(old, torch.Tensor)
            and isinstance(new, torch.Tensor)
            and old.is_leaf
            and old.requires_grad
            and old.dtype is new.dtype
            and old.shape == new.shape
        ):
            old.data = new.detach()
        else:
            self._ivar = new.detach() if isinstance(new, torch.Tensor) else new
            self._apply_stop()

    def value(self) -> VarBase:
        """Fluid reaches the tensor as ``var.value().get_tensor()``."""
        return self

    def get_tensor(self) -> LoDTensor:
        """The value as a LoDTensor; what is set there becomes the variable's value."""
        shared = _SharedTensor.of(self._ivar.detach() if self._ivar is not None else None, self._lod)  # type: ignore[arg-type]
        assert isinstance(shared, _SharedTensor)
        shared._owner = self
        return shared

    def get_selected_rows(self) -> UserRows:
        """The value of a sparse variable."""
        if not isinstance(self._ivar, SelectedRows):
            raise InvalidProgramError(f"get_selected_rows: {self.describe()} is dense")
        return UserRows.of(self._ivar)

    def _copy_to(self, place: Place, blocking: bool = True) -> VarBase:
        return VarBase(self.tensor.detach().to(place.torch_device()).clone(), stop_gradient=self.stop_gradient)

    # ---- facts ---------------------------------------------------------------------------------
    @property
    def shape(self) -> list[int]:
        return list(self._ivar.shape if self._ivar is not None else self._declared_shape)

    @property
    def has_shape(self) -> bool:
        return self._ivar is not None

    @property
    def dtype(self) -> VarType:
        return VAR_DTYPE[self._ivar.dtype] if self._ivar is not None else self._declared_dtype

    @property
    def has_dtype(self) -> bool:
        return True

    @property
    def type(self) -> VarType:
        return VarType.SELECTED_ROWS if isinstance(self._ivar, SelectedRows) else VarType.LOD_TENSOR

    @property
    def lod_level(self) -> int:
        return len(self._lod)

    @property
    def block(self) -> Any:
        """What code written for Variables appends to: here operators run at once."""
        from millstream.runtime.tracer import EagerBlock

        return EagerBlock()

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
                LEAVES.add(self)

    # ---- gradient ------------------------------------------------------------------------------
    def backward(self, backward_strategy: BackwardStrategy | None = None, retain_graph: bool = False) -> None:
        """Gradients of this variable (of ones of its shape) with respect to all that it came from.

        As in Fluid 1.8 a new gradient replaces an earlier one, and without anything to differentiate nothing happens
        (a warning says so). The graph is freed unless `retain_graph`; a second call then does nothing.
        """
        if backward_strategy is not None and not isinstance(backward_strategy, BackwardStrategy):
            raise ArgumentError(f"backward: 'backward_strategy' must be a BackwardStrategy, received {backward_strategy!r}")
        t = self.tensor
        if self._swept is t:
            return
        if not t.requires_grad:
            warnings.warn(
                f"backward: {self.describe()} depends on nothing that needs a gradient: every input has stop_gradient "
                "True, or it was made inside no_grad or after eval()",
                stacklevel=2,
            )
            return
        held = []
        for var in LEAVES.alive():
            leaf = var._ivar
            if isinstance(leaf, torch.Tensor) and leaf.grad is not None:
                held.append((leaf, leaf.grad))
                leaf.grad = None
        for var in RESULTS.alive():
            result = var._ivar
            if isinstance(result, torch.Tensor) and not result.is_leaf:
                if result.retains_grad:
                    result.grad = None
                else:
                    result.retain_grad()
        RESULTS.refs.clear()
        try:
            ones = torch.ones_like(t)
            _sweep((t,), (ones,), bool(retain_graph), False, (), allow_unreachable=True, accumulate_grad=True)
        except RuntimeError as error:
            raise _graph_error("backward", error) from error
        finally:
            for leaf, old in held:
                if leaf.grad is None:
                    leaf.grad = old
        if not retain_graph and not t.is_leaf:
            self._swept = t

    def _grad(self) -> Any:
        """The gradient as a tensor or SelectedRows, or None."""
        t = self._ivar
        if not isinstance(t, torch.Tensor) or not (t.is_leaf or t.retains_grad):
            return None
        g = t.grad
        if g is None:
            return torch.zeros_like(t) if self._cleared else None
        if g.is_sparse:
            return SelectedRows(g._indices()[0], g._values(), t.shape[0])
        return g

    def gradient(self) -> Any:
        """A copy of the gradient, or None before backward(); a sparse one is (values, rows)."""
        g = self._grad()
        if isinstance(g, SelectedRows):
            return g.values.detach().cpu().numpy().copy(), g.rows.cpu().numpy().copy()
        return None if g is None else g.detach().cpu().numpy().copy()

    def _grad_ivar(self) -> VarBase | None:
        g = self._grad()
        if g is None:
            return None
        var = VarBase.__new__(VarBase)
        var._ivar = g.detach() if isinstance(g, torch.Tensor) and g.requires_grad else g
        var._name = self._grad_name()
        return var

    def _grad_name(self) -> str:
        found = self._named_grad
        if found is None or found[0] is not self._name:
            found = self._named_grad = self._name, names.grad_name(self.name)
        return found[1]

    def clear_gradient(self) -> None:
        """Set the gradient to zeros (a sparse one is forgotten)."""
        t = self._ivar
        if isinstance(t, torch.Tensor) and (t.is_leaf or t.retains_grad) and t.grad is not None:
            self._cleared = not t.grad.is_sparse
            t.grad = None

    def detach(self) -> VarBase:
        """The same value, cut from the graph."""
        value = self.tensor.detach()  # optimizers update what persists in place
        return VarBase(value.clone() if self.persistable else value, stop_gradient=True, lod=self._lod)

    # ---- python --------------------------------------------------------------------------------
    def __len__(self) -> int:
        if not self.shape:
            raise TypeError(f"len() of {self.describe()}, which has no dimensions")
        return int(self.shape[0])

    def _scalar(self, what: str) -> torch.Tensor:
        t = self.tensor
        if t.numel() != 1:
            raise InvalidProgramError(f"{what} of {self.describe()}: only a variable of one element can be converted")
        return t.detach().reshape(())

    def __bool__(self) -> bool:
        return bool(self._scalar("truth value (in if, while, and, or, not, in)"))

    def __int__(self) -> int:
        return int(self._scalar("int()"))

    def __float__(self) -> float:
        return float(self._scalar("float()"))

    def __index__(self) -> int:
        if self.tensor.is_floating_point():
            raise TypeError(f"{self.describe()} can't be an index: it must be of an integer type")
        return int(self._scalar("index"))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        a = self.numpy()
        return a if dtype is None else a.astype(dtype)

    def __iter__(self) -> Any:
        return (self[i] for i in range(len(self)))  # type: ignore[index]

    def __hash__(self) -> int:
        return id(self)

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        raise InvalidProgramError(
            f"{self.describe()} can't be copied: its copy would have the same name; build the layer again and use set_dict"
        )

    def to_string(self, throw_on_error: bool = False, with_details: bool = False) -> str:
        if throw_on_error and self._ivar is None:
            raise UninitializedError(f"eager variable {self.name!r} has no value")
        return repr(self)

    def __repr__(self) -> str:
        if self._ivar is None:
            return f"name {self.name}, shape: {self.shape}, not inited"
        shown = LoDTensor.of(self.tensor.detach(), self._lod)
        return f"name {self.name}, dtype: VarType.{self.dtype.name} shape: {self.shape} {shown}"

    __str__ = __repr__


class ParamBase(VarBase):
    """An eager parameter.

    Attributes:
        trainable: optimizers update it. Its gradient is computed all the same, as in 1.8.5: `stop_gradient` is another
            matter (an integer parameter has none).
        optimize_attr, regularizer, gradient_clip_attr, do_model_average: as in ParamAttr.
    """

    persistable = True

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
        self.stop_gradient = bool(stop_gradient) or not value.is_floating_point()

    @property
    def trainable(self) -> bool:  # type: ignore[override]
        return self._trainable

    @trainable.setter
    def trainable(self, value: bool) -> None:
        if not isinstance(value, bool):
            raise ValueError(f"trainable must be a bool, received {value!r}")
        self._trainable = value


def partial_grad(
    outputs: list[VarBase],
    inputs: list[VarBase],
    grad_outputs: list[VarBase | None],
    retain_graph: bool,
    create_graph: bool,
    allow_unused: bool,
    no_grad_vars: list[VarBase],
) -> list[VarBase | None]:
    """Gradients of the sum of `outputs` with respect to `inputs`; nothing else's gradient changes."""
    for var in (*outputs, *inputs):
        if not (isinstance(var._ivar, torch.Tensor) and var._ivar.requires_grad):
            raise InvalidProgramError(f"grad: {var.describe()} has stop_gradient True: there is no gradient")
    if not allow_unused:
        for var in inputs:
            if any(var is excluded for excluded in no_grad_vars):
                raise InvalidProgramError(f"grad: {var.describe()} is in no_grad_vars too: there is no gradient")
    blocked = [v._ivar.register_hook(torch.zeros_like) for v in no_grad_vars if v._ivar.requires_grad]
    seeds = [torch.ones_like(v._ivar) if g is None else g.tensor for v, g in zip(outputs, grad_outputs)]
    for var, seed in zip(outputs, seeds):
        if seed.shape != var._ivar.shape:
            raise InvalidProgramError(
                f"grad: the grad_outputs of {var.describe()} has shape {list(seed.shape)}; the shapes must be the same"
            )
    try:
        found = torch.autograd.grad(
            [v._ivar for v in outputs],
            [v._ivar for v in inputs],
            seeds,
            retain_graph=retain_graph,
            create_graph=create_graph,
            allow_unused=True,
        )
    except RuntimeError as error:
        raise _graph_error("grad", error) from error
    finally:
        for hook in blocked:
            hook.remove()
    results: list[VarBase | None] = []
    for var, g in zip(inputs, found):
        if any(var is excluded for excluded in no_grad_vars):
            results.append(None)
            continue
        if g is None and not allow_unused:
            raise InvalidProgramError(
                f"grad: the outputs do not depend on {var.describe()}; set allow_unused=True to get None for it"
            )
        if g is not None and g.is_sparse:
            g = g.to_dense()
        results.append(None if g is None else VarBase(g, var._grad_name(), stop_gradient=not g.requires_grad))
    return results


def _graph_error(what: str, error: RuntimeError) -> Exception:
    if "second time" in str(error):
        return OperatorError(
            f"{what}: part of the graph was freed by an earlier backward() or grad(); call that one with retain_graph=True"
        )
    return error


def to_eager(value: Any, name: str | None = None, place: Place | None = None) -> VarBase:
    """A numpy array (or LoDTensor, number, list) as an eager variable that stops the gradient."""
    if isinstance(value, VarBase):
        return value
    if isinstance(value, LoDTensor):
        return VarBase(value.torch().clone(), name, lod=value._lod)
    if isinstance(value, torch.Tensor):
        return VarBase(value, name)
    array = np.asarray(value)
    if array.dtype.kind not in "biufc":
        raise TypeError(f"to_variable takes a rectangular numeric array, received {type(value).__name__} of {array.dtype}")
    if array.nbytes < _ALIGNED:
        t = torch.from_numpy(array.copy())
    else:
        t = torch.from_numpy(np.ascontiguousarray(array).reshape(array.shape)).clone()
    if place is not None and not isinstance(place, CPUPlace):
        t = t.to(place.torch_device())
    return VarBase(t, name)


def dtype_of(value: Any) -> torch.dtype:
    """The torch dtype of a Fluid dtype."""
    return TORCH_DTYPE[to_var_type(value)]
