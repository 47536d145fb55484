"""Which operators treat every row alike, so that they may run once over the rows of all steps instead of step by step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from millstream.ir.operator import Operator
from millstream.ir.variable import Variable

Find = Callable[[str], Variable | None]

UNARY = frozenset((
    "abs", "acos", "asin", "atan", "brelu", "ceil", "clip", "cos", "elu", "erf", "exp", "floor", "gelu", "hard_shrink",
    "hard_sigmoid", "hard_swish", "leaky_relu", "log", "logical_not", "logsigmoid", "pow", "reciprocal", "relu", "relu6",
    "round", "rsqrt", "scale", "selu", "sigmoid", "sign", "sin", "soft_relu", "softplus", "softshrink", "softsign", "sqrt",
    "square", "stanh", "swish", "tanh", "tanh_shrink", "thresholded_relu", "assign", "rnn_memory_helper", "cast",
))  # fmt: skip
_BINARY = frozenset(f"elementwise_{k}" for k in ("add", "sub", "mul", "div", "max", "min", "pow"))
_LAST_AXIS = frozenset(("softmax", "log_softmax", "concat", "split"))
_PAIRS = frozenset(("cross_entropy", "cross_entropy2", "softmax_with_cross_entropy", "lstm_unit", "sum"))
SAME = UNARY | _BINARY | _LAST_AXIS - {"split"} | frozenset((
    "fc", "matmul", "mul", "reshape", "reshape2", "squeeze", "squeeze2", "sum", "transpose", "transpose2", "unsqueeze",
    "unsqueeze2",
))  # fmt: skip
"""What gives the same in every step when its operands are those of every step, and has a gradient."""


def rank(find: Find, name: str) -> int:
    """Number of dimensions; 0 when they are not known."""
    var = find(name)
    return len(var.shape) if var is not None and var.has_shape else 0


def why_not(op: Operator, rows: set[str], find: Find) -> str | None:
    """Why `op` does not treat the rows (dimension 0) of its inputs in `rows` alike; its other inputs are constants."""
    given = [n for n in op.input_arg_names if n in rows]
    if not given:
        return "it has no rows"
    if op.type in UNARY:
        return None if len(op.input_arg_names) == 1 else "an attribute is a tensor"
    if op.type in _BINARY:
        return _binary(op, rows, find)
    if op.type in ("mul", "fc", "matmul"):
        return _product(op, rows, find)
    if op.type in _LAST_AXIS:
        axis = op.attr("axis")
        ok = len(given) == len(op.input_arg_names) and axis % max(1, rank(find, given[0])) != 0 and rank(find, given[0])
        return None if ok else "it works along the rows, or some of its inputs are constants"
    if op.type in _PAIRS:
        return None if len(given) == len(op.input_arg_names) and rank(find, given[0]) > 1 else "an input is a constant"
    if op.type in ("lookup_table", "lookup_table_v2"):
        dense = not op.attr("is_distributed") and op.input("Ids")[0] in rows and op.input("W")[0] not in rows
        return None if dense else "the table is not a constant"
    if op.type == "gru_unit":
        fixed = op.input("Weight") + op.input("Bias")
        return None if not rows.intersection(fixed) and len(given) == 2 else "its weight is not a constant"
    if op.type == "dropout":
        drawn = op.attr("seed") or op.attr("fix_seed") or op.input("Seed")
        return "its seed gives every step the same mask" if drawn and not op.attr("is_test") else None
    if op.type in ("reshape2", "reshape"):
        return _reshape(op, given, find)
    return "it is not known to treat rows alike"


def _binary(op: Operator, rows: set[str], find: Find) -> str | None:
    x, y = op.input("X")[0], op.input("Y")[0]
    if x not in rows:
        return "its first operand is a constant"
    wide, other, axis = rank(find, x), rank(find, y), op.attr("axis")
    if not wide or not other:
        return "a shape is not known"
    if y in rows:
        return None if wide == other or (axis == 0 and other < wide) else "its operands' rows do not lie side by side"
    shape: Any = find(y)
    one = all(d == 1 for d in shape.shape)
    ok = one or (other < wide and axis != 0)
    return None if ok else "a constant is spread over the rows"


def _product(op: Operator, rows: set[str], find: Find) -> str | None:
    slots = ("Input", "W") if op.type == "fc" else ("X", "Y")
    x, y = (op.input(s)[0] for s in slots)
    if x not in rows or y in rows or rank(find, x) != 2 or rank(find, y) != 2:
        return "it is not rows times a constant matrix"
    if op.type == "matmul":
        return "it transposes the rows" if op.attr("transpose_X") else None
    columns = op.attr("x_num_col_dims") if op.type == "mul" else op.attr("in_num_col_dims")
    return None if columns == 1 else "it is not rows times a constant matrix"


def _reshape(op: Operator, given: list[str], find: Find) -> str | None:
    shape, x = list(op.attr("shape") or []), find(given[0])
    if len(op.input_arg_names) != 1 or x is None or not x.has_shape or not shape:
        return "its shape is a tensor"
    here = list(x.shape[1:])
    there = [here[i - 1] if d == 0 and i else d for i, d in enumerate(shape)][1:]
    ok = shape[0] in (0, -1) and all(d > 0 for d in (*here, *there)) and _count(here) == _count(there)
    return None if ok else f"it may move numbers between rows: {shape}"


def _count(dims: list[int]) -> int:
    total = 1
    for d in dims:
        total *= d
    return total
