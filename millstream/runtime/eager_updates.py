"""Updates of eager parameters: those of one kind and rate run as one operator over lists, as in Plans.

An update alone costs 15 to 25 us of Python whatever its parameter's size. L2 decay of dense gradients goes into the update.
"""

from __future__ import annotations

from typing import Any

import torch

from millstream.ir.types import VarType
from millstream.ops._values import NO_LOD
from millstream.passes.fuse_optimizers import KINDS, Kind, out_slot
from millstream.runtime.eager import VarBase
from millstream.runtime.tracer import EagerBlock, EagerTracer, call_plan, explain, listed, put

Slots = dict[str, list[VarBase]]


class Group:
    """Updates that run as one operator over lists.

    Attributes:
        type: of the operator.
        positions: which of the pairs they are of.
    """

    def __init__(
        self, tracer: EagerTracer, type: str, positions: list[int], inputs: Slots, outputs: Slots, attrs: dict[str, Any]
    ) -> None:
        self.type, self.positions = type, positions
        self._plan = call_plan(type)
        self._inputs, self._outputs = inputs, outputs
        self._kwargs = tracer.keywords(self._plan, attrs, inputs, outputs)

    def run(self, grads: list[VarBase], rate: VarBase) -> None:
        """One update, without a graph."""
        inputs, plan = {**self._inputs, "Grad": grads, "LearningRate": [rate]}, self._plan
        args: list[Any] = []
        for name, many, _, _ in plan.inputs:
            found = inputs.get(name)
            args.append([v._ivar for v in found or ()] if many else found[0]._ivar if found else None)
        try:
            result = plan.kernel(*args, **self._kwargs)
        except Exception as error:
            raise explain(plan.definition, inputs, self._kwargs, error) from error
        for (name, _), values in zip(plan.outputs, result if type(result) is tuple else (result,)):
            if not any(values is a for a in args):
                for target, value in zip(self._outputs[name], values):
                    put(target, value, NO_LOD)


class Updates(EagerBlock):
    """Stands where an optimizer of ours expects a Block: updates wait for run(), everything else runs at once."""

    def __init__(self, pairs: list[tuple[Any, VarBase]]) -> None:
        super().__init__()
        self._pairs = pairs
        self._decays: dict[int, float] = {}
        self._waiting: dict[tuple[Any, ...], list[tuple[Slots, int]]] = {}
        self._at = -1

    def leave_decay(self, type: str, param: VarBase, grad: VarBase, rate: float) -> bool:
        """Let the coming update `type` of `param` add rate * param to `grad`; False where it can't."""
        g, p = grad._ivar, param._ivar
        if type not in KINDS or not isinstance(g, torch.Tensor) or g.dtype is not p.dtype or id(param) in self._decays:
            return False
        self._decays[id(param)] = rate
        return True

    def append_op(
        self, type: str, inputs: Any = None, outputs: Any = None, attrs: Any = None, stop_gradient: bool = False
    ) -> Any:
        kind = KINDS.get(type)
        if kind is None or "Grad" not in inputs:
            super().append_op(type, inputs, outputs, attrs, stop_gradient)
            return
        ins, outs = ({s: listed(v) for s, v in given.items()} for given in (inputs, outputs))
        param: Any = ins["Param"][0]
        grad = ins["Grad"][0]
        decay = self._decays.pop(id(param), 0.0)
        factor = param.optimize_attr["learning_rate"]
        if not isinstance(factor, (int, float)) or not _takes(kind, ins, outs):
            if decay:
                ins["Grad"] = [VarBase(torch.add(grad.tensor, param.tensor.detach(), alpha=decay), grad.name)]
            super().append_op(type, ins, outs, attrs, stop_gradient)
            return
        names = dict(kind.renamed)
        own = tuple((names.get(a, a), attrs[a]) for a in kind.attrs if a in (attrs or ()))
        missing = tuple(not ins.get(s) for s in kind.optional)
        key = type, own, decay, factor, grad._ivar.dtype, param._ivar.dtype, grad._ivar.is_contiguous(), missing
        self._at = next(k for k in range(self._at + 1, len(self._pairs)) if self._pairs[k][0] is param)
        self._waiting.setdefault(key, []).append((ins, self._at))

    def run(self) -> list[Group] | None:
        """Run the updates that wait, and return them if they are those of all pairs."""
        tracer, groups = self._tracer(), []
        for (type, own, decay, *_), members in self._waiting.items():
            kind = KINDS[type]
            inputs = {s: [v for ins, _ in members for v in ins.get(s, ())] for s in kind.names()}
            outputs = {out_slot(s): inputs[s] for s in kind.lists}
            attrs = {**dict(own), "weight_decay": decay}
            groups.append(Group(tracer, "fused_" + type, [at for _, at in members], inputs, outputs, attrs))
            first = members[0][0]
            groups[-1].run([ins["Grad"][0] for ins, _ in members], (first.get("LearningRate") or first["Grad"])[0])
        return groups if sum(len(g.positions) for g in groups) == len(self._pairs) else None


def _takes(kind: Kind, ins: Slots, outs: Slots) -> bool:
    """Whether the operator over lists does what this update does."""
    for slot in kind.lists:
        found = ins.get(slot)
        if not found:
            if slot in kind.optional:
                continue
            return False
        if len(found) != 1 or outs.get(out_slot(slot), (None,))[0] is not found[0]:
            return False
    known = (*kind.names(), *kind.unused, "Grad", "LearningRate")
    if any(v for s, v in ins.items() if s not in known):
        return False
    grad, param = ins["Grad"][0], ins["Param"][0]
    same = isinstance(grad._ivar, torch.Tensor) and grad._ivar.shape == param._ivar.shape
    return same and grad.type is VarType.LOD_TENSOR
