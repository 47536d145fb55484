"""A whole Program on one engine, sequences and loops included: LoD goes in and comes out as offsets.

Parts of a Program go to an engine by :mod:`millstream.inference.partition`, which leaves sequences to kernels of our own.
Where every operator can be written as ONNX, the engine may take all of it, with inputs ``name.lod0``, … beside the values;
a beam search, whose steps are many small operators, gains most.
"""

from __future__ import annotations

import itertools

import numpy as np
import torch

from millstream.errors import EnforceNotMet
from millstream.inference import engines
from millstream.inference.engine_op import SubModel, array_of
from millstream.inference.model import Form, Model, Result
from millstream.inference.partition import Partition
from millstream.ops._values import LoD
from millstream.passes import pipelines
from millstream.runtime.plan import Context

_numbers = itertools.count()


class WholeForm(Form):
    """A Form that hands everything to one sub-model.

    Attributes:
        levels: how many LoD levels each result has.
    """

    def __init__(self, model: Model, name: str, sub: SubModel, levels: list[int]) -> None:
        super().__init__(model, name, model.program, engines=[sub])
        self.sub = sub
        self.levels = levels
        self._depths = [v.lod_level for v in model.vars]

    def run(self, values: list[torch.Tensor], lods: list[LoD], ctx: Context) -> list[Result]:
        arrays = [array_of(v) for v in values]
        for name, lod, depth in zip(self._model.feeds, lods, self._depths):
            if len(lod) != depth:
                raise EnforceNotMet(f"{self.name}: input {name!r} has {len(lod)} LoD levels, {depth} are declared")
            arrays += lod
        found = iter(self.sub.run(arrays))
        results: list[Result] = []
        for levels in self.levels:
            value = next(found)
            lod = tuple(np.ascontiguousarray(next(found), np.int64) for _ in range(levels))
            results.append((torch.from_numpy(value if self.sub.keeps else value.copy()), lod))
        return results


def worth_a_try(model: Model) -> bool:
    """Whether the Program has loops or sequences, which a partition leaves."""
    return len(model.program.blocks) > 1 or any(v.lod_level for v in model.vars)


def whole(model: Model, engine: str, options: engines.Options) -> Partition:
    """The Form of `model` that runs on `engine` altogether; none where an operator can't be written as ONNX.

    Raises NotSupportedError: the engine is not here, or does not take the model.
    """
    from millstream import onnx  # at first use: its operators take 5 MiB and 0.1 s

    engines.need(engine)
    made = Partition()
    work = model.optimized(model.program, pipelines.EXPORT)
    model.keep(work.values)
    made.refused = onnx.refusals(work.program, model.feeds, model.fetches, model.parameter)
    ops = [op for op in work.block.ops if op.type not in ("feed", "fetch")]
    for op in ops:
        for name in op.output_arg_names:
            var = work.block._find_var_recursive(name)
            if var is not None and var.persistable:
                made.refused.append((op, f"{name!r} changes from run to run"))
    if made.refused:
        return made
    exported = onnx.export(work.program, model.feeds, model.fetches, model.parameter)
    inputs = [*model.feeds, *(f"{v.name}.lod{k}" for v in model.vars for k in range(v.lod_level))]
    outputs = [o.name for o in exported.graph.output]
    levels = []
    left = list(outputs)
    for name in model.fetches:
        left.pop(0)
        count = 0
        while left and left[0] == f"{name}.lod{count}":
            left.pop(0)
            count += 1
        levels.append(count)
    data = exported.SerializeToString()
    run = engines.MAKERS[engine](data, inputs, outputs, options)
    sub = SubModel(f"{engine}_whole_{next(_numbers)}", engine, [op.type for op in ops], run, len(data))
    made.form = WholeForm(model, f"{engine} whole", sub, levels)
    made.form.work = work
    made.taken, made.groups = len(ops), 1
    return made
