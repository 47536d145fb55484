"""``fluid.nets``: small networks made of layers."""

from __future__ import annotations

import math
from typing import Any

from millstream.fluid import layers
from millstream.fluid.layers._check import FLOATS, check_variable_and_dtype, refuse

__all__ = ["glu", "img_conv_group", "scaled_dot_product_attention", "sequence_conv_pool", "simple_img_conv_pool"]


def simple_img_conv_pool(
    input: Any,
    num_filters: int,
    filter_size: Any,
    pool_size: Any,
    pool_stride: Any,
    pool_padding: Any = 0,
    pool_type: str = "max",
    global_pooling: bool = False,
    conv_stride: Any = 1,
    conv_padding: Any = 0,
    conv_dilation: Any = 1,
    conv_groups: int | None = 1,
    param_attr: Any = None,
    bias_attr: Any = None,
    act: Any = None,
    use_cudnn: bool = True,
) -> Any:
    """conv2d, then pool2d."""
    conv = layers.conv2d(
        input=input,
        num_filters=num_filters,
        filter_size=filter_size,
        stride=conv_stride,
        padding=conv_padding,
        dilation=conv_dilation,
        groups=conv_groups,
        param_attr=param_attr,
        bias_attr=bias_attr,
        act=act,
        use_cudnn=use_cudnn,
    )
    return layers.pool2d(
        input=conv,
        pool_size=pool_size,
        pool_type=pool_type,
        pool_stride=pool_stride,
        pool_padding=pool_padding,
        global_pooling=global_pooling,
        use_cudnn=use_cudnn,
    )


def img_conv_group(
    input: Any,
    conv_num_filter: Any,
    pool_size: Any,
    conv_padding: Any = 1,
    conv_filter_size: Any = 3,
    conv_act: Any = None,
    param_attr: Any = None,
    conv_with_batchnorm: Any = False,
    conv_batchnorm_drop_rate: Any = 0.0,
    pool_stride: Any = 1,
    pool_type: str = "max",
    use_cudnn: bool = True,
) -> Any:
    """Several conv2d, each with batch_norm and dropout if wished, then pool2d: a block of VGG.

    Args:
        conv_num_filter: list: filters of each convolution.
        conv_padding, conv_filter_size, param_attr, conv_with_batchnorm, conv_batchnorm_drop_rate: one value, or a list
            with one for each convolution.
    """
    layer = "img_conv_group"
    if not isinstance(conv_num_filter, (list, tuple)) or not conv_num_filter:
        refuse(layer, f"'conv_num_filter' must be a non-empty list, received {conv_num_filter!r}")
    count = len(conv_num_filter)

    def each(value: Any, argument: str) -> list[Any]:
        if not hasattr(value, "__len__") or isinstance(value, str):
            return [value] * count
        if len(value) != count:
            refuse(layer, f"'{argument}' must have {count} elements, as many as 'conv_num_filter'; received {len(value)}")
        return list(value)

    paddings = each(conv_padding, "conv_padding")
    sizes = each(conv_filter_size, "conv_filter_size")
    attrs = each(param_attr, "param_attr")
    with_norm = each(conv_with_batchnorm, "conv_with_batchnorm")
    drops = each(conv_batchnorm_drop_rate, "conv_batchnorm_drop_rate")
    out = input
    for i in range(count):
        out = layers.conv2d(
            input=out,
            num_filters=conv_num_filter[i],
            filter_size=sizes[i],
            padding=paddings[i],
            param_attr=attrs[i],
            act=None if with_norm[i] else conv_act,
            use_cudnn=use_cudnn,
        )
        if with_norm[i]:
            out = layers.batch_norm(input=out, act=conv_act)
            if abs(drops[i]) > 1e-5:
                out = layers.dropout(x=out, dropout_prob=drops[i])
    return layers.pool2d(input=out, pool_size=pool_size, pool_type=pool_type, pool_stride=pool_stride, use_cudnn=use_cudnn)


def sequence_conv_pool(
    input: Any,
    num_filters: int,
    filter_size: int,
    param_attr: Any = None,
    act: Any = "sigmoid",
    pool_type: str = "max",
    bias_attr: Any = None,
) -> Any:
    """sequence_conv, then sequence_pool."""
    check_variable_and_dtype(input, "input", FLOATS, "sequence_conv_pool")
    conv = layers.sequence_conv(
        input=input, num_filters=num_filters, filter_size=filter_size, param_attr=param_attr, bias_attr=bias_attr, act=act
    )
    return layers.sequence_pool(input=conv, pool_type=pool_type)


def glu(input: Any, dim: int = -1) -> Any:
    """Gated linear unit (Dauphin et al., 2016, arXiv:1612.08083): the first half along `dim` times sigmoid of the second."""
    check_variable_and_dtype(input, "input", FLOATS, "glu")
    value, gate = layers.split(input, num_or_sections=2, dim=dim)
    return layers.elementwise_mul(x=value, y=layers.sigmoid(x=gate))


def scaled_dot_product_attention(queries: Any, keys: Any, values: Any, num_heads: int = 1, dropout_rate: float = 0.0) -> Any:
    """softmax(q k^T / sqrt(width of a head)) v (Vaswani et al., 2017, arXiv:1706.03762).

    Args:
        queries, keys, values: [batch, length, width]; keys and values of one length, queries and keys of one width.
        num_heads: more than one: each input goes through an fc, the heads are parts of the width.
        dropout_rate: of the attention weights.
    """
    layer = "scaled_dot_product_attention"
    for var, argument in ((queries, "queries"), (keys, "keys"), (values, "values")):
        check_variable_and_dtype(var, argument, FLOATS, layer)
        if len(var.shape) != 3:
            refuse(layer, f"'{argument}' must be [batch, length, width], received {var.describe()}")
    if queries.shape[-1] != keys.shape[-1]:
        refuse(layer, f"queries and keys must have one width, received {queries.describe()} and {keys.describe()}")
    if keys.shape[-2] != values.shape[-2]:
        refuse(layer, f"keys and values must have one length, received {keys.describe()} and {values.describe()}")
    for var, argument in ((keys, "keys"), (values, "values")):
        if var.shape[-1] % num_heads:
            refuse(
                layer, f"the width of '{argument}' must be a multiple of num_heads={num_heads}, received {var.describe()}"
            )
    if num_heads > 1:
        queries, keys, values = (layers.fc(input=v, size=v.shape[-1], num_flatten_dims=2) for v in (queries, keys, values))
    q, k, v = (_split_heads(var, num_heads) for var in (queries, keys, values))
    width = keys.shape[-1] // num_heads
    scores = layers.matmul(x=layers.scale(x=q, scale=width**-0.5), y=k, transpose_y=True)
    flat = layers.reshape(x=scores, shape=[-1, scores.shape[-1]], act="softmax")
    weights = layers.reshape(x=flat, shape=scores.shape)
    if dropout_rate:
        weights = layers.dropout(weights, dropout_prob=dropout_rate, is_test=False)
    return _join_heads(layers.matmul(weights, v))


def _split_heads(x: Any, num_heads: int) -> Any:
    """[batch, heads, length, width / heads]."""
    if num_heads == 1:
        return x
    parts = layers.reshape(x=x, shape=[*x.shape[:-1], num_heads, x.shape[-1] // num_heads])
    return layers.transpose(x=parts, perm=[0, 2, 1, 3])


def _join_heads(x: Any) -> Any:
    if len(x.shape) == 3:
        return x
    turned = layers.transpose(x, perm=[0, 2, 1, 3])
    return layers.reshape(x=turned, shape=[*turned.shape[:2], math.prod(turned.shape[2:])])
