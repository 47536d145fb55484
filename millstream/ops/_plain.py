"""Declared gradients under autograd for calls whose arguments are one tensor or none each: most calls of most operators.

What such calls have in common is worked out once per operator, so that a call costs one function of autograd and the
kernel. Lists and ragged arguments go the general way (ops/_grad.py).
"""

from __future__ import annotations

from typing import Any

import torch

from millstream.ops._again import checked, formula, linked
from millstream.ops._opdef import OpDef
from millstream.ops._values import Ragged, SelectedRows

_INPUT, _OUTPUT, _DOUT, _NOTHING = range(4)


class Plain:
    """How the gradient kernel of one operator is called after its forward kernel.

    Attributes:
        sources: for each input of the gradient kernel, where it comes from.
        targets: for each output of the gradient kernel, the input that it is the gradient of; -1 for none.
        kept: the outputs that the gradient kernel reads, or whose gradient it wants as zeros when there is none.
        shared: attributes that both kernels take.
        formula: what is differentiated instead where the gradient will be differentiated again, or None.
    """

    __slots__ = (
        "formula", "forward", "grad", "gradient", "kept", "kernel", "read", "shared", "sources", "sparse", "targets",
        "wanted",
    )  # fmt: skip

    def __init__(self, forward: OpDef, grad: OpDef, sparse: bool) -> None:
        self.kernel, self.gradient, self.sparse = forward.kernel, grad.kernel, sparse
        self.forward, self.grad, self.formula = forward, grad, formula(forward)
        ins = {s.name: i for i, s in enumerate(forward.inputs)}
        outs = {s.name: j for j, s in enumerate(forward.outputs)}
        douts = {f"{s.name}@GRAD": j for j, s in enumerate(forward.outputs)}
        kinds = ((_OUTPUT, outs), (_INPUT, ins), (_DOUT, douts))
        self.sources = []
        for slot in grad.inputs:
            found = next(((kind, of[slot.name]) for kind, of in kinds if slot.name in of), None)
            self.sources.append(found or (_NOTHING, 0))
        lone = len(forward.outputs) == 1  # its gradient is there whenever the gradient kernel is called
        self.kept = sorted({j for kind, j in self.sources if kind == _OUTPUT or (kind == _DOUT and not lone)})
        self.read = [i for i in range(len(ins)) if (_INPUT, i) in self.sources or self.formula is not None]
        grads_of = {f"{n}@GRAD": i for n, i in ins.items()}
        self.targets = [grads_of.get(s.name, -1) for s in grad.outputs]
        self.wanted = "want" in grad.reserved
        self.shared = [k for k in (*forward.attrs, *forward.reserved) if k in grad.attrs or k in grad.reserved]

    @classmethod
    def of(cls, forward: OpDef, grad: OpDef, sparse: bool) -> Plain | None:
        """The way of an operator; None where its slots always hold lists or ragged values."""
        slots = (*forward.outputs, *grad.inputs, *grad.outputs)
        if any(s.ragged for s in (*forward.inputs, *slots)) or any(s.many for s in slots):
            return None
        if any((s.many and not s.optional) for s in forward.inputs) or any(s.inout for s in forward.outputs):
            return None
        return cls(forward, grad, sparse)

    def __call__(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The kernel's result, which autograd differentiates by the gradient kernel."""
        return _apply(self, kwargs, *args)


def flows(args: tuple[Any, ...]) -> bool | None:
    """Whether autograd has something to differentiate; None where an argument is not one tensor or none."""
    found = False
    for a in args:
        if isinstance(a, torch.Tensor):
            found = found or a.requires_grad
        elif a is not None and (type(a) is not list or a):
            return None
    return found and torch.is_grad_enabled()


def _aside(t: Any) -> Any:
    """A result for the gradient kernel, with what its kernel left on it (where pools found their maxima)."""
    if not isinstance(t, torch.Tensor):
        return t
    found = t.detach()
    if t.__dict__:
        found.__dict__.update(t.__dict__)
    return found


class _PlainFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, way: Plain, kwargs: dict[str, Any], *args: Any) -> Any:  # type: ignore[override]
        ctx.set_materialize_grads(False)
        own = [a.detach() if isinstance(a, torch.Tensor) else a for a in args]
        result = way.kernel(*own, **kwargs)
        outs = _tuple(result)
        ctx.way, ctx.kwargs, ctx.own = way, kwargs, own
        ctx.outs = {j: _aside(outs[j]) for j in way.kept}
        if way.sparse:
            ctx.leaves = [isinstance(a, torch.Tensor) and a.is_leaf for a in args]
        saved = [args[i] for i in way.read] + [outs[j] for j in way.kept]  # for gradients of gradients
        ctx.save_for_backward(*[t if isinstance(t, torch.Tensor) else None for t in saved])
        return result

    @staticmethod
    def backward(ctx: Any, *douts: Any) -> Any:  # type: ignore[override]
        way, ins, outs, kwargs = ctx.way, ctx.own, ctx.outs, ctx.kwargs
        needs = ctx.needs_input_grad
        found: list[Any] = [None] * len(needs)
        if all(d is None for d in douts):
            return tuple(found)
        again = torch.is_grad_enabled()
        if again:
            ins, outs = _connected(way, ins, outs, ctx.saved_tensors)
            if way.formula is not None:
                return None, None, *_by_formula(way, ins, kwargs, douts, needs[2:])
        args: list[Any] = []
        for kind, k in way.sources:
            if kind == _DOUT:
                d = douts[k]
                args.append(d if d is not None else _zeros(outs.get(k)))
            else:
                args.append(ins[k] if kind == _INPUT else outs[k] if kind == _OUTPUT else None)
        given = {k: kwargs[k] for k in way.shared if k in kwargs}
        if way.wanted:
            given["want"] = tuple([i >= 0 and needs[i + 2] for i in way.targets])
        results = checked(way.grad, way.gradient, tuple(args), given) if again else way.gradient(*args, **given)
        for i, value in zip(way.targets, _tuple(results)):
            if i >= 0 and value is not None and needs[i + 2]:
                found[i + 2] = value if isinstance(value, torch.Tensor) else _as_tensor(value, way.sparse and ctx.leaves[i])
        return tuple(found)


