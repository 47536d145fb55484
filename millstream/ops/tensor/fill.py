"""Tensors made from constants."""

from __future__ import annotations

import torch

from millstream.ir.types import to_var_type
from millstream.ops._opdef import DType, op
from millstream.ops._values import Spec, torch_dtype


def _fill_like_spec(x, *, value, dtype):
    return x if dtype < 0 else x.like(dtype=to_var_type(dtype))


@op("fill_any_like", slots="X -> Out", infer=_fill_like_spec, grad=False)
def fill_any_like(x, *, value: float = 0.0, dtype: DType = -1):
    """A tensor of X's shape filled with `value`."""
    return torch.full_like(x, value, dtype=x.dtype if dtype < 0 else torch_dtype(dtype))


def _fill_constant_spec(value_tensor, shape_tensor, shape_list, *, dtype, shape, value, force_cpu, str_value):
    return Spec(tuple(shape), to_var_type(dtype))


@op("fill_constant", slots="ValueTensor?, ShapeTensor?, ShapeTensorList* -> Out", infer=_fill_constant_spec, grad=False)
def fill_constant(
    value_tensor, shape_tensor, shape_list, *,
    dtype: DType = 5, shape: list[int] = [], value: float = 0.0, force_cpu: bool = False, str_value: str = "", device,  # noqa: B006
):
    """A tensor of `shape` filled with `value` (or with `str_value`, which keeps all digits)."""
    if shape_tensor is not None:
        shape = shape_tensor.tolist()
    elif shape_list:
        shape = [int(s) for s in shape_list]
    number = float(str_value) if str_value else value
    if value_tensor is not None:
        return value_tensor.reshape(()).to(torch_dtype(dtype)).expand(shape).clone()
    return torch.full(shape, number, dtype=torch_dtype(dtype), device=device)
