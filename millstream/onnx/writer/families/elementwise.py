"""Elementwise arithmetic with Fluid's broadcast, comparisons, logic, sums, scale, cast, clip."""

from __future__ import annotations

import numpy as np

from millstream.onnx.writer.emission import Emission, RefusedError, emits
from millstream.onnx.writer.families.activation import activate
from millstream.onnx.writer.graph import Graph, Value
from millstream.ops._broadcast import placed


def aligned(e: Emission, x: Value, y: Value, xs: tuple[int, ...], ys: tuple[int, ...], axis: int) -> tuple[Value, Value]:
    """Both operands, the one of lower rank reshaped so that ONNX's broadcast is Fluid's."""
    if len(xs) == len(ys) or axis == -1:
        return x, y
    if len(xs) > len(ys):
        return x, _placed(e, y, ys, len(xs), axis)
    return _placed(e, x, xs, len(ys), axis), y


def _placed(e: Emission, small: Value, shape: tuple[int, ...], rank: int, axis: int) -> Value:
    if axis + len(shape) == rank:
        return small
    wanted = placed(shape, rank, axis)
    dropped = len(shape) - (rank - axis - _tail(wanted, rank, axis, shape))
    if dropped:
        small = e.g.squeeze(small, *range(len(shape) - dropped, len(shape)))
    kept = len(shape) - dropped
    tail = rank - axis - kept
    return e.g.unsqueeze(small, *range(kept, kept + tail)) if tail else small


def _tail(wanted: tuple[int, ...], rank: int, axis: int, shape: tuple[int, ...]) -> int:
    """How many dims of 1 stand after the operand's own."""
    kept = len(shape)
    while kept > 1 and shape[kept - 1] == 1:
        kept -= 1
    return rank - axis - kept


def operands(e: Emission, x_slot: str = "X", y_slot: str = "Y") -> tuple[Value, Value]:
    """X and Y for a binary operator with attribute axis."""
    x, y = e.x(x_slot), e.x(y_slot)
    if int(e.attrs.get("axis", -1)) == -1:
        return x, y
    return aligned(e, x, y, e.shape(x_slot), e.shape(y_slot), int(e["axis"]))


def _larger_first(e: Emission) -> tuple[Value, Value]:
    """The operands of pow, mod and floordiv, which Fluid swaps when Y has more dims."""
    x, y = operands(e)
    return (y, x) if e.rank("X") < e.rank("Y") else (x, y)


_BINARY = {"elementwise_add": "Add", "elementwise_sub": "Sub", "elementwise_mul": "Mul", "elementwise_div": "Div",
           "elementwise_max": "Max", "elementwise_min": "Min", "minus": "Sub"}  # fmt: skip


@emits(*_BINARY)
def binary(e: Emission) -> None:
    x, y = operands(e)
    out = e.g.op(_BINARY[e.op.type], x, e.g.cast(y, x.dtype))
    if e.op.type == "elementwise_add":
        _remember_bias(e, x, y, out)
    e.set("Out", out)


def _remember_bias(e: Emission, x: Value, y: Value, out: Value) -> None:
    """A product plus a vector over its columns is known as such (families/recurrent.py takes both into the weights)."""
    found = e.walker.linear.get(x.name) if e.walker is not None else None
    if found is not None and found[2] is None and y.is_const and len(y.shape or ()) == 1 and len(e.shape("X")) == 2:
        e.walker.linear[out.name] = (found[0], found[1], y)


@emits("elementwise_pow")
def elementwise_pow(e: Emission) -> None:
    x, y = _larger_first(e)
    g = e.g
    if x.is_float:
        e.set("Out", g.op("Pow", x, y))
    else:
        e.set("Out", g.cast(g.op("Pow", g.cast(x, np.float64), g.cast(y, np.float64)), x.dtype))


@emits("elementwise_mod")
def elementwise_mod(e: Emission) -> None:
    x, y = _larger_first(e)
    if x.is_float:
        e.set("Out", x - y * e.g.op("Floor", x / y))
    else:
        e.set("Out", e.g.op("Mod", x, y, fmod=1))


