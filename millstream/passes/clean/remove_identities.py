"""Operators that give back their input are removed: scale by 1, casts, transposes and reshapes that change nothing, …"""

from __future__ import annotations

from collections.abc import Callable

from millstream.ir.block import Block
from millstream.ir.operator import Operator
from millstream.ir.types import VarType
from millstream.passes._evaluate import renamed
from millstream.passes._pass import program_pass
from millstream.passes._uses import Uses
from millstream.passes._work import Work


@program_pass("remove_identities")
def remove_identities(work: Work) -> int:
    """Counts operators removed."""
    changes = 0
    # in loops, PaddlePaddle's operators share memory with what they read: a copy may be there for a reason
    for block in [work.block] if work.fluid else work.blocks:
        while _one(work, block):
            changes += 1
    if changes:
        work.program._touch()
    return changes


def _one(work: Work, block: Block) -> bool:
    """Remove the first identity that can be."""
    uses = work.uses(block)
    for at, op in enumerate(block.ops):
        if op.type not in _SAME or len(op.input("X")) != 1:
            continue
        x, out = block._find_var_recursive(op.input("X")[0]), block._find_var_recursive(op.output("Out")[0])
        if x is None or out is None or x is out or x.type is not VarType.LOD_TENSOR:
            continue
        if not _SAME[op.type](op, uses):
            continue
        why = _bypass(block, uses, at, x.name, out.name)
        if why is None:
            return True
        work.refuse("remove_identities", op, why)
    return False


# ---- which operators -----------------------------------------------------------------------------------
def _scale(op: Operator, uses: Uses) -> bool:
    return op.attr("scale") == 1.0 and op.attr("bias") == 0.0 and not op.input("ScaleTensor")


def _cast(op: Operator, uses: Uses) -> bool:
    x = uses.block._find_var_recursive(op.input("X")[0])
    return x is not None and x.has_dtype and int(x.dtype) == op.attr("out_dtype") == op.attr("in_dtype")


def _dropout(op: Operator, uses: Uses) -> bool:
    if any(uses.readers.get(n) or uses.seen_outside(n) for n in op.output("Mask")) or not op.attr("is_test"):
        return False
    return bool(op.attr("dropout_prob") == 0 or op.attr("dropout_implementation") == "upscale_in_train")


def _no_shape_read(op: Operator, uses: Uses) -> bool:
    return not any(uses.readers.get(n) or uses.seen_outside(n) for n in op.output("XShape"))


def _no_lod(op: Operator, uses: Uses) -> bool:
    """Transposes take the LoD away."""
    x = uses.block._find_var_recursive(op.input("X")[0])
    return x is not None and x.lod_level == 0


def _transpose(op: Operator, uses: Uses) -> bool:
    axis = op.attr("axis")
    return axis == list(range(len(axis))) and _no_shape_read(op, uses) and _no_lod(op, uses)


def _reshape(op: Operator, uses: Uses) -> bool:
    x, out = (uses.block._find_var_recursive(n) for n in (op.input("X")[0], op.output("Out")[0]))
    if x is None or out is None or not x.has_shape or not out.has_shape or not _no_shape_read(op, uses):
        return False
    if any(op.input(slot) for slot in ("Shape", "ShapeTensor")):
        return False
    asked = op.attr("shape")
    if len(x.shape) != len(asked) or x.shape != out.shape or max(len(uses.writers[n]) for n in (x.name, out.name)) > 1:
        return False
    # 0 copies a dim; of the others, at most one may be open: the number of elements then settles it
    return sum(d < 0 and a != 0 for d, a in zip(x.shape, asked)) <= 1


def _flatten(op: Operator, uses: Uses) -> bool:
    x = uses.block._find_var_recursive(op.input("X")[0])
    return x is not None and x.has_shape and len(x.shape) == 2 and op.attr("axis") == 1 and _no_shape_read(op, uses)


def _always(op: Operator, uses: Uses) -> bool:
    return True


_SAME: dict[str, Callable[[Operator, Uses], bool]] = {
    "scale": _scale, "cast": _cast, "dropout": _dropout, "transpose": _transpose, "transpose2": _transpose,
    "reshape": _reshape, "reshape2": _reshape, "flatten": _flatten, "flatten2": _flatten, "assign": _always,
    "sum": _always, "concat": _always,
}  # fmt: skip


# ---- how -------------------------------------------------------------------------------------------------
def _bypass(block: Block, uses: Uses, at: int, x: str, out: str) -> str | None:
    """Take the operator at `at` out: readers of `out` read `x`, or the maker of `x` writes `out`. Why not, or None."""
    if not uses.seen_outside(out) and len(uses.writers[out]) == 1:
        readers = uses.readers[out]
        if any(uses.ops[r].sub_blocks() for r in readers):
            return f"{out!r} is read in a sub-block"
        if uses.written_between([x], at, max(readers, default=at) + 1) is not None:
            return f"{x!r} is overwritten while {out!r} is still read"
        for r in readers:
            block.ops[r] = renamed(uses.ops[r], {out: x})
        del block.ops[at]
        return None
    return _write_directly(block, uses, at, x, out)


def _write_directly(block: Block, uses: Uses, at: int, x: str, out: str) -> str | None:
    maker = uses.producer(x, at)
    if maker is None or uses.seen_outside(x) or len(uses.writers[x]) > 1:
        return f"{x!r} and {out!r} are both seen outside, or written in several places"
    readers = [r for r in uses.readers[x] if r != at]
    touched = [maker, *readers]
    if any(uses.ops[p].sub_blocks() or uses.ops[p].type in ("feed", "fetch") for p in touched):
        return f"{x!r} is made or read by an operator with a sub-block, or fed"
    last = max([at, *readers])
    if any(maker < p < at for p in uses.readers[out]) or any(maker <= p <= last and p != at for p in uses.writers[out]):
        return f"{out!r} is used between the operator that makes {x!r} and this one"
    for p in readers:
        block.ops[p] = renamed(uses.ops[p], {x: out})
    block.ops[maker] = renamed(uses.ops[maker], {}, {x: out})
    del block.ops[at]
    return None
