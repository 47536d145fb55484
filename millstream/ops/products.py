"""Other products of two tensors: kron, cross, cos_sim, conv_shift, fsp, bilinear_tensor_product."""

from __future__ import annotations

import torch

from millstream.errors import ShapeError
from millstream.ops import _flops
from millstream.ops._opdef import op
from millstream.ops._values import Spec


def _kron_spec(x: Spec, y: Spec) -> Spec:
    rank = max(len(x.shape), len(y.shape))
    a = (1,) * (rank - len(x.shape)) + tuple(x.shape)
    b = (1,) * (rank - len(y.shape)) + tuple(y.shape)
    return Spec(tuple(-1 if m < 0 or n < 0 else m * n for m, n in zip(a, b)), x.dtype)


@op("kron", slots="X, Y -> Out", infer=_kron_spec)
def kron(x, y):
    """Kronecker product; the tensor of lower rank gets leading dims of 1, Out's dims are the products."""
    return torch.kron(x, y)


def _cross_spec(x: Spec, y: Spec, *, dim: int) -> Spec:
    if len(x.shape) != len(y.shape) or any(a != b and a >= 0 and b >= 0 for a, b in zip(x.shape, y.shape)):
        raise ShapeError(f"X and Y must have the same shape, received {list(x.shape)} and {list(y.shape)}")
    rank = len(x.shape)
    if dim != NO_DIM and not -rank <= dim < rank:
        raise ShapeError(f"dim must be in [{-rank}, {rank - 1}], received {dim}")
    if dim != NO_DIM and x.shape[dim] not in (3, -1):
        raise ShapeError(f"X must have 3 elements along dim {dim}, received {list(x.shape)}")
    if dim == NO_DIM and 3 not in x.shape and -1 not in x.shape:
        raise ShapeError(f"one of X's dims must be 3, received {list(x.shape)}")
    return x


NO_DIM = 9  # the attribute's default: "the first dim of size 3"


@op("cross", slots="X, Y -> Out", infer=_cross_spec, lod="X")
def cross(x, y, *, dim: int = 9):
    """Cross product along `dim`, by default along the first dim of size 3."""
    if dim == NO_DIM:
        if 3 not in x.shape:
            raise ShapeError(f"one of X's dims must be 3, received {list(x.shape)}")
        dim = list(x.shape).index(3)
    return torch.linalg.cross(x, y, dim=dim)


@op("cross_grad", slots="X, Y, Out@GRAD -> X@GRAD, Y@GRAD")
def cross_grad(x, y, dout, *, dim: int = 9):
    """dX = Y x dOut, dY = dOut x X."""
    return cross(y, dout, dim=dim), cross(dout, x, dim=dim)


def _cos_sim_spec(x: Spec, y: Spec) -> tuple[Spec, Spec, Spec]:
    if len(x.shape) != len(y.shape) or len(x.shape) < 2:
        raise ShapeError(
            f"X and Y must have the same number of dims, at least 2, received {list(x.shape)} and {list(y.shape)}"
        )
    if any(a != b and a >= 0 and b >= 0 for a, b in zip(x.shape[1:], y.shape[1:])):
        raise ShapeError(f"X and Y must agree in all dims but the first, received {list(x.shape)} and {list(y.shape)}")
    if y.shape[0] not in (1, -1) and x.shape[0] >= 0 and x.shape[0] != y.shape[0]:
        raise ShapeError(f"Y must have 1 row or as many as X ({x.shape[0]}), received {y.shape[0]}")
    return x.like(shape=(x.shape[0], 1)), Spec((x.shape[0], 1), x.dtype), Spec((y.shape[0], 1), x.dtype)


def _rows(x: torch.Tensor) -> torch.Tensor:
    return x if x.dim() == 2 else x.reshape(x.shape[0], -1)


@op("cos_sim", slots="X, Y -> Out, XNorm~, YNorm~", infer=_cos_sim_spec, lod="X", amp="black", again=True)
def cos_sim(x, y):
    """Cosine of each row of X with the row of Y (Y may have one row for all): [N, 1]; and the rows' norms."""
    x, y = _rows(x), _rows(y)
    xnorm, ynorm = x.norm(dim=1, keepdim=True), y.norm(dim=1, keepdim=True)
    return (x * y).sum(1, keepdim=True) / xnorm / ynorm, xnorm, ynorm


@op("cos_sim_grad", slots="X, Y, Out, XNorm, YNorm, Out@GRAD -> X@GRAD, Y@GRAD")
def cos_sim_grad(x, y, out, xnorm, ynorm, dout, *, want):
    """dX = dOut * (Y / (|X| |Y|) - Out * X / |X|^2), dY likewise (summed over rows if Y has one)."""
    x2, y2 = _rows(x), _rows(y)
    scale = dout / (xnorm * ynorm)
    dx = (scale * y2 - dout * out / (xnorm * xnorm) * x2).reshape(x.shape) if want[0] else None
    if not want[1]:
        return dx, None
    dy = scale * x2 - dout * out / (ynorm * ynorm) * y2
    if y2.shape[0] != x2.shape[0]:
        dy = dy.sum(0)
    return dx, dy.reshape(y.shape)


