"""Rewriting a Program for half precision, and the operators that adapt the loss scaling."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from millstream.errors import InvalidProgramError
from millstream.fluid import layers
from millstream.fluid.contrib.mixed_precision.fp16_lists import lowered
from millstream.ir import walk
from millstream.ir.block import Block
from millstream.ir.operator import OP_ROLE, OP_ROLE_VAR, ROLE_BACKWARD, ROLE_OPTIMIZE, Operator
from millstream.ir.program import Program
from millstream.ir.types import VarType, to_var_type
from millstream.ir.variable import Variable
from millstream.ops import REGISTRY

HALF = {VarType.FP16: "fp16", VarType.BF16: "bf16"}


def half_type(dtype: Any) -> VarType:
    """float16 or bfloat16 as a VarType; ValueError for another."""
    found = to_var_type(dtype)
    if found not in HALF:
        raise ValueError(f"mixed precision: dtype must be 'float16' or 'bfloat16', received {dtype!r}")
    return found


# ---- where things stand ----------------------------------------------------------------------------
def find_op_index(block_desc: Block, cur_op_desc: Operator) -> int:
    """The place of an operator in its Block; -1 when it is not there."""
    return next((k for k, op in enumerate(block_desc.ops) if op is cur_op_desc), -1)


def find_true_prev_op(ops: Sequence[Operator], cur_op: Operator, var_name: str) -> Operator | None:
    """The last operator before `cur_op` that writes `var_name`, or None."""
    found = None
    for op in ops:
        if op is cur_op:
            break
        if var_name in op.output_arg_names:
            found = op
    return found


def find_true_post_op(ops: Sequence[Operator], cur_op: Operator, var_name: str) -> list[Operator]:
    """The operators after `cur_op` that read `var_name`."""
    start = next((k for k, op in enumerate(ops) if op is cur_op), len(ops))
    return [op for op in ops[start + 1 :] if var_name in walk.reads_of(op)]


# ---- the rewrite -------------------------------------------------------------------------------------
class _Rewrite:
    """Half precision for the operators of one Block.

    A variable becomes half only if one operator writes it, once, and it is not persistable: what loops carry, what
    is updated in place and what outlives a step stays float32.
    """

    def __init__(self, block: Block, lists: Any, dtype: VarType) -> None:
        self.block, self.lists, self.dtype = block, lists, dtype
        self.white, self.gray = lowered(lists, dtype)
        self.only_brain = self.gray - lists.gray_list
        self.writers = Counter(n for op in block.ops for n in dict.fromkeys(walk.writes_of(op)))
        self.casts: dict[tuple[str, VarType], str] = {}

    def run(self) -> None:
        white = self._white()
        position = 0
        while position < len(self.block.ops):
            op = self.block.ops[position]
            decided = white.get(id(op))
            if decided is True:
                position += self._cast_inputs(position, op, VarType.FP32, self.dtype)
                self._lower_outputs(op)
            elif decided is False:
                position += self._cast_inputs(position, op, self.dtype, VarType.FP32)
            for name in walk.writes_of(op):  # an old cast is not a cast of the new value
                self.casts.pop((name, VarType.FP32), None)
                self.casts.pop((name, self.dtype), None)
            position += 1
        self.block._touch()

    def _white(self) -> dict[int, bool | None]:
        """id of an operator -> True: in half precision; False: in float32; None: as its inputs come."""
        decided: dict[int, bool | None] = {}
        maker: dict[str, bool | None] = {}
        for op in self.block.ops:
            choice: bool | None
            if self.lists.black_varnames.intersection(op.input_arg_names):
                choice = False
            elif op.type in self.white:
                choice = True
            elif op.type in self.gray:
                made = {maker[n] for n in op.input_arg_names if n in maker}
                choice = False if False in made else True if True in made else None
            else:
                choice = False
            if choice and not self._may_lower(op):
                choice = False
            decided[id(op)] = choice
            maker.update(dict.fromkeys(walk.writes_of(op), choice))
        if self.dtype is VarType.BF16:
            self._raise_last(decided)
        return decided

    def _raise_last(self, decided: dict[int, bool | None]) -> None:
        """What bfloat16 alone lowers stays in float32 where an operator in float32 reads it: the softmax before a loss."""
        single: set[str] = set()
        for op in reversed(self.block.ops):
            if decided[id(op)] and op.type in self.only_brain and single.intersection(walk.writes_of(op)):
                decided[id(op)] = False
            if decided[id(op)] is False:
                single.update(op.input_arg_names)

    def _may_lower(self, op: Operator) -> bool:
        return all(
            self.writers[v.name] == 1 and not v.persistable for v in self._tensors(op, op.outputs) if v.dtype is VarType.FP32
        )

    def _tensors(self, op: Operator, slots: dict[str, list[str]]) -> Iterable[Variable]:
        """The tensors in those slots that the rewrite may change."""
        definition = REGISTRY.find(op.type)
        only = definition.extra.get("amp_slots") if definition is not None else None
        for slot in sorted(slots):
            if only is None or slot in only:
                for name in dict.fromkeys(slots[slot]):
                    var = self.block._find_var_recursive(name)
                    if var is not None and var.type is VarType.LOD_TENSOR and var.has_dtype:
                        yield var

    def _cast_inputs(self, position: int, op: Operator, have: VarType, want: VarType) -> int:
        """Put casts in front of `op` where needed; how many."""
        sources = dict.fromkeys(self._tensors(op, op.inputs))
        for name in walk.reads_of(op) if op.sub_blocks() else ():
            var = self.block._find_var_recursive(name)
            if var is not None and var.type is VarType.LOD_TENSOR and var.has_dtype:
                sources[var] = None
        count = 0
        for var in sources:
            if var.dtype is not have:
                continue
            key = (var.name, want)
            if key not in self.casts:
                self.casts[key] = self._cast(position, var, op, want)
                count += 1
            _rename_reads(op, var.name, self.casts[key])
        if op.attrs.get("in_dtype") == have:
            op._set_attr("in_dtype", want)
        return count

    def _cast(self, position: int, var: Variable, op: Operator, want: VarType) -> str:
        base = name = f"{var.name}.cast_{HALF.get(want, 'fp32')}"
        k = 0
        while self.block._has_var_recursive(name):
            name, k = f"{base}_{k}", k + 1
        out = self.block.create_var(
            name=name, dtype=want, shape=var.shape if var.has_shape else None, lod_level=var.lod_level, persistable=False
        )
        with self.block.program._role_guard(op.role, []):
            made = self.block._insert_op(
                position,
                type="cast",
                inputs={"X": [var]},
                outputs={"Out": [out]},
                attrs={"in_dtype": var.dtype, "out_dtype": want},
            )
        made.site = op.site
        out.stop_gradient = want is VarType.BF16 and var.stop_gradient  # no gradient of an image; 1.8.5 has it for float16
        return name

    def _lower_outputs(self, op: Operator) -> None:
        for var in self._tensors(op, op.outputs):
            if var.dtype is VarType.FP32:
                var.dtype = self.dtype
        for attr in ("out_dtype", "dtype"):
            if op.attrs.get(attr) == VarType.FP32:
                op._set_attr(attr, self.dtype)


def _rename_reads(op: Operator, old: str, new: str) -> None:
    op._rename_input(old, new)
    for block in op.sub_blocks():
        for inner in block.ops:
            if old not in block.vars:
                _rename_reads(inner, old, new)


def rewrite_program(main_prog: Program, amp_lists: Any, dtype: Any = "float16") -> None:
    """Run the operators of the global Block in half precision where `amp_lists` allows, with casts between.

    Call it before gradients are appended. Sub-Blocks stay in float32.

    Args:
        amp_lists: AutoMixedPrecisionLists.
        dtype: float16 or bfloat16.

    Raises InvalidProgramError when the Program has gradients already.
    """
    half = half_type(dtype)
    block = main_prog.global_block()
    if any(op.role & ROLE_BACKWARD for op in block.ops):
        raise InvalidProgramError(
            "mixed precision: the Program has gradient operators already; decorate the optimizer and call its minimize first"
        )
    _Rewrite(block, amp_lists, half).run()


def update_role_var_grad(main_prog: Program, params_grads: Sequence[tuple[Any, Any]]) -> None:
    """Make the casts of gradients to float32 part of the update, after all gradients: until there they are half."""
    block = main_prog.global_block()
    makers = {n: (k, op) for k, op in enumerate(block.ops) for n in op.output_arg_names}
    last_read = {n: k for k, op in enumerate(block.ops) for n in walk.reads_of(op)}
    moved: dict[int, Operator] = {}
    for param, gradient in params_grads:
        place, cast = makers.get(gradient.name, (-1, None))
        if cast is None or cast.type != "cast" or cast.attrs.get("in_dtype") not in HALF:
            continue
        if last_read.get(gradient.name, -1) > place or place in moved:
            continue
        source = cast.input("X")[0]
        _, maker = makers.get(source, (-1, None))
        if maker is not None and maker.role & ROLE_BACKWARD:
            maker._set_attr(OP_ROLE_VAR, [param.name, source])
        cast._remove_attr(OP_ROLE_VAR)
        cast._set_attr(OP_ROLE, ROLE_OPTIMIZE)
        moved[place] = cast
    block.ops[:] = [op for k, op in enumerate(block.ops) if k not in moved] + list(moved.values())
    block._touch()


# ---- loss scaling ------------------------------------------------------------------------------------
def update_loss_scaling(
    is_overall_finite: Variable,
    prev_loss_scaling: Any,
    num_good_steps: Any,
    num_bad_steps: Any,
    incr_every_n_steps: Variable,
    decr_every_n_nan_or_inf: Variable,
    incr_ratio: float,
    decr_ratio: float,
) -> None:
    """Append what adapts the loss scaling to a step, in place.

    When more than `incr_every_n_steps` steps in a row were finite it is multiplied with `incr_ratio` (if the result is
    finite), when more than `decr_every_n_nan_or_inf` in a row were not, with `decr_ratio` (to 1 at least); either way
    counting starts again. All Variables have shape [1]: bool, float32, four times int32.
    """
    zero = layers.fill_constant(shape=[1], dtype="int32", value=0)
    with layers.Switch() as switch:
        with switch.case(is_overall_finite):
            enough = layers.less_than(incr_every_n_steps, num_good_steps + 1)
            with layers.Switch() as inner:
                with inner.case(enough):
                    grown = prev_loss_scaling * incr_ratio
                    with layers.Switch() as last:
                        with last.case(layers.isfinite(grown)):
                            layers.assign(grown, prev_loss_scaling)
                        with last.default():
                            pass
                    layers.assign(zero, num_good_steps)
                    layers.assign(zero, num_bad_steps)
                with inner.default():
                    layers.increment(num_good_steps)
                    layers.assign(zero, num_bad_steps)
        with switch.default():
            enough = layers.less_than(decr_every_n_nan_or_inf, num_bad_steps + 1)
            with layers.Switch() as inner:
                with inner.case(enough):
                    shrunk = prev_loss_scaling * decr_ratio
                    one = layers.fill_constant(shape=[1], dtype="float32", value=1.0)
                    with layers.Switch() as last:
                        with last.case(layers.less_than(shrunk, one)):
                            layers.assign(one, prev_loss_scaling)
                        with last.default():
                            layers.assign(shrunk, prev_loss_scaling)
                    layers.assign(zero, num_good_steps)
                    layers.assign(zero, num_bad_steps)
                with inner.default():
                    layers.assign(zero, num_good_steps)
                    layers.increment(num_bad_steps)


def all_finite(tensors: Sequence[Variable]) -> Variable:
    """bool [1]: whether the sum of all elements is finite."""
    sums = [layers.reduce_sum(t) for t in tensors]
    return layers.isfinite(layers.reduce_sum(layers.concat(sums)))


def zero_unless(condition: Variable, tensors: Sequence[Variable]) -> None:
    """Append what sets the tensors to zero when `condition` (bool [1]) does not hold."""
    with layers.Switch() as switch:
        with switch.case(condition):
            pass
        with switch.default():
            for t in tensors:
                layers.assign(layers.zeros_like(t), t)
