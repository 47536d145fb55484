"""Reductions, order and counting."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from millstream.fluid.layer_helper import LayerHelper
from millstream.fluid.layers._build import append
from millstream.fluid.layers._check import (
    ELEMENTS,
    FLOATS,
    NUMBERS,
    check_variable_and_dtype,
    check_variables,
    is_variable,
    refuse_type,
)
from millstream.fluid.layers.nn.activation import log
from millstream.fluid.layers.ops import exp

__all__ = [
    "logsumexp",
    "mean",
    "mean_iou",
    "reduce_all",
    "reduce_any",
    "reduce_max",
    "reduce_mean",
    "reduce_min",
    "reduce_prod",
    "reduce_sum",
    "sum",
    "topk",
]


def _dims(dim: Any, layer: str) -> list[int]:
    if dim is None:
        return []
    if hasattr(dim, "__index__") and not isinstance(dim, bool):
        return [int(dim)]
    if isinstance(dim, (list, tuple)) and all(hasattr(d, "__index__") for d in dim):
        return [int(d) for d in dim]
    refuse_type(layer, f"'dim' must be None, an int or a list of ints, received {dim!r}")


def _reduce(op_type: str, meaning: str, dtypes: tuple[str, ...]) -> Callable[..., Any]:
    def layer(input: Any, dim: Any = None, keep_dim: bool = False, name: str | None = None) -> Any:
        check_variable_and_dtype(input, "input", dtypes, op_type)
        dims = _dims(dim, op_type)
        attrs = {"dim": dims or [0], "keep_dim": keep_dim, "reduce_all": not dims}
        return append(op_type, op_type, {"X": input}, attrs, dtype=input.dtype, name=name)

    layer.__name__ = layer.__qualname__ = op_type
    layer.__doc__ = (
        f"{meaning} over the dimensions `dim` (an int or a list; None: all, giving shape [1]); "
        "`keep_dim` keeps them with size 1."
    )
    return layer


reduce_sum = _reduce("reduce_sum", "The sum", NUMBERS)
reduce_mean = _reduce("reduce_mean", "The mean", NUMBERS)
reduce_max = _reduce("reduce_max", "The greatest element", NUMBERS)
reduce_min = _reduce("reduce_min", "The least element", NUMBERS)
reduce_prod = _reduce("reduce_prod", "The product", NUMBERS)
reduce_all = _reduce("reduce_all", "Whether all elements are true", ("bool",))
reduce_any = _reduce("reduce_any", "Whether any element is true", ("bool",))


def mean(x: Any, name: str | None = None) -> Any:
    """The mean of all elements, shape [1]."""
    check_variable_and_dtype(x, "x", FLOATS, "mean")
    return append("mean", "mean", {"X": x}, dtype=x.dtype, name=name)


def logsumexp(x: Any, dim: Any = None, keepdim: bool = False, out: Any = None, name: str | None = None) -> Any:
    """log(sum of exp(x)) over the dimensions `dim` (None: all)."""
    check_variable_and_dtype(x, "x", FLOATS, "logsumexp")
    total = reduce_sum(exp(x), dim, keepdim)
    if out is None:
        return log(total, name)
    check_variable_and_dtype(out, "out", FLOATS, "logsumexp")
    helper = LayerHelper("log", name=name)
    helper.append_op(type="log", inputs={"X": total}, outputs={"Out": out}, attrs={})
    return out


def sum(x: Any) -> Any:
    """The sum of a list of tensors, element by element."""
    inputs = check_variables(x, "x", ELEMENTS, "sum")
    return append("sum", "sum", {"X": inputs}, dtype=inputs[0].dtype)


def topk(input: Any, k: Any, name: str | None = None) -> tuple[Any, Any]:
    """(values, int64 indices) of the `k` greatest elements of the last dimension; `k`: int, or int Variable of shape [1]."""
    check_variable_and_dtype(input, "input", NUMBERS, "topk")
    helper = LayerHelper("top_k", name=name)
    inputs, attrs = {"X": [input]}, {}
    if is_variable(k):
        inputs["K"] = [k]
    else:
        attrs["k"] = k
    values = helper.create_variable_for_type_inference(input.dtype)
    indices = helper.create_variable_for_type_inference("int64")
    helper.append_op(type="top_k", inputs=inputs, outputs={"Out": [values], "Indices": [indices]}, attrs=attrs)
    values.stop_gradient = True
    indices.stop_gradient = True
    return values, indices


def mean_iou(input: Any, label: Any, num_classes: int) -> tuple[Any, Any, Any]:
    """Mean over the classes of intersection / union; (mean [1], wrong [num_classes], correct [num_classes])."""
    for value, argument in ((input, "input"), (label, "label")):
        check_variable_and_dtype(value, argument, ("int32", "int64"), "mean_iou")
    helper = LayerHelper("mean_iou")
    iou = helper.create_variable_for_type_inference("float32")
    wrong = helper.create_variable_for_type_inference("int32")
    correct = helper.create_variable_for_type_inference("int32")
    helper.append_op(
        type="mean_iou",
        inputs={"Predictions": input, "Labels": label},
        outputs={"OutMeanIou": iou, "OutWrong": wrong, "OutCorrect": correct},
        attrs={"num_classes": num_classes},
    )
    return iou, wrong, correct
