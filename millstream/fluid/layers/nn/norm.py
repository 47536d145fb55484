"""Normalisation layers and dropout."""

from __future__ import annotations

import math
from typing import Any

from millstream.fluid.initializer import Constant, Normal
from millstream.fluid.layer_helper import LayerHelper
from millstream.fluid.layers._check import (
    FLOATS,
    check_choice,
    check_type,
    check_variable_and_dtype,
    is_variable,
    refuse,
    refuse_type,
)
from millstream.fluid.param_attr import ParamAttr
from millstream.ir import mode
from millstream.ir.types import VarType

__all__ = [
    "batch_norm",
    "data_norm",
    "dropout",
    "group_norm",
    "inplace_abn",
    "instance_norm",
    "l2_normalize",
    "layer_norm",
    "lrn",
    "spectral_norm",
]


def _size(input: Any, axis: int, layer: str) -> int:
    shape = input.shape
    if len(shape) <= axis or shape[axis] < 0:
        refuse(layer, f"dimension {axis} of {input.describe()} must be known: the parameters have its size")
    return int(shape[axis])


def _statistics_dtype(input: Any) -> VarType:
    """Half-precision inputs keep float32 statistics."""
    return VarType.FP32 if input.dtype in (VarType.FP16, VarType.BF16) else input.dtype


def _batch_norm(
    layer: str,
    input: Any,
    act: Any,
    is_test: bool,
    momentum: Any,
    epsilon: float,
    param_attr: Any,
    bias_attr: Any,
    data_layout: str,
    in_place: bool,
    name: str | None,
    moving_names: tuple[str | None, str | None],
    do_model_average: bool,
    attrs: dict[str, Any],
) -> Any:
    check_variable_and_dtype(input, "input", FLOATS, layer)
    check_choice(data_layout, "data_layout", ("NCHW", "NHWC"), layer)
    if bias_attr is False or param_attr is False:
        refuse(layer, "'param_attr' and 'bias_attr' must not be False; fix a parameter by ParamAttr(trainable=False)")
    channels = _size(input, 1 if data_layout == "NCHW" else len(input.shape) - 1, layer)
    dtype = _statistics_dtype(input)
    helper = LayerHelper(layer, act=act, name=name, param_attr=param_attr, bias_attr=bias_attr)
    scale = helper.create_parameter(attr=helper.param_attr, shape=[channels], dtype=dtype, default_initializer=Constant(1.0))
    bias = helper.create_parameter(attr=helper.bias_attr, shape=[channels], dtype=dtype, is_bias=True)
    moving = []
    for moving_name, start in zip(moving_names, (0.0, 1.0)):
        attr = ParamAttr(name=moving_name, initializer=Constant(start), trainable=False, do_model_average=do_model_average)
        var: Any = helper.create_parameter(attr=attr, shape=[channels], dtype=dtype)
        var.stop_gradient = True
        moving.append(var)
    saved = [helper.create_variable_for_type_inference(dtype, stop_gradient=True) for _ in range(2)]
    out = input if in_place else helper.create_variable_for_type_inference(input.dtype)
    inputs: dict[str, Any] = {"X": [input], "Scale": [scale], "Bias": [bias], "Mean": [moving[0]], "Variance": [moving[1]]}
    if is_variable(momentum):
        inputs["MomentumTensor"] = [momentum]
    else:
        attrs = attrs | {"momentum": momentum}
    helper.append_op(
        type=layer,
        inputs=inputs,
        outputs={
            "Y": [out],
            "MeanOut": [moving[0]],
            "VarianceOut": [moving[1]],
            "SavedMean": [saved[0]],
            "SavedVariance": [saved[1]],
        },
        attrs=attrs | {"epsilon": epsilon, "is_test": is_test, "data_layout": data_layout},
    )
    return out if layer == "inplace_abn" else helper.append_activation(out)


