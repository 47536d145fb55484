"""Python's operators on Variables: ``x + 1``, ``x < y``, ``x[:, 0]``, ``x.astype("int64")``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from millstream.fluid.layer_helper import LayerHelper
from millstream.fluid.layers._check import is_variable, refuse, refuse_type
from millstream.ir import mode, names
from millstream.ir.types import VarType, dtype_name, to_var_type
from millstream.ir.variable import Variable

__all__ = ["monkey_patch_variable"]

_INTEGERS = (VarType.BOOL, VarType.UINT8, VarType.INT8, VarType.INT16, VarType.INT32, VarType.INT64)
_COMPARISONS = ("equal", "not_equal", "less_than", "less_equal", "greater_than", "greater_equal")
_MISSING_END = 10_000_000  # beyond the end of any dimension


class _Expression(LayerHelper):
    """A helper whose temporaries are named ``tmp_<n>`` and which takes no layer number."""

    def __init__(self) -> None:
        super().__init__("tmp", name="tmp")

    def create_variable_for_type_inference(self, dtype: Any, stop_gradient: bool = False) -> Any:
        return self.create_variable(name=_new_name("tmp"), dtype=dtype, stop_gradient=stop_gradient)


def _new_name(key: str) -> str | None:
    """A name for a result; none in eager mode, where a variable is named when somebody asks."""
    return names.generate(key) if mode.tracer() is None else None


def _emit(op_type: str, inputs: dict[str, Any], attrs: dict[str, Any], dtype: Any, stop_gradient: bool = False) -> Any:
    helper = _Expression()
    out = helper.create_variable_for_type_inference(dtype, stop_gradient)
    helper.append_op(type=op_type, inputs=inputs, outputs={"Out": [out]}, attrs=attrs)
    return out


# ---- arithmetic --------------------------------------------------------------------------------
def _scaled(x: Any, scale: float, bias: float) -> Any:
    return _emit("scale", {"X": [x]}, {"scale": float(scale), "bias": float(bias)}, x.dtype)


def _constant(value: float, dtype: Any) -> Any:
    return _emit("fill_constant", {}, {"shape": [1], "dtype": dtype, "value": value}, dtype, True)


def _constant_like(x: Any, value: float) -> Any:
    """`value` in the shape of `x`, whose first unknown dimension is taken from it when the Program runs."""
    shape = list(x.shape)
    unknown = [i for i, d in enumerate(shape) if d < 0]
    if not unknown:
        return _emit("fill_constant", {}, {"shape": shape, "dtype": x.dtype, "value": value}, x.dtype, True)
    if len(unknown) > 1:
        return _emit("fill_any_like", {"X": [x]}, {"value": value, "dtype": x.dtype}, x.dtype, True)
    attrs = {
        "shape": shape,
        "dtype": x.dtype,
        "value": value,
        "input_dim_idx": unknown[0],
        "output_dim_idx": unknown[0],
    }
    return _emit("fill_constant_batch_size_like", {"Input": [x]}, attrs, x.dtype, True)


def astype(self: Any, dtype: Any) -> Any:
    """This tensor with another element type."""
    target = to_var_type(dtype)
    return _emit("cast", {"X": [self]}, {"in_dtype": self.dtype, "out_dtype": target}, target)


# x op number as one `scale`: (factor, offset) of x for a number v; None where there is no such form.
_AS_SCALE: dict[str, Callable[[float], tuple[float, float]]] = {
    "__add__": lambda v: (1.0, v),
    "__radd__": lambda v: (1.0, v),
    "__sub__": lambda v: (1.0, -v),
    "__rsub__": lambda v: (-1.0, v),
    "__mul__": lambda v: (v, 0.0),
    "__rmul__": lambda v: (v, 0.0),
    "__truediv__": lambda v: (1.0 / v, 0.0),
    "__div__": lambda v: (1.0 / v, 0.0),
}


def _number(self: Any, other: Any, method: str) -> float:
    """`other` as a float; for an integer tensor it must be whole."""
    try:
        value = float(other.item() if getattr(other, "size", 0) == 1 and hasattr(other, "item") else other)
    except TypeError:
        refuse_type(f"Variable.{method}", f"the other operand must be a number or a Variable, received {other!r}")
    except ValueError:
        refuse(f"Variable.{method}", f"the other operand must be a number or a Variable, received {other!r}")
    if self.dtype in _INTEGERS and value != int(value):
        refuse(
            f"Variable.{method}",
            f"{value} is not whole, and {self.describe()} holds {dtype_name(self.dtype)}; cast it first",
        )
    return value


def _binary(method: str, op_type: str, reverse: bool, meaning: str) -> Callable[[Any, Any], Any]:
    as_scale = _AS_SCALE.get(method)

    def operator(self: Any, other_var: Any) -> Any:
        if not is_variable(other_var):
            value = _number(self, other_var, method)
            # an integer is never divided by multiplication with 1 / v
            if (
                as_scale is not None
                and isinstance(other_var, (int, float))
                and (op_type != "elementwise_div" or (self.dtype not in _INTEGERS and value != 0))
            ):
                return _scaled(self, *as_scale(value))
            other_var = _constant_like(self, value) if reverse else _constant(value, self.dtype)
        elif other_var.dtype != self.dtype:
            other_var = astype(other_var, self.dtype)
        left, right = (other_var, self) if reverse else (self, other_var)
        # a right side with a batch dimension lines up from the front, any other from the back
        shape = right.shape
        axis = 0 if len(shape) and shape[0] == -1 else -1
        dtype = VarType.BOOL if op_type in _COMPARISONS else self.dtype
        return _emit(op_type, {"X": [left], "Y": [right]}, {"axis": axis}, dtype)

    operator.__name__ = method
    operator.__qualname__ = f"Variable.{method}"
    operator.__doc__ = meaning
    return operator


def _negative(var: Any) -> Any:
    """-x."""
    return _scaled(var, -1.0, 0.0)


# ---- indexing ----------------------------------------------------------------------------------
class _Index:
    """What an index expression asks of each dimension."""

    def __init__(self) -> None:
        self.axes: list[int] = []
        self.starts: list[Any] = []
        self.ends: list[Any] = []
        self.steps: list[int] = []
        self.dropped: list[int] = []
        self.reversed: list[int] = []

    def add(self, axis: int, start: Any, end: Any, step: int) -> None:
        self.axes.append(axis)
        self.starts.append(start)
        self.ends.append(end)
        self.steps.append(step)


def _items(self: Any, item: Any) -> list[Any]:
    items = list(item) if isinstance(item, tuple) else [item]
    rank = len(self.shape)
    dots = [i for i, it in enumerate(items) if it is Ellipsis]
    if len(dots) > 1:
        refuse("Variable.__getitem__", "an index can have only one '...'")
    if dots:
        i = dots[0]
        items[i : i + 1] = [slice(None)] * (rank - len(items) + 1)
    if len(items) > rank:
        refuse("Variable.__getitem__", f"{len(items)} indices are too many for {self.describe()}")
    return items


def _parse(self: Any, item: Any) -> _Index:
    index = _Index()
    for axis, it in enumerate(_items(self, item)):
        if is_variable(it):
            index.dropped.append(axis)
            index.add(axis, it, _plus_one(it), 1)
        elif isinstance(it, slice):
            _add_slice(index, axis, it)
        elif hasattr(it, "__index__") and not isinstance(it, bool):
            start = int(it)
            size = self.shape[axis]
            if size >= 0 and not -size <= start < size:
                raise IndexError(f"index {start} is out of range for dimension {axis} of {self.describe()}")
            index.dropped.append(axis)
            index.add(axis, start, _MISSING_END if start == -1 else start + 1, 1)
        else:
            refuse_type(
                "Variable.__getitem__",
                f"dimension {axis} takes an int, a slice, '...' or an int Variable of shape [1] as index; received {it!r}",
            )
    return index


def _add_slice(index: _Index, axis: int, it: slice) -> None:
    step = 1 if it.step is None else it.step
    if not hasattr(step, "__index__") or int(step) == 0:
        refuse("Variable.__getitem__", f"a slice's step must be an int other than 0, received {it.step!r}")
    step = int(step)
    if it.start is None and it.stop is None:
        if step == 1:
            return
        if step == -1:
            index.reversed.append(axis)
            return
    if step > 0:
        start, end = (0 if it.start is None else it.start), (_MISSING_END if it.stop is None else it.stop)
    else:
        start, end = (_MISSING_END if it.start is None else it.start), (-_MISSING_END if it.stop is None else it.stop)
    index.add(axis, start, end, step)


def _generated(self: Any, dtype: Any, stop_gradient: bool = False) -> Any:
    return LayerHelper("tmp", name="tmp").create_variable(
        name=_new_name("_generated_var"), dtype=dtype, stop_gradient=stop_gradient
    )


def _cpu_int(self: Any, value: int, dtype: Any = VarType.INT32) -> Any:
    out = _generated(self, dtype, True)
    attrs = {"shape": [1], "dtype": dtype, "value": float(value), "force_cpu": True}
    _Expression().append_op(type="fill_constant", inputs={}, outputs={"Out": [out]}, attrs=attrs)
    return out


def _plus_one(var: Any) -> Any:
    one = _cpu_int(var, 1, var.dtype)
    out = _generated(var, var.dtype)
    _Expression().append_op(
        type="elementwise_add", inputs={"X": [var], "Y": [one]}, outputs={"Out": [out]}, attrs={"axis": -1}
    )
    return out


def getitem(self: Any, item: Any) -> Any:
    """Part of a tensor: ints (dimension dropped), slices with steps, "...", and int Variables of shape [1].

    In eager mode ints keep their dimension where some slice has a step, as in 1.8.5.
    """
    index = _parse(self, item)
    if mode.tracer() is not None and (index.reversed or any(s != 1 for s in index.steps)):
        index.dropped = []  # as in 1.8.5: beside a step, ints keep their dimension in eager mode
    out = self
    if index.axes:
        out = _sliced(self, index)
    if index.reversed:
        kept = [axis - sum(d < axis for d in index.dropped) for axis in index.reversed]
        helper = _Expression()
        name = names.generate(self.name + "_slice_reverse") if mode.tracer() is None else None
        turned = helper.create_variable(name=name, dtype=self.dtype)
        helper.append_op(type="reverse", inputs={"X": [out]}, outputs={"Out": [turned]}, attrs={"axis": kept})
        out = turned
    return out


def _sliced(self: Any, index: _Index) -> Any:
    op_type = "slice" if all(s == 1 for s in index.steps) else "strided_slice"
    inputs: dict[str, Any] = {"Input": [self]}
    attrs: dict[str, Any] = {"axes": index.axes, "decrease_axis": index.dropped}
    if op_type == "strided_slice":
        attrs["strides"] = index.steps
    flags = [1] * len(index.axes)
    for values, slot, key in ((index.starts, "StartsTensorList", "starts"), (index.ends, "EndsTensorList", "ends")):
        attrs[key] = [-1 if is_variable(v) else int(v) for v in values]
        if any(is_variable(v) for v in values):
            for v in values:
                if is_variable(v):
                    v.stop_gradient = True
            inputs[slot] = [v if is_variable(v) else _cpu_int(self, v) for v in values]
            flags = [-1 if is_variable(v) else f for v, f in zip(values, flags)]
    attrs["infer_flags"] = flags
    helper = _Expression()
    name = names.generate(f"{self.name}_{op_type}") if mode.tracer() is None else None
    out = helper.create_variable(name=name, dtype=self.dtype)
    helper.append_op(type=op_type, inputs=inputs, outputs={"Out": [out]}, attrs=attrs)
    return out


_BINARY = (
    ("__add__", "elementwise_add", False, "x + y"),
    ("__radd__", "elementwise_add", False, "y + x"),
    ("__sub__", "elementwise_sub", False, "x - y"),
    ("__rsub__", "elementwise_sub", True, "y - x"),
    ("__mul__", "elementwise_mul", False, "x * y"),
    ("__rmul__", "elementwise_mul", False, "y * x"),
    ("__div__", "elementwise_div", False, "x / y"),
    ("__truediv__", "elementwise_div", False, "x / y"),
    ("__rdiv__", "elementwise_div", True, "y / x"),
    ("__rtruediv__", "elementwise_div", True, "y / x"),
    ("__pow__", "elementwise_pow", False, "x ** y"),
    ("__rpow__", "elementwise_pow", True, "y ** x"),
    ("__floordiv__", "elementwise_floordiv", False, "x // y"),
    ("__mod__", "elementwise_mod", False, "x % y"),
    ("__eq__", "equal", False, "x == y"),
    ("__ne__", "not_equal", False, "x != y"),
    ("__lt__", "less_than", False, "x < y"),
    ("__le__", "less_equal", False, "x <= y"),
    ("__gt__", "greater_than", False, "x > y"),
    ("__ge__", "greater_equal", False, "x >= y"),
)


def add_operators(cls: Any) -> None:
    """Give a class of variables Python's operators."""
    for method, op_type, reverse, meaning in _BINARY:
        setattr(cls, method, _binary(method, op_type, reverse, meaning))
    # == makes an operator, so identity must keep serving dicts and sets
    cls.__hash__ = object.__hash__
    cls.__neg__ = _negative
    cls.__getitem__ = getitem
    cls.astype = astype


