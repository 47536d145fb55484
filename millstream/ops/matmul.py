"""Products of matrices: mul, matmul, bmm, dot, addmm, fc."""

from __future__ import annotations

import math

import torch

from millstream.errors import InvalidProgramError, NotSupportedError, ShapeError
from millstream.kernels import pair_products
from millstream.kernels.gemm import deep_product, is_narrow, product, product_of_rows, tiles, zeros_at
from millstream.kernels.threads import numba_is_loaded
from millstream.ops import _flops
from millstream.ops._half import halved, slow_half
from millstream.ops._opdef import op
from millstream.ops._values import Spec

_GRAD = "X, Y, Out@GRAD -> X@GRAD, Y@GRAD"


# A product of few rows goes through register tiles in this thread, with or without numba at hand already; below the first
# number of multiplications the call costs more than it saves, above the others kernels/gemm.py has it shared by threads.
_TILES_FROM, _TILES_COLUMNS = 100_000, 16
_TILES_ROWS, _TILES_TO = 64, 8_000_000
_ALONE_ROWS, _ALONE_TO = 256, 64_000_000  # with one thread
# Deep products of few rows, with numba loaded or large enough to load it: two threads, oneDNN / so, GFLOP/s: [64, 6272] x
# [6272, 1024] 174 / 211, [32, 25088] x [25088, 4096] 115 / 191, [16, 4096] x [4096, 4096] 64 / 105.
_DEEP, _DEEP_WORK, _DEEP_ALWAYS = 1024, 8_000_000, 200_000_000
_PLAIN = 2048  # elements of both operands below which nothing is asked


