"""Text matching and focus masks: match_matrix_tensor, similarity_focus."""

from __future__ import annotations

import numpy as np
import torch

from millstream.errors import AttributeTypeError, EnforceNotMet, ShapeError
from millstream.ops._opdef import op
from millstream.ops._values import Ragged, Spec


def _infer_match(x: Spec, y: Spec, w: Spec, *, dim_t) -> tuple[Spec, Spec]:
    if len(x.shape) != 2 or len(y.shape) != 2:
        raise ShapeError(f"X and Y must have 2 dimensions, received {list(x.shape)} and {list(y.shape)}")
    if w.shape != (x.shape[1], dim_t, y.shape[1]):
        raise ShapeError(f"W must have shape [{x.shape[1]}, {dim_t}, {y.shape[1]}], received {list(w.shape)}")
    return Spec((-1, 1), x.dtype, x.lod_level), Spec((-1, 1), x.dtype)


@op("match_matrix_tensor", slots="X#, Y#, W -> Out#, Tmp", infer=_infer_match)
def match_matrix_tensor(x, y, w, *, dim_t: int = 1):
    """Out_i[t, a, b] = X_i[a] W[:, t, :] Y_i[b]^T for each pair of sequences (Wan et al. 2016, arXiv:1604.04378).

    X [sum l, D1], Y [sum r, D2] with LoD, W [D1, dim_t, D2]; Out holds dim_t * l_i * r_i numbers a pair, [., 1];
    Tmp = X W, flat.
    """
    if len(x.offsets) != len(y.offsets):
        raise EnforceNotMet(
            f"match_matrix_tensor: X has {len(x.offsets) - 1} sequences and Y {len(y.offsets) - 1}; expected as many"
        )
    d1, d2 = x.values.shape[1], w.shape[2]
    rights = y.values
    if d2 > d1:  # Fluid takes both widths to be X's: it reads the front of W and Y as if they were that narrow
        w, d2 = w.reshape(-1)[: d1 * dim_t * d1].reshape(d1, dim_t, d1), d1
        rights = rights.reshape(-1)[: rights.shape[0] * d1].reshape(-1, d1)
    tmp = x.values @ w.reshape(d1, -1)
    parts, ends = [], [0]
    for i in range(len(x.offsets) - 1):
        left = tmp[int(x.offsets[i]) : int(x.offsets[i + 1])].reshape(-1, dim_t, d2)
        right = rights[int(y.offsets[i]) : int(y.offsets[i + 1])]
        part = torch.matmul(left.transpose(0, 1), right.t()).reshape(-1)
        parts.append(part)
        ends.append(ends[-1] + part.numel())
    out = torch.cat(parts) if parts else tmp.new_zeros(0)
    return Ragged(out.reshape(-1, 1), (np.array(ends, dtype=np.int64),)), tmp.reshape(-1, 1)


def _infer_focus(x: Spec, *, axis, indexes) -> Spec:
    if len(x.shape) != 4:
        raise ShapeError(f"X must have 4 dimensions, received {list(x.shape)}")
    if axis not in (1, 2, 3):
        raise AttributeTypeError(f"axis must be 1, 2 or 3, received {axis}")
    if not indexes:
        raise AttributeTypeError("indexes must name at least one slice, received []")
    if x.shape[axis] >= 0 and any(not 0 <= i < x.shape[axis] for i in indexes):
        raise ShapeError(
            f"indexes must be below {x.shape[axis]}, the size of X {list(x.shape)} at axis {axis}; received {indexes}"
        )
    return x


@op("similarity_focus", slots="X -> Out", infer=_infer_focus, lod="X", grad=False)
def similarity_focus(x, *, axis: int, indexes: list[int]):
    """A 0/1 mask of the shape of X [N, A, B, C] (He and Lin 2016, pairwise word interaction).

    For each named slice along `axis`, its largest elements are picked greedily so that no two share a row or a column,
    until one of the two is used up; the mask is 1 at those positions, for all of `axis`, joined over the slices.
    """
    moved = x.movedim(axis, 1)
    n, _, rows, cols = moved.shape
    mask = np.zeros((n, rows, cols), dtype=bool)
    for image in range(n):
        for index in indexes:
            plane = moved[image, index]
            order = torch.argsort(plane.reshape(-1), descending=True, stable=True).numpy()
            free_row, free_col = np.ones(rows, dtype=bool), np.ones(cols, dtype=bool)
            left = min(rows, cols)
            for at in order:
                r, c = divmod(int(at), cols)
                if free_row[r] and free_col[c]:
                    mask[image, r, c] = True
                    free_row[r] = free_col[c] = False
                    left -= 1
                    if not left:
                        break
    return torch.from_numpy(mask).to(x.dtype).unsqueeze(1).expand(moved.shape).movedim(1, axis).contiguous()
