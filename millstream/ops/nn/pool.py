"""Pooling in two and three dimensions, with and without indices, spatial pyramids and unpooling."""

from __future__ import annotations

import math
from typing import Any

import torch

from millstream.errors import AttributeTypeError, ShapeError
from millstream.ops._opdef import op
from millstream.ops._values import Spec
from millstream.ops.nn._window import (
    CHANNELS_LAST,
    Pairs,
    channels_back,
    channels_second,
    join_layout,
    pad_input,
    positive,
    resolve,
    split_layout,
    unpad,
)

_aten = torch.ops.aten
_MAX = {2: _aten.max_pool2d_with_indices.default, 3: _aten.max_pool3d_with_indices.default}
_MAX_BACK = {2: _aten.max_pool2d_with_indices_backward.default, 3: _aten.max_pool3d_with_indices_backward.default}
_AVG = {2: _aten.avg_pool2d.default, 3: _aten.avg_pool3d.default}
_AVG_BACK = {2: _aten.avg_pool2d_backward.default, 3: _aten.avg_pool3d_backward.default}
_ADAPTIVE_MAX = {2: _aten.adaptive_max_pool2d.default, 3: _aten.adaptive_max_pool3d.default}
_ADAPTIVE_MAX_BACK = {2: _aten.adaptive_max_pool2d_backward.default, 3: _aten.adaptive_max_pool3d_backward.default}
_ADAPTIVE_AVG = {2: _aten._adaptive_avg_pool2d.default, 3: _aten._adaptive_avg_pool3d.default}
_ADAPTIVE_AVG_BACK = {2: _aten._adaptive_avg_pool2d_backward.default, 3: _aten._adaptive_avg_pool3d_backward.default}
_LOWEST = torch.finfo(torch.float32).min  # of float64 too: the maximum of a window without elements
_ONES = {2: [1, 1], 3: [1, 1, 1]}
_NONE = {2: [0, 0], 3: [0, 0, 0]}


# ---- sizes -----------------------------------------------------------------------------------------
def pool_size(size: int, k: int, pair: tuple[int, int], stride: int, ceil_mode: bool) -> int:
    """Number of windows along one dimension; -1 when `size` is unknown. With ceil_mode the last may hang over."""
    if size < 0:
        return -1
    span = size - k + pair[0] + pair[1]
    out = (span + stride - 1 if ceil_mode else span) // stride + 1
    if out <= 0:
        raise ShapeError(
            f"the pooling window does not fit: input size {size}, padding {pair}, ksize {k}, stride {stride} "
            f"give output size {out}; expected more than 0"
        )
    return out


def _infer_pool(
    x: Spec, *, pooling_type="max", ksize, strides, paddings, global_pooling, adaptive, ceil_mode=False,
    data_format="NCHW", padding_algorithm="EXPLICIT", **_: Any,
) -> Spec:  # fmt: skip
    rank = len(x.shape) - 2
    if rank not in (2, 3):
        raise ShapeError(f"X must have 4 or 5 dimensions, received {list(x.shape)}")
    if pooling_type not in ("max", "avg"):
        raise AttributeTypeError(f"pooling_type must be max or avg, received {pooling_type!r}")
    n, c, sizes = split_layout(x, data_format)
    if global_pooling:
        out = list(sizes) if adaptive else [1] * rank  # both: windows of the whole image, as many as it has elements
        return Spec(join_layout(n, c, out, data_format), x.dtype, x.lod_level)
    positive("ksize", ksize, rank)
    if adaptive:
        return Spec(join_layout(n, c, ksize, data_format), x.dtype, x.lod_level)
    positive("strides", strides, rank)
    pairs, _d = resolve(padding_algorithm, paddings, sizes, ksize, strides, [1] * rank)
    out = [pool_size(size, k, p, s, ceil_mode) for size, k, p, s in zip(sizes, ksize, pairs, strides)]
    return Spec(join_layout(n, c, out, data_format), x.dtype, x.lod_level)


def _plan(x, ksize, strides, paddings, algorithm, ceil_mode) -> tuple[Pairs, Pairs, bool]:
    """(padding pairs as asked, pairs lengthened so that floor division gives Fluid's size, whether torch takes them)."""
    rank = len(ksize)
    asked, _ = resolve(algorithm, paddings, x.shape[2:], ksize, strides, _ONES[rank])
    full = []
    plain = True
    for i, (a, b) in enumerate(asked):
        out = pool_size(x.shape[2 + i], ksize[i], (a, b), strides[i], ceil_mode)
        need = (out - 1) * strides[i] + ksize[i] - x.shape[2 + i] - a
        full.append((a, max(b, need)))
        plain = plain and a == b and need <= b and 2 * a <= ksize[i]
    return asked, full, plain


