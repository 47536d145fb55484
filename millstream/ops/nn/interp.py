"""Resizing of images by interpolation: nearest, bilinear, trilinear, bicubic."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from millstream.errors import AttributeTypeError, EnforceNotMet, ShapeError
from millstream.ops._opdef import op
from millstream.ops._values import Spec
from millstream.ops.nn._interp_rows import linear_gradient
from millstream.ops.nn._window import CHANNELS_LAST, check_layout, join_layout, split_layout

_SLOTS = "X, OutSize?, SizeTensor?*, Scale? -> Out"
_GRAD_SLOTS = "X, OutSize?, SizeTensor?*, Scale?, Out@GRAD -> X@GRAD"


_METHODS = {2: ("nearest", "bilinear", "bicubic"), 3: ("trilinear",)}


def _check_method(method: str, rank: int) -> None:
    if method not in _METHODS[rank]:
        raise AttributeTypeError(
            f"interp_method must be {' or '.join(_METHODS[rank])} for {rank} spatial dimensions, received {method!r}"
        )


def _layout(layout: str) -> str:
    """Where the channels are; as in 1.8.5 last with AnyLayout."""
    check_layout(layout)
    return "NHWC" if layout == "AnyLayout" else layout


# ---- sizes -----------------------------------------------------------------------------------------------
def _infer(rank: int) -> Any:
    def infer(
        x: Spec, out_size: Spec | None, size_tensor: list[Spec], scale_tensor: Spec | None, *, data_layout, scale,
        out_d=0, out_h=0, out_w=0, interp_method, align_corners, align_mode,
    ) -> Spec:  # fmt: skip
        if len(x.shape) != rank + 2:
            raise ShapeError(f"X must have {rank + 2} dimensions for interpolation over {rank}, received {list(x.shape)}")
        _check_method(interp_method, rank)
        if align_mode not in (0, 1):
            raise AttributeTypeError(f"align_mode must be 0 or 1, received {align_mode}")
        data_layout = _layout(data_layout)
        n, c, sizes = split_layout(x, data_layout)
        given = [out_d, out_h, out_w][3 - rank :]
        if size_tensor:
            if len(size_tensor) != rank:
                raise ShapeError(f"SizeTensor must be {rank} variables, received {len(size_tensor)}")
            out = given
        elif scale_tensor is not None:
            out = [-1] * rank
        elif scale > 0:
            out = [(int(np.float32(d) * np.float32(scale)) or -1) if d > 0 else -1 for d in sizes]
        else:
            out = given
        if out_size is not None and not size_tensor and (len(out_size.shape) != 1 or out_size.shape[0] not in (rank, -1)):
            raise ShapeError(f"OutSize must have shape [{rank}], received {list(out_size.shape)}")
        return Spec(join_layout(n, c, out, data_layout), x.dtype)

    return infer


def _lod(lods: dict[str, Any], attrs: dict[str, Any], ins: dict[str, Any]) -> dict[str, Any]:
    """X's where OutSize decides; in the other forms the LoD is dropped."""
    return {"Out": lods.get("X", ())} if ins.get("OutSize") is not None and not ins.get("SizeTensor") else {}


def _target(sizes, out_size, size_tensor, scale_tensor, given, scale) -> list[int]:
    """The output size: SizeTensor, else OutSize, else Scale (or `scale`), else the attributes."""
    if size_tensor:
        out = [int(t.reshape(-1)[0]) for t in size_tensor]
    else:
        if scale_tensor is not None:
            scale = float(scale_tensor.reshape(-1)[0])
        out = [int(np.float32(s) * np.float32(scale)) for s in sizes] if scale > 0 else list(given)
        if out_size is not None:
            out = [int(v) for v in out_size.reshape(-1)]
    if any(s <= 0 for s in out):
        raise EnforceNotMet(f"interpolation: the output size must be positive, received {out} for input size {list(sizes)}")
    return out


# ---- indices and weights along one axis ------------------------------------------------------------------
def _ratio(size: int, out: int, align_corners: bool) -> np.float32:
    if align_corners:
        return np.float32(size - 1) / np.float32(out - 1) if out > 1 else np.float32(0)
    return np.float32(size) / np.float32(out)


def _nearest_index(size: int, out: int, align_corners: bool) -> torch.Tensor:
    at = _ratio(size, out, align_corners) * np.arange(out, dtype=np.float32)
    index = (at + np.float32(0.5 if align_corners else 0)).astype(np.int64)
    return torch.from_numpy(np.minimum(index, size - 1))