def monkey_patch_variable() -> None:
    """Give :class:`Variable` the operators; runs once when the layers are imported."""
    add_operators(Variable)
    patched: Any = Variable
    patched.__iter__ = _no_iteration
    patched.__bool__ = _truth
    for name in ("backward", "clear_gradient", "detach", "gradient", "set_value"):
        setattr(patched, name, _of_eager_variables(name))
    patched.numpy = _numpy


def _numpy(self: Any) -> Any:
    """The variable itself while a function is converted: ``if loss.numpy()[0] > 1:`` asks when the Program runs.

    InvalidProgramError while a Program is built otherwise.
    """
    return self if mode.capture() is not None else _of_eager_variables("numpy")(self)


def _of_eager_variables(name: str) -> Any:
    def refuse_it(self: Any, *args: Any, **kwargs: Any) -> Any:
        refuse(
            "Variable",
            f"{name}() is of eager variables, and {self.describe()} belongs to a Program: run the Program with an Executor "
            "and fetch it (gradients: fluid.gradients), or use fluid.dygraph.guard()",
        )

    refuse_it.__name__ = refuse_it.__qualname__ = name
    refuse_it.__doc__ = f"{name}() of eager variables; InvalidProgramError while a Program is built."
    return refuse_it


def _truth(self: Any) -> bool:
    """True, as in Fluid; an error where Python code that was not converted is made into a Program."""
    if mode.capture() is not None:
        refuse(
            "Variable",
            f"the truth value of {self.describe()} is not known while a function is made into a Program, and the code that "
            "asks for it could not be converted (it has no source text, is decorated, or is a lambda, generator or library)",
        )
    return True


def _no_iteration(self: Any) -> Any:
    refuse_type("Variable", f"{self.describe()} can't be iterated while the Program is built; use unstack or split")
