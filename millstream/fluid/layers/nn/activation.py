"""Activations with parameters of their own, and softmax."""

from __future__ import annotations

import warnings
from typing import Any

from millstream.fluid.initializer import Constant
from millstream.fluid.layer_helper import LayerHelper
from millstream.fluid.layers._build import append, unary
from millstream.fluid.layers._check import (
    ELEMENTS,
    FLOATS,
    check_choice,
    check_dtype,
    check_variable_and_dtype,
    is_variable,
    refuse,
)
from millstream.ir.types import to_var_type

__all__ = [
    "brelu",
    "elu",
    "hard_sigmoid",
    "hard_swish",
    "leaky_relu",
    "log",
    "log1p",
    "log_softmax",
    "maxout",
    "mish",
    "pow",
    "prelu",
    "relu",
    "relu6",
    "selu",
    "sign",
    "soft_relu",
    "softmax",
    "stanh",
    "swish",
]

relu = unary("relu", FLOATS, "max(x, 0)", __name__)
log = unary("log", FLOATS, "the natural logarithm of x", __name__)


def _with_attrs(op_type: str, x: Any, attrs: dict[str, Any], name: str | None) -> Any:
    check_variable_and_dtype(x, "x", FLOATS, op_type)
    return append(op_type, op_type, {"X": [x]}, attrs, dtype=x.dtype, name=name)


def log1p(x: Any, out: Any = None, name: str | None = None) -> Any:
    """log(1 + x), element by element; written to `out` when it is given."""
    check_variable_and_dtype(x, "x", FLOATS, "log1p")
    return append("log1p", "log1p", {"X": [x]}, dtype=x.dtype, out=out, name=name)


def sign(x: Any) -> Any:
    """-1, 0 or 1: the sign of each element."""
    return _with_attrs("sign", x, {}, None)


def pow(x: Any, factor: Any = 1.0, name: str | None = None) -> Any:
    """x ** factor; `factor` is a number or a float32 Variable of shape [1]."""
    check_variable_and_dtype(x, "x", ELEMENTS, "pow")
    if is_variable(factor):
        check_variable_and_dtype(factor, "factor", ("float32",), "pow")
        factor.stop_gradient = True
        return append("pow", "pow", {"X": [x], "FactorTensor": [factor]}, dtype=x.dtype, name=name)
    return append("pow", "pow", {"X": [x]}, {"factor": float(factor)}, dtype=x.dtype, name=name)


def elu(x: Any, alpha: float = 1.0, name: str | None = None) -> Any:
    """x for x > 0, alpha * (exp(x) - 1) else (Clevert et al., 2015, arXiv:1511.07289)."""
    return _with_attrs("elu", x, {"alpha": alpha}, name)


def relu6(x: Any, threshold: float = 6.0, name: str | None = None) -> Any:
    """min(max(x, 0), threshold)."""
    return _with_attrs("relu6", x, {"threshold": threshold}, name)


def selu(x: Any, scale: float | None = None, alpha: float | None = None, name: str | None = None) -> Any:
    """scale * x for x > 0, scale * alpha * (exp(x) - 1) else; the constants of Klambauer et al. (2017) by default."""
    return _with_attrs("selu", x, {"scale": scale, "alpha": alpha}, name)


def leaky_relu(x: Any, alpha: float = 0.02, name: str | None = None) -> Any:
    """x for x > 0, alpha * x else."""
    return _with_attrs("leaky_relu", x, {"alpha": alpha}, name)


def brelu(x: Any, t_min: float = 0.0, t_max: float = 24.0, name: str | None = None) -> Any:
    """min(max(x, t_min), t_max)."""
    return _with_attrs("brelu", x, {"t_min": t_min, "t_max": t_max}, name)


def soft_relu(x: Any, threshold: float = 40.0, name: str | None = None) -> Any:
    """log(1 + exp(x clipped to [-threshold, threshold]))."""
    return _with_attrs("soft_relu", x, {"threshold": threshold}, name)


def stanh(x: Any, scale_a: float = 0.67, scale_b: float = 1.7159, name: str | None = None) -> Any:
    """scale_b * tanh(scale_a * x)."""
    return _with_attrs("stanh", x, {"scale_a": scale_a, "scale_b": scale_b}, name)


def hard_sigmoid(x: Any, slope: float = 0.2, offset: float = 0.5, name: str | None = None) -> Any:
    """slope * x + offset, clipped to [0, 1]."""
    return _with_attrs("hard_sigmoid", x, {"slope": slope, "offset": offset}, name)