def batch_norm(
    input: Any,
    act: Any = None,
    is_test: bool = False,
    momentum: Any = 0.9,
    epsilon: float = 1e-5,
    param_attr: Any = None,
    bias_attr: Any = None,
    data_layout: str = "NCHW",
    in_place: bool = False,
    name: str | None = None,
    moving_mean_name: str | None = None,
    moving_variance_name: str | None = None,
    do_model_average_for_mean_and_var: bool = True,
    use_global_stats: bool = False,
    fuse_with_relu: bool = False,
) -> Any:
    """Batch normalisation (Ioffe and Szegedy, 2015, arXiv:1502.03167) of each channel over batch and positions.

    Args:
        input: 2-D to 5-D, channels second (NCHW) or last (NHWC).
        is_test: use the moving statistics and do not change them.
        momentum: moving = moving * momentum + batch * (1 - momentum); a number or a Variable of shape [1].
        in_place: write the result over `input`.
        moving_mean_name, moving_variance_name: names of the statistics, to share or to load them.
        do_model_average_for_mean_and_var: whether ModelAverage averages them.
        use_global_stats: normalise with the moving statistics in training too.
        fuse_with_relu: an argument of Fluid 1.1 for MKL-DNN; only False can be honoured.
    """
    if fuse_with_relu:
        refuse("batch_norm", "'fuse_with_relu' chose an MKL-DNN kernel of Fluid 1.1; write act='relu' instead")
    return _batch_norm(
        "batch_norm",
        input,
        act,
        is_test,
        momentum,
        epsilon,
        param_attr,
        bias_attr,
        data_layout,
        in_place,
        name,
        (moving_mean_name, moving_variance_name),
        do_model_average_for_mean_and_var,
        {"use_global_stats": use_global_stats},
    )


def inplace_abn(
    input: Any,
    act: Any = None,
    is_test: bool = False,
    momentum: Any = 0.9,
    epsilon: float = 1e-5,
    param_attr: Any = None,
    bias_attr: Any = None,
    data_layout: str = "NCHW",
    name: str | None = None,
    moving_mean_name: str | None = None,
    moving_variance_name: str | None = None,
    do_model_average_for_mean_and_var: bool = True,
    use_global_stats: bool = False,
    act_alpha: float = 1.0,
) -> Any:
    """In-place activated batch norm (Rota Bulò et al., 2017, arXiv:1712.02616): batch_norm and `act` written over `input`.

    Args:
        act: None, "identity", "elu" or "leaky_relu": activations that can be undone.
        act_alpha: the slope or scale of the activation.
    """
    check_choice(act, "act", (None, "identity", "leaky_relu", "elu"), "inplace_abn")
    attrs = {"use_global_stats": use_global_stats, "activation": act or "", "alpha": float(act_alpha)}
    return _batch_norm(
        "inplace_abn",
        input,
        None,
        is_test,
        momentum,
        epsilon,
        param_attr,
        bias_attr,
        data_layout,
        True,
        name,
        (moving_mean_name, moving_variance_name),
        do_model_average_for_mean_and_var,
        attrs,
    )


def instance_norm(
    input: Any, epsilon: float = 1e-5, param_attr: Any = None, bias_attr: Any = None, name: str | None = None
) -> Any:
    """Instance normalisation (Ulyanov et al., 2016, arXiv:1607.08022): each channel of each instance over its positions."""
    layer = "instance_norm"
    check_variable_and_dtype(input, "input", FLOATS, layer)
    if param_attr is False or bias_attr is False:
        refuse(layer, "'param_attr' and 'bias_attr' must not be False; fix a parameter by ParamAttr(trainable=False)")
    dtype, channels = _statistics_dtype(input), _size(input, 1, layer)
    helper = LayerHelper(layer, name=name, param_attr=param_attr, bias_attr=bias_attr)
    scale = helper.create_parameter(attr=helper.param_attr, shape=[channels], dtype=dtype, default_initializer=Constant(1.0))
    bias = helper.create_parameter(
        attr=helper.bias_attr, shape=[channels], dtype=dtype, is_bias=True, default_initializer=Constant(0.0)
    )
    mean = helper.create_variable_for_type_inference(dtype, stop_gradient=True)
    variance = helper.create_variable_for_type_inference(dtype, stop_gradient=True)
    out = helper.create_variable_for_type_inference(input.dtype)
    helper.append_op(
        type=layer,
        inputs={"X": [input], "Scale": [scale], "Bias": [bias]},
        outputs={"Y": [out], "SavedMean": [mean], "SavedVariance": [variance]},
        attrs={"epsilon": epsilon},
    )
    return out


