"""Updates of eager parameters: those of one kind and rate run as one operator over lists, as in Plans.

An update alone costs 15 to 25 us of Python whatever its parameter's size. L2 decay of dense gradients goes into the update.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch

from millstream.ir.types import VarType
from millstream.passes.fuse_optimizers import KINDS, Kind, out_slot
from millstream.runtime.eager import VarBase
from millstream.runtime.tracer import EagerBlock, EagerTracer, listed

Slots = dict[str, list[VarBase]]


class _Group(NamedTuple):
    """Updates that run as one: `positions` tells which of the pairs they are of."""

    type: str
    positions: list[int]
    inputs: Slots
    outputs: Slots
    attrs: dict[str, Any]

    def run(self, tracer: EagerTracer, grads: list[VarBase], rate: VarBase) -> None:
        tracer.trace_op(self.type, {**self.inputs, "Grad": grads, "LearningRate": [rate]}, self.outputs, self.attrs)


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

    def run(self) -> list[_Group] | None:
        """Run the updates that wait, and return them if they are those of all pairs."""
        tracer, groups = self._tracer(), []
        for (type, own, decay, *_), members in self._waiting.items():
            kind = KINDS[type]
            inputs = {s: [v for ins, _ in members for v in ins.get(s, ())] for s in kind.names()}
            outputs = {out_slot(s): inputs[s] for s in kind.lists}
            attrs = {**dict(own), "weight_decay": decay}
            groups.append(_Group("fused_" + type, [at for _, at in members], inputs, outputs, attrs))
            first = members[0][0]
            groups[-1].run(tracer, [ins["Grad"][0] for ins, _ in members], (first.get("LearningRate") or first["Grad"])[0])
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