@emits("elementwise_floordiv")
def elementwise_floordiv(e: Emission) -> None:
    x, y = _larger_first(e)
    e.set("Out", e.g.op("Div", x, y))


_COMPARE = {"equal": "Equal", "less_than": "Less", "less_equal": "LessOrEqual", "greater_than": "Greater",
            "greater_equal": "GreaterOrEqual", "not_equal": "Equal"}  # fmt: skip


@emits(*_COMPARE)
def compare(e: Emission) -> None:
    x, y = operands(e)
    if x.dtype == np.bool_ and e.op.type not in ("equal", "not_equal"):
        x, y = e.g.cast(x, np.int32), e.g.cast(y, np.int32)
    out = e.g.op(_COMPARE[e.op.type], x, y)
    e.set("Out", ~out if e.op.type == "not_equal" else out)


@emits("logical_and", "logical_or", "logical_xor")
def logical(e: Emission) -> None:
    x, y = (e.g.cast(e.x(s), np.bool_) for s in ("X", "Y"))
    e.set("Out", e.g.op({"logical_and": "And", "logical_or": "Or", "logical_xor": "Xor"}[e.op.type], x, y))


@emits("logical_not")
def logical_not(e: Emission) -> None:
    e.set("Out", ~e.g.cast(e.x("X"), np.bool_))


@emits("sum")
def sum_(e: Emission) -> None:
    xs = e.xs("X")
    if any(x.sort != "tensor" for x in xs):
        e.refuse("a sum of arrays of tensors")
    out = xs[0]
    for x in xs[1:]:
        out = out + x
    e.set("Out", out)


@emits("scale")
def scale(e: Emission) -> None:
    x, g = e.x("X"), e.g
    given = e.maybe("ScaleTensor") if "ScaleTensor" in e.definition.in_slots else None
    bias = e["bias"]
    if not x.is_float:
        bias = int(bias)
    if given is None:
        by = e["scale"] if x.is_float else int(e["scale"])
        if by == 1 and not bias:
            e.set("Out", x)
            return
        factor = g.like(by, x.dtype)
    else:
        by, factor = None, g.cast(g.reshape(given, 1) if e.rank("ScaleTensor") != 1 else given, x.dtype)
    times = x if by == 1 else x * factor
    if not bias:
        e.set("Out", times)
    elif e["bias_after_scale"]:
        e.set("Out", times + bias)
    else:
        e.set("Out", (x + bias) * factor)


@emits("cast")
def cast(e: Emission) -> None:
    out = e.g.cast(e.x("X"), e.dtype("out_dtype"))
    e.set("Out", out)


@emits("clip")
def clip(e: Emission) -> None:
    x, g = e.x("X"), e.g

    def bound(slot: str, attr: str) -> Value:
        given = e.maybe(slot)
        return g.const(e[attr], x.dtype) if given is None else g.reshape(g.cast(given, x.dtype), *[])

    e.set("Out", g.op("Clip", x, bound("Min", "min"), bound("Max", "max")))


@emits("clip_by_norm")
def clip_by_norm(e: Emission) -> None:
    x, g = e.x("X"), e.g
    norm = g.op("Sqrt", g.reduce("ReduceSum", x * x, None))
    limit = g.const(e["max_norm"], x.dtype)
    e.set("Out", x * g.where(norm > limit, limit / norm, g.const(1, x.dtype)))


@emits("isnan", "isinf", "isfinite")
def any_of_kind(e: Emission) -> None:
    """One bool for the whole tensor; an integer has neither."""
    x, g = e.x("X"), e.g
    x = x if x.dtype == np.float32 or x.dtype == np.float64 else g.cast(x, np.float32)
    if e.op.type == "isfinite":
        odd = g.op("IsNaN", x) | g.op("IsInf", x)
    else:
        odd = g.op("IsNaN" if e.op.type == "isnan" else "IsInf", x)
    found = g.reduce("ReduceMax", g.cast(odd, np.int32), None)
    out = g.cast(g.reshape(found, 1), np.bool_)
    out = ~out if e.op.type == "isfinite" else out
    e.set("Out", g.cast(out, e.out_dtype()))


@emits("increment")
def increment(e: Emission) -> None:
    x = e.x("X")
    e.set("Out", x + e["step"])