def layer_norm(
    input: Any,
    scale: bool = True,
    shift: bool = True,
    begin_norm_axis: int = 1,
    epsilon: float = 1e-5,
    param_attr: Any = None,
    bias_attr: Any = None,
    act: Any = None,
    name: str | None = None,
) -> Any:
    """Layer normalisation (Ba et al., 2016, arXiv:1607.06450) over the dimensions from `begin_norm_axis` on.

    Args:
        scale, shift: whether a learned factor and offset (one a normalised element) are applied.
    """
    layer = "layer_norm"
    check_variable_and_dtype(input, "input", FLOATS, layer)
    if not 0 < begin_norm_axis < len(input.shape):
        refuse_type(
            layer,
            f"'begin_norm_axis' must be in [1, {len(input.shape) - 1}] for {input.describe()}, received {begin_norm_axis}",
        )
    features = input.shape[begin_norm_axis:]
    if (scale or shift) and any(d < 0 for d in features):
        refuse(
            layer,
            f"dimensions from {begin_norm_axis} on of {input.describe()} must be known: the parameters have their size",
        )
    helper = LayerHelper(layer, name=name, param_attr=param_attr, bias_attr=bias_attr, act=act)
    dtype, shape = _statistics_dtype(input), [math.prod(features)]
    inputs: dict[str, Any] = {"X": [input]}
    if scale:
        if param_attr is False:
            refuse(layer, "'param_attr' must not be False when 'scale' is True")
        inputs["Scale"] = [
            helper.create_parameter(attr=helper.param_attr, shape=shape, dtype=dtype, default_initializer=Constant(1.0))
        ]
    if shift:
        if bias_attr is False:
            refuse(layer, "'bias_attr' must not be False when 'shift' is True")
        inputs["Bias"] = [helper.create_parameter(attr=helper.bias_attr, shape=shape, dtype=dtype, is_bias=True)]
    mean = helper.create_variable_for_type_inference(dtype, stop_gradient=True)
    variance = helper.create_variable_for_type_inference(dtype, stop_gradient=True)
    out = helper.create_variable_for_type_inference(input.dtype)
    helper.append_op(
        type=layer,
        inputs=inputs,
        outputs={"Y": [out], "Mean": [mean], "Variance": [variance]},
        attrs={"epsilon": epsilon, "begin_norm_axis": begin_norm_axis},
    )
    return helper.append_activation(out)


def group_norm(
    input: Any,
    groups: int,
    epsilon: float = 1e-5,
    param_attr: Any = None,
    bias_attr: Any = None,
    act: Any = None,
    data_layout: str = "NCHW",
    name: str | None = None,
) -> Any:
    """Group normalisation (Wu and He, 2018, arXiv:1803.08494): channels in `groups` groups, each over its positions.

    Without `param_attr` there is no scale and without `bias_attr` no bias.
    """
    layer = "group_norm"
    check_variable_and_dtype(input, "input", FLOATS, layer)
    check_choice(data_layout, "data_layout", ("NCHW", "NHWC"), layer)
    channels = _size(input, 1 if data_layout == "NCHW" else len(input.shape) - 1, layer)
    helper = LayerHelper(layer, name=name, act=act, param_attr=param_attr, bias_attr=bias_attr)
    inputs: dict[str, Any] = {"X": [input]}
    if param_attr:
        inputs["Scale"] = [
            helper.create_parameter(
                attr=helper.param_attr, shape=[channels], dtype=input.dtype, default_initializer=Constant(1.0)
            )
        ]
    if bias_attr:
        inputs["Bias"] = [helper.create_parameter(attr=helper.bias_attr, shape=[channels], dtype=input.dtype, is_bias=True)]
    mean = helper.create_variable(dtype=input.dtype, stop_gradient=True)
    variance = helper.create_variable(dtype=input.dtype, stop_gradient=True)
    out = helper.create_variable(dtype=input.dtype)
    helper.append_op(
        type=layer,
        inputs=inputs,
        outputs={"Y": [out], "Mean": [mean], "Variance": [variance]},
        attrs={"epsilon": epsilon, "groups": groups, "data_layout": data_layout},
    )
    return helper.append_activation(out)