def _counts(x, ksize, strides, asked: Pairs, full: Pairs) -> torch.Tensor:
    """Number of real elements in each window, [o1, o2, …]."""
    total: Any = None
    for i, (k, s) in enumerate(zip(ksize, strides)):
        size = x.shape[2 + i]
        out = (size + sum(full[i]) - k) // s + 1
        start = torch.arange(out, device=x.device) * s - asked[i][0]
        count = (start + k).clamp(max=size) - start.clamp(min=0)
        total = count if total is None else total.unsqueeze(-1) * count
    return total.to(x.dtype)


# ---- max and average over explicit windows ------------------------------------------------------------
def _fits(paddings, ksize) -> bool:
    return all(2 * p <= k for p, k in zip(paddings, ksize))


def _max_windows(x, ksize, strides, paddings, algorithm, ceil_mode):
    """(out, flat indices into the padded input, padding pairs or None)."""
    rank = len(ksize)
    if algorithm == "EXPLICIT" and not ceil_mode and len(paddings) == rank and _fits(paddings, ksize):
        out, index = _MAX[rank](x, ksize, strides, paddings)
        return out, index, None, paddings
    asked, full, plain = _plan(x, ksize, strides, paddings, algorithm, ceil_mode)
    if plain:
        pads = [a for a, _ in asked]
        out, index = _MAX[rank](x, ksize, strides, pads)
        return out, index, None, pads
    out, index = _MAX[rank](pad_input(x, full, _LOWEST), ksize, strides, _NONE[rank])
    return out, index, full, _NONE[rank]


def _max_windows_grad(x, index, dout, ksize, strides, pads, full):
    rank = len(ksize)
    source = x if full is None else pad_input(x, full)
    dx = _MAX_BACK[rank](dout, source, ksize, strides, pads, _ONES[rank], False, index)
    return dx if full is None else unpad(dx, full)


def _avg_windows(x, ksize, strides, paddings, algorithm, ceil_mode, exclusive):
    rank = len(ksize)
    asked, full, plain = _plan(x, ksize, strides, paddings, algorithm, ceil_mode)
    if plain:
        return _AVG[rank](x, ksize, strides, [a for a, _ in asked], False, not exclusive)
    divisor = 1 if exclusive else math.prod(ksize)
    out = _AVG[rank](pad_input(x, full), ksize, strides, _NONE[rank], False, True, divisor)
    return out / _counts(x, ksize, strides, asked, full) if exclusive else out


def _avg_windows_grad(x, dout, ksize, strides, paddings, algorithm, ceil_mode, exclusive):
    rank = len(ksize)
    asked, full, plain = _plan(x, ksize, strides, paddings, algorithm, ceil_mode)
    if plain:
        return _AVG_BACK[rank](dout, x, ksize, strides, [a for a, _ in asked], False, not exclusive, None)
    divisor = 1 if exclusive else math.prod(ksize)
    if exclusive:
        dout = dout / _counts(x, ksize, strides, asked, full)
    dx = _AVG_BACK[rank](dout.contiguous(), pad_input(x, full), ksize, strides, _NONE[rank], False, True, divisor)
    return unpad(dx, full)


# ---- pool2d, pool3d --------------------------------------------------------------------------------
class _Remembered:
    """Where each maximum came from: kept with the output so that the gradient need not search again."""

    __slots__ = ("full", "index", "pads")

    def __init__(self, index: torch.Tensor, full: Any, pads: Any) -> None:
        self.index = index
        self.full = full
        self.pads = pads


def _pool(x, kind, ksize, strides, paddings, global_pooling, adaptive, ceil_mode, exclusive, layout, algorithm, remember):
    last = layout in CHANNELS_LAST
    if last:
        x = channels_second(x)
    rank = x.dim() - 2
    if global_pooling and adaptive:
        ksize, global_pooling = x.shape[2:], False
    found = None
    if kind == "avg":
        if global_pooling:
            out = x.mean([2, 3] if rank == 2 else [2, 3, 4], keepdim=True)
        elif adaptive:
            out = _ADAPTIVE_AVG[rank](x, ksize)
        else:
            out = _avg_windows(x, ksize, strides, paddings, algorithm, ceil_mode, exclusive)
    elif global_pooling:
        out, index = _ADAPTIVE_MAX[rank](x, _ONES[rank])
        found = _Remembered(index, None, None)
    elif adaptive:
        # Fluid's maximum has no adaptive form here (max_pool2d_with_index has): ksize positions of windows of ksize
        full = [(0, (k - 1) * s + k - size) for k, s, size in zip(ksize, strides, x.shape[2:])]
        out, index = _MAX[rank](pad_input(x, full, _LOWEST), ksize, strides, _NONE[rank])
        found = _Remembered(index, full, _NONE[rank])
    else:
        out, index, full, pads = _max_windows(x, ksize, strides, paddings, algorithm, ceil_mode)
        found = _Remembered(index, full, pads)
    if last:
        out = channels_back(out)
    if remember and found is not None:
        out._pooled_from = found
    return out


