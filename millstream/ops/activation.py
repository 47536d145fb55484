"""Activations: one tensor in, one out."""

from __future__ import annotations

import torch

from millstream.ops._opdef import op


@op("relu", slots="X -> Out", infer="X", lod="X")
def relu(x):
    """max(x, 0)."""
    return torch.relu(x)


@op("relu_grad", slots="Out, Out@GRAD -> X@GRAD")
def relu_grad(out, dout):
    return torch.ops.aten.threshold_backward(dout, out, 0)


@op("tanh", slots="X -> Out", infer="X", lod="X")
def tanh(x):
    """Hyperbolic tangent."""
    return torch.tanh(x)
