"""Gradients: derived ones by torch autograd, and the bridge that lets autograd call declared ones.

Three ways an operator's gradient runs:
  * `taped` forward paired with its `<op>_grad` in the same Block: autograd's handle goes from one to the other;
  * `<op>_grad` alone (no forward in sight): the derived kernel recomputes the forward;
  * under autograd (inside differentiated loops, and in eager mode): `differentiable` wraps declared gradient
    kernels in a torch.autograd.Function.
For gradients of gradients see ops/_again.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from millstream.ops._again import checked, formula, linked
from millstream.ops._opdef import REGISTRY, OpDef, Slot
from millstream.ops._plain import Plain, flows
from millstream.ops._values import Ragged, SelectedRows, TensorArray

GRAD = "@GRAD"


# ---- structure of arguments --------------------------------------------------------------------
def leaves_of(value: Any, found: list[torch.Tensor]) -> list[torch.Tensor]:
    """Floating-point tensors inside an argument, in a fixed order."""
    if isinstance(value, torch.Tensor):
        if value.is_floating_point():
            found.append(value)
    elif isinstance(value, (list, Ragged)):
        for item in value[:1] if isinstance(value, Ragged) else value:
            leaves_of(item, found)
    return found


def rebuild(value: Any, make: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    """The same structure with every floating-point tensor replaced."""
    if isinstance(value, torch.Tensor):
        return make(value) if value.is_floating_point() else value
    if isinstance(value, Ragged):
        return Ragged(rebuild(value.values, make), value.lod)
    if isinstance(value, TensorArray):
        return TensorArray(rebuild(v, make) for v in value)
    if isinstance(value, list):
        return [rebuild(v, make) for v in value]
    return value


def as_tuple(out: Any) -> tuple[Any, ...]:
    """A kernel's result as one value per output slot."""
    return out if isinstance(out, tuple) and not isinstance(out, Ragged) else (out,)


def _leaf(t: torch.Tensor) -> torch.Tensor:
    return t.detach().requires_grad_()


def _detach(t: torch.Tensor) -> torch.Tensor:
    return t.detach()


def _detach_result(t: torch.Tensor) -> torch.Tensor:
    """The tensor with what its kernel left on it for the gradient (where pools found their maxima)."""
    found = t.detach()
    found.__dict__.update(t.__dict__)
    return found


# ---- forward that leaves a handle -------------------------------------------------------------
class Handle:
    """What a taped forward leaves for its gradient: autograd's leaves (by input slot) and results (by output slot)."""

    __slots__ = ("leaves", "outs")

    def __init__(self, leaves: tuple[Any, ...], outs: tuple[Any, ...]) -> None:
        self.leaves = leaves
        self.outs = outs

    def backward(self, douts: tuple[Any, ...], create_graph: bool = False, retain: bool = False) -> tuple[Any, ...]:
        """Gradients in the structure of the inputs; None where there is none.

        Args:
            douts: per output slot: gradient, list of gradients, or None.
            retain: another gradient operator will use this handle.
        """
        results: list[torch.Tensor] = []
        grads: list[torch.Tensor] = []
        for out, dout in zip(self.outs, douts):
            _pair(out, dout, results, grads)
        flat: list[torch.Tensor] = []
        for leaf in self.leaves:
            leaves_of(leaf, flat)
        wanted = [t for t in flat if t.requires_grad]
        if not results or not wanted:
            return tuple(_zeros_structure(leaf) for leaf in self.leaves)
        found = torch.autograd.grad(
            results, wanted, grads, allow_unused=True, create_graph=create_graph, retain_graph=retain or create_graph
        )
        by_id = {id(t): (g if g is not None else torch.zeros_like(t)) for t, g in zip(wanted, found)}
        return tuple(_fill(leaf, by_id) for leaf in self.leaves)


def _pair(out: Any, dout: Any, results: list[torch.Tensor], grads: list[torch.Tensor]) -> None:
    if out is None or dout is None:
        return
    if isinstance(out, Ragged):
        out = out.values
    if isinstance(dout, Ragged):
        dout = dout.values
    if isinstance(out, list):
        for o, d in zip(out, dout):
            _pair(o, d, results, grads)
    elif isinstance(out, torch.Tensor) and out.requires_grad:
        if isinstance(dout, SelectedRows):
            dout = dout.to_dense()
        results.append(out)
        grads.append(dout if dout.shape == out.shape else dout.reshape(out.shape))


def _fill(leaf: Any, by_id: dict[int, torch.Tensor]) -> Any:
    if isinstance(leaf, torch.Tensor):
        return by_id.get(id(leaf))
    if isinstance(leaf, Ragged):
        return _fill(leaf.values, by_id)
    if isinstance(leaf, TensorArray):
        return TensorArray(None if v is None else Ragged(_fill(v.values, by_id), v.lod) for v in leaf)
    if isinstance(leaf, list):
        return [_fill(v, by_id) for v in leaf]
    return None


