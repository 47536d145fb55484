"""A map whose channels are scaled, a sum and a relu, as one operator: squeeze-and-excitation's end of a residual block.

Plans make it (passes/training/fuse_scaled_sum.py); Programs do not have it.
"""

from __future__ import annotations

from typing import Any

import torch

from millstream.errors import ShapeError
from millstream.ops import _scaled_maps
from millstream.ops._broadcast import align, broadcast_spec, reduce_like
from millstream.ops._opdef import op
from millstream.ops._values import Spec


def _infer(x: Spec, scale: Spec, residual: Spec, *, axis: int) -> Any:
    return broadcast_spec(x, scale, axis=axis)


@op("scaled_sum_relu", slots="X, Scale, Residual -> Out", infer=_infer, lod="X")
def scaled_sum_relu(x, scale, residual, *, axis: int = -1):
    """Out = relu(X * Scale + Residual); Scale is spread over X as elementwise_mul does, Residual has Out's shape."""
    xa, sa = align(x, scale, axis)
    found = _scaled_maps.relu_of_sum(xa, sa, residual)
    if found is not None:
        return found
    product = xa * sa
    if product.shape != residual.shape:
        raise ShapeError(
            f"what is added to a scaled map was declared with its shape {list(product.shape)}, received "
            f"{list(residual.shape)}; take 'fuse_scaled_sum' out of Executor.passes to have it spread"
        )
    return torch.relu(product + residual)


@op("scaled_sum_relu_grad", slots="X, Scale, Out, Out@GRAD -> X@GRAD, Scale@GRAD, Residual@GRAD")
def scaled_sum_relu_grad(x, scale, out, dout, *, axis: int = -1, want):
    """With dZ = dOut where Out > 0: dResidual = dZ, dX = dZ * Scale, dScale = dZ * X, both summed where they were spread."""
    xa, sa = align(x, scale, axis)
    found = _scaled_maps.back_of_sum(xa, sa, out, dout)
    if found is not None:
        return found[0], found[1].reshape(scale.shape), found[2]
    dz = torch.ops.aten.leaky_relu_backward(dout, out, 0.0, True)
    dx = reduce_like(dz * sa, x, axis) if want[0] else None
    return dx, (reduce_like(dz * xa, scale, axis) if want[1] else None), dz