def _conv_shift_spec(x: Spec, y: Spec) -> Spec:
    if len(x.shape) != 2 or len(y.shape) != 2:
        raise ShapeError(f"X and Y must have 2 dims, received {list(x.shape)} and {list(y.shape)}")
    if x.shape[0] >= 0 and y.shape[0] >= 0 and x.shape[0] != y.shape[0]:
        raise ShapeError(f"X and Y must have as many rows, received {x.shape[0]} and {y.shape[0]}")
    if y.shape[1] >= 0 and y.shape[1] % 2 == 0:
        raise ShapeError(f"the width of Y must be odd, received {y.shape[1]}")
    if x.shape[1] >= 0 and y.shape[1] > x.shape[1]:
        raise ShapeError(f"the width of Y must be at most that of X ({x.shape[1]}), received {y.shape[1]}")
    return x


def _shift_index(m: int, n: int, device: torch.device) -> torch.Tensor:
    """[m, n]: which element of X meets Y[k] for output j."""
    j = torch.arange(m, device=device).unsqueeze(1)
    return (j + torch.arange(n, device=device) - (n - 1) // 2) % m


@op("conv_shift", slots="X, Y -> Out", infer=_conv_shift_spec, lod="X")
def conv_shift(x, y):
    """Circular convolution of rows, X [B, M], Y [B, N] (N odd): Out[j] = sum_k X[(j + k - (N-1)/2) mod M] * Y[k].

    (Graves et al. 2014, Neural Turing Machines.)
    """
    windows = x[:, _shift_index(x.shape[1], y.shape[1], x.device)]
    return torch.einsum("bmn,bn->bm", windows, y)


def _fsp_spec(x: Spec, y: Spec) -> Spec:
    if len(x.shape) != 4 or len(y.shape) != 4:
        raise ShapeError(f"X and Y must have 4 dims, received {list(x.shape)} and {list(y.shape)}")
    for i in (0, 2, 3):
        if x.shape[i] >= 0 and y.shape[i] >= 0 and x.shape[i] != y.shape[i]:
            raise ShapeError(f"X and Y must agree in all dims but 1, received {list(x.shape)} and {list(y.shape)}")
    return Spec((x.shape[0], x.shape[1], y.shape[1]), x.dtype, x.lod_level)


@op("fsp", slots="X, Y -> Out", infer=_fsp_spec, lod="X")
def fsp(x, y):
    """Flow between two layers (Yim et al. 2017): [N, C1, H, W], [N, C2, H, W] to X Y^T / (H W), [N, C1, C2]."""
    area = x.shape[2] * x.shape[3]
    return torch.matmul(x.flatten(2), y.flatten(2).transpose(1, 2)) / area


def _bilinear_spec(x: Spec, y: Spec, w: Spec, bias: Spec | None) -> Spec:
    if len(x.shape) != 2 or len(y.shape) != 2 or len(w.shape) != 3:
        raise ShapeError(
            f"X and Y must have 2 dims, Weight 3, received {list(x.shape)}, {list(y.shape)}, {list(w.shape)}"
        )
    pairs = (
        (x.shape[0], y.shape[0], "rows of X and Y"),
        (x.shape[1], w.shape[1], "width of X and dim 1 of Weight"),
        (y.shape[1], w.shape[2], "width of Y and dim 2 of Weight"),
    )
    for a, b, what in pairs:
        if a >= 0 and b >= 0 and a != b:
            raise ShapeError(f"{what} must be equal, received {a} and {b}")
    if bias is not None and bias.shape[-1] not in (-1, w.shape[0]):
        raise ShapeError(f"Bias must be [1, {w.shape[0]}], received {list(bias.shape)}")
    return x.like(shape=(x.shape[0], w.shape[0]))


@op("bilinear_tensor_product", slots="X, Y, Weight, Bias? -> Out", infer=_bilinear_spec, lod="X",
    flops=_flops.bilinear)  # fmt: skip
def bilinear_tensor_product(x, y, w, bias):
    """Out[n, k] = X[n] Weight[k] Y[n]^T + Bias[k]: X [B, M], Y [B, N], Weight [K, M, N], Bias [1, K]."""
    k, m, n = w.shape
    left = torch.mm(x, w.permute(1, 0, 2).reshape(m, k * n)).reshape(-1, k, n)
    out = torch.matmul(left, y.unsqueeze(2)).squeeze(2)
    return out if bias is None else out + bias.reshape(1, -1)