@emits("assign", "print", "rnn_memory_helper")
def same(e: Emission) -> None:
    slot = e.definition.inputs[0].name
    found = e.xs(slot)[0]
    e.set(e.definition.outputs[0].name, found, e.lod(slot))


@emits("dropout")
def dropout(e: Emission) -> None:
    if not e["is_test"]:
        e.refuse("dropout draws at random; export the test program (clone(for_test=True))")
    x = e.x("X")
    kept = 1.0 - e["dropout_prob"]
    e.set("Out", x if e["dropout_implementation"] == "upscale_in_train" else x * kept)
    if e.wants("Mask"):
        e.set("Mask", e.g.full(e.g.shape(x), 1, np.uint8), ())


def _unary(g: Graph, name: str, x: Value, factor: float) -> Value:
    return x * factor if name == "scale" else activate(g, x, name)


@emits("fused_elemwise_activation")
def fused(e: Emission) -> None:
    x, y, g = e.x("X"), e.x("Y"), e.g
    outer, inner = e["functor_list"]
    node = {"elementwise_add": "Add", "elementwise_mul": "Mul"}

    def both(name: str, a: Value, b: Value) -> Value:
        return g.op(node[name], *aligned(e, a, b, e.shape("X"), e.shape("Y"), int(e["axis"])))

    if outer in node:
        middle = _unary(g, inner, y, e["scale"])
        out = both(outer, x, middle)
    else:
        middle = both(inner, x, y)
        out = _unary(g, outer, middle, e["scale"])
    e.set("IntermediateOut", middle, ())
    e.set("Out", out)


@emits("cos_sim")
def cos_sim(e: Emission) -> None:
    x, y, g = e.x("X"), e.x("Y"), e.g
    axes = list(range(1, e.rank("X")))
    xn = g.op("Sqrt", g.reduce("ReduceSum", x * x, axes, True))
    yn = g.op("Sqrt", g.reduce("ReduceSum", y * y, axes, True))
    out = g.reduce("ReduceSum", x * y, axes, True) / (xn * yn)
    for slot, value in (("Out", out), ("XNorm", xn), ("YNorm", yn)):
        e.set(slot, g.reshape(value, -1, 1))




_STEP_NODES = {"elementwise_add": "Add", "elementwise_sub": "Sub", "elementwise_mul": "Mul", "elementwise_div": "Div"}
_STEP_FUNCTIONS = {"relu": "Relu", "sigmoid": "Sigmoid", "tanh": "Tanh", "exp": "Exp", "sqrt": "Sqrt"}


def _step(g: Graph, name: str, x: Value, a: float, b: float) -> Value:
    """One step of a chain without another operand."""
    if name in _STEP_FUNCTIONS:
        return g.op(_STEP_FUNCTIONS[name], x)
    if name == "scale":
        x = x if a == 1 else x * a
        return x + b if b else x
    if name == "square":
        return x * x
    if name == "leaky_relu":
        return g.op("Max", x, x * a)
    if name in ("relu6", "swish"):
        return activate(g, x, name, a)
    raise RefusedError(f"the step {name!r} is not known")


@emits("fused_elementwise")
def chain(e: Emission) -> None:
    """The steps of a chain that passes made, one on the result of the other."""
    g, xs, found = e.g, e.xs("X"), e.xs("X")[0]
    shapes = []
    for value, name in zip(xs, e.op.input("X")):
        var = e.op.block._find_var_recursive(name)
        shape = value.shape or (tuple(var.shape) if var is not None and var.has_shape else None)
        if shape is None:
            e.refuse(f"the rank of X ({name!r}) is not known")
        shapes.append(shape)
    for name, k, axis, a, b in zip(e["steps"], e["operands"], e["axes"], e["first"], e["second"]):
        if k < 0:
            found = _step(g, name, found, float(a), float(b))
            continue
        if name not in _STEP_NODES:
            e.refuse(f"the step {name!r} over two operands is not known")
        other = xs[k] if axis == -1 else aligned(e, found, xs[k], shapes[0], shapes[k], int(axis))[1]
        found = g.op(_STEP_NODES[name], found, other)
    e.set("Out", found)
