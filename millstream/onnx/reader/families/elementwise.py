"""Elementwise operators: arithmetic, comparisons, logic, activations, casts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from millstream.ir.types import to_var_type
from millstream.onnx.reader.node import Node, reads
from millstream.onnx.reader.values import Dim, Element, Tensor, constant

_UNARY = {
    "Abs": "abs", "Acos": "acos", "Asin": "asin", "Atan": "atan", "Ceil": "ceil", "Cos": "cos", "Erf": "erf", "Exp": "exp",
    "Floor": "floor", "Log": "log", "Reciprocal": "reciprocal", "Relu": "relu", "Sigmoid": "sigmoid", "Sign": "sign",
    "Sin": "sin", "Softplus": "softplus", "Softsign": "softsign", "Sqrt": "sqrt", "Tanh": "tanh",
}  # fmt: skip


def like(made: Tensor, x: Tensor) -> Tensor:
    """`made` has x's dims."""
    made.shape = x.shape
    return made


@reads(*_UNARY)
def unary(n: Node) -> None:
    x = n.x()
    n.set(like(n.op(_UNARY[n.type], {"X": x}), x))


def _sinh(n: Node, x: Tensor) -> Tensor:
    return n.b.scale(n.b.binary("elementwise_sub", n.b.op("exp", {"X": x}), n.b.op("exp", {"X": n.b.scale(x, -1.0)})), 0.5)


def _cosh(n: Node, x: Tensor) -> Tensor:
    return n.b.scale(n.b.binary("elementwise_add", n.b.op("exp", {"X": x}), n.b.op("exp", {"X": n.b.scale(x, -1.0)})), 0.5)


def _tan(n: Node, x: Tensor) -> Tensor:
    return n.b.binary("elementwise_div", n.b.op("sin", {"X": x}), n.b.op("cos", {"X": x}))


def _log_of_sum(n: Node, x: Tensor, more: float) -> Tensor:
    """log(x + sqrt(x^2 + more))."""
    root = n.b.op("sqrt", {"X": n.b.scale(n.b.op("square", {"X": x}), 1.0, more)})
    return n.b.op("log", {"X": n.b.binary("elementwise_add", x, root)})


def _asinh(n: Node, x: Tensor) -> Tensor:
    """Of the magnitude, for below zero the sum would cancel."""
    return n.b.binary("elementwise_mul", n.b.op("sign", {"X": x}), _log_of_sum(n, n.b.op("abs", {"X": x}), 1.0))


def _acosh(n: Node, x: Tensor) -> Tensor:
    return _log_of_sum(n, x, -1.0)


def _atanh(n: Node, x: Tensor) -> Tensor:
    ratio = n.b.binary("elementwise_div", n.b.scale(x, 1.0, 1.0), n.b.scale(x, -1.0, 1.0))
    return n.b.scale(n.b.op("log", {"X": ratio}), 0.5)


_COMPOSED = {"Sinh": _sinh, "Cosh": _cosh, "Tan": _tan, "Asinh": _asinh, "Acosh": _acosh, "Atanh": _atanh}


@reads(*_COMPOSED)
def composed(n: Node) -> None:
    n.set(like(_COMPOSED[n.type](n, n.x()), n.x()))


@reads("Identity")
def identity(n: Node) -> None:
    n.set(n.values.find(n.node.input[0]))


@reads("Dropout")
def dropout(n: Node) -> None:
    """A dropout operator that does nothing in tests, so that the model can be trained further."""
    x = n.x()
    ratio = float(n.attr("ratio", 0.5))
    if n.has(1) and n.x(1).const is not None:
        ratio = float(n.const(1, "ratio").reshape(-1)[0])
    attrs = {"dropout_prob": ratio, "is_test": True, "dropout_implementation": "upscale_in_train"}
    outs = n.b.ops("dropout", {"X": x}, attrs, ["Out"], n.hint)
    n.set(like(outs[0], x))
    if n.wants(1):  # nothing is dropped in tests
        n.set(like(n.b.cast(n.b.scale(n.b.op("fill_zeros_like", {"X": x}), 1.0, 1.0), np.bool_), x), 1)


@reads("Round")
def round_(n: Node) -> None:
    n.set(rounded(n, n.x()))


def rounded(n: Node, x: Tensor) -> Tensor:
    """Halves to even numbers: of the two neighbours the even one, where Fluid's rounding away from zero met a half."""
    b = n.b
    away = b.op("round", {"X": x})
    tie = b.op("equal", {"X": b.op("abs", {"X": b.binary("elementwise_sub", x, b.op("floor", {"X": x}))}),
                         "Y": constant(np.array([0.5], x.dtype))}, {"axis": -1})  # fmt: skip
    floor, ceil = b.op("floor", {"X": x}), b.op("ceil", {"X": x})
    low_even = b.op("equal", {"X": b.scale(b.op("floor", {"X": b.scale(floor, 0.5)}), 2.0), "Y": floor}, {"axis": -1})
    return select(n, tie, select(n, low_even, floor, ceil, x), away, x)