def swish(x: Any, beta: float = 1.0, name: str | None = None) -> Any:
    """x * sigmoid(x) (Ramachandran et al., 2017, arXiv:1710.05941).

    Args:
        beta: only 1 has an effect, as in 1.8.5, whose layer loses it; another value warns. For x * sigmoid(beta * x) write
            ``x * layers.sigmoid(layers.scale(x, beta))``.
    """
    if beta != 1.0:
        warnings.warn(
            f"swish: beta={beta} has no effect, as in 1.8.5, so that trained models keep their results; "
            "write x * layers.sigmoid(layers.scale(x, beta))",
            stacklevel=2,
        )
    return _with_attrs("swish", x, {}, name)


def hard_swish(x: Any, threshold: float = 6.0, scale: float = 6.0, offset: float = 3.0, name: str | None = None) -> Any:
    """x * min(max(x + offset, 0), threshold) / scale (Howard et al., 2019, arXiv:1905.02244)."""
    return _with_attrs("hard_swish", x, {"threshold": threshold, "scale": scale, "offset": offset}, name)


def mish(x: Any, threshold: float = 20, name: str | None = None) -> Any:
    """x * tanh(softplus(x)) (Misra, 2019, arXiv:1908.08681); softplus(x) is x above `threshold`."""
    if threshold <= 0:
        refuse("mish", f"'threshold' must be positive, received {threshold}")
    return _with_attrs("mish", x, {"threshold": float(threshold)}, name)


def maxout(x: Any, groups: int, name: str | None = None, axis: int = 1) -> Any:
    """The maximum of every `groups` neighbouring channels (Goodfellow et al., 2013); channels at `axis` 1, 3 or -1."""
    check_variable_and_dtype(x, "x", FLOATS, "maxout")
    check_choice(axis, "axis", (1, -1, 3), "maxout")
    attrs = {"groups": groups, "axis": 3 if axis == -1 else axis}
    return append("maxout", "maxout", {"X": x}, attrs, dtype=x.dtype, name=name)


def prelu(x: Any, mode: str, param_attr: Any = None, name: str | None = None) -> Any:
    """max(x, 0) + alpha * min(x, 0) with a learned alpha (He et al., 2015, arXiv:1502.01852), 0.25 at the start.

    Args:
        mode: "all": one alpha; "channel": one a channel (dimension 1); "element": one an element of an instance.
    """
    check_variable_and_dtype(x, "x", FLOATS, "prelu")
    check_choice(mode, "mode", ("all", "channel", "element"), "prelu")
    shape = [1]
    if mode == "channel":
        if len(x.shape) < 2:
            refuse("prelu", f"mode 'channel' needs at least 2 dimensions, received {x.describe()}")
        shape = [1, x.shape[1], 1, 1]
    elif mode == "element":
        shape = [1, *x.shape[1:]]
    helper = LayerHelper("prelu", param_attr=param_attr, name=name)
    alpha = helper.create_parameter(
        attr=helper.param_attr, shape=shape, dtype=x.dtype, is_bias=False, default_initializer=Constant(0.25)
    )
    out = helper.create_variable_for_type_inference(x.dtype)
    helper.append_op(type="prelu", inputs={"X": x, "Alpha": alpha}, outputs={"Out": out}, attrs={"mode": mode})
    return out


def softmax(input: Any, use_cudnn: bool = False, name: str | None = None, axis: int = -1) -> Any:
    """exp(x) / sum of exp(x) along `axis`. `use_cudnn` has no meaning."""
    check_variable_and_dtype(input, "input", FLOATS, "softmax")
    rank = len(input.shape)
    if input.has_shape and not -rank <= axis < rank:
        refuse("softmax", f"'axis' must be in [{-rank}, {rank}) for {input.describe()}, received {axis}")
    return append("softmax", "softmax", {"X": input}, {"axis": axis}, dtype=input.dtype, name=name)


def log_softmax(input: Any, axis: int | None = None, dtype: Any = None, name: str | None = None) -> Any:
    """log(softmax(input)) along `axis` (-1 by default), first cast to `dtype` when it is given."""
    check_variable_and_dtype(input, "input", FLOATS, "log_softmax")
    helper = LayerHelper("log_softmax", name=name)
    if dtype is not None:
        check_dtype(dtype, "dtype", FLOATS, "log_softmax")
        cast = helper.create_variable_for_type_inference(dtype)
        attrs = {"in_dtype": input.dtype, "out_dtype": to_var_type(dtype)}
        helper.append_op(type="cast", inputs={"X": input}, outputs={"Out": cast}, attrs=attrs)
        input = cast
    soft = helper.create_variable_for_type_inference(input.dtype)
    helper.append_op(
        type="softmax", inputs={"X": input}, outputs={"Out": soft}, attrs={"axis": -1 if axis is None else axis}
    )
    out = helper.create_variable_for_type_inference(input.dtype)
    helper.append_op(type="log", inputs={"X": soft}, outputs={"Out": out}, attrs={})
    return out
