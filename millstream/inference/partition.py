"""A Program cut into what an engine takes and what runs on kernels of our own.

Every operator gets a level: even ones belong to the engine, odd ones to us. An operator stands at the highest level of
those it must come after (what writes its inputs, and what touches a variable that it overwrites), one higher when
that level belongs to the other side. The operators of one even level then depend on nothing between them that is
not theirs, so each even level becomes one ``engine_run``.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from millstream import passes
from millstream.errors import MillstreamError
from millstream.inference import engines
from millstream.inference.engine_op import PREPARED, SubModel
from millstream.inference.model import Form, Model
from millstream.ir import walk
from millstream.ir.block import Block
from millstream.ir.names import EMPTY_VAR
from millstream.ir.operator import Operator
from millstream.ir.program import Program
from millstream.ir.types import VarType
from millstream.ops import REGISTRY
from millstream.ops._infer import infer
from millstream.passes import pipelines

SMALLEST = 3  # operators; fewer cost more in passing values over than an engine gains
_numbers = itertools.count()


class Partition:
    """What became of a Program.

    Attributes:
        form: to run it; None when the engine takes nothing.
        taken: number of operators that the engine runs, groups: in how many sub-models.
        refused: (operator, why) of those it does not take; note: what else there is to say.
    """

    def __init__(self) -> None:
        self.form: Form | None = None
        self.taken = 0
        self.groups = 0
        self.refused: list[tuple[Operator, str]] = []
        self.note = ""

    def explain(self) -> str:
        """One line for what is taken, one for each kind of refusal."""
        lines = [f"{self.taken} operators in {self.groups} engine sub-models"] + ([self.note] if self.note else [])
        why: dict[tuple[str, str], int] = defaultdict(int)
        for op, reason in self.refused:
            why[op.type, reason.splitlines()[0]] += 1
        return "\n".join(lines + [f"not taken: {count} {kind}: {reason}" for (kind, reason), count in why.items()])


def partition(model: Model, engine: str, options: engines.Options, transform: Any = None) -> Partition:
    """The Form of `model` that runs on `engine` as far as that goes.

    Args:
        transform: changes the bytes of a sub-model before the engine gets them: f(onnx bytes, group name) -> bytes.

    Raises NotSupportedError: the engine is not here.
    """
    engines.need(engine)
    made = Partition()
    work = model.optimized(model.program, pipelines.EXPORT)
    model.keep(work.values)
    program, root = work.program, work.block
    levels = _levels(model, work, made)
    subs = []
    for level, ops in levels.items():
        if level % 2:
            continue
        if len(ops) < SMALLEST and not _heavy(ops):
            made.refused += [(op, f"alone with fewer than {SMALLEST}, it is not worth a call") for op in ops]
            continue
        reads, writes = _ends(root, ops, model.fetches)
        try:
            sub = _prepare(model, engine, options, program, ops, reads, writes, transform)
        except MillstreamError as error:
            made.refused += [(op, str(error)) for op in ops]
            continue
        subs.append(sub)
        made.taken += len(ops)
        made.groups += 1
        levels[level] = [_call(root, engine, sub, reads, writes, ops[-1])]
    if not subs:
        return made
    program.global_block().ops = [op for _, ops in sorted(levels.items()) for op in ops]
    program._touch()
    rest = model.optimized(program, model.pass_names)
    model.keep(rest.values)
    made.form = Form(model, engine, rest.program, engines=subs)
    made.form.work = rest
    left = [op for op in rest.block.ops if op.type not in ("feed", "fetch")]
    if len(left) == 1 and left[0].input("X") == model.feeds and left[0].output("Out") == model.fetches and not model.profile:
        made.form.direct = subs[0]
    return made


def _call(block: Block, engine: str, sub: SubModel, reads: list[str], writes: list[str], last: Operator) -> Operator:
    attrs = {"engine": engine, "model": sub.key}
    return Operator(block, "engine_run", {"X": reads}, {"Out": writes}, attrs, last.site)


def _prepare(
    model: Model, engine: str, options: engines.Options, program: Program, ops: list[Operator],
    reads: list[str], writes: list[str], transform: Any,
) -> SubModel:  # fmt: skip
    from millstream import onnx  # at first use: its operators take 5 MiB and 0.1 s

    part = passes.work_on(program, ops, [*reads, *writes]).program
    data = onnx.export(part, reads, writes, model.parameter).SerializeToString()
    key = f"{engine}_{next(_numbers)}"
    if transform is not None:
        data = transform(data, key)
    run = engines.MAKERS[engine](data, reads, writes, options)
    sub = PREPARED[key] = SubModel(key, engine, [op.type for op in ops], run, len(data))
    return sub


def _levels(model: Model, work: passes.Work, made: Partition) -> dict[int, list[Operator]]:
    """Operators by level, in order; the even levels are the engine's."""
    from millstream import onnx  # at first use: its operators take 5 MiB and 0.1 s

    root, changing, ragged = work.block, work.written(), _ragged(work.program)
    why: dict[int, str] = {}
    for op, text in onnx.refusals(work.program, model.feeds, None, model.parameter):
        why[id(op)] = text
    levels: dict[int, list[Operator]] = defaultdict(list)
    written: dict[str, int] = {}
    touched: dict[str, int] = {}
    for op in root.ops:
        if op.type in ("feed", "fetch"):
            continue
        reason: str | None = why.get(id(op)) or _not_plain(root, op, changing, ragged)
        if reason is not None:
            made.refused.append((op, reason))
        reads = [n for n in walk.reads_of(op) if n != EMPTY_VAR]
        writes = [n for n in walk.writes_of(op) if n != EMPTY_VAR]
        level = max([written.get(n, 0) for n in reads] + [touched.get(n, 0) for n in writes], default=0)
        if level % 2 != (reason is not None):
            level += 1
        levels[level].append(op)
        for name in writes:
            written[name] = level
        for name in [*reads, *writes]:
            touched[name] = max(touched.get(name, 0), level)
    return levels