# Function.apply() asks whether functorch transforms are at work, and looks all arguments over for what they left.
_apply = super(torch.autograd.Function, _PlainFunction).apply  # type: ignore[misc]


def _tuple(result: Any) -> tuple[Any, ...]:
    return result if isinstance(result, tuple) and not isinstance(result, Ragged) else (result,)


def _zeros(out: Any) -> Any:
    return torch.zeros_like(out) if isinstance(out, torch.Tensor) and out.is_floating_point() else None


def _connected(
    way: Plain, ins: list[Any], outs: dict[int, Any], saved: tuple[Any, ...]
) -> tuple[list[Any], dict[int, Any]]:
    """The tensors of the graph itself: for gradients that are differentiated again."""
    ins = list(ins)
    for i, t in zip(way.read, saved):
        if t is not None:
            ins[i] = t
    graph = dict(zip(way.kept, saved[len(way.read) :]))
    names = [s.name for s in way.forward.outputs]
    return ins, {j: linked(way.forward, way.grad, names[j], out, graph[j]) for j, out in outs.items()}


def _by_formula(
    way: Plain, ins: list[Any], kwargs: dict[str, Any], douts: tuple[Any, ...], needs: tuple[bool, ...]
) -> list[Any]:
    """The gradients that `needs` asks for, of the formula."""
    assert way.formula is not None
    with torch.enable_grad():
        results = _tuple(way.formula(*ins, **kwargs))
        pairs = [(r, d) for r, d in zip(results, douts) if d is not None and isinstance(r, torch.Tensor) and r.requires_grad]
        wanted = [t for t, need in zip(ins, needs) if need]
        if not pairs:
            return [torch.zeros_like(t) if need else None for t, need in zip(ins, needs)]
        ends, grads = zip(*[(r, d.reshape(r.shape)) for r, d in pairs])
        found = iter(torch.autograd.grad(ends, wanted, grads, create_graph=True, allow_unused=True, materialize_grads=True))
    return [next(found) if need else None for need in needs]


def _as_tensor(value: Any, leaf: bool) -> torch.Tensor:
    if isinstance(value, Ragged):
        value = value.values
    if isinstance(value, SelectedRows):
        if leaf:
            return torch.sparse_coo_tensor(value.rows[None], value.values, value.shape, check_invariants=False)
        return value.to_dense()
    return value