def _zeros_structure(leaf: Any) -> Any:
    if isinstance(leaf, torch.Tensor):
        return torch.zeros_like(leaf)
    if isinstance(leaf, Ragged):
        return torch.zeros_like(leaf.values)
    if isinstance(leaf, list):
        return type(leaf)(_zeros_structure(v) for v in leaf)
    return None


def taped(kernel: Callable[..., Any], wanted: tuple[bool, ...]) -> Callable[..., tuple[Any, Handle]]:
    """`kernel` run under autograd: returns (detached result, Handle).

    Args:
        wanted: per input slot, whether its gradient is needed.
    """

    def run(*args: Any, **kwargs: Any) -> tuple[Any, Handle]:
        leaves = tuple(rebuild(a, _leaf if w else _detach) for a, w in zip(args, wanted))
        with torch.enable_grad():
            out = kernel(*leaves, **kwargs)
        outs = as_tuple(out)
        detached = tuple(rebuild(o, _detach) for o in outs)
        return (detached if out is outs else detached[0]), Handle(leaves, outs)

    return run


# ---- derived gradient operators ------------------------------------------------------------------
def derive(forward: OpDef) -> OpDef:
    """The declaration of ``<op>_grad`` for an operator without one: recompute, then autograd."""
    base = REGISTRY.find(REGISTRY.forward_type(forward.name) or "")
    if base is not None and formula(base) is not None:
        return _derive_again(base, forward)
    ins = tuple(s._replace(optional=True, intermediate=False) for s in forward.inputs)
    outs = tuple(s._replace(optional=True, intermediate=False) for s in forward.outputs)
    douts = tuple(Slot(s.name + GRAD, True, s.many) for s in forward.outputs)
    dins = tuple(Slot(s.name + GRAD, True, s.many) for s in forward.inputs if s.name not in forward.nodiff)
    positions = [i for i, s in enumerate(forward.inputs) if s.name not in forward.nodiff]
    n_in, n_out = len(ins), len(outs)
    forward_kernel = connected(forward, forward.kernel)

    def kernel(*args: Any, want: tuple[bool, ...], **attrs: Any) -> Any:
        wanted = [False] * n_in
        for i, w in zip(positions, want):
            wanted[i] = w
        run = taped(forward_kernel, tuple(wanted))
        double = torch.is_grad_enabled()
        if double:
            run = _under_autograd(forward_kernel)
        _, handle = run(*args[:n_in], **attrs)
        grads = handle.backward(args[n_in + n_out :], create_graph=double)
        picked = tuple(grads[i] if w else None for i, w in zip(positions, want))
        return picked[0] if len(picked) == 1 else picked

    return OpDef(
        name=forward.name + "_grad",
        kernel=kernel,
        inputs=(*ins, *outs, *douts),
        outputs=dins,
        attrs=forward.attrs,
        reserved=forward.reserved | {"want"},
        derived_from=forward,
        grad=None,
    )


def _under_autograd(kernel: Callable[..., Any]) -> Callable[..., tuple[Any, Handle]]:
    """Like `taped`, but the leaves stay connected to the caller's graph (gradients of gradients)."""

    def run(*args: Any, **kwargs: Any) -> tuple[Any, Handle]:
        leaves = tuple(rebuild(a, _alias) for a in args)
        out = kernel(*leaves, **kwargs)
        return out, Handle(leaves, as_tuple(out))

    return run


REGISTRY.derive = derive


# ---- gradients of gradients ----------------------------------------------------------------------
def connected(definition: OpDef, kernel: Callable[..., Any]) -> Callable[..., Any]:
    """The kernel in the form that is differentiated: that of a gradient operator is checked."""
    if REGISTRY.forward_type(definition.name) is None:
        return kernel
    return lambda *args, **kwargs: checked(definition, kernel, args, kwargs)


def _by_formula(forward: OpDef, args: tuple[Any, ...], attrs: dict[str, Any], douts: tuple[Any, ...]) -> tuple[Any, ...]:
    """Gradients in the structure of `args`, which depend on these and on `douts`."""
    call = formula(forward)
    assert call is not None
    with torch.enable_grad():
        return _under_autograd(call)(*args, **attrs)[1].backward(douts, create_graph=True)


