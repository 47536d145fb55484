"""A parameter cast to bfloat16 for products alone -> the parameter: their kernels round it as they lay it out.

So large parameters are read once where they are multiplied, instead of being read, written and read again.
"""

from __future__ import annotations

from math import prod

from millstream.ir.operator import Operator
from millstream.ir.types import VarType
from millstream.kernels import pair_products
from millstream.kernels.threads import numba_is_loaded
from millstream.ops.nn._normed_conv import is_pointwise
from millstream.passes._pass import program_pass
from millstream.passes._rewrite import replace_all
from millstream.passes._uses import Uses
from millstream.passes._work import Work

_NAME = "skip_parameter_casts"
_SLOTS = {
    "mul": "Y", "mul_grad": "Y", "dense_layer": "W", "dense_layer_grad": "W", "conv2d": "Filter", "conv2d_grad": "Filter",
    "normed_conv2d": "Filter", "normed_conv2d_grad": "Filter",
}  # fmt: skip
_WHOLE = 32  # both dims of a matrix are multiples: else oneDNN takes it, and every reader would cast it for itself
_LEAST_TO_LOAD = 1 << 20  # numbers in all candidates for which numba may be loaded


@program_pass(_NAME)
def skip_parameter_casts(work: Work) -> int:
    """Returns how many casts were left out."""
    uses = work.uses(work.block)
    found = {at: op for at, op in enumerate(uses.ops) if op.type == "cast" and _is_parameter(work, op)}
    for at, op in list(found.items()):
        why = _why_not(work, uses, at, op)
        if why is not None:
            work.refuse(_NAME, op, why)
            del found[at]
    numbers = sum(prod(_shape(work, op)) for op in found.values())
    if not found or not (numba_is_loaded() or numbers >= _LEAST_TO_LOAD) or pair_products.tiles() is None:
        return 0
    _read_parameters(work, uses, found)
    return len(found)


def _is_parameter(work: Work, op: Operator) -> bool:
    if op.attr("in_dtype") != VarType.FP32 or op.attr("out_dtype") != VarType.BF16:
        return False
    var = work.block._find_var_recursive(op.input("X")[0])
    return var is not None and var.persistable and var.type is VarType.LOD_TENSOR


def _shape(work: Work, op: Operator) -> tuple[int, ...]:
    """Of what is cast; () where it is not known."""
    var = work.block._find_var_recursive(op.input("X")[0])
    return tuple(var.shape) if var is not None and var.has_shape else ()


def _why_not(work: Work, uses: Uses, at: int, cast: Operator) -> str | None:
    (given,), (made,) = cast.input("X"), cast.output("Out")
    readers = uses.readers[made]
    if uses.seen_outside(made) or len(uses.writers[made]) > 1 or not readers:
        return f"{made!r} is fetched, written elsewhere too, or not read"
    if uses.written_between([given], at, readers[-1]) is not None:
        return f"{given!r} is written before its last product"
    for position in readers:
        op = uses.ops[position]
        slot = _SLOTS.get(op.type)
        if slot is None or op.input_arg_names.count(made) != 1 or op.input(slot) != [made]:
            return f"{op.type} reads it"
        if not _takes(op, _shape(work, cast)):
            return f"no kernel of pairs takes the filter or matrix of {op.type}"
    return None


def _takes(op: Operator, shape: tuple[int, ...]) -> bool:
    """Whether kernels of pairs have this product, if the processor has them and the batch is large enough."""
    if len(shape) < 2 or min(shape[:2]) <= 0 or shape[0] % _WHOLE or shape[1] % _WHOLE:
        return False
    if _SLOTS[op.type] != "Filter":
        return len(shape) == 2 and (not op.type.startswith("mul") or op.attr("y_num_col_dims") == 1)
    strides, paddings, dilations, groups = (op.attr(a) for a in ("strides", "paddings", "dilations", "groups"))
    if len(shape) != 4 or groups != 1 or op.inputs.get("Bias"):
        return False
    if op.attrs.get("padding_algorithm", "EXPLICIT") != "EXPLICIT":
        return False
    if tuple(shape[2:]) == (1, 1):
        return is_pointwise(shape, (1, 1), paddings, groups)
    return tuple(shape[2:]) == (3, 3) and max(*strides, *dilations) == 1 and max(paddings) <= 2


def _read_parameters(work: Work, uses: Uses, found: dict[int, Operator]) -> None:
    """Take the casts out; who read what they made reads what they read."""
    names = {op.output("Out")[0]: op.input("X")[0] for op in found.values()}
    replaced: dict[int, Operator | None] = dict.fromkeys(found)
    made: dict[int, Operator] = {}  # by the operator that was there before
    for position in sorted({r for name in names for r in uses.readers[name]}):
        op = uses.ops[position]
        inputs = {slot: [names.get(n, n) for n in given] for slot, given in op.inputs.items()}
        new = made[id(op)] = Operator(work.block, op.type, inputs, op.outputs, op.all_attrs(), op.site)
        new.forward = made.get(id(op.forward), op.forward)
        replaced[position] = new
    replace_all(work, replaced)
