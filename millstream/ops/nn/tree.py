"""Tree-based convolution."""

from __future__ import annotations

import torch

from millstream.errors import AttributeTypeError, ShapeError
from millstream.ops._opdef import op
from millstream.ops._values import Spec
from millstream.ops.tensor._dims import fit


def _infer(nodes: Spec, edges: Spec, w: Spec, *, max_depth) -> Spec:
    if len(nodes.shape) != 3 or len(edges.shape) != 3 or len(w.shape) != 4:
        raise ShapeError(
            f"NodesVector and EdgeSet must have 3 dimensions and Filter 4, received {list(nodes.shape)}, "
            f"{list(edges.shape)} and {list(w.shape)}"
        )
    if not fit(w.shape[1], 3) or not fit(edges.shape[2], 2):
        raise ShapeError(f"Filter must be [F, 3, O, M] and EdgeSet [N, E, 2], received {list(w.shape)}, {list(edges.shape)}")
    if min(nodes.shape[2], w.shape[0]) >= 0 and nodes.shape[2] != w.shape[0]:
        raise ShapeError(f"Filter {list(w.shape)} must start with the width of NodesVector {list(nodes.shape)}")
    if max_depth <= 0:
        raise AttributeTypeError(f"max_depth must be above 0, received {max_depth}")
    return Spec((nodes.shape[0], nodes.shape[1], w.shape[2], w.shape[3]), nodes.dtype)


def _weights(edges: torch.Tensor, n: int, max_depth: int, dtype: torch.dtype) -> torch.Tensor:
    """[n, 3, n]: how much node v counts in the window of root r, for the left, right and top filters.

    Edges are (parent, child) from 1, up to the first (0, 0). A window holds the nodes less than max_depth below its root.
    """
    children: dict[int, list[int]] = {}
    count = 1
    for parent, child in edges.tolist():
        if not parent or not child:
            break
        children.setdefault(parent, []).append(child)
        count += 1
    out = torch.zeros(n, 3, n, dtype=torch.float64)
    for root in range(1, min(count, n) + 1):
        stack = [(root, 1, 1, 0)]
        while stack:
            node, index, siblings, depth = stack.pop()
            top = (max_depth - depth) / max_depth
            left = (1 - top) * (0.5 if siblings == 1 else (index - 1) / (siblings - 1))
            out[root - 1, :, node - 1] += torch.tensor([left, (1 - top) * (1 - left), top], dtype=torch.float64)
            if depth + 1 < max_depth:
                below = children.get(node, ())
                stack.extend((c, i, len(below), depth + 1) for i, c in enumerate(below, 1))
    return out.to(dtype)


@op("tree_conv", slots="NodesVector, EdgeSet, Filter -> Out", infer=_infer, grad_lod="", nodiff="EdgeSet")
def tree_conv(nodes, edges, w, *, max_depth: int = 2):
    """Convolution over the subtree below each node with weights mixed from left, right and top (Mou et al. 2016).

    NodesVector [N, n, F], EdgeSet int [N, E, 2] (parent, child from 1, closed by zeros), Filter [F, 3, O, M];
    Out [N, n, O, M]: sum over v of NodesVector[v] (eta_l, eta_r, eta_t)(v) · Filter.
    """
    outs = []
    for x, e in zip(nodes, edges):
        mix = torch.einsum("rkv,vf->rfk", _weights(e, x.shape[0], max_depth, x.dtype), x)
        outs.append(torch.einsum("rfk,fkom->rom", mix, w))
    return torch.stack(outs)


@op("tree_conv_grad", slots="NodesVector, EdgeSet, Filter, Out@GRAD -> NodesVector@GRAD, Filter@GRAD")
def tree_conv_grad(nodes, edges, w, dout, *, want, max_depth: int = 2):
    """Filter's derivative; for NodesVector Fluid pairs the collected gradients [O*M, 3] with Filter seen as [F, 3, O*M]."""
    dw = torch.zeros_like(w) if want[1] else None
    dnodes = []
    for x, e, d in zip(nodes, edges, dout):
        weights = _weights(e, x.shape[0], max_depth, x.dtype)
        if dw is not None:
            dw = dw + torch.einsum("rfk,rom->fkom", torch.einsum("rkv,vf->rfk", weights, x), d)
        if want[0]:
            collected = torch.einsum("rkv,rc->vck", weights, d.reshape(d.shape[0], -1))
            dnodes.append(collected.reshape(x.shape[0], -1) @ w.reshape(w.shape[0], -1).t())
    return (torch.stack(dnodes) if want[0] else None), dw