def _derive_again(forward: OpDef, grad: OpDef) -> OpDef:
    """The declaration of ``<op>_grad_grad`` of an operator with a formula.

    Its slots are the inputs of the operator, whether or not ``<op>_grad`` reads them, and the gradients around.
    """
    douts = tuple(s for s in grad.inputs if s.name.endswith(GRAD))
    n_in, n_out = len(forward.inputs), len(douts)
    places = [next(k for k, s in enumerate(forward.outputs) if s.name + GRAD == d.name) for d in douts]
    slots = tuple(s._replace(optional=True) for s in (*forward.inputs, *douts))
    sought = [k for k, s in enumerate(slots) if s.name not in forward.nodiff]

    def kernel(*args: Any, want: tuple[bool, ...], **attrs: Any) -> Any:
        double = torch.is_grad_enabled()
        with torch.enable_grad():
            taken = tuple(rebuild(a, _alias if double else _leaf) for a in args[: n_in + n_out])
            given: list[Any] = [None] * len(forward.outputs)
            for place, dout in zip(places, taken[n_in:]):
                given[place] = dout
            firsts = _by_formula(forward, taken[:n_in], attrs, tuple(given))
        by_slot = {s.name + GRAD: first for s, first in zip(forward.inputs, firsts)}
        handle = Handle(taken, tuple(by_slot[s.name] for s in grad.outputs))
        grads = handle.backward(args[n_in + n_out :], create_graph=double)
        picked = tuple(grads[k] if w else None for k, w in zip(sought, want))
        return picked[0] if len(picked) == 1 else picked

    return OpDef(
        name=grad.name + "_grad",
        kernel=kernel,
        inputs=(*slots, *(Slot(s.name + GRAD, True, s.many) for s in grad.outputs)),
        outputs=tuple(Slot(slots[k].name + GRAD, True, slots[k].many) for k in sought),
        attrs=forward.attrs,
        reserved=frozenset({"want"}),
        grad=None,
        extra={"again_of": forward},
    )


def _alias(t: torch.Tensor) -> torch.Tensor:
    """A tensor that stays connected to the caller's graph."""
    return t.view_as(t) if t.requires_grad else _leaf(t)


# ---- declared gradients under autograd -----------------------------------------------------------
def differentiable(definition: OpDef, sparse: bool = False) -> Callable[..., Any]:
    """The kernel in a form that autograd can differentiate with the gradient that the library declares.

    Args:
        sparse: SelectedRows gradients of autograd's leaves become torch's sparse tensors instead of dense ones.
    """
    # A traceable kernel's gradient by autograd is the declared one, and cheaper than the bridge.
    if definition.extra.get("traceable") and not sparse:
        return definition.kernel
    grad_def = REGISTRY.find(definition.grad_type) if definition.grad_type is not None else None
    if grad_def is None or grad_def.derived_from is not None:
        if definition.grad is False:
            return _no_grad(definition.kernel)
        return definition.kernel
    return _Bridge(definition, grad_def, sparse)


def _no_grad(kernel: Callable[..., Any]) -> Callable[..., Any]:
    def run(*args: Any, **kwargs: Any) -> Any:
        with torch.no_grad():
            return kernel(*args, **kwargs)

    return run


class _Bridge:
    """Calls a kernel so that autograd uses the declared gradient operator."""

    def __init__(self, forward: OpDef, grad: OpDef, sparse: bool = False) -> None:
        self.forward = forward
        self.grad = grad
        self.sparse = sparse
        self.plain = Plain.of(forward, grad, sparse)
        self.traced = forward.extra.get("traced")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self.traced is not None and torch.is_grad_enabled():
            result = self.traced(*args, **kwargs)
            if result is not None:
                return result
        if self.plain is not None:
            found = flows(args)
            if found is not None:
                return self.plain(args, kwargs) if found else self.forward.kernel(*args, **kwargs)
        flat: list[torch.Tensor] = []
        for a in args:
            leaves_of(a, flat)
        if not (torch.is_grad_enabled() and any(t.requires_grad for t in flat)):
            return self.forward.kernel(*args, **kwargs)
        call = _Call(self, args, kwargs)
        call.sparse = tuple(self.sparse and t.is_leaf for t in flat)
        outs = _Function.apply(call, *flat)
        it = iter(outs)
        result = tuple(rebuild(o, lambda t: next(it)) for o in call.outs)
        call.outs = tuple(rebuild(o, _detach_result) for o in call.outs)
        return result if call.is_tuple else result[0]