def data_norm(
    input: Any,
    act: Any = None,
    epsilon: float = 1e-5,
    param_attr: Any = None,
    data_layout: str = "NCHW",
    in_place: bool = False,
    name: str | None = None,
    moving_mean_name: str | None = None,
    moving_variance_name: str | None = None,
    do_model_average_for_mean_and_var: bool = True,
    slot_dim: int = -1,
    sync_stats: bool = False,
    summary_decay_rate: float = 0.9999999,
    enable_scale_and_shift: bool = False,
) -> Any:
    """Normalisation by running counts, sums and sums of squares of each feature, learned as parameters.

    Args:
        input: [batch, features] (features second, or last for NHWC).
        param_attr: dict of the starting values: batch_size, batch_sum, batch_square; with `enable_scale_and_shift`
            also scale_w and bias. A ParamAttr is accepted, as in Fluid, and has no meaning.
        slot_dim: width of one slot; a slot whose first element is 0 is not counted.
        sync_stats: sum the statistics over all trainers.
        summary_decay_rate: how much of the old statistics is kept a step.
        moving_mean_name, moving_variance_name, do_model_average_for_mean_and_var: accepted, without meaning: the
            statistics are the parameters ``<name>.batch_size``, ``.batch_sum``, ``.batch_square_sum``.
    """
    layer = "data_norm"
    check_variable_and_dtype(input, "input", FLOATS, layer)
    check_choice(data_layout, "data_layout", ("NCHW", "NHWC"), layer)
    if param_attr is not None and not isinstance(param_attr, (dict, ParamAttr)):
        refuse_type(layer, f"'param_attr' must be a dict of starting values, received {type(param_attr).__name__}")
    features = _size(input, 1 if data_layout == "NCHW" else len(input.shape) - 1, layer)
    start = {"batch_size": 1e4, "batch_sum": 0.0, "batch_square": 1e4, "scale_w": 1.0, "bias": 0.0}
    if isinstance(param_attr, dict):
        start |= param_attr
    prefix = name if name is not None else "dn"
    helper = LayerHelper(layer, act=act, name=name)

    def parameter(suffix: str, key: str) -> Any:
        attr = ParamAttr(name=f"{prefix}.{suffix}", initializer=Constant(float(start[key])), trainable=True)
        return helper.create_parameter(attr=attr, shape=[features], dtype=input.dtype)

    inputs: dict[str, Any] = {"X": [input]}
    if enable_scale_and_shift:
        inputs["scale_w"] = [parameter("scale_w", "scale_w")]
        inputs["bias"] = [parameter("bias", "bias")]
    inputs["BatchSize"] = [parameter("batch_size", "batch_size")]
    inputs["BatchSum"] = [parameter("batch_sum", "batch_sum")]
    inputs["BatchSquareSum"] = [parameter("batch_square_sum", "batch_square")]
    means = helper.create_variable(dtype=input.dtype, stop_gradient=True)
    scales = helper.create_variable(dtype=input.dtype, stop_gradient=True)
    out = input if in_place else helper.create_variable(dtype=input.dtype)
    helper.append_op(
        type=layer,
        inputs=inputs,
        outputs={"Y": [out], "Means": [means], "Scales": [scales]},
        attrs={
            "epsilon": epsilon,
            "data_layout": data_layout,
            "slot_dim": slot_dim,
            "sync_stats": sync_stats,
            "summary_decay_rate": summary_decay_rate,
            "enable_scale_and_shift": enable_scale_and_shift,
        },
    )
    return helper.append_activation(out)


def spectral_norm(weight: Any, dim: int = 0, power_iters: int = 1, eps: float = 1e-12, name: str | None = None) -> Any:
    """`weight` divided by its largest singular value (Miyato et al., 2018, arXiv:1802.05957), found by power iteration.

    Args:
        dim: the dimension that becomes the rows of the matrix: 0 for fc, 1 for transposed convolutions.
    """
    layer = "spectral_norm"
    check_variable_and_dtype(weight, "weight", FLOATS, layer)
    check_type(dim, "dim", int, layer)
    check_type(power_iters, "power_iters", int, layer)
    rows = _size(weight, dim, layer)
    columns = math.prod(weight.shape) // rows
    helper = LayerHelper(layer, name=name)
    vectors = []
    for size in (rows, columns):
        vector: Any = helper.create_parameter(
            attr=ParamAttr(), shape=[size], dtype=weight.dtype, default_initializer=Normal(0.0, 1.0)
        )
        vector.stop_gradient = True
        vectors.append(vector)
    out = helper.create_variable(dtype=weight.dtype)
    helper.append_op(
        type=layer,
        inputs={"Weight": [weight], "U": [vectors[0]], "V": [vectors[1]]},
        outputs={"Out": [out]},
        attrs={"dim": dim, "power_iters": power_iters, "eps": eps},
    )
    return out