def _linear_index(size: int, out: int, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """align_mode 1: source position ratio * i; (low index, high index, weight of high)."""
    at = _ratio(size, out, False) * np.arange(out, dtype=np.float32)
    low = np.minimum(at.astype(np.int64), size - 1)
    weight = torch.from_numpy(at - low.astype(np.float32)).to(dtype)
    return torch.from_numpy(low), torch.from_numpy(np.minimum(low + 1, size - 1)), weight


def _linear(x: torch.Tensor, out: list[int]) -> torch.Tensor:
    for axis, size in enumerate(out, 2):
        low, high, weight = _linear_index(x.shape[axis], size, x.dtype)
        weight = weight.view(-1, *[1] * (x.dim() - 1 - axis))
        x = torch.lerp(x.index_select(axis, low), x.index_select(axis, high), weight)
    return x


def _linear_grad(dout: torch.Tensor, sizes: list[int]) -> torch.Tensor:
    for axis in range(dout.dim() - 1, 1, -1):
        low, high, weight = _linear_index(sizes[axis - 2], dout.shape[axis], dout.dtype)
        weight = weight.view(-1, *[1] * (dout.dim() - 1 - axis))
        shape = [*dout.shape[:axis], sizes[axis - 2], *dout.shape[axis + 1 :]]
        dx = dout.new_zeros(shape).index_add_(axis, low, dout * (1 - weight))
        dout = dx.index_add_(axis, high, dout * weight)
    return dout


# ---- an output of size 1 -----------------------------------------------------------------------------------
def _single(x: torch.Tensor, out: list[int], align_corners: bool) -> list[int]:
    """Axes that shrink to 1: there Fluid's ratio is 0, so that it reads at the very start of the axis."""
    return [] if align_corners else [a for a, size in enumerate(out, 2) if size == 1 and x.shape[a] > 1]


# bicubic reads at -0.5: its four taps with a = -0.75 are elements 0, 0, 0 and 1
_FIRST, _SECOND = 1.09375, -0.09375


def _collapse(x: torch.Tensor, out: list[int], method: str, align_corners: bool) -> torch.Tensor:
    for axis in _single(x, out, align_corners):
        first = x.narrow(axis, 0, 1)
        x = first * _FIRST + x.narrow(axis, 1, 1) * _SECOND if method == "bicubic" else first
    return x


def _collapse_grad(dy: torch.Tensor, x: torch.Tensor, out: list[int], method: str, align_corners: bool) -> torch.Tensor:
    for axis in reversed(_single(x, out, align_corners)):
        dx = dy.new_zeros([*dy.shape[:axis], x.shape[axis], *dy.shape[axis + 1 :]])
        if method == "bicubic":
            dx.narrow(axis, 0, 1).copy_(dy * _FIRST)
            dx.narrow(axis, 1, 1).copy_(dy * _SECOND)
        else:
            dx.narrow(axis, 0, 1).copy_(dy)
        dy = dx
    return dy


# ---- running ----------------------------------------------------------------------------------------------
def _resize(x, method, out, align_corners, align_mode):
    if not x.is_floating_point() and method != "nearest":
        return _resize_integers(x, out, align_corners, align_mode)
    if method == "nearest":
        if not align_corners:
            return F.interpolate(x, out, mode="nearest")
        for axis, size in enumerate(out, 2):
            x = x.index_select(axis, _nearest_index(x.shape[axis], size, True))
        return x
    if method == "bicubic" or align_corners or align_mode == 0:
        return F.interpolate(x, out, mode=method, align_corners=align_corners)
    return _linear(x, out)


def _taps(size: int, out: int, align_corners: bool, align_mode: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """(indices, float32 weights) of the lower and the upper element along one axis, rounded where Fluid rounds."""
    ratio = _ratio(size, out, align_corners) if out > 1 else np.float32(0)
    if align_mode == 0 and not align_corners:
        at = np.maximum(np.float64(ratio) * (np.arange(out) + 0.5) - 0.5, 0)
    else:
        at = ratio * np.arange(out, dtype=np.float32)
    low = at.astype(np.int64)
    upper = at.astype(np.float32) - low.astype(np.float32)
    taps = ((low, np.float32(1) - upper), (np.minimum(low + 1, size - 1), upper))
    return [(torch.from_numpy(index), torch.from_numpy(weight)) for index, weight in taps]


def _resize_integers(x, out, align_corners, align_mode):
    """uint8: the products of all taps, added in Fluid's order, then cut off (a rounding decides about the last digit)."""
    axes = [_taps(x.shape[2 + i], size, align_corners, align_mode) for i, size in enumerate(out)]
    total = None
    for chosen in _corners(len(out)):
        value = x.to(torch.float32)
        for axis, (taps, upper) in enumerate(zip(axes, chosen), 2):
            value = value.index_select(axis, taps[upper][0])
        for axis, (taps, upper) in enumerate(zip(axes, chosen), 2):
            value = value * taps[upper][1].view(-1, *[1] * (x.dim() - 1 - axis))
        total = value if total is None else total + value
    return total.to(x.dtype)


def _corners(rank: int) -> list[tuple[int, ...]]:
    """Which tap of each axis, in the order in which they are added: the first axis runs fastest over images."""
    if rank == 2:
        return [(0, 0), (1, 0), (0, 1), (1, 1)]
    return list(itertools.product((0, 1), repeat=rank))


def _resize_grad(x, dout, method, align_corners, align_mode):
    sizes, out = list(x.shape[2:]), list(dout.shape[2:])
    if method == "nearest" and align_corners:
        for axis in range(dout.dim() - 1, 1, -1):
            index = _nearest_index(sizes[axis - 2], dout.shape[axis], True)
            shape = [*dout.shape[:axis], sizes[axis - 2], *dout.shape[axis + 1 :]]
            dout = dout.new_zeros(shape).index_add_(axis, index, dout)
        return dout
    if method in ("bilinear", "trilinear"):
        found = linear_gradient(dout, sizes, align_corners, align_mode)
        if found is not None:
            return found
        if not align_corners and align_mode != 0:
            return _linear_grad(dout, sizes)
    dout = dout.contiguous()
    backward = _BACKWARD[method, len(sizes)]
    if method == "nearest":
        return backward(dout, out, list(x.shape), *[None] * len(sizes))
    return backward(dout, out, list(x.shape), align_corners, *[None] * len(sizes))


_aten = torch.ops.aten
_BACKWARD: dict[tuple[str, int], Any] = {
    ("nearest", 2): _aten.upsample_nearest2d_backward.default,
    ("bilinear", 2): _aten.upsample_bilinear2d_backward.default,
    ("trilinear", 3): _aten.upsample_trilinear3d_backward.default,
    ("bicubic", 2): _aten.upsample_bicubic2d_backward.default,
}


def _interp(x, target, method, layout, align_corners, align_mode):
    last = _layout(layout) in CHANNELS_LAST
    if last:
        x = x.movedim(-1, 1)
    out = _target(x.shape[2:], *target)
    y = _collapse(x, out, method, align_corners)
    if out != list(y.shape[2:]):
        y = _resize(y, method, out, align_corners, align_mode)
    return y.movedim(1, -1) if last else y


def _interp_grad(x, dout, method, layout, align_corners, align_mode):
    last = _layout(layout) in CHANNELS_LAST
    if last:
        x, dout = x.movedim(-1, 1), dout.movedim(-1, 1)
    out = list(dout.shape[2:])
    y = _collapse(x, out, method, align_corners)
    dx = dout if y.shape == dout.shape else _resize_grad(y, dout, method, align_corners, align_mode)
    dx = _collapse_grad(dx, x, out, method, align_corners)
    return dx.movedim(1, -1) if last else dx


def _declare(name: str, rank: int, doc: str) -> None:
    def forward(
        x,
        out_size,
        size_tensor,
        scale_tensor,
        *,
        data_layout: str = "NCHW",
        out_d: int = 0,
        out_h: int = 0,
        out_w: int = 0,
        scale: float = 0.0,
        interp_method: str = "bilinear",
        align_corners: bool = True,
        align_mode: int = 1,
    ):
        _check_method(interp_method, rank)
        given = [out_d, out_h, out_w][3 - rank :]
        target = (out_size, size_tensor, scale_tensor, given, scale)
        return _interp(x, target, interp_method, data_layout, align_corners, align_mode)

    def backward(
        x,
        out_size,
        size_tensor,
        scale_tensor,
        dout,
        *,
        data_layout: str = "NCHW",
        interp_method: str = "bilinear",
        align_corners: bool = True,
        align_mode: int = 1,
    ):
        return _interp_grad(x, dout, interp_method, data_layout, align_corners, align_mode)

    forward.__doc__ = doc
    nodiff = "OutSize, SizeTensor, Scale"
    op(name, slots=_SLOTS, shares=True, infer=_infer(rank), lod=_lod, nodiff=nodiff)(forward)
    op(name + "_grad", slots=_GRAD_SLOTS)(backward)


_SIZES = """

    X [N, C, H, W] (NHWC by `data_layout`). The output size is SizeTensor, else OutSize, else the input's times Scale or
    `scale`, else out_h and out_w. With `align_corners` the ratio is (in - 1) / (out - 1), else in / out. As in 1.8.5,
    `interp_method` decides whatever the operator's name is, and is bilinear where it is not given."""
_declare(
    "nearest_interp", 2, "The element at floor(ratio * i), or round(ratio * i) with `align_corners`." + _SIZES
)
_declare(
    "bilinear_interp",
    2,
    "Bilinear interpolation at ratio * i; without `align_corners`, align_mode 0 reads at ratio * (i + 0.5) - 0.5." + _SIZES,
)
_declare("trilinear_interp", 3, "bilinear_interp with one more dimension (out_d): X [N, C, D, H, W]." + _SIZES)
_declare(
    "bicubic_interp",
    2,
    "Cubic convolution with a = -0.75 (Keys 1981); reads at ratio * (i + 0.5) - 0.5 without `align_corners`." + _SIZES,
)
