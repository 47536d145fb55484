"""Elementwise operators with an activation, chains of fully connected layers, and the product trick of FM."""

from __future__ import annotations

import torch

from millstream.errors import AttributeTypeError, ShapeError
from millstream.ops import _flops
from millstream.ops._broadcast import align, broadcast_shape
from millstream.ops._opdef import op
from millstream.ops.matmul import fc
from millstream.ops.tensor._dims import fit

BINARY = ("elementwise_add", "elementwise_mul")
UNARY = ("scale", "relu", "tanh", "sigmoid")


def _unary(name: str, t: torch.Tensor, scale: float) -> torch.Tensor:
    return t * scale if name == "scale" else getattr(torch, name)(t)


def _binary(name: str, x: torch.Tensor, y: torch.Tensor, axis: int) -> torch.Tensor:
    x, y = align(x, y, axis)
    return x + y if name == "elementwise_add" else x * y


def _fused_spec(x, y, *, axis, scale, save_intermediate_out, functor_list):
    kinds = [("binary" if f in BINARY else "unary" if f in UNARY else None) for f in functor_list]
    if sorted(k or "" for k in kinds) != ["binary", "unary"]:
        raise AttributeTypeError(
            f"functor_list must be one of {', '.join(BINARY)} and one of {', '.join(UNARY)}, in either order, received "
            f"{functor_list}"
        )
    out = x.like(shape=broadcast_shape(tuple(x.shape), tuple(y.shape), axis))
    return out, (out if kinds[0] == "unary" else y)


@op("fused_elemwise_activation", slots="X, Y -> Out, IntermediateOut~", infer=_fused_spec, lod="Out=X", grad_lod="X, Y")
def fused_elemwise_activation(
    x, y, *, axis: int = -1, scale: float = 0.0, save_intermediate_out: bool = False, functor_list: list[str],
):
    """Binary(X, Unary(Y)) for functor_list [binary, unary], Unary(Binary(X, Y)) for [unary, binary].

    binary: elementwise_add, elementwise_mul (broadcast at `axis`); unary: scale, relu, tanh, sigmoid.
    IntermediateOut: the inner result.
    """
    outer, inner = functor_list
    if outer in BINARY:
        middle = _unary(inner, y, scale)
        return _binary(outer, x, middle, axis), middle
    middle = _binary(inner, x, y, axis)
    return _unary(outer, middle, scale), middle


def _repeated_spec(x, ws, biases):
    if len(ws) != len(biases) or len(ws) < 2:
        raise ShapeError(f"W and Bias must be lists of one length, at least 2, received {len(ws)} and {len(biases)}")
    width, rows = x.shape[-1], x.shape[0]
    outs = []
    for w, b in zip(ws, biases):
        if len(w.shape) != 2 or (width >= 0 and w.shape[0] >= 0 and w.shape[0] != width):
            raise ShapeError(f"each W must fit the layer before it, of width {width}, received {list(w.shape)}")
        width = w.shape[1]
        if not fit(b.shape[-1], width):
            raise ShapeError(f"Bias must be [{width}] for W {list(w.shape)}, received {list(b.shape)}")
        outs.append(x.like(shape=(rows, width)))
    return outs[:-1], outs[-1]


@op("fusion_repeated_fc_relu", slots="X, W*, Bias* -> ReluOut*~, Out", infer=_repeated_spec, lod="Out=X", grad=False,
    flops=_flops.repeated_layers)  # fmt: skip
def fusion_repeated_fc_relu(x, ws, biases):
    """relu(… relu(X W_0 + b_0) … W_n + b_n); ReluOut: the results before the last."""
    outs = []
    for w, b in zip(ws, biases):
        x = fc(x, w, b, activation_type="relu")
        outs.append(x)
    return outs[:-1], x


def _squared_spec(x, y, *, scalar):
    if len(x.shape) != 2 or len(y.shape) != 2 or (min(x.shape[1], y.shape[0]) >= 0 and x.shape[1] != y.shape[0]):
        raise ShapeError(f"X must be [M, K] and Y [K, N], received {list(x.shape)} and {list(y.shape)}")
    out = x.like(shape=(x.shape[0], y.shape[1]))
    return x, y, out, out


@op(
    "fusion_squared_mat_sub", slots="X, Y -> SquaredX~, SquaredY~, SquaredXY~, Out", infer=_squared_spec, grad=False,
    flops=_flops.squared_products,
)
def fusion_squared_mat_sub(x, y, *, scalar: float = 1.0):
    """((X Y)^2 - X^2 Y^2) * scalar, squares elementwise: the pairwise term of factorization machines (Rendle 2010)."""
    x2, y2 = x * x, y * y
    xy2 = (x @ y).square_()
    return x2, y2, xy2, (xy2 - x2 @ y2) * scalar