def _pool_grad(
    x, out, dout, kind, ksize, strides, paddings, global_pooling, adaptive, ceil_mode, exclusive, layout, algorithm
):
    last = layout in CHANNELS_LAST
    found = None
    if kind == "max":
        found = getattr(out, "_pooled_from", None)
        if found is None:  # the output came another way than from the forward of this run
            again = _pool(
                x, kind, ksize, strides, paddings, global_pooling, adaptive, ceil_mode, exclusive, layout, algorithm, True
            )
            found = again._pooled_from
    if last:
        x, dout = channels_second(x), channels_second(dout)
    rank = x.dim() - 2
    if found is not None:
        if global_pooling and not adaptive:
            dx = _ADAPTIVE_MAX_BACK[rank](dout, x, found.index)
        else:
            dx = _max_windows_grad(x, found.index, dout, ksize, strides, found.pads, found.full)
    elif global_pooling and not adaptive:
        dx = (dout / math.prod(x.shape[2:])).expand(x.shape)
    elif adaptive:
        dx = _ADAPTIVE_AVG_BACK[rank](dout, x)
    else:
        dx = _avg_windows_grad(x, dout, ksize, strides, paddings, algorithm, ceil_mode, exclusive)
    return channels_back(dx) if last else dx


@op("pool2d", slots="X -> Out", infer=_infer_pool, lod="X", amp="gray")
def pool2d(
    x,
    *,
    pooling_type: str,
    ksize: list[int],
    global_pooling: bool = False,
    strides: list[int] = [1, 1],
    paddings: list[int] = [0, 0],
    exclusive: bool = True,
    adaptive: bool = False,
    ceil_mode: bool = False,
    data_format: str = "NCHW",
    padding_algorithm: str = "EXPLICIT",
    is_test: bool = False,
):
    """Maximum or mean of each window of X [N, C, H, W] (or NHWC).

    `exclusive`: the mean is over real elements only. `adaptive`: `ksize` is the output size; the mean's window i spans
    floor(i*in/out) to ceil((i+1)*in/out), the maximum's still has size ksize, as in Fluid. `global_pooling`: one window,
    the whole image.
    """
    return _pool(
        x,
        pooling_type,
        ksize,
        strides,
        paddings,
        global_pooling,
        adaptive,
        ceil_mode,
        exclusive,
        data_format,
        padding_algorithm,
        not is_test,
    )


@op("pool2d_grad", slots="X, Out, Out@GRAD -> X@GRAD")
def pool2d_grad(
    x,
    out,
    dout,
    *,
    pooling_type: str,
    ksize: list[int],
    global_pooling: bool = False,
    strides: list[int] = [1, 1],
    paddings: list[int] = [0, 0],
    exclusive: bool = True,
    adaptive: bool = False,
    ceil_mode: bool = False,
    data_format: str = "NCHW",
    padding_algorithm: str = "EXPLICIT",
):
    return _pool_grad(
        x,
        out,
        dout,
        pooling_type,
        ksize,
        strides,
        paddings,
        global_pooling,
        adaptive,
        ceil_mode,
        exclusive,
        data_format,
        padding_algorithm,
    )


@op("pool3d", slots="X -> Out", infer=_infer_pool, lod="X", amp="gray")
def pool3d(
    x,
    *,
    pooling_type: str,
    ksize: list[int],
    global_pooling: bool = False,
    strides: list[int] = [1, 1, 1],
    paddings: list[int] = [0, 0, 0],
    exclusive: bool = True,
    adaptive: bool = False,
    ceil_mode: bool = False,
    data_format: str = "NCDHW",
    padding_algorithm: str = "EXPLICIT",
):
    """pool2d with one more spatial dimension: X [N, C, D, H, W] (or NDHWC)."""
    return _pool(
        x,
        pooling_type,
        ksize,
        strides,
        paddings,
        global_pooling,
        adaptive,
        ceil_mode,
        exclusive,
        data_format,
        padding_algorithm,
        True,
    )


@op("pool3d_grad", slots="X, Out, Out@GRAD -> X@GRAD")
def pool3d_grad(
    x,
    out,
    dout,
    *,
    pooling_type: str,
    ksize: list[int],
    global_pooling: bool = False,
    strides: list[int] = [1, 1, 1],
    paddings: list[int] = [0, 0, 0],
    exclusive: bool = True,
    adaptive: bool = False,
    ceil_mode: bool = False,
    data_format: str = "NCDHW",
    padding_algorithm: str = "EXPLICIT",
):
    return _pool_grad(
        x,
        out,
        dout,
        pooling_type,
        ksize,
        strides,
        paddings,
        global_pooling,
        adaptive,
        ceil_mode,
        exclusive,
        data_format,
        padding_algorithm,
    )