def _heavy(ops: list[Operator]) -> bool:
    return any(op.type in ("conv2d", "depthwise_conv2d", "conv2d_transpose", "mul", "matmul", "fc") for op in ops)


def _ragged(program: Program) -> set[str]:
    """Variables that have a LoD when they are computed though none is declared: 1.8.5 does not declare that of proposals."""
    copy = walk.clone(program)
    for op in copy.global_block().ops:
        definition = REGISTRY.find(op.type)
        if definition is None:
            continue
        with suppress(MillstreamError, ValueError, TypeError, LookupError, RuntimeError):  # as it was declared, then
            infer(definition, op)
        if not any(slot.ragged for slot in definition.inputs):
            for name in [n for slot in definition.outputs if slot.ragged for n in op.output(slot.name)]:
                copy.global_block().var(name)._lod_level = 1  # made from nothing that has one
    return {var.name for var in copy.global_block().vars.values() if var.is_tensor and var.lod_level and not var.persistable}


def _not_plain(root: Block, op: Operator, changing: frozenset[str], ragged: set[str]) -> str | None:
    """Why the operator's values are not plain tensors, or change from run to run, or None."""
    for name in [*walk.reads_of(op), *walk.writes_of(op)]:
        var = root._find_var_recursive(name)
        if var is None or name == EMPTY_VAR:
            continue
        if var.type is not VarType.LOD_TENSOR:
            return f"{name!r} is a {var.type.name}"
        if (var.lod_level > 0 or name in ragged) and not var.persistable:
            return f"{name!r} has a LoD"
        if var.persistable and name in changing:
            return f"{name!r} changes from run to run"
    return None


def _ends(root: Block, ops: list[Operator], fetches: Sequence[str]) -> tuple[list[str], list[str]]:
    """(variables that `ops` read from outside, variables that the outside reads of theirs)."""
    mine = {id(op) for op in ops}
    reads: dict[str, None] = {}
    written: dict[str, None] = {}
    for op in ops:
        for name in walk.reads_of(op):
            var = root._find_var_recursive(name)
            if name != EMPTY_VAR and name not in written and not (var is not None and var.persistable):
                reads[name] = None
        written.update(dict.fromkeys(n for n in walk.writes_of(op) if n != EMPTY_VAR))
    others = {n for op in root.ops if id(op) not in mine and op.type != "feed" for n in walk.reads_of(op)}
    return list(reads), [n for n in written if n in others or n in fetches]
