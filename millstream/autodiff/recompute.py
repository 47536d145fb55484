"""Recomputation (Chen et al., 2016, arXiv:1604.06174): between checkpoints nothing is kept for the backward pass.

The operators up to the last checkpoint are cut into segments that end where a checkpoint is made. Before the
gradient operators of a segment, copies of its operators compute its values again under the names
``<name>.subprog_<k>`` (k counts segments from the last one), and the gradient operators read those.

Kept, not computed again: checkpoints, parameters and other persistable variables, values that a later segment
reads, results of operators with sub-Blocks and of those that act (readers, py_func, print), values of names that are
written more than once, and random numbers. A random operator that can take its seed from an input gets one (from a
``seed`` operator that draws it once a run), so that its copy draws the same numbers; the results of other random
operators are kept.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from millstream.autodiff.collect import Collector
from millstream.errors import InvalidProgramError
from millstream.ir import names, walk
from millstream.ir.block import Block
from millstream.ir.names import EMPTY_VAR
from millstream.ir.operator import ROLE_OPTIMIZE, Operator
from millstream.ir.variable import Variable
from millstream.ops._opdef import REGISTRY, OpSpec

SEED_SLOT = "Seed"


class ProgramStats:
    """Where the variables of a list of operators are made and read.

    Args:
        block: the Block of the operators.
        ops: the operators, in order.
    """

    def __init__(self, block: Block, ops: Sequence[Operator]) -> None:
        self.block = block
        self.ops = list(ops)
        self.op_deps: dict[int, dict[str, list[int]]] = {}
        self.var_op_deps: dict[str, dict[str, list[int]]] = {}

    def build_stats(self) -> None:
        """Fill `var_op_deps`: variable -> positions of operators that read and that write it."""
        self.var_op_deps.clear()
        for i, op in enumerate(self.ops):
            for key, found in (("var_as_input_ops", walk.reads_of(op)), ("var_as_output_ops", walk.writes_of(op))):
                for name in dict.fromkeys(found):
                    entry = self.var_op_deps.setdefault(name, {"var_as_input_ops": [], "var_as_output_ops": []})
                    entry[key].append(i)

    def readers(self, name: str) -> list[int]:
        return self.var_op_deps.get(name, {}).get("var_as_input_ops", [])

    def writers(self, name: str) -> list[int]:
        return self.var_op_deps.get(name, {}).get("var_as_output_ops", [])

    def get_input_nodes(self) -> list[str]:
        """Variables that are read but not made here: data and parameters."""
        return [n for n in self.var_op_deps if not self.writers(n)]

    def get_reserved_vars(self) -> list[str]:
        """Seeds of random operators: kept so that a copy draws the same numbers."""
        return [n for op in self.ops for n in op.input(SEED_SLOT) if n != EMPTY_VAR]

    def get_out_of_subgraph_vars(self, begin_op_idx: int, end_op_idx: int) -> list[str]:
        """Variables made by operators [begin, end) that later operators read."""
        found = []
        for op in self.ops[begin_op_idx:end_op_idx]:
            for name in dict.fromkeys(walk.writes_of(op)):
                if any(i >= end_op_idx for i in self.readers(name)):
                    found.append(name)
        return found

    def is_subgraph(self, var_group1: Sequence[str], var_group2: Sequence[str]) -> tuple[bool, int, int]:
        """Whether `var_group2` is made after `var_group1`; with the positions of the operators between them."""
        begin = min((i for n in var_group1 for i in self.readers(n)), default=len(self.ops))
        end = max((i + 1 for n in var_group2 for i in self.writers(n)), default=-1)
        return begin < end, begin, end

    def sort_checkpoints(self, checkpoints_name: Sequence[str]) -> list[str]:
        """The checkpoints in the order in which they are made; those that are not made here come first."""
        return sorted(checkpoints_name, key=lambda n: self.writers(n)[-1] if self.writers(n) else -1)

    def modify_forward_desc_for_recompute(self) -> None:
        """Give every random operator that can take one, and has no fixed seed, a seed from an operator before it."""
        for op in list(self.ops):
            if _is_random(op) and _takes_seed(op) and not op.input(SEED_SLOT):
                seed_op = _insert_seed(self.block, op)
                self.ops.insert(self.ops.index(op), seed_op)
        self.build_stats()


def _is_random(op: Operator) -> bool:
    definition = REGISTRY.find(op.type)
    if definition is None or op.attrs.get("is_test", False):
        return False
    return "rng" in definition.reserved or ("ctx" in definition.reserved and any("seed" in a for a in definition.attrs))


def _acts(op: Operator) -> bool:
    """Whether to run it again would do something again: a reader would give the next batch."""
    definition = REGISTRY.find(op.type)
    return definition is not None and definition.side_effect


def _takes_seed(op: Operator) -> bool:
    definition = REGISTRY.find(op.type)
    return definition is not None and SEED_SLOT in definition.in_slots


def _insert_seed(block: Block, op: Operator) -> Operator:
    """A ``seed`` operator before `op`, whose own seed moves into it."""
    key = names.generate("seed")
    var = block.create_var(name=names.generate(key + ".tmp"), dtype="int32", stop_gradient=True)
    made = block._insert_op(block.ops.index(op), "seed", {}, {"Out": var}, {"seed": int(op.attrs.get("seed", 0))})
    made._set_attr("op_role", op.role)
    op.set_input(SEED_SLOT, [var.name])
    for name in ("seed", "fix_seed"):
        op._remove_attr(name)
    return made


class Replay:
    """Puts copies of a segment's operators before its gradient operators.

    Args:
        path: the operators that the loss depends on, in order.
        checkpoints: Variables or names.
    """

    def __init__(self, block: Block, path: Sequence[Operator], checkpoints: Any) -> None:
        self.block = block
        self.stats = ProgramStats(block, path)
        self.stats.modify_forward_desc_for_recompute()
        self.checkpoints = set(_names_of(block, checkpoints))
        self.held = self._held_names()
        self.segment_of: dict[int, int] = {}  # id of an operator -> its segment, counted from the last one
        self.segments = self._cut()
        self.current: int | None = None
        self.renamed: dict[str, str] = {}
        self.mark = 0

    def _cut(self) -> list[list[Operator]]:
        order = self.stats.sort_checkpoints(sorted(self.checkpoints))
        ends = [self.stats.writers(n)[-1] + 1 for n in order if self.stats.writers(n)]
        if not ends:
            raise InvalidProgramError(
                f"checkpoints {sorted(self.checkpoints)}: none of them is computed on the way to the loss"
            )
        found, begin = [], 0
        for end in sorted(set(ends)):
            found.append((begin, end))
            begin = end
        found.reverse()
        for k, (begin, end) in enumerate(found):
            self.held.update(self.stats.get_out_of_subgraph_vars(begin, end))
            for op in self.stats.ops[begin:end]:
                self.segment_of[id(op)] = k
        return [self.stats.ops[begin:end] for begin, end in found]

    def _held_names(self) -> set[str]:
        writes: Counter[str] = Counter()
        last_write: dict[str, int] = {}
        position = {id(op): k for k, op in enumerate(self.block.ops)}
        for op in self.block.ops:
            if not op.role & ROLE_OPTIMIZE:
                for name in dict.fromkeys(walk.writes_of(op)):
                    writes[name] += 1
                    last_write[name] = position[id(op)]
        held = {n for n, count in writes.items() if count > 1} | self.checkpoints | set(self.stats.get_reserved_vars())
        for op in self.stats.ops:
            outs = walk.writes_of(op)
            held.update(n for n in outs if self._persistable(n) or n in op.input_arg_names)
            if op.sub_blocks() or _acts(op) or (_is_random(op) and not op.attrs.get("seed") and not op.input(SEED_SLOT)):
                held.update(outs)
            # a copy would read a later value of these
            here = position[id(op)]
            if any(writes[n] > 1 or last_write.get(n, -1) > here for n in op.input_arg_names):
                held.update(outs)
        return held

    def _persistable(self, name: str) -> bool:
        var = self.block._find_var_recursive(name)
        return var is not None and var.persistable

    # ---- while the gradient operators are collected ------------------------------------------------
    def before(self, op: Operator, collector: Collector) -> None:
        """Called before the gradients of `op` are collected."""
        segment = self.segment_of.get(id(op))
        if segment == self.current:
            return
        self.close(collector)
        self.current = segment
        if segment is not None:
            self._copy(segment, collector)
            self.mark = len(collector.specs)

    def close(self, collector: Collector) -> None:
        """Let the gradient operators collected since the last copies read the copies."""
        if self.current is not None:
            for spec in collector.specs[self.mark :]:
                for args in spec.inputs.values():
                    args[:] = [self.renamed.get(n, n) for n in args]
        self.renamed = {}
        self.mark = len(collector.specs)

    def _copy(self, segment: int, collector: Collector) -> None:
        for op in self.segments[segment]:
            outs = [n for n in op.output_arg_names if n != EMPTY_VAR]
            if not outs or all(n in self.held for n in outs):
                continue
            inputs = {s: [self.renamed.get(n, n) for n in args] for s, args in op.inputs.items()}
            outputs = {s: [self._new_name(n, segment) for n in args] for s, args in op.outputs.items()}
            # values that were kept are not read from the copy
            self.renamed.update({n: self._new_name(n, segment) for n in outs if n not in self.held})
            attrs = {k: v for k, v in op.attrs.items() if not k.startswith("op_")}
            collector.specs.append(OpSpec(op.type, inputs, outputs, attrs, forward=op))

    def _new_name(self, name: str, segment: int) -> str:
        if name == EMPTY_VAR:
            return name
        new = f"{name}.subprog_{segment}"
        if not self.block._has_var_recursive(new):
            like = self.block._var_recursive(name)
            self.block.create_var(
                name=new, shape=like._shape, dtype=like._dtype, lod_level=like.lod_level, type=like.type,
                stop_gradient=like.stop_gradient,
            )  # fmt: skip
        return new


def _names_of(block: Block, checkpoints: Any) -> list[str]:
    found = []
    for item in checkpoints if isinstance(checkpoints, (list, tuple, set)) else [checkpoints]:
        if not isinstance(item, (Variable, str)):
            raise TypeError(f"checkpoints takes Variables or names, received {type(item).__name__}")
        name = item if isinstance(item, str) else item.name
        block._var_recursive(name)
        found.append(name)
    return found
