"""Copies, casts and linear maps of single tensors, and the sum of many."""

from __future__ import annotations

from typing import Any

import torch

from millstream.errors import ShapeError
from millstream.ir.names import grad_name
from millstream.ir.types import VarType, to_var_type
from millstream.ops._opdef import DType, OpSpec, op
from millstream.ops._values import Ragged, SelectedRows, Spec, TensorArray, torch_dtype
from millstream.ops.tensor._dims import fit, unary_grad


@op("assign", slots="X? -> Out", shares=True, infer="X", lod="X", grad=unary_grad("assign", "X", "Out"))
def assign(x):
    """X itself; a tensor, SelectedRows or a TensorArray."""
    return TensorArray(x) if isinstance(x, TensorArray) else x


def _cast_attrs(o):
    return {"in_dtype": o.attrs["out_dtype"], "out_dtype": o.attrs["in_dtype"]}


def _cast_spec(x, *, in_dtype, out_dtype):
    return x.like(dtype=to_var_type(out_dtype))


@op(
    "cast", slots="X -> Out", shares=True, infer=_cast_spec, lod="X", grad=unary_grad("cast", "X", "Out", _cast_attrs),
    amp="gray",
)  # fmt: skip
def cast(x, *, in_dtype: DType, out_dtype: DType):
    """X as `out_dtype`; floats are cut toward zero when they become integers."""
    return x.to(torch_dtype(out_dtype))


# ---- scale -------------------------------------------------------------------------------------
def _scale_attrs(o):
    return {"scale": o.attrs.get("scale", 1.0), "bias": 0.0, "bias_after_scale": True}


def _scaled(x, scale, bias, bias_after_scale):
    if not x.is_floating_point():  # Fluid casts the factors to the tensor's type
        scale, bias = int(scale), int(bias)
    if bias == 0:
        return x if scale == 1 else x * scale
    if scale == 1:
        return x + bias
    return (x * scale).add_(bias) if bias_after_scale else (x + bias).mul_(scale)


@op(
    "scale",
    slots="X, ScaleTensor? -> Out", shares=True,
    infer="X",
    lod="X",
    nodiff="ScaleTensor",
    grad=unary_grad("scale", "X", "Out", _scale_attrs, ("ScaleTensor",)),
    amp="gray",
)
def scale(x, scale_tensor, *, scale: float = 1.0, bias: float = 0.0, bias_after_scale: bool = True):
    """scale * X + bias, or scale * (X + bias); ScaleTensor goes before the attribute. X may be SelectedRows."""
    if scale_tensor is not None:
        scale = scale_tensor.item()
    if isinstance(x, SelectedRows):
        return SelectedRows(x.rows, _scaled(x.values, scale, bias, bias_after_scale), x.height)
    return _scaled(x, scale, bias, bias_after_scale)


def _increment_grad(o: Any, out_grads: dict[str, str | None], wanted: Any) -> list[OpSpec]:
    """In place the gradient passes; with another Out it ends there, as in Fluid 1.8.5."""
    x, gradient = o.input("X")[0], out_grads.get(o.output("Out")[0])
    if x != o.output("Out")[0] or gradient is None or not wanted(x):
        return []
    return [OpSpec("assign", {"X": [gradient]}, {"Out": [grad_name(x)]})]


@op("increment", slots="X -> Out", infer="X", lod="X", grad=_increment_grad)
def increment(x, *, step: float = 1.0):
    """X + step (the step in X's type); X has one element. Gradients pass where it is in place only."""
    return x + (step if x.is_floating_point() else int(step))


# ---- sum ---------------------------------------------------------------------------------------
def _sum_spec(xs):
    xs = [x for x in xs if x is not None]
    if not xs:
        raise ShapeError("sum needs at least one input")
    if any(x.type is VarType.LOD_TENSOR_ARRAY for x in xs):
        return xs[0].like(type=VarType.LOD_TENSOR_ARRAY)
    dense = [x for x in xs if x.type is not VarType.SELECTED_ROWS and 0 not in x.shape]
    first = (dense or xs)[0]
    for k, x in enumerate(dense):
        if len(x.shape) != len(first.shape) or not all(fit(a, b) for a, b in zip(x.shape, first.shape)):
            raise ShapeError(f"all inputs must have one shape; one has {list(first.shape)}, input {k} has {list(x.shape)}")
    sparse = all(x.type is VarType.SELECTED_ROWS for x in xs)
    kind = VarType.SELECTED_ROWS if sparse else VarType.LOD_TENSOR
    return Spec(first.shape, first.dtype, xs[0].lod_level, kind)


def _sum_grad(o, out_grads, wanted):
    out = o.output("Out")[0]
    g = out_grads.get(out)
    if g is None:
        return []
    var = o.block._find_var_recursive(out)
    array = var is not None and var.type is VarType.LOD_TENSOR_ARRAY
    specs = []
    for x in o.input("X"):
        if wanted(x):
            attrs = {} if array else {"scale": 1.0, "bias": 0.0, "bias_after_scale": True}
            specs.append(OpSpec("assign" if array else "scale", {"X": [g]}, {"Out": [grad_name(x)]}, attrs))
    return specs