class _Call:
    """One bridged call: its arguments in their structure, and the results."""

    def __init__(self, bridge: _Bridge, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.bridge = bridge
        self.args = tuple(rebuild(a, _detach) for a in args)
        self.kwargs = kwargs
        self.outs: tuple[Any, ...] = ()
        self.is_tuple = False
        self.sparse: tuple[bool, ...] = ()

    def connected(self, saved: tuple[torch.Tensor, ...]) -> _Call:
        """This call on the tensors of the graph itself: for gradients that are differentiated again."""
        it = iter(saved)
        twin = _Call.__new__(_Call)
        twin.bridge, twin.kwargs, twin.is_tuple, twin.sparse = self.bridge, self.kwargs, self.is_tuple, ()
        twin.args = tuple(rebuild(a, lambda t: next(it)) for a in self.args)
        forward, grad = self.bridge.forward, self.bridge.grad
        twin.outs = tuple(
            rebuild(o, lambda t, slot=s.name: linked(forward, grad, slot, t, next(it)))  # type: ignore[misc]
            for s, o in zip(forward.outputs, self.outs)
        )
        return twin

    def forward(self) -> tuple[torch.Tensor, ...]:
        out = self.bridge.forward.kernel(*self.args, **self.kwargs)
        self.outs = as_tuple(out)
        self.is_tuple = out is self.outs
        flat: list[torch.Tensor] = []
        for o in self.outs:
            leaves_of(o, flat)
        return tuple(flat)

    def backward(self, flat_douts: tuple[Any, ...], needs: tuple[bool, ...]) -> list[Any]:
        forward, grad = self.bridge.forward, self.bridge.grad
        again = torch.is_grad_enabled()
        if again and formula(forward) is not None:
            return self._by_formula(flat_douts, needs)
        values = dict(zip((s.name for s in forward.inputs), self.args))
        values.update(zip((s.name for s in forward.outputs), self.outs))
        it = iter(flat_douts)
        for slot, out in zip(forward.outputs, self.outs):
            values[slot.name + GRAD] = rebuild(out, lambda t: _dense_like(next(it), t))
        need = iter(needs)
        wanted = {}
        for slot, arg in zip(forward.inputs, self.args):
            n = len(leaves_of(arg, []))
            flags = [next(need) for _ in range(n)]
            wanted[slot.name + GRAD] = any(flags)
        kwargs = {k: v for k, v in self.kwargs.items() if k in grad.attrs or k in grad.reserved}
        if "want" in grad.reserved:
            kwargs["want"] = tuple(wanted.get(s.name, False) for s in grad.outputs)
        args = [_for_slot(values.get(s.name), s) for s in grad.inputs]
        kernel = connected(grad, grad.kernel) if again else grad.kernel
        results = dict(zip((s.name for s in grad.outputs), as_tuple(kernel(*args, **kwargs))))
        flat: list[Any] = []
        for slot, arg in zip(forward.inputs, self.args):
            n = len(leaves_of(arg, []))
            leaves = self.sparse[len(flat) : len(flat) + n] or (False,) * n
            flat.extend(_flat_grads(results.get(slot.name + GRAD), leaves))
        return flat

    def _by_formula(self, flat_douts: tuple[Any, ...], needs: tuple[bool, ...]) -> list[Any]:
        it = iter(flat_douts)
        douts = tuple(rebuild(out, lambda t: _dense_like(next(it), t)) for out in self.outs)
        flat: list[Any] = []
        for arg, found in zip(self.args, _by_formula(self.bridge.forward, self.args, self.kwargs, douts)):
            flat.extend(_flat_grads(found, (False,) * len(leaves_of(arg, []))))
        return [g if need else None for g, need in zip(flat, needs)]


def _for_slot(value: Any, slot: Slot) -> Any:
    if slot.ragged:
        return value if isinstance(value, Ragged) or value is None else Ragged(value, ())
    return value.values if isinstance(value, Ragged) else value


def _dense_like(grad: Any, out: torch.Tensor) -> torch.Tensor:
    return grad if grad is not None else torch.zeros_like(out)


def _flat_grads(value: Any, sparse: tuple[bool, ...]) -> list[Any]:
    """A gradient slot's value as one tensor (or None) for each place of `sparse`."""
    if value is None:
        return [None] * len(sparse)
    items = value if isinstance(value, list) else [value]
    out = []
    for item, keep in zip(items, sparse):
        if isinstance(item, Ragged):
            item = item.values
        if isinstance(item, SelectedRows):
            if keep:
                item = torch.sparse_coo_tensor(item.rows[None], item.values, item.shape, check_invariants=False)
            else:
                item = item.to_dense()
        out.append(item)
    return out


class _Function(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, call: _Call, *flat: torch.Tensor) -> tuple[torch.Tensor, ...]:  # type: ignore[override]
        ctx.call = call
        outs = tuple(t.view_as(t) if any(t is f for f in flat) else t for t in call.forward())
        ctx.save_for_backward(*flat, *outs)  # for gradients of gradients
        return outs

    @staticmethod
    def backward(ctx: Any, *douts: Any) -> Any:  # type: ignore[override]
        call = ctx.call
        if torch.is_grad_enabled():
            call = call.connected(ctx.saved_tensors)
        return (None, *call.backward(douts, ctx.needs_input_grad[1:]))
