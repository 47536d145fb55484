"""Arithmetic on dimensions and axes that the declarations of this folder share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from millstream.errors import ShapeError
from millstream.ir.names import grad_name
from millstream.ops._opdef import OpSpec
from millstream.ops._values import Spec


def axis_of(axis: int, rank: int, what: str = "axis") -> int:
    """`axis` as a number in [0, rank).

    Raises:
        ShapeError: it is out of range.
    """
    if not -rank <= axis < rank:
        raise ShapeError(f"{what} must be in [{-rank}, {rank}) for a tensor of rank {rank}, received {axis}")
    return axis + rank if axis < 0 else axis


def product(dims: Sequence[int]) -> int:
    """Product of dims; unknown ones multiply as -1, as Fluid's inference does."""
    out = 1
    for d in dims:
        out *= d
    return out


def known(dims: Sequence[int]) -> bool:
    """Whether no dim is unknown."""
    return all(d >= 0 for d in dims)


def fit(a: int, b: int) -> bool:
    """Whether two dims can be equal (unknown ones can)."""
    return a < 0 or b < 0 or a == b


def same_rank_and_dims(specs: Sequence[Spec], what: str, skip: int = -1) -> None:
    """ShapeError unless all specs have one rank and equal dims (unknown ones fit anything; `skip` is not compared)."""
    first = specs[0].shape
    for k, s in enumerate(specs[1:], 1):
        if len(s.shape) != len(first):
            raise ShapeError(
                f"{what}: all inputs must have one rank; input 0 has shape {list(first)}, input {k} has {list(s.shape)}"
            )
        for i, (a, b) in enumerate(zip(first, s.shape)):
            if i != skip and not fit(a, b):
                raise ShapeError(
                    f"{what}: dimension {i} of all inputs must be equal; input 0 has shape {list(first)}, "
                    f"input {k} has {list(s.shape)}"
                )


def ints(t: Any) -> list[int]:
    """The numbers in a tensor of integers."""
    return [int(v) for v in t.reshape(-1).tolist()]


def ints_of(tensors: Sequence[Any]) -> list[int]:
    """The first number of each tensor."""
    return [int(t.reshape(-1)[0]) for t in tensors]


def xshape(x: Any) -> Any:
    """The XShape output: no elements, X's shape behind a 0."""
    return x.new_empty((0, *x.shape))


def xshape_spec(x: Spec) -> Spec:
    """The Spec of XShape."""
    return Spec((0, *x.shape), x.dtype)


def keep_lod_if(stays: Callable[..., bool], in_slot: str = "X", out_slot: str = "Out") -> Any:
    """LoD rule: the output takes the input's LoD when ``stays(shape of the input, attributes, inputs)``."""

    def rule(lods: dict[str, Any], attrs: dict[str, Any], ins: dict[str, Any]) -> dict[str, Any]:
        lod = lods.get(in_slot, ())
        return {out_slot: lod} if lod and stays(tuple(ins[in_slot].shape), attrs, ins) else {}

    return rule


def unary_grad(op_type: str, in_slot: str, out_slot: str, attrs: Any = None, more: Sequence[str] = ()) -> Any:
    """Gradient maker: one operator of `op_type` from the output's gradient to the input's.

    Args:
        attrs: f(op) -> attributes of the gradient operator.
        more: input slots of the forward that it also takes.
    """
    slots = {"stack": ("X", "Y")}.get(op_type, ("X", "Out"))

    def make(op: Any, out_grads: dict[str, str | None], wanted: Any) -> list[OpSpec]:
        xs, outs = op.input(in_slot), op.output(out_slot)
        if not xs or not wanted(xs[0]) or not any(out_grads.get(o) for o in outs):
            return []
        specs: list[OpSpec] = []
        grads = []
        for o in outs:
            g = out_grads.get(o)
            if g is None:
                g = grad_name(o)
                specs.append(OpSpec("fill_zeros_like", {"X": [o]}, {"Out": [g]}))
            grads.append(g)
        inputs = {slots[0]: grads, **{s: op.input(s) for s in more if op.input(s)}}
        specs.append(OpSpec(op_type, inputs, {slots[1]: [grad_name(xs[0])]}, attrs(op) if attrs else {}))
        return specs

    return make