def _sum_arrays(arrays):
    out = TensorArray([None] * max(len(a) for a in arrays))
    for a in arrays:
        for i, item in enumerate(a):
            if item is None or item.values.numel() == 0:
                if out[i] is None:
                    out[i] = item
            elif out[i] is None or out[i].values.numel() == 0:
                out[i] = item
            else:
                out[i] = Ragged(out[i].values + item.values, out[i].lod)
    return out


def _sum_sparse(rows):
    return (
        SelectedRows(torch.cat([r.rows for r in rows]), torch.cat([r.values for r in rows]), rows[0].height).once()
        if len(rows) > 1
        else rows[0].once()
    )


@op("sum", amp_bfloat16="gray", slots="X* -> Out", shares=True, infer=_sum_spec, lod="X", grad=_sum_grad, amp="black")
def sum_(xs):
    """Sum of all inputs.

    Only SelectedRows: SelectedRows with each row once, in order. Tensors and SelectedRows: a tensor.
    TensorArrays: summed element by element, where both have one.
    """
    if len(xs) == 2 and type(xs[0]) is torch.Tensor and type(xs[1]) is torch.Tensor and xs[0].shape == xs[1].shape:
        return xs[0] + xs[1]
    xs = [x for x in xs if x is not None]
    if any(isinstance(x, TensorArray) for x in xs):
        return _sum_arrays(xs)
    sparse = [x for x in xs if isinstance(x, SelectedRows)]
    dense = [x for x in xs if not isinstance(x, SelectedRows) and x.numel()]
    if not dense:
        return _sum_sparse(sparse) if sparse else xs[0]
    out = dense[0]
    for k, x in enumerate(dense[1:]):
        if x.shape != out.shape:
            raise ShapeError(f"sum: all inputs must have one shape; one has {list(out.shape)}, another {list(x.shape)}")
        out = out + x if k == 0 or torch.is_grad_enabled() else out.add_(x)
    for k, s in enumerate(sparse):
        fresh = len(dense) > 1 or k > 0
        out = out.index_add_(0, s.rows, s.values) if fresh else out.index_add(0, s.rows, s.values)
    return out


# ---- shape and size ------------------------------------------------------------------------------
def _shape_spec(x):
    return Spec((len(x.shape),), VarType.INT32)


@op("shape", slots="Input -> Out", infer=_shape_spec, grad=False)
def shape(x):
    """X's dims as an int32 vector (for SelectedRows, of its values)."""
    return torch.tensor(x.values.shape if isinstance(x, SelectedRows) else x.shape, dtype=torch.int32)


def _size_spec(x):
    return Spec((1,), VarType.INT64)


@op("size", slots="Input -> Out", infer=_size_spec, grad=False)
def size(x):
    """Number of elements, int64 [1]."""
    return torch.tensor([x.numel()])


# ---- clip --------------------------------------------------------------------------------------
def _bounds(lo, hi, low, high):
    return (lo.item() if lo is not None else low), (hi.item() if hi is not None else high)


@op("clip", slots="X, Min?, Max? -> Out", infer="X", lod="X", grad_lod="", nodiff="Min, Max")
def clip(x, lo, hi, *, min: float, max: float):
    """X limited to [min, max]; X may be SelectedRows (repeated rows are added first)."""
    low, high = _bounds(lo, hi, min, max)
    if isinstance(x, SelectedRows):
        merged = x.once()
        return SelectedRows(merged.rows, merged.values.clamp(low, high), x.height)
    return x.clamp(low, high)


@op("clip_grad", slots="X, Min?, Max?, Out@GRAD -> X@GRAD", infer="X@GRAD=X")
def clip_grad(x, lo, hi, dout, *, min: float, max: float):
    low, high = _bounds(lo, hi, min, max)
    return torch.where((x > low) & (x < high), dout, 0)


@op("clip_by_norm", slots="X -> Out", infer="X", lod="X", grad=None)
def clip_by_norm(x, *, max_norm: float):
    """X * max_norm / max(||X||, max_norm), the norm over all elements; repeated rows of SelectedRows are added first."""
    if isinstance(x, SelectedRows):
        merged = x.once()
        return SelectedRows(merged.rows, _by_norm(merged.values, max_norm), x.height)
    return _by_norm(x, max_norm)


def _by_norm(x, max_norm):
    if type(x) is torch.Tensor and x.is_cpu and not torch.is_grad_enabled():
        norm = torch.linalg.vector_norm(x).item()
        return x * (max_norm / norm) if norm > max_norm else x
    norm = x.square().sum().sqrt()
    return torch.where(norm > max_norm, x * (max_norm / norm), x)
