"""Pooling."""

from __future__ import annotations

from typing import Any

from millstream.fluid.layer_helper import LayerHelper
from millstream.fluid.layers._build import append, int_list
from millstream.fluid.layers._check import (
    FLOATS,
    INTEGERS,
    check_choice,
    check_type,
    check_variable_and_dtype,
    refuse,
)
from millstream.fluid.layers.nn import _padding

__all__ = ["adaptive_pool2d", "adaptive_pool3d", "pool2d", "pool3d"]


def _pool(
    n: int,
    input: Any,
    pool_size: Any,
    pool_type: str,
    pool_stride: Any,
    pool_padding: Any,
    global_pooling: bool,
    ceil_mode: bool,
    name: str | None,
    exclusive: bool,
    data_format: str,
) -> Any:
    layer = f"pool{n}d"
    check_variable_and_dtype(input, "input", (*FLOATS, *INTEGERS), layer)
    check_choice(pool_type, "pool_type", ("max", "avg"), layer)
    for value, argument in ((global_pooling, "global_pooling"), (ceil_mode, "ceil_mode"), (exclusive, "exclusive")):
        check_type(value, argument, bool, layer)
    if not global_pooling and pool_size == -1:
        refuse(layer, "'pool_size' must be given (and positive) unless 'global_pooling' is True; received -1")
    _padding.channel_axis(data_format, n, layer)
    paddings, algorithm = _padding.parse(pool_padding, n, data_format, layer, "pool_padding")
    if algorithm == "VALID" and ceil_mode:
        refuse(layer, "'ceil_mode' must be False with pool_padding='VALID'")
    attrs = {
        "pooling_type": pool_type,
        "ksize": int_list(pool_size, n, "pool_size", layer),
        "global_pooling": global_pooling,
        "strides": int_list(pool_stride, n, "pool_stride", layer),
        "paddings": paddings,
        "padding_algorithm": algorithm,
        "ceil_mode": ceil_mode,
        "exclusive": exclusive,
        "data_format": data_format,
    }
    return append(layer, layer, {"X": input}, attrs, dtype=input.dtype, name=name)


def pool2d(
    input: Any,
    pool_size: Any = -1,
    pool_type: str = "max",
    pool_stride: Any = 1,
    pool_padding: Any = 0,
    global_pooling: bool = False,
    use_cudnn: bool = True,
    ceil_mode: bool = False,
    name: str | None = None,
    exclusive: bool = True,
    data_format: str = "NCHW",
) -> Any:
    """Maximum or mean of each window of the last two dimensions (of H, W for NHWC).

    Args:
        pool_size: int or [h, w].
        pool_type: "max" or "avg".
        pool_padding: as for conv2d.
        global_pooling: one window over everything; `pool_size` and `pool_padding` do not matter.
        use_cudnn: accepted, without meaning.
        ceil_mode: round the number of windows up.
        exclusive: padding does not count in a mean.
    """
    return _pool(
        2, input, pool_size, pool_type, pool_stride, pool_padding, global_pooling, ceil_mode, name, exclusive, data_format
    )


def pool3d(
    input: Any,
    pool_size: Any = -1,
    pool_type: str = "max",
    pool_stride: Any = 1,
    pool_padding: Any = 0,
    global_pooling: bool = False,
    use_cudnn: bool = True,
    ceil_mode: bool = False,
    name: str | None = None,
    exclusive: bool = True,
    data_format: str = "NCDHW",
) -> Any:
    """:func:`pool2d` over three dimensions."""
    return _pool(
        3, input, pool_size, pool_type, pool_stride, pool_padding, global_pooling, ceil_mode, name, exclusive, data_format
    )


def _adaptive_pool(n: int, input: Any, pool_size: Any, pool_type: str, require_index: bool, name: str | None) -> Any:
    layer = f"adaptive_pool{n}d"
    check_variable_and_dtype(input, "input", (*FLOATS, *INTEGERS), layer)
    check_choice(pool_type, "pool_type", ("max", "avg"), layer)
    check_type(require_index, "require_index", bool, layer)
    if pool_type == "avg" and require_index:
        refuse(layer, "'require_index' needs pool_type='max'")
    attrs = {"pooling_type": pool_type, "ksize": int_list(pool_size, n, "pool_size", layer), "adaptive": True}
    if pool_type == "avg":
        return append(f"pool{n}d", f"pool{n}d", {"X": input}, attrs, dtype=input.dtype, name=name)
    op_type = f"max_pool{n}d_with_index"
    helper = LayerHelper(op_type, name=name)
    out = helper.create_variable_for_type_inference(input.dtype)
    mask = helper.create_variable_for_type_inference(input.dtype)
    del attrs["pooling_type"]
    helper.append_op(type=op_type, inputs={"X": input}, outputs={"Out": [out], "Mask": [mask]}, attrs=attrs)
    return (out, mask) if require_index else out


def adaptive_pool2d(
    input: Any, pool_size: Any, pool_type: str = "max", require_index: bool = False, name: str | None = None
) -> Any:
    """Windows chosen so that the result is [N, C, *pool_size]; with `require_index` also the place of each maximum."""
    return _adaptive_pool(2, input, pool_size, pool_type, require_index, name)


def adaptive_pool3d(
    input: Any, pool_size: Any, pool_type: str = "max", require_index: bool = False, name: str | None = None
) -> Any:
    """:func:`adaptive_pool2d` over three dimensions."""
    return _adaptive_pool(3, input, pool_size, pool_type, require_index, name)
