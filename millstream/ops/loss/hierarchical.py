"""hierarchical_sigmoid: a class as a path of two-way decisions through a tree."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from millstream.errors import InvalidProgramError, ShapeError
from millstream.ir.types import VarType
from millstream.ops._opdef import op
from millstream.ops._values import Spec
from millstream.ops.loss.sampled import row_grads, scored

_BOUND = 40.0  # scores are cut to this range


def _spec(x, w, label, table, code, bias, *, num_classes, is_sparse):
    if len(x.shape) != 2 or len(w.shape) != 2:
        raise ShapeError(f"X and W must have 2 dims, received {list(x.shape)} and {list(w.shape)}")
    if x.shape[1] >= 0 and w.shape[1] >= 0 and x.shape[1] != w.shape[1]:
        raise ShapeError(f"W must be as wide as X ({x.shape[1]}), received {list(w.shape)}")
    if (table is None) != (code is None):
        raise InvalidProgramError("PathTable and PathCode must be given together")
    if table is None and num_classes < 2:
        raise InvalidProgramError(f"num_classes must be at least 2, received {num_classes}")
    if table is not None and len(table.shape) != 2:
        raise ShapeError(f"PathTable and PathCode must be [N, length], received {list(table.shape)}")
    return x.like(shape=(x.shape[0], 1)), Spec((), x.dtype), None  # the length of PreOut is left open, as in Fluid


def _paths(label, table, code, num_classes):
    """Rows of W along each sample's path and the decisions there, [N, length] each; and which of them exist."""
    if table is not None:
        table, code = table.long(), code.long()
        valid = torch.cumprod((table >= 0).long(), 1).bool()
        return table.clamp_min(0), code, valid
    length = (num_classes - 1).bit_length()
    c = label.reshape(-1, 1).long() + num_classes
    j = torch.arange(length, device=label.device)
    index = (c >> (j + 1)) - 1
    return index.clamp_min(0), (c >> j) & 1, index >= 0


@op(
    "hierarchical_sigmoid",
    slots="X, W, Label, PathTable?, PathCode?, Bias? -> Out, PreOut~, W_Out~",
    infer=_spec,
    lod="Out=X", grad_lod="X",
    nodiff="Label, PathTable, PathCode",
)
def hierarchical_sigmoid(x, w, label, table, code, bias, *, num_classes: int = 2, is_sparse: bool = False):
    """Sum over the path of log(1 + exp(z)) - bit * z, z = W[node] . x + Bias[node] cut to [-40, 40] (Morin, Bengio 2005).

    X [N, D], W [C - 1, D], Bias [C - 1, 1], Label [N, 1]; Out [N, 1]; PreOut is log(1 + exp(z)), [N, longest path].
    The tree is the complete binary one (class c is leaf c + C of a heap) unless PathTable and PathCode (node rows and
    bits, -1 after the end, [N, length]) give each sample's path. Past the end of a path z is 0, which adds log 2 to Out,
    as in Fluid.
    """
    index, bits, valid = _paths(label, table, code, num_classes)
    z = scored(x, w, index)
    if bias is not None:
        z = z + bias.reshape(-1)[index]
    z = z.clamp(-_BOUND, _BOUND) * valid
    soft = F.softplus(z, threshold=100)
    return soft.sum(1, keepdim=True) - (z * (bits * valid)).sum(1, keepdim=True), soft, w


def _grad_spec(x, w, label, table, code, bias, *rest, is_sparse, **attrs):
    kind = VarType.SELECTED_ROWS if is_sparse else VarType.LOD_TENSOR
    return x, w.like(type=kind), bias


@op(
    "hierarchical_sigmoid_grad",
    slots="X, W, Label, PathTable?, PathCode?, Bias?, PreOut, Out@GRAD -> X@GRAD, W@GRAD, Bias@GRAD",
    infer=_grad_spec,
    nodiff="PreOut",
)
def hierarchical_sigmoid_grad(
    x, w, label, table, code, bias, pre, dout, *, num_classes: int = 2, is_sparse: bool = False, want
):
    """(sigmoid(z) - bit) * dOut along the path; with is_sparse, W's is SelectedRows, one row a node passed."""
    index, bits, valid = _paths(label, table, code, num_classes)
    if torch.is_grad_enabled():  # to be differentiated again: PreOut is a function of the others then
        pre = hierarchical_sigmoid(x, w, label, table, code, bias, num_classes=num_classes)[1]
    g = (-torch.expm1(-pre) - bits) * valid * dout
    dx = torch.bmm(g.unsqueeze(1), torch.embedding(w, index)).squeeze(1) if want[0] else None
    dw, dbias = row_grads(g, x, index, w, bias, is_sparse, want[1], want[2])
    if is_sparse and dw is not None:
        keep = valid.reshape(-1)
        dw.rows, dw.values = dw.rows[keep], dw.values[keep]
    return dx, dw, dbias