def select(n: Node, condition: Tensor, x: Tensor, y: Tensor, shaped: Tensor) -> Tensor:
    """x where `condition`, else y; all of one shape."""
    return like(n.op("where", {"Condition": condition, "X": x, "Y": y}), shaped)


@reads("Neg")
def neg(n: Node) -> None:
    n.set(n.b.scale(n.x(), -1.0))


_BINARY = {"Add": "elementwise_add", "Sub": "elementwise_sub", "Mul": "elementwise_mul", "Div": "elementwise_div"}


@reads(*_BINARY)
def binary(n: Node) -> None:
    x, y = n.x(0), n.x(1)
    if x.dtype != y.dtype:
        n.fail(f"its inputs are {x.dtype} and {y.dtype}")
    made = n.op(_BINARY[n.type], {"X": x, "Y": y}, {"axis": -1})
    if x.scalar and y.scalar:
        made.shape = ()
    made.elements = _elements(n.type, x, y)
    n.set(made)


def _elements(kind: str, x: Tensor, y: Tensor) -> list[Element] | None:
    """What is known of the numbers of an integer vector that is computed."""
    a, b = x.parts(), y.parts()
    if a is None or b is None or not a or not b or max(len(a), len(b)) % min(len(a), len(b)):
        return None
    size = max(len(a), len(b))
    if (len(a) not in (1, size)) or (len(b) not in (1, size)):
        return None
    out: list[Element] = []
    for p, q in zip(a * (size // len(a)), b * (size // len(b))):
        if isinstance(p, Dim) or isinstance(q, Dim) or p is None or q is None:
            neutral = {"Add": 0, "Sub": 0, "Mul": 1, "Div": 1}[kind]
            out.append(p if q == neutral else q if p == neutral and kind in ("Add", "Mul") else None)
        elif kind == "Div":
            out.append(int(p / q) if q else None)
        else:
            out.append({"Add": p + q, "Sub": p - q, "Mul": p * q}[kind])
    return out


@reads("Pow")
def pow_(n: Node) -> None:
    x, y = n.x(0), n.x(1)
    if y.const is not None and y.const.size == 1:
        n.set(like(n.op("pow", {"X": x}, {"factor": float(y.const.reshape(-1)[0])}), x))
        return
    if x.rank < y.rank:
        x = _expanded_rank(n, x, y.rank)
    n.set(n.b.binary("elementwise_pow", x, n.b.cast(y, x.dtype)))


def _expanded_rank(n: Node, x: Tensor, rank: int) -> Tensor:
    """x with dims of 1 before its own: pow, mod and comparisons want the larger operand first."""
    return n.b.reshape(x, [1] * (rank - x.rank) + [d if d > 0 else -1 for d in x.shape])


@reads("Mod")
def mod(n: Node) -> None:
    x, y = n.x(0), n.x(1)
    if x.rank < y.rank:
        x = _expanded_rank(n, x, y.rank)
    made = n.b.binary("elementwise_mod", x, y)
    if int(n.attr("fmod", 0)) == (0 if x.dtype.kind == "f" else 1):
        n.set(made)
        return
    if x.dtype.kind == "f":  # the dividend's sign
        n.fail("fmod of floating point numbers")
    # the divisor's sign: (x % y + y) % y
    n.set(n.b.binary("elementwise_mod", n.b.binary("elementwise_add", made, y), y))


_VARIADIC = {"Sum": "elementwise_add", "Max": "elementwise_max", "Min": "elementwise_min", "Mean": "elementwise_add"}


@reads(*_VARIADIC)
def variadic(n: Node) -> None:
    xs = n.xs()
    out = xs[0]
    for x in xs[1:]:
        out = n.b.binary(_VARIADIC[n.type], out, x)
    n.set(n.b.scale(out, 1.0 / len(xs)) if n.type == "Mean" else out)


_COMPARE = {"Equal": "equal", "Greater": "greater_than", "GreaterOrEqual": "greater_equal", "Less": "less_than",
            "LessOrEqual": "less_equal"}  # fmt: skip
_MIRROR = {"equal": "equal", "greater_than": "less_than", "greater_equal": "less_equal", "less_than": "greater_than",
           "less_equal": "greater_equal"}  # fmt: skip


@reads(*_COMPARE)
def compare(n: Node) -> None:
    n.set(compared(n, _COMPARE[n.type], n.x(0), n.x(1)))


def compared(n: Node, kind: str, x: Tensor, y: Tensor) -> Tensor:
    """A comparison; Fluid's has the shape of X, so X is expanded where Y is larger."""
    if x.dtype == np.bool_:
        x, y = n.b.cast(x, np.int32), n.b.cast(y, np.int32)
    if size_fits(y, x):
        pass
    elif size_fits(x, y):
        x, y, kind = y, x, _MIRROR[kind]
    else:
        zero = n.b.binary("elementwise_mul", y, constant(np.array([0], y.dtype)))
        x = n.b.binary("elementwise_add", x, n.b.cast(zero, x.dtype))
    made = n.b.op(kind, {"X": x, "Y": y}, {"axis": -1}, hint=n.hint)
    made.shape = x.shape
    return made


def size_fits(small: Tensor, large: Tensor) -> bool:
    """Whether broadcasting leaves `large` as it is."""
    if small.rank > large.rank:
        return False
    pairs = zip(reversed(small.shape), reversed(large.shape))
    return all(a == 1 or a == b for a, b in pairs)


@reads("And", "Or", "Xor")
def logical(n: Node) -> None:
    kind = {"And": "logical_and", "Or": "logical_or", "Xor": "logical_xor"}[n.type]
    x, y = n.x(0), n.x(1)
    if x.shape == y.shape:
        n.set(like(n.op(kind, {"X": x, "Y": y}), x))
        return
    a, b = (n.b.cast(v, np.int32) for v in (x, y))
    if n.type == "And":
        out = n.b.binary("elementwise_mul", a, b)
    else:
        total = n.b.binary("elementwise_add", a, b)
        one = constant(np.array([1], np.int32))
        out = n.b.binary("elementwise_mod" if n.type == "Xor" else "elementwise_min", total,
                         constant(np.array([2], np.int32)) if n.type == "Xor" else one)  # fmt: skip
    n.set(n.b.cast(out, np.bool_))


@reads("Not")
def not_(n: Node) -> None:
    n.set(like(n.op("logical_not", {"X": n.x()}), n.x()))


@reads("IsNaN")
def is_nan(n: Node) -> None:
    x = n.x()
    n.set(like(n.op("not_equal", {"X": x, "Y": x}, {"axis": -1}), x))


@reads("IsInf")
def is_inf(n: Node) -> None:
    x = n.x()
    signs = [s for s, name in ((1, "detect_positive"), (-1, "detect_negative")) if n.attr(name, 1)]
    if not signs:
        n.fail("neither positive nor negative infinities")
    value = n.b.op("abs", {"X": x}) if len(signs) == 2 else x
    n.set(compared(n, "equal", value, constant(np.array([signs[0] * np.inf], x.dtype))))


@reads("Where")
def where(n: Node) -> None:
    """Operands of one shape as they are, others expanded by adding zeros of the full shape."""
    c, x, y = n.x(0), n.x(1), n.x(2)
    shapes = {c.shape, x.shape, y.shape}
    if len(shapes) == 1 and -1 not in c.shape:
        n.set(like(n.op("where", {"Condition": c, "X": x, "Y": y}), x))
        return
    zero = constant(np.array([0], x.dtype))
    full = n.b.binary("elementwise_mul", n.b.cast(c, x.dtype), zero)
    for v in (x, y):
        # the shape of all three: zeros of each, which 0 * inf would spoil
        full = n.b.binary("elementwise_add", full, _zeros_like(n, v))
    wide = [n.b.binary("elementwise_add", full, v) for v in (x, y)]
    flag = n.b.binary("elementwise_add", n.b.cast(full, np.int32), n.b.cast(c, np.int32))
    n.set(like(n.op("where", {"Condition": n.b.cast(flag, np.bool_), "X": wide[0], "Y": wide[1]}), wide[0]))


def _zeros_like(n: Node, x: Tensor) -> Tensor:
    if x.const is not None:
        return constant(np.zeros_like(x.const))
    return like(n.b.op("fill_zeros_like", {"X": x}), x)


@reads("Cast", "CastLike")
def cast(n: Node) -> None:
    if n.type == "CastLike":
        n.set(n.b.cast(n.x(), n.x(1).dtype))
        return
    n.set(n.b.cast(n.x(), n.source.dtype(int(n.need("to")), "the target")))


@reads("Clip")
def clip(n: Node) -> None:
    x = n.x()
    bounds = []
    for i, name, default in ((1, "min", -3.4028234663852886e38), (2, "max", 3.4028234663852886e38)):
        given = n.maybe(i)
        if given is None:
            bounds.append(float(n.attr(name, default)))
        elif given.const is None:
            n.fail(f"{name} must be a constant")
        else:
            bounds.append(float(given.const.reshape(-1)[0]))
    if x.dtype.kind != "f":  # Fluid's clip makes floats of integers
        made = x
        for kind, i, bound in (("elementwise_max", 1, bounds[0]), ("elementwise_min", 2, bounds[1])):
            if n.has(i):
                made = n.b.binary(kind, made, constant(np.array([bound]).astype(x.dtype)))
        n.set(like(made, x))
        return
    if bounds[0] == 0.0 and bounds[1] == 6.0:
        n.set(like(n.op("relu6", {"X": x}, {"threshold": 6.0}), x))
        return
    n.set(like(n.op("clip", {"X": x}, {"min": bounds[0], "max": bounds[1]}), x))


_PARAMETRIC: dict[str, tuple[str, Callable[[Node], dict[str, Any]]]] = {
    "Elu": ("elu", lambda n: {"alpha": float(n.attr("alpha", 1.0))}),
    "HardSigmoid": (
        "hard_sigmoid",
        lambda n: {"slope": float(n.attr("alpha", 0.2)), "offset": float(n.attr("beta", 0.5))},
    ),
    "HardSwish": ("hard_swish", lambda n: {}),
    "LeakyRelu": ("leaky_relu", lambda n: {"alpha": float(n.attr("alpha", 0.01))}),
    "Mish": ("mish", lambda n: {"threshold": 20.0}),
    "Selu": (
        "selu",
        lambda n: {
            "alpha": float(n.attr("alpha", 1.6732632423543772)),
            "scale": float(n.attr("gamma", 1.0507009873554805)),
        },
    ),
    "ThresholdedRelu": ("thresholded_relu", lambda n: {"threshold": float(n.attr("alpha", 1.0))}),
    "Gelu": ("gelu", lambda n: {"approximate": n.attr("approximate", "none") == "tanh"}),
}


@reads(*_PARAMETRIC)
def parametric(n: Node) -> None:
    kind, attrs = _PARAMETRIC[n.type]
    n.set(like(n.op(kind, {"X": n.x()}, attrs(n)), n.x()))


@reads("Celu")
def celu(n: Node) -> None:
    x, alpha = n.x(), float(n.attr("alpha", 1.0))
    inner = n.b.op("elu", {"X": n.b.scale(x, 1.0 / alpha)}, {"alpha": 1.0})
    n.set(like(n.b.scale(inner, alpha), x))


@reads("PRelu")
def prelu(n: Node) -> None:
    """max(x, 0) + slope * min(x, 0), the slope broadcast."""
    x, slope = n.x(), n.x(1)
    dims = [d for d in slope.shape if d != 1]
    if slope.const is not None and x.rank >= 2 and (not dims or (slope.rank >= x.rank - 1 and dims == [x.shape[1]])):
        at = slope.rank - (x.rank - 1)
        if not dims or (at >= 0 and slope.shape[at] == x.shape[1]):
            alpha = constant(slope.const.reshape(-1) if dims else slope.const.reshape(1))
            n.set(like(n.op("prelu", {"X": x, "Alpha": alpha}, {"mode": "channel" if dims else "all"}), x))
            return
    zero = constant(np.array([0], x.dtype))
    below = n.b.binary("elementwise_min", x, zero)
    made = n.b.binary("elementwise_add", n.b.op("relu", {"X": x}), n.b.binary("elementwise_mul", below, slope))
    n.set(like(made, x))


@reads("Softmax", "LogSoftmax", "Hardmax")
def softmax(n: Node) -> None:
    x = n.x()
    axis = n.axis(1 if n.opset < 13 else -1, x.rank)
    if n.type == "Hardmax":
        n.set(_hardmax(n, x, axis))
        return
    if n.opset < 13 and axis != x.rank - 1:  # over all dims from the axis on
        flat = n.b.op("flatten2", {"X": x}, {"axis": axis})
        made = n.b.op("softmax", {"X": flat}, {"axis": -1})
        made = n.b.op("reshape2", {"X": made, "Shape": n.b.dims(x)}, {"shape": [d if d > 0 else -1 for d in x.shape]})
        made.shape = x.shape
    else:
        made = n.op("softmax", {"X": x}, {"axis": axis})
    n.set(like(n.b.op("log", {"X": made}) if n.type == "LogSoftmax" else made, x))


def _hardmax(n: Node, x: Tensor, axis: int) -> Tensor:
    """1 where the first largest value along the axis stands."""
    if n.opset < 13 and axis != x.rank - 1:
        n.fail("Hardmax over several dims")
    if x.shape[axis] < 0:
        n.fail("Hardmax over a dim of unknown size")
    at = n.b.op("arg_max", {"X": x}, {"axis": axis, "keepdims": False})
    attrs = {"depth": x.shape[axis], "dtype": int(to_var_type("float32")), "allow_out_of_range": False}
    hot = n.b.cast(n.b.op("one_hot_v2", {"X": at}, attrs), x.dtype)
    last = x.rank - 1
    return hot if axis == last else n.b.transpose(hot, [*range(axis), last, *range(axis, last)])
