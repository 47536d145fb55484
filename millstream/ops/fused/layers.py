"""A dense layer of a training step as one operator: product, bias, activation. Plans make it (passes/training)."""

from __future__ import annotations

from collections.abc import Callable

import torch

from millstream.kernels.gemm import LEAST, activated_product
from millstream.kernels.layer_gradients import layer_gradients, layer_step
from millstream.ops import _flops
from millstream.ops._opdef import op
from millstream.ops._values import Spec
from millstream.ops.activation import relu_grad, sigmoid_grad, tanh_, tanh_grad
from millstream.ops.matmul import as_matrix, mm, mm_of_rows
from millstream.ops.optim import captured
from millstream.ops.optim._sparse import scalar

_IN_PLACE: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "relu": torch.relu_, "sigmoid": torch.sigmoid_, "tanh": tanh_,
}  # fmt: skip
_BACK: dict[str, Callable[..., torch.Tensor]] = {"relu": relu_grad, "sigmoid": sigmoid_grad, "tanh": tanh_grad}
ACTIVATIONS = tuple(_IN_PLACE)


def _spec(x: Spec, w: Spec, bias: Spec, *, rows: int, activation: str) -> Spec:
    return x.like(shape=(*x.shape[:rows], w.shape[1]))


_TRACED = {"": None, "relu": torch.relu, "sigmoid": torch.sigmoid, "tanh": torch.tanh}


def _traced(x, w, bias, *, rows: int = 1, activation: str = ""):
    """The layer by torch's own calls, for up to LEAST multiplications."""
    if x.numel() * w.shape[1] > LEAST:
        return None
    out, act = torch.addmm(bias, as_matrix(x, rows), w), _TRACED[activation]
    if act is not None:
        out = act(out)
    return out if x.dim() == 2 else out.view(*x.shape[:rows], w.shape[1])


@op(
    "dense_layer", slots="X, W, Bias -> Out", infer=_spec, lod="X", grad_lod="X, W", flops=_flops.dense_layer,
    traced=_traced,
)  # fmt: skip
def dense_layer(x, w, bias, *, rows: int = 1, activation: str = ""):
    """activation(X W + Bias); X is flattened to a matrix, its first `rows` dims are the rows. W [in, out], Bias [out]."""
    x2 = as_matrix(x, rows)
    out = activated_product(x2, w, bias, activation) if activation else None
    if out is None:
        out = mm(x2, w, bias)
        if activation:
            out = _IN_PLACE[activation](out)
    return out if x.dim() == 2 else out.reshape(*x.shape[:rows], w.shape[1])


@op(
    "dense_layer_grad", slots="X, W, Out?, Out@GRAD -> X@GRAD, W@GRAD, Bias@GRAD",
    infer=lambda x, w, out, dout, **_: (x, w, w.like(shape=w.shape[1:])),
)  # fmt: skip
def dense_layer_grad(x, w, out, dout, *, rows: int = 1, activation: str = "", behind: str = "", want):
    """With d = dOut * activation': dX = d W^T, dW = X^T d, dBias = the sum of the rows of d. Out only with an activation.

    behind: the activation whose result X is; dX is that of what was activated then.
    """
    x2, d = as_matrix(x, rows), _behind(out, as_matrix(dout, rows), rows, activation)
    dx, dw, sums = _gradients(x2, w, d, want, behind)
    return dx if dx is None or x.dim() == 2 else dx.reshape(x.shape), dw, sums


def _behind(out, d, rows, activation):
    """The gradient of the sum from that of its activation."""
    return _BACK[activation](as_matrix(out, rows), d) if activation else d


def _gradients(x2, w, d, want, behind):
    found = layer_gradients(x2, w, d, want, behind)
    if found is not None:
        return found
    dx = mm(d, w.t()) if want[0] else None
    if want[0] and behind:
        dx = _BACK[behind](x2, dx)
    return dx, mm_of_rows(x2, d) if want[1] else None, d.sum(0) if want[2] else None


def _captured_step(x, w, out, dout, lr, *, rows: int = 1, activation: str = "", behind: str = "", want):
    x2, d = as_matrix(x, rows), _behind(out, as_matrix(dout, rows), rows, activation)
    dx, dw, sums = _gradients(x2, w, d, (want[0], True, want[1]), behind)
    return dx if dx is None else dx.reshape(x.shape), sums, captured.sgd(w, lr, dw)


@op(
    "dense_layer_step", slots="X, W, Out?, Out@GRAD, LearningRate -> X@GRAD, Bias@GRAD, WOut", lod="X@GRAD=X",
    infer=lambda x, w, out, dout, lr, **_: (x, w.like(shape=w.shape[1:]), w), grad=False, captured=_captured_step,
    flops=_flops.dense_layer_step,
)  # fmt: skip
def dense_layer_step(x, w, out, dout, lr, *, rows: int = 1, activation: str = "", behind: str = "", want):
    """dense_layer_grad and sgd of W in one: W moves in place, and its gradient is nowhere kept."""
    x2, d = as_matrix(x, rows), _behind(out, as_matrix(dout, rows), rows, activation)
    rate = scalar(lr)
    found = layer_step(x2, w, d, rate, (want[0], want[1]), behind)
    if found is None:
        dx, dw, sums = _gradients(x2, w, d, (want[0], True, want[1]), behind)
        w.add_(dw, alpha=-rate)
    else:
        dx, sums = found
    return dx if dx is None or x.dim() == 2 else dx.reshape(x.shape), sums, w