def lrn(
    input: Any,
    n: int = 5,
    k: float = 1.0,
    alpha: float = 1e-4,
    beta: float = 0.75,
    name: str | None = None,
    data_format: str = "NCHW",
) -> Any:
    """Local response normalisation (Krizhevsky et al., 2012): x / (k + alpha * sum of squares of `n` channels) ** beta."""
    layer = "lrn"
    check_variable_and_dtype(input, "input", FLOATS, layer)
    check_choice(data_format, "data_format", ("NCHW", "NHWC"), layer)
    if len(input.shape) != 4:
        refuse(layer, f"'input' must have 4 dimensions, received {input.describe()}")
    helper = LayerHelper(layer, name=name)
    middle = helper.create_variable_for_type_inference(input.dtype, stop_gradient=True)
    out = helper.create_variable_for_type_inference(input.dtype)
    helper.append_op(
        type=layer,
        inputs={"X": [input]},
        outputs={"Out": [out], "MidOut": [middle]},
        attrs={"n": n, "k": k, "alpha": alpha, "beta": beta, "data_format": data_format},
    )
    return out


def l2_normalize(x: Any, axis: int | None, epsilon: float = 1e-12, name: str | None = None) -> Any:
    """x / sqrt(sum of x * x along `axis` + epsilon); a vector is normalised as a whole."""
    layer = "l2_normalize"
    check_variable_and_dtype(x, "x", FLOATS, layer)
    if len(x.shape) == 1:
        axis = 0
    helper = LayerHelper(layer, name=name)
    out = helper.create_variable_for_type_inference(x.dtype)
    norm = helper.create_variable_for_type_inference(x.dtype)
    helper.append_op(
        type="norm",
        inputs={"X": [x]},
        outputs={"Out": [out], "Norm": [norm]},
        attrs={"axis": 1 if axis is None else axis, "epsilon": epsilon},
    )
    return out


def dropout(
    x: Any,
    dropout_prob: float,
    is_test: bool = False,
    seed: int | None = None,
    name: str | None = None,
    dropout_implementation: str = "downgrade_in_infer",
) -> Any:
    """Zero each element with probability `dropout_prob` (Srivastava et al., 2014).

    Args:
        is_test: the inference form.
        seed: fixes the draws; None: the Program's random_seed, if any, else different each run.
        dropout_implementation: "downgrade_in_infer": inference multiplies by 1 - p; "upscale_in_train": training divides
            by 1 - p and inference changes nothing.
    """
    layer = "dropout"
    check_variable_and_dtype(x, "x", FLOATS, layer)
    check_choice(dropout_implementation, "dropout_implementation", ("downgrade_in_infer", "upscale_in_train"), layer)
    if not is_variable(dropout_prob) and not 0 <= dropout_prob <= 1:
        refuse(layer, f"'dropout_prob' must be between 0 and 1, received {dropout_prob}")
    helper = LayerHelper(layer, name=name)
    out = helper.create_variable_for_type_inference(x.dtype)
    mask = helper.create_variable_for_type_inference(VarType.UINT8, stop_gradient=True)
    fixed = seed is not None
    if not seed:
        seed = helper.main_program.random_seed
        fixed = fixed or seed != 0
    helper.append_op(
        type=layer,
        inputs={"X": [x]},
        outputs={"Out": [out], "Mask": [mask]},
        attrs={
            "dropout_prob": float(dropout_prob),
            "is_test": is_test or not mode.takes_gradients(),
            "fix_seed": fixed,
            "seed": seed or 0,
            "dropout_implementation": dropout_implementation,
        },
    )
    return out