def mm_of_rows(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """a.t() @ b."""
    if a.numel() < _PLAIN and b.numel() < _PLAIN:
        return torch.mm(a.t(), b)
    if a.dtype is torch.bfloat16 and (found := pair_products.product_of_rows(a, b)) is not None:
        return found
    return product_of_rows(a, b)


def mm(a: torch.Tensor, b: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """a @ b + bias for matrices and a vector over the columns of b."""
    m, k = a.shape
    n = b.shape[1]
    work = m * k * n
    if b.dtype is not a.dtype:  # a parameter of float32 that meets bfloat16 (skip_parameter_casts)
        found = pair_products.product(a, b, bias) if a.dtype is torch.bfloat16 else None
        return mm(a, b.to(a.dtype), bias) if found is None else found
    if (work < _TILES_FROM and not is_narrow(m, k, n)) or k != b.shape[0]:
        return torch.mm(a, b) if bias is None else torch.addmm(bias, a, b)
    if a.dtype is torch.bfloat16:
        found = pair_products.product(a, b, bias)
        return found if found is not None else torch.mm(a, b) if bias is None else torch.addmm(bias, a, b)
    deep = k >= _DEEP and n >= _TILES_COLUMNS and work >= (_DEEP_WORK if numba_is_loaded() else _DEEP_ALWAYS)
    if deep and _tiled(a, b) and m <= tiles().STRIP and _is_line(bias, n):
        return deep_product(a, b, bias)
    few = m <= _TILES_ROWS and work <= _TILES_TO
    if not few and m <= _ALONE_ROWS and work <= _ALONE_TO:
        few = torch.get_num_threads() == 1
    if few and n >= _TILES_COLUMNS and _tiled(a, b) and _is_line(bias, n):
        out = a.new_empty((m, n))
        first = zeros_at(n) if bias is None else bias.data_ptr()
        tiles().few_rows_at(a.data_ptr(), b.data_ptr(), first, out.data_ptr(), m, k, n)
        return out
    return product(a, b, bias)


def _is_line(bias: torch.Tensor | None, n: int) -> bool:
    """Whether tiles can begin their sums with it."""
    return bias is None or (bias.dtype is torch.float32 and bias.is_cpu and bias.is_contiguous() and bias.numel() == n)


def _matmul(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """torch.matmul; a product with one matrix on the right is that of all rows together."""
    if b.dim() == 2 and a.dim() >= 2 and (a.dim() == 2 or a.is_contiguous()):
        return mm(a, b) if a.dim() == 2 else mm(a.flatten(0, -2), b).view(*a.shape[:-1], b.shape[1])
    return torch.matmul(a, b)


def _tiled(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Whether the kernel of few rows can take the matrices: plain float32 in main memory, no gradient wanted."""
    return (
        a.dtype is b.dtype is torch.float32
        and type(a) is type(b) is torch.Tensor  # not a tracer's stand-in
        and a.shape[1] == b.shape[0]
        and a.is_cpu
        and b.is_cpu
        and a.is_contiguous()
        and b.is_contiguous()
        and not torch.is_grad_enabled()
    )


def _product(dims: tuple[int, ...]) -> int:
    return -1 if any(d < 0 for d in dims) else math.prod(dims)


def _check_inner(k: int, other: int, what: str, x: Spec, y: Spec) -> None:
    if k >= 0 and other >= 0 and k != other:
        raise ShapeError(
            f"{what} must be of one size, received {k} from X {list(x.shape)} and {other} from Y {list(y.shape)}"
        )


# ---- mul -------------------------------------------------------------------------------------------
def _mul_spec(x: Spec, y: Spec, *, x_num_col_dims: int, y_num_col_dims: int) -> Spec:
    for name, spec, n in (("X", x, x_num_col_dims), ("Y", y, y_num_col_dims)):
        if not 1 <= n < len(spec.shape):
            raise ShapeError(
                f"{name.lower()}_num_col_dims must be in [1, {len(spec.shape) - 1}] for {name} {list(spec.shape)}, "
                f"received {n}"
            )
    k, other = _product(x.shape[x_num_col_dims:]), _product(y.shape[:y_num_col_dims])
    _check_inner(k, other, "the trailing dims of X and the leading dims of Y", x, y)
    return x.like(shape=(*x.shape[:x_num_col_dims], *y.shape[y_num_col_dims:]))


def as_matrix(t: torch.Tensor, n: int) -> torch.Tensor:
    rank = t.dim()
    if rank == 2 and n == 1:
        return t
    if n == rank - 1 and t.is_contiguous():
        return t.flatten(0, -2)
    shape = t.shape
    return t.reshape(math.prod(shape[:n]), math.prod(shape[n:]))


@op("mul", slots="X, Y -> Out", infer=_mul_spec, lod="X", grad_lod="X, Y", traceable=True, amp="white", flops=_flops.product)
def mul(x, y, *, x_num_col_dims: int = 1, y_num_col_dims: int = 1):
    """Matrix product after X and Y are flattened to matrices: the first *_num_col_dims dims are the rows.

    Out has the shape (rows of X) + (columns of Y).
    """
    if x.dtype is torch.float16 and slow_half(x):
        return mul(x.float(), y.float(), x_num_col_dims=x_num_col_dims, y_num_col_dims=y_num_col_dims).half()
    if x.dim() == 2 and y.dim() == 2:
        return mm(x, y)
    out = mm(as_matrix(x, x_num_col_dims), as_matrix(y, y_num_col_dims))
    return out.reshape(*x.shape[:x_num_col_dims], *y.shape[y_num_col_dims:])


@op("mul_grad", slots=_GRAD)
def mul_grad(x, y, dout, *, x_num_col_dims: int = 1, y_num_col_dims: int = 1, want):
    """dX = dOut Y^T, dY = X^T dOut, on the flattened matrices."""
    if x.dtype is torch.float16 and slow_half(x):
        n, m = x_num_col_dims, y_num_col_dims
        return halved(*mul_grad(x.float(), y.float(), dout.float(), x_num_col_dims=n, y_num_col_dims=m, want=want))
    if x.dim() == 2 and y.dim() == 2:
        return mm(dout, y.t()) if want[0] else None, mm_of_rows(x, dout) if want[1] else None
    x2, y2 = as_matrix(x, x_num_col_dims), as_matrix(y, y_num_col_dims)
    d = dout.reshape(x2.shape[0], y2.shape[1])
    return (
        mm(d, y2.t()).reshape(x.shape) if want[0] else None,
        mm_of_rows(x2, d).reshape(y.shape) if want[1] else None,
    )


# ---- matmul ----------------------------------------------------------------------------------------
def _matmul_spec(x: Spec, y: Spec, *, transpose_X: bool, transpose_Y: bool, alpha: float, head_number: int) -> Spec:
    if not x.shape or not y.shape:
        raise ShapeError(f"X and Y need at least 1 dim, received {list(x.shape)} and {list(y.shape)}")
    xs = (1, *x.shape) if len(x.shape) == 1 else tuple(x.shape)
    ys = (*y.shape, 1) if len(y.shape) == 1 else tuple(y.shape)
    transpose_X, transpose_Y = transpose_X and tuple(x.shape) != (1,), transpose_Y and tuple(y.shape) != (1,)
    if transpose_X:
        xs = (*xs[:-2], xs[-1], xs[-2])
    if transpose_Y:
        ys = (*ys[:-2], ys[-1], ys[-2])
    columns = ys[-1]
    if head_number > 1:
        xs, ys = _one_head(xs, ys, head_number)
        columns = ys[-1] * head_number if ys[-1] >= 0 else -1
    _check_inner(xs[-1], ys[-2], "columns of X and rows of Y", x, y)
    a, b = xs[:-2], ys[:-2]
    if a and b and _product(a) >= 0 and _product(b) >= 0 and _product(a) != _product(b):
        raise ShapeError(
            f"the batch dims of X {list(x.shape)} and Y {list(y.shape)} must have the same size, received "
            f"{list(a)} and {list(b)}; only a matrix (2 dims) is shared over a batch"
        )
    shape = list(a or b)
    if len(x.shape) > 1 or transpose_X:
        shape.append(xs[-2])
    if len(y.shape) > 1 or transpose_Y or head_number > 1:
        shape.append(columns)
    return x.like(shape=tuple(shape) or (1,))


def _one_head(xs: tuple[int, ...], ys: tuple[int, ...], heads: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Shapes of the product of one head: Y is cut by rows like X's columns, or by columns where it has one head's rows."""
    k, n = xs[-1], ys[-1]
    if k >= 0 and k % heads:
        raise ShapeError(f"head_number {heads} must divide the {k} columns of X")
    one = k // heads if k >= 0 else -1
    if ys[-2] == k or k < 0:
        return (*xs[:-1], one), (*ys[:-2], one, n)
    if n >= 0 and n % heads:
        raise ShapeError(f"head_number {heads} must divide the {n} columns of Y, whose rows are those of one head")
    return (*xs[:-1], one), (*ys[:-1], n // heads if n >= 0 else -1)


def _matrices(x: torch.Tensor, y: torch.Tensor, tx: bool, ty: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """X and Y as they are multiplied: vectors as a row (X) and a column (Y), then transposed, batches alike."""
    if x.dim() == 1:
        x = x.unsqueeze(0)
    if y.dim() == 1:
        y = y.unsqueeze(1)
    if x.dim() > 2 and y.dim() > 2 and x.shape[:-2] != y.shape[:-2]:
        y = y.reshape(*x.shape[:-2], *y.shape[-2:])
    return x.transpose(-2, -1) if tx else x, y.transpose(-2, -1) if ty else y


@op(
    "matmul", slots="X, Y -> Out", infer=_matmul_spec, lod="X", traceable=True, amp="white", flops=_flops.batched_product,
)
def matmul(
    x, y, *, transpose_X: bool = False, transpose_Y: bool = False, alpha: float = 1.0, head_number: int = 1,
):  # fmt: skip
    """alpha * X Y over the last two dims; the dims before are a batch, over which a 2-D operand is shared.

    A vector X is a row and a vector Y a column (its dim of 1 leaves the result unless transposed; of one number always).
    `head_number` > 1: the columns of X and the rows of Y (or Y's columns, where it has the rows of one head) are cut in
    so many parts; their products stand side by side. Fluid's inference passes write it; it has no gradient.
    """
    if x.dtype is torch.float16 and slow_half(x):
        form = {"transpose_X": transpose_X, "transpose_Y": transpose_Y, "alpha": alpha, "head_number": head_number}
        return matmul(x.float(), y.float(), **form).half()
    a, b = _matrices(x, y, transpose_X, transpose_Y)
    out = _matmul(a, b) if head_number <= 1 else _by_heads(a, b, head_number)
    if head_number > 1:
        out = out.squeeze(-2) if x.dim() == 1 and not transpose_X else out
    elif x.dim() == 1 or y.dim() == 1:
        out = _drop_vector_dims(out, x, y, transpose_X, transpose_Y)
    return out if alpha == 1.0 else out * alpha


def _by_heads(a: torch.Tensor, b: torch.Tensor, heads: int) -> torch.Tensor:
    k = a.shape[-1] // heads
    rights = b.split(k, -2) if b.shape[-2] == a.shape[-1] else b.split(b.shape[-1] // heads, -1)
    return torch.cat([torch.matmul(left, right) for left, right in zip(a.split(k, -1), rights)], -1)


def _drop_vector_dims(out, x, y, tx, ty):
    tx, ty = tx and x.shape != (1,), ty and y.shape != (1,)
    if y.dim() == 1 and not ty:
        out = out.squeeze(-1)
        if x.dim() == 1 and not tx:
            return out  # [1]
    elif x.dim() == 1 and not tx:
        return out.squeeze(-2)
    return out


@op("matmul_grad", slots=_GRAD)
def matmul_grad(
    x, y, dout, *, transpose_X: bool = False, transpose_Y: bool = False, alpha: float = 1.0, head_number: int = 1, want,
):  # fmt: skip
    """dX = alpha * dOut Y^T, dY = alpha * X^T dOut, in the layout each operand came in."""
    if head_number > 1:
        raise NotSupportedError(f"matmul with head_number {head_number} is for inference: it has no gradient")
    if x.dtype is torch.float16 and slow_half(x):
        form = {"transpose_X": transpose_X, "transpose_Y": transpose_Y, "alpha": alpha}
        return halved(*matmul_grad(x.float(), y.float(), dout.float(), **form, want=want))
    a, b = _matrices(x, y, transpose_X, transpose_Y)
    batch = a.shape[:-2] or b.shape[:-2]
    d = dout.reshape(*batch, a.shape[-2], b.shape[-1])
    if alpha != 1.0:
        d = d * alpha
    dx = _operand_grad(d, b.transpose(-2, -1), False, x, transpose_X) if want[0] else None
    dy = _operand_grad(a.transpose(-2, -1), d, True, y, transpose_Y) if want[1] else None
    return dx, dy


def _operand_grad(left, right, of_right, like, transposed):
    """left @ right, summed over the batch when `like` has none, transposed back and in `like`'s shape."""
    batched = max(left.dim(), right.dim()) > 2
    if like.dim() <= 2 and batched:
        if left.dim() == right.dim() and of_right:  # fold the batch into the inner size: one large product
            m, n = left.shape[-2], right.shape[-1]
            out = mm_of_rows(left.transpose(-2, -1).reshape(-1, m), right.reshape(-1, n))
        else:
            out = torch.matmul(left, right).reshape(-1, left.shape[-2], right.shape[-1]).sum(0)
    else:
        out = _matmul(left, right)
    if transposed:
        out = out.transpose(-2, -1)
    return out if out.shape == like.shape else out.reshape(like.shape)


# ---- bmm, dot, addmm ---------------------------------------------------------------------------------
def _bmm_spec(x: Spec, y: Spec) -> Spec:
    if len(x.shape) != 3 or len(y.shape) != 3:
        raise ShapeError(f"X and Y must have 3 dims, received {list(x.shape)} and {list(y.shape)}")
    _check_inner(x.shape[0], y.shape[0], "batch sizes", x, y)
    _check_inner(x.shape[2], y.shape[1], "columns of X and rows of Y", x, y)
    return x.like(shape=(x.shape[0], x.shape[1], y.shape[2]))


@op("bmm", slots="X, Y -> Out", infer=_bmm_spec, lod="X", traceable=True, flops=_flops.batched_product)
def bmm(x, y):
    """X Y for each of a batch: [B, M, K], [B, K, N] to [B, M, N]."""
    return torch.bmm(x, y)


@op("bmm_grad", slots=_GRAD)
def bmm_grad(x, y, dout, *, want):
    """dX = dOut Y^T, dY = X^T dOut."""
    return (
        torch.bmm(dout, y.transpose(1, 2)) if want[0] else None,
        torch.bmm(x.transpose(1, 2), dout) if want[1] else None,
    )


def _dot_spec(x: Spec, y: Spec) -> Spec:
    if len(x.shape) not in (1, 2) or len(x.shape) != len(y.shape):
        raise ShapeError(f"X and Y must both have 1 or both 2 dims, received {list(x.shape)} and {list(y.shape)}")
    for a, b in zip(x.shape, y.shape):
        _check_inner(a, b, "dims", x, y)
    return x.like(shape=(*x.shape[:-1], 1))


@op("dot", slots="X, Y -> Out", infer=_dot_spec, grad_lod="X, Y")
def dot(x, y):
    """Sum of X * Y over the last dim: [N] to [1], [B, N] to [B, 1]."""
    return (x * y).sum(-1, keepdim=True, dtype=x.dtype)


@op("dot_grad", slots=_GRAD)
def dot_grad(x, y, dout, *, want):
    """dX = dOut * Y, dY = dOut * X."""
    return dout * y if want[0] else None, dout * x if want[1] else None


def _addmm_spec(given: Spec, x: Spec, y: Spec, **attrs: object) -> Spec:
    if len(x.shape) != 2 or len(y.shape) != 2 or len(given.shape) != 2:
        raise ShapeError(f"Input, X and Y must have 2 dims, received {list(given.shape)}, {list(x.shape)}, {list(y.shape)}")
    _check_inner(x.shape[1], y.shape[0], "columns of X and rows of Y", x, y)
    shape = (x.shape[0], y.shape[1])
    for g, s in zip(given.shape, shape):
        if g not in (1, -1) and s >= 0 and g != s:
            raise ShapeError(f"Input must broadcast to {list(shape)}, received {list(given.shape)}")
    return x.like(shape=shape)


@op(
    "addmm", slots="Input, X, Y -> Out", infer=_addmm_spec, lod="Input", grad_lod="Input=Out@GRAD, X, Y",
    flops=_flops.added_product,
)  # fmt: skip
def addmm(given, x, y, *, Alpha: float = 1.0, Beta: float = 1.0):
    """Alpha * X Y + Beta * Input: [M, K], [K, N] and an Input that broadcasts to [M, N]."""
    return torch.addmm(given, x, y, beta=Beta, alpha=Alpha)


@op("addmm_grad", slots="Input, X, Y, Out@GRAD -> Input@GRAD, X@GRAD, Y@GRAD")
def addmm_grad(given, x, y, dout, *, Alpha: float = 1.0, Beta: float = 1.0, want):
    """dInput = Beta * dOut (summed over what was repeated), dX = Alpha * dOut Y^T, dY = Alpha * X^T dOut."""
    dgiven = None
    if want[0]:
        dims = [i for i in (0, 1) if given.shape[i] == 1 and dout.shape[i] != 1]
        dgiven = dout.sum(dims, keepdim=True) * Beta if dims else dout * Beta
    d = dout if Alpha == 1.0 else dout * Alpha
    return dgiven, mm(d, y.t()) if want[1] else None, mm_of_rows(x, d) if want[2] else None


# ---- fc --------------------------------------------------------------------------------------------
def _fc_spec(
    x: Spec, w: Spec, bias: Spec | None, *, in_num_col_dims: int, activation_type: str, padding_weights: bool
) -> Spec:
    if len(w.shape) != 2:
        raise ShapeError(f"W must have 2 dims, received {list(w.shape)}")
    if not 1 <= in_num_col_dims < len(x.shape):
        raise ShapeError(
            f"in_num_col_dims must be in [1, {len(x.shape) - 1}] for Input {list(x.shape)}, received {in_num_col_dims}"
        )
    if activation_type not in ("", "relu"):
        raise InvalidProgramError(f"activation_type must be '' or 'relu', received {activation_type!r}")
    pad = 4 if padding_weights else 0
    rows, columns = (d - pad if d >= 0 else d for d in w.shape)
    _check_inner(_product(x.shape[in_num_col_dims:]), rows, "the trailing dims of Input and the rows of W", x, w)
    if bias is not None and columns >= 0 and _product(bias.shape) not in (-1, columns):
        raise ShapeError(f"Bias must have {columns} elements, received {list(bias.shape)}")
    return x.like(shape=(*x.shape[:in_num_col_dims], columns))


@op("fc", slots="Input, W, Bias? -> Out", infer=_fc_spec, lod="Input", flops=_flops.dense_layer)
def fc(x, w, bias, *, in_num_col_dims: int = 1, activation_type: str = "", padding_weights: bool = False):
    """Input W + Bias, then relu if asked; Input is flattened after `in_num_col_dims` dims.

    padding_weights: W carries 4 more rows and columns that take no part.
    """
    if padding_weights:
        w = w[:-4, :-4]
    x2 = as_matrix(x, in_num_col_dims)
    out = mm(x2, w, bias if bias is None or bias.dim() == 1 else bias.reshape(-1))
    if activation_type == "relu":
        out = torch.relu(out) if out.requires_grad else out.relu_()
    return out if x.dim() == 2 else out.reshape(*x.shape[:in_num_col_dims], w.shape[1])
