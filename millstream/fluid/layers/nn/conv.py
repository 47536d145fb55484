"""Convolutions and their transposes."""

from __future__ import annotations

import math
from typing import Any

from millstream.fluid.initializer import Normal
from millstream.fluid.layer_helper import LayerHelper
from millstream.fluid.layers._build import int_list
from millstream.fluid.layers._check import FLOATS, check_type, check_variable_and_dtype, refuse
from millstream.fluid.layers.nn import _padding

__all__ = ["conv2d", "conv2d_transpose", "conv3d", "conv3d_transpose", "deformable_conv"]


def _channels(input: Any, axis: int, layer: str, groups: int) -> int:
    if len(input.shape) <= axis or input.shape[axis] < 0:
        refuse(layer, f"the number of channels (dimension {axis}) of {input.describe()} must be known")
    channels = input.shape[axis]
    if groups <= 0 or channels % groups:
        refuse(
            layer, f"the number of channels must be a multiple of 'groups', received {channels} channels, groups={groups}"
        )
    return int(channels)


def _conv(
    n: int,
    input: Any,
    num_filters: int,
    filter_size: Any,
    stride: Any,
    padding: Any,
    dilation: Any,
    groups: int | None,
    param_attr: Any,
    bias_attr: Any,
    use_cudnn: bool,
    act: Any,
    name: str | None,
    data_format: str,
) -> Any:
    layer = f"conv{n}d"
    check_variable_and_dtype(input, "input", FLOATS, layer)
    check_type(use_cudnn, "use_cudnn", bool, layer)
    check_type(num_filters, "num_filters", int, layer)
    axis = _padding.channel_axis(data_format, n, layer)
    given, groups = groups, 1 if groups is None else int(groups)
    channels = _channels(input, axis, layer, groups)
    if num_filters <= 0 or num_filters % groups:
        refuse(layer, f"'num_filters' must be a positive multiple of 'groups', received {num_filters}, groups={groups}")
    depthwise = n == 2 and given is not None and channels == groups and num_filters % channels == 0 and not use_cudnn
    op_type = "depthwise_conv2d" if depthwise else layer
    kernel = int_list(filter_size, n, "filter_size", layer)
    paddings, algorithm = _padding.parse(padding, n, data_format, layer)
    helper = LayerHelper(op_type, param_attr=param_attr, bias_attr=bias_attr, act=act, name=name)
    if helper.param_attr is False:
        refuse(layer, "'param_attr' must not be False: the layer needs its filter")
    shape = [num_filters, channels // groups, *kernel]
    weight = helper.create_parameter(
        attr=helper.param_attr,
        shape=shape,
        dtype=input.dtype,
        default_initializer=Normal(0.0, math.sqrt(2.0 / (math.prod(kernel) * channels)), 0),
    )
    out = helper.create_variable_for_type_inference(input.dtype)
    helper.append_op(
        type=op_type,
        inputs={"Input": [input], "Filter": [weight]},
        outputs={"Output": [out]},
        attrs={
            "strides": int_list(stride, n, "stride", layer),
            "paddings": paddings,
            "dilations": int_list(dilation, n, "dilation", layer),
            "groups": groups,
            "padding_algorithm": algorithm,
            "data_format": data_format,
        },
    )
    return helper.append_activation(helper.append_bias_op(out, dim_start=axis, dim_end=axis + 1))


def conv2d(
    input: Any,
    num_filters: int,
    filter_size: Any,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int | None = None,
    param_attr: Any = None,
    bias_attr: Any = None,
    use_cudnn: bool = True,
    act: Any = None,
    name: str | None = None,
    data_format: str = "NCHW",
) -> Any:
    """act(input * filter + bias), sliding over the last two dimensions.

    Args:
        input: [N, C, H, W] (NHWC: [N, H, W, C]).
        num_filters: output channels; the filter is [num_filters, C / groups, *filter_size].
        padding: "SAME", "VALID", an int, [h, w], [top, bottom, left, right], or four pairs in the layout of the data.
        groups: output channels of one group see the input channels of that group only.
        bias_attr: False: no bias.
        use_cudnn: without meaning on a CPU, but False with groups == C, given, makes a ``depthwise_conv2d`` operator.
    """
    return _conv(
        2,
        input,
        num_filters,
        filter_size,
        stride,
        padding,
        dilation,
        groups,
        param_attr,
        bias_attr,
        use_cudnn,
        act,
        name,
        data_format,
    )


def conv3d(
    input: Any,
    num_filters: int,
    filter_size: Any,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int | None = None,
    param_attr: Any = None,
    bias_attr: Any = None,
    use_cudnn: bool = True,
    act: Any = None,
    name: str | None = None,
    data_format: str = "NCDHW",
) -> Any:
    """:func:`conv2d` over three dimensions: [N, C, D, H, W], or [N, D, H, W, C] for NDHWC."""
    return _conv(
        3,
        input,
        num_filters,
        filter_size,
        stride,
        padding,
        dilation,
        groups,
        param_attr,
        bias_attr,
        use_cudnn,
        act,
        name,
        data_format,
    )


def _transpose_kernel(
    output: list[int], input: Any, first: int, stride: list[int], paddings: list[int], dilation: list[int], layer: str
) -> list[int]:
    """The filter size that gives `output` sizes."""
    n = len(output)
    pads = [2 * p for p in paddings] if len(paddings) == n else [paddings[2 * i] + paddings[2 * i + 1] for i in range(n)]
    sizes = input.shape[first : first + n]
    if any(s < 0 for s in sizes):
        refuse(layer, f"'filter_size' can't be computed from 'output_size': {input.describe()} has unknown sizes")
    kernel = [(output[i] - (sizes[i] - 1) * stride[i] + pads[i] - 1) // dilation[i] + 1 for i in range(n)]
    if any(k <= 0 for k in kernel):
        refuse(layer, f"'output_size' {output} is too small for {input.describe()} with stride {stride}")
    return kernel


def _conv_transpose(
    n: int,
    input: Any,
    num_filters: int,
    output_size: Any,
    filter_size: Any,
    padding: Any,
    stride: Any,
    dilation: Any,
    groups: int | None,
    param_attr: Any,
    bias_attr: Any,
    use_cudnn: bool,
    act: Any,
    name: str | None,
    data_format: str,
) -> Any:
    layer = f"conv{n}d_transpose"
    check_variable_and_dtype(input, "input", FLOATS, layer)
    check_type(use_cudnn, "use_cudnn", bool, layer)
    axis = _padding.channel_axis(data_format, n, layer)
    given, groups = groups, 1 if groups is None else int(groups)
    channels = _channels(input, axis, layer, groups)
    if num_filters <= 0 or num_filters % groups:
        refuse(layer, f"'num_filters' must be a positive multiple of 'groups', received {num_filters}, groups={groups}")
    depthwise = n == 2 and given is not None and channels == groups == num_filters and not use_cudnn
    op_type = "depthwise_conv2d_transpose" if depthwise else layer
    strides, dilations = int_list(stride, n, "stride", layer), int_list(dilation, n, "dilation", layer)
    paddings, algorithm = _padding.parse(padding, n, data_format, layer)
    sizes = [] if output_size is None else int_list(output_size, n, "output_size", layer)
    if filter_size is not None:
        kernel = int_list(filter_size, n, "filter_size", layer)
    elif sizes:
        kernel = _transpose_kernel(sizes, input, 2 if axis == 1 else 1, strides, paddings, dilations, layer)
    else:
        refuse(layer, "'output_size' must be given when 'filter_size' is None")
    helper = LayerHelper(op_type, param_attr=param_attr, bias_attr=bias_attr, act=act, name=name)
    weight = helper.create_parameter(
        attr=helper.param_attr, shape=[channels, num_filters // groups, *kernel], dtype=input.dtype
    )
    out = helper.create_variable_for_type_inference(input.dtype)
    helper.append_op(
        type=op_type,
        inputs={"Input": [input], "Filter": [weight]},
        outputs={"Output": [out]},
        attrs={
            "output_size": sizes,
            "strides": strides,
            "paddings": paddings,
            "padding_algorithm": algorithm,
            "dilations": dilations,
            "groups": groups,
            "data_format": data_format,
        },
    )
    return helper.append_activation(helper.append_bias_op(out, dim_start=axis, dim_end=axis + 1))


def conv2d_transpose(
    input: Any,
    num_filters: int,
    output_size: Any = None,
    filter_size: Any = None,
    padding: Any = 0,
    stride: Any = 1,
    dilation: Any = 1,
    groups: int | None = None,
    param_attr: Any = None,
    bias_attr: Any = None,
    use_cudnn: bool = True,
    act: Any = None,
    name: str | None = None,
    data_format: str = "NCHW",
) -> Any:
    """The transpose (gradient with respect to the input) of a convolution.

    Args:
        output_size: sizes of the result; gives `filter_size` when that is None, else picks among the `stride` possible.
        filter_size: the filter is [C, num_filters / groups, *filter_size].
        padding, groups, use_cudnn: as for :func:`conv2d`.

    Returns: sizes ``(in - 1) * stride - pad + dilation * (filter - 1) + 1``, unless `output_size` says more.
    """
    return _conv_transpose(
        2,
        input,
        num_filters,
        output_size,
        filter_size,
        padding,
        stride,
        dilation,
        groups,
        param_attr,
        bias_attr,
        use_cudnn,
        act,
        name,
        data_format,
    )


def conv3d_transpose(
    input: Any,
    num_filters: int,
    output_size: Any = None,
    filter_size: Any = None,
    padding: Any = 0,
    stride: Any = 1,
    dilation: Any = 1,
    groups: int | None = None,
    param_attr: Any = None,
    bias_attr: Any = None,
    use_cudnn: bool = True,
    act: Any = None,
    name: str | None = None,
    data_format: str = "NCDHW",
) -> Any:
    """:func:`conv2d_transpose` over three dimensions."""
    return _conv_transpose(
        3,
        input,
        num_filters,
        output_size,
        filter_size,
        padding,
        stride,
        dilation,
        groups,
        param_attr,
        bias_attr,
        use_cudnn,
        act,
        name,
        data_format,
    )


def deformable_conv(
    input: Any,
    offset: Any,
    mask: Any,
    num_filters: int,
    filter_size: Any,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int | None = None,
    deformable_groups: int | None = None,
    im2col_step: int | None = None,
    param_attr: Any = None,
    bias_attr: Any = None,
    modulated: bool = True,
    name: str | None = None,
) -> Any:
    """Deformable convolution v2 (Zhu et al., 2018, arXiv:1811.11168), or v1 when `modulated` is False (`mask` is None then).

    Args:
        offset: [N, 2 * deformable_groups * kh * kw, H', W'], shifts of the sampling points.
        mask: [N, deformable_groups * kh * kw, H', W'], their weights.
        im2col_step: images unfolded at a time.
    """
    layer = "deformable_conv"
    check_variable_and_dtype(input, "input", FLOATS, layer)
    check_variable_and_dtype(offset, "offset", FLOATS, layer)
    if modulated:
        check_variable_and_dtype(mask, "mask", FLOATS, layer)
    elif mask is not None:
        refuse(layer, "'mask' must be None when 'modulated' is False")
    groups = 1 if groups is None else groups
    channels = _channels(input, 1, layer, groups)
    kernel = int_list(filter_size, 2, "filter_size", layer)
    helper = LayerHelper(layer, param_attr=param_attr, bias_attr=bias_attr, name=name)
    weight = helper.create_parameter(
        attr=helper.param_attr,
        shape=[num_filters, channels // groups, *kernel],
        dtype=input.dtype,
        default_initializer=Normal(0.0, math.sqrt(2.0 / (math.prod(kernel) * channels)), 0),
    )
    out = helper.create_variable_for_type_inference(input.dtype)
    inputs = {"Input": [input], "Filter": [weight], "Offset": [offset]}
    if modulated:
        inputs["Mask"] = [mask]
    helper.append_op(
        type="deformable_conv" if modulated else "deformable_conv_v1",
        inputs=inputs,
        outputs={"Output": [out]},
        attrs={
            "strides": int_list(stride, 2, "stride", layer),
            "paddings": int_list(padding, 2, "padding", layer),
            "dilations": int_list(dilation, 2, "dilation", layer),
            "groups": groups,
            "deformable_groups": 1 if deformable_groups is None else deformable_groups,
            "im2col_step": 64 if im2col_step is None else im2col_step,
        },
    )
    return helper.append_bias_op(out, dim_start=1, dim_end=2)
