"""``contrib.model_stat``: a table of a Program's convolutions, products, poolings, norms and activations."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from millstream.ir.operator import Operator
from millstream.ir.program import Program

__all__ = ["summary"]
_TITLES = ("No.", "TYPE", "INPUT", "OUTPUT", "PARAMs", "FLOPs")


class _Row(NamedTuple):
    input: tuple[int, ...]
    output: tuple[int, ...]
    params: int
    flops: int


def _shape(op: Operator, names: list[str]) -> tuple[int, ...]:
    var = op.block._find_var_recursive(names[0])
    return var.shape if var is not None else ()


def _convolution(op: Operator) -> _Row:
    source, out = _shape(op, op.input("Input")), _shape(op, op.output("Output"))
    filters, channels, height, width = _shape(op, op.input("Filter"))
    # the filter's second dimension is already one group's; 1.8.5 divides it again
    taps = height * width * channels / op.attr("groups") + bool(op.input("Bias"))
    return _Row(source, out, int(filters * taps), int(2 * math.prod(out[1:]) * taps))


def _pool(op: Operator) -> _Row:
    source, out = _shape(op, op.input("X")), _shape(op, op.output("Out"))
    return _Row(source, out, 0, math.prod(out[1:]) * math.prod(op.attr("ksize")))


def _product(op: Operator) -> _Row:
    source, out = _shape(op, op.input("X")), _shape(op, op.output("Out"))
    size = math.prod(_shape(op, op.input("Y")))
    return _Row(source, out, size + 1, size)


def _activation(op: Operator) -> _Row:
    source, out = _shape(op, op.input("X")), _shape(op, op.output("Out"))
    return _Row(source, out, int(bool(op.input("Alpha"))), math.prod(source))


def _batch_norm(op: Operator) -> _Row:
    source, out = _shape(op, op.input("X")), _shape(op, op.output("Y"))
    return _Row(source, out, 2 * source[1], 2 * math.prod(source[1:]))


_RULES = {
    "conv2d": _convolution,
    "depthwise_conv2d": _convolution,
    "pool2d": _pool,
    "mul": _product,
    "batch_norm": _batch_norm,
    **dict.fromkeys(("sigmoid", "tanh", "relu", "leaky_relu", "prelu"), _activation),
}


def summary(main_prog: Program) -> None:
    """Print each of these operators with its shapes, parameters and operations, and their totals.

    The counts are 1.8.5's: of one sample (an activation's have the sign of the unknown batch size), a product counted once,
    a convolution twice. Other operators are left out.
    """
    if not isinstance(main_prog, Program):
        raise TypeError(f"summary takes a Program, received {type(main_prog).__name__}")
    found = [(op.type, _RULES[op.type](op)) for block in main_prog.blocks for op in block.ops if op.type in _RULES]
    rows: list[tuple[Any, ...]] = [
        (k, kind, row.input[1:], row.output[1:], row.params, row.flops) for k, (kind, row) in enumerate(found)
    ]
    print(_table(rows))
    params, flops = (sum(getattr(row, field) for _, row in found) for field in ("params", "flops"))
    print(f"Total PARAMs: {params}({params / 1e6:.4f}M)")
    print(f"Total FLOPs: {flops}({flops / 1e9:.2f}G)")
    print(
        "Notice: \n now supported ops include [Conv, DepthwiseConv, FC(mul), BatchNorm, Pool, "
        "Activation(sigmoid, tanh, relu, leaky_relu, prelu)]"
    )


def _table(rows: list[tuple[Any, ...]]) -> str:
    cells = [_TITLES, *(tuple(str(v) for v in row) for row in rows)]
    widths = [max(len(row[k]) for row in cells) for k in range(len(_TITLES))]
    rule = "+" + "+".join("-" * (w + 2) for w in widths) + "+"
    lines = ["|" + "|".join(f" {text:>{w}} " for text, w in zip(row, widths)) + "|" for row in cells]
    return "\n".join([rule, lines[0], rule, *lines[1:], rule])
