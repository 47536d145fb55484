"""Arithmetic in the form that other passes look for: square for a power of 2, scale for a product with one number, …"""

from __future__ import annotations

import math
from typing import Any

from millstream.ir.operator import OP_ROLE, Operator
from millstream.ir.types import VarType
from millstream.passes._pass import program_pass
from millstream.passes._uses import Uses
from millstream.passes._work import Work

_POWERS = {2.0: "square", 0.5: "sqrt", -0.5: "rsqrt"}
_TYPES = frozenset({"pow", "elementwise_pow", "elementwise_mul", "elementwise_div", "sum"})


@program_pass("simplify_arithmetic")
def simplify_arithmetic(work: Work) -> int:
    """Counts operators replaced by another one; what has a gradient stays."""
    changes = 0
    for block in work.blocks:
        uses = work.uses(block)
        made = [_simpler(work, uses, op) or op for op in block.ops]
        found = sum(new is not op for new, op in zip(made, block.ops))
        if found:
            block.ops = made
            work.program._touch()
        changes += found
    return changes


def _simpler(work: Work, uses: Uses, op: Operator) -> Operator | None:
    if op.type not in _TYPES or uses.has_gradient(op):
        return None
    if op.type == "pow":
        kind = _POWERS.get(op.attr("factor"))
        return None if kind is None or op.input("FactorTensor") else _made(op, kind, {"X": op.input("X")})
    if op.type == "sum":
        return _two(uses, op)
    x, y = op.input("X"), op.input("Y")
    number = work.value(y[0])
    var = uses.block._find_var_recursive(x[0])
    if number is None or number.numel() != 1 or not number.is_floating_point() or var is None or not var.has_shape:
        return None
    if op.type == "elementwise_pow":
        kind = _POWERS.get(float(number)) if len(var.shape) >= number.dim() else None
        return None if kind is None else _made(op, kind, {"X": x})
    factor = float(number) if op.type == "elementwise_mul" else 1.0 / float(number) if float(number) else math.inf
    if len(var.shape) < number.dim() or not math.isfinite(factor):
        return None
    return _made(op, "scale", {"X": x}, scale=factor, bias=0.0, bias_after_scale=True)


def _two(uses: Uses, op: Operator) -> Operator | None:
    """A sum of two tensors of one shape as elementwise_add."""
    names = op.input("X")
    found = [uses.block._find_var_recursive(n) for n in names]
    if len(names) != 2 or any(v is None or v.type is not VarType.LOD_TENSOR or not v.has_shape for v in found):
        return None
    a, b = found
    assert a is not None and b is not None
    if a.shape != b.shape or a.lod_level != b.lod_level or 0 in a.shape:
        return None
    return _made(op, "elementwise_add", {"X": names[:1], "Y": names[1:]}, axis=-1)


def _made(op: Operator, kind: str, inputs: dict[str, list[str]], **attrs: Any) -> Operator:
    return Operator(op.block, kind, inputs, {"Out": op.output("Out")}, {**attrs, OP_ROLE: op.role}, op.site)
