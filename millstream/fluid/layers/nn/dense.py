"""Fully connected layers, embeddings and products of matrices."""

from __future__ import annotations

import math
from typing import Any

from millstream.fluid.layer_helper import LayerHelper
from millstream.fluid.layers._build import append
from millstream.fluid.layers._check import (
    FLOATS,
    INDICES,
    NUMBERS,
    check_type,
    check_variable_and_dtype,
    check_variables,
    refuse,
)

__all__ = [
    "addmm",
    "bilinear_tensor_product",
    "bmm",
    "cos_sim",
    "cross",
    "dist",
    "dot",
    "embedding",
    "fc",
    "fsp_matrix",
    "kron",
    "matmul",
    "mul",
]


def fc(
    input: Any,
    size: int,
    num_flatten_dims: int = 1,
    param_attr: Any = None,
    bias_attr: Any = None,
    act: Any = None,
    name: str | None = None,
    is_test: bool | None = None,
) -> Any:
    """act(sum over the inputs of x W + b); the dimensions of x from `num_flatten_dims` on are one feature axis.

    Args:
        input: a Variable, or a list of them (one weight each, results summed).
        size: width of the result.
        num_flatten_dims: leading dimensions kept; -1: all but the last.
        is_test: (of 1.1) without meaning for this layer.
        param_attr: of the weight [features, size]; a list for a list of inputs.
        bias_attr: of the bias [size]; False: none.
        act: name of an activation operator.

    Returns: shape ``x.shape[:num_flatten_dims] + [size]``.
    """
    inputs = check_variables(input, "input", FLOATS, "fc")
    check_type(size, "size", int, "fc")
    helper = LayerHelper("fc", input=input, param_attr=param_attr, bias_attr=bias_attr, act=act, name=name)
    dtype = helper.input_dtype()
    products = []
    for x, attr in zip(inputs, helper.multiple_param_attr(len(inputs))):
        rank = len(x.shape)
        kept = rank - 1 if num_flatten_dims == -1 else num_flatten_dims
        if not 0 < kept < rank:
            refuse("fc", f"'num_flatten_dims' must be in [1, {rank - 1}] for {x.describe()}, received {num_flatten_dims}")
        num_flatten_dims = kept
        features = x.shape[kept:]
        if any(d < 0 for d in features):
            refuse(
                "fc",
                f"the weight needs a known number of features: dimensions from {kept} on of {x.describe()} must be known; "
                "declare them, or reshape the input",
            )
        weight = helper.create_parameter(attr=attr, shape=[math.prod(features), size], dtype=dtype)
        product = helper.create_variable_for_type_inference(dtype)
        helper.append_op(
            type="mul",
            inputs={"X": [x], "Y": [weight]},
            outputs={"Out": [product]},
            attrs={"x_num_col_dims": kept, "y_num_col_dims": 1},
        )
        products.append(product)
    total = products[0]
    if len(products) > 1:
        total = helper.create_variable_for_type_inference(dtype)
        helper.append_op(type="sum", inputs={"X": products}, outputs={"Out": [total]}, attrs={})
    return helper.append_activation(helper.append_bias_op(total, dim_start=num_flatten_dims))


def lookup(
    layer_op: str,
    input: Any,
    size: Any,
    is_sparse: bool,
    is_distributed: bool,
    padding_idx: int | None,
    attr: Any,
    dtype: Any,
) -> Any:
    """A table of parameters and the operator that picks its rows; see :func:`embedding`."""
    check_variable_and_dtype(input, "input", INDICES, "embedding")
    check_type(size, "size", (list, tuple), "embedding")
    if len(size) != 2:
        refuse("embedding", f"'size' must be [number of ids, width], received {list(size)}")
    rows = int(size[0])
    if padding_idx is None:
        padding = -1
    elif -rows <= padding_idx < rows:
        padding = padding_idx % rows
    else:
        refuse("embedding", f"'padding_idx' must be in [{-rows}, {rows}), received {padding_idx}")
    helper = LayerHelper("embedding", input=input, param_attr=attr)
    table = helper.create_parameter(attr=helper.param_attr, shape=size, dtype=dtype, is_bias=False)
    out = helper.create_variable_for_type_inference(dtype)
    helper.append_op(
        type=layer_op,
        inputs={"Ids": [input], "W": [table]},
        outputs={"Out": [out]},
        attrs={
            "is_sparse": is_sparse,
            "is_distributed": is_distributed,
            # rows are fetched from parameter servers only when one table is kept whole on each trainer
            "remote_prefetch": bool(is_sparse and not is_distributed),
            "padding_idx": padding,
        },
    )
    return out


def embedding(
    input: Any,
    size: Any,
    is_sparse: bool = False,
    is_distributed: bool = False,
    padding_idx: int | None = None,
    param_attr: Any = None,
    dtype: Any = "float32",
) -> Any:
    """Rows of a table for the ids `input` [..., 1]; the result is [..., width] and keeps the LoD.

    Args:
        size: [number of ids, width].
        is_sparse: the gradient is SelectedRows.
        is_distributed: the table lives on parameter servers; optimizers update it by plain SGD, without clip or decay.
        padding_idx: this id gives zeros; negative counts from the end.
    """
    return lookup("lookup_table", input, size, is_sparse, is_distributed, padding_idx, param_attr, dtype)


def mul(x: Any, y: Any, x_num_col_dims: int = 1, y_num_col_dims: int = 1, name: str | None = None) -> Any:
    """The product of x and y as matrices: the first `*_num_col_dims` dimensions are rows, the rest columns."""
    check_variable_and_dtype(x, "x", FLOATS, "mul")
    check_variable_and_dtype(y, "y", FLOATS, "mul")
    attrs = {"x_num_col_dims": x_num_col_dims, "y_num_col_dims": y_num_col_dims}
    return append("mul", "mul", {"X": [x], "Y": [y]}, attrs, dtype=x.dtype, name=name)


def matmul(
    x: Any, y: Any, transpose_x: bool = False, transpose_y: bool = False, alpha: float = 1.0, name: str | None = None
) -> Any:
    """alpha * x @ y over the last two dimensions, the others broadcast; `transpose_*` swaps the last two first.

    A vector x is a row [1, K], a vector y a column [K, 1], and the added dimension is dropped again.
    """
    for value, argument in ((x, "x"), (y, "y")):
        check_variable_and_dtype(value, argument, FLOATS, "matmul")
    _check_matmul(x, y, transpose_x, transpose_y)
    attrs = {"transpose_X": transpose_x, "transpose_Y": transpose_y, "alpha": float(alpha)}
    return append("matmul", "matmul", {"X": [x], "Y": [y]}, attrs, dtype=x.dtype, name=name)


def _check_matmul(x: Any, y: Any, transpose_x: bool, transpose_y: bool) -> None:
    """ValueError when widths or batch dimensions can't fit."""
    a, b = list(x.shape), list(y.shape)
    if not a or not b:
        return
    a = [1, *a] if len(a) == 1 else a
    b = [*b, 1] if len(b) == 1 else b
    width = a[-2] if transpose_x else a[-1]
    height = b[-1] if transpose_y else b[-2]
    if width != height and width > 0 and height > 0:
        refuse(
            "matmul",
            f"the width of x must be the height of y, received {width} and {height} "
            f"(x: {x.describe()}, y: {y.describe()}, transpose_x={transpose_x}, transpose_y={transpose_y})",
        )
    if len(a) > 2 and len(b) > 2:
        for m, n in zip(a[:-2], b[:-2]):
            if m != n and m > 0 and n > 0 and len(a) == len(b) and 1 not in (m, n):
                refuse("matmul", f"batch dimensions must be equal, received {x.describe()} and {y.describe()}")


def bmm(x: Any, y: Any, name: str | None = None) -> Any:
    """Products of matrices batch by batch: [B, M, K] and [B, K, N] give [B, M, N]."""
    check_variable_and_dtype(x, "x", FLOATS, "bmm")
    check_variable_and_dtype(y, "y", FLOATS, "bmm")
    for value, argument in ((x, "x"), (y, "y")):
        if len(value.shape) != 3:
            refuse("bmm", f"'{argument}' must have 3 dimensions, received {value.describe()}")
    if x.shape[2] != y.shape[1] and x.shape[2] > 0 and y.shape[1] > 0:
        refuse("bmm", f"the width of x must be the height of y, received {x.describe()} and {y.describe()}")
    return append("bmm", "bmm", {"X": [x], "Y": [y]}, dtype=x.dtype, name=name)


def dot(x: Any, y: Any, name: str | None = None) -> Any:
    """Inner products over the last dimension, which becomes 1; x and y are both 1-D or both 2-D."""
    check_variable_and_dtype(x, "x", NUMBERS, "dot")
    check_variable_and_dtype(y, "y", NUMBERS, "dot")
    return append("dot", "dot", {"X": [x], "Y": [y]}, dtype=x.dtype, name=name, takes_name=True)


def addmm(input: Any, x: Any, y: Any, alpha: float = 1.0, beta: float = 1.0, name: str | None = None) -> Any:
    """beta * input + alpha * x @ y for matrices; `input` broadcasts."""
    for value, argument in ((input, "input"), (x, "x"), (y, "y")):
        check_variable_and_dtype(value, argument, FLOATS, "addmm")
    attrs = {"Alpha": alpha, "Beta": beta}
    return append("addmm", "addmm", {"Input": input, "X": x, "Y": y}, attrs, dtype=x.dtype, name=name)


def kron(x: Any, y: Any, out: Any = None, name: str | None = None) -> Any:
    """The Kronecker product; the shorter shape is padded with leading ones."""
    check_variable_and_dtype(x, "x", NUMBERS, "kron")
    check_variable_and_dtype(y, "y", NUMBERS, "kron")
    return append("kron", "kron", {"X": [x], "Y": [y]}, dtype=x.dtype, out=out, name=name)


def cross(input: Any, other: Any, dim: int | None = None) -> Any:
    """Vector products along `dim` (the first dimension of size 3 by default)."""
    check_variable_and_dtype(input, "input", NUMBERS, "cross")
    check_variable_and_dtype(other, "other", NUMBERS, "cross")
    return append("cross", "cross", {"X": input, "Y": other}, {"dim": dim}, dtype=input.dtype)


def dist(x: Any, y: Any, p: float = 2) -> Any:
    """The p-norm of x - y, shape [1]; p may be 0 (count of differences) and infinite."""
    check_variable_and_dtype(x, "x", FLOATS, "dist")
    check_variable_and_dtype(y, "y", FLOATS, "dist")
    return append("dist", "dist", {"X": [x], "Y": [y]}, {"p": float(p)}, dtype=x.dtype)


def cos_sim(X: Any, Y: Any) -> Any:
    """The cosine of the angle between rows, [batch, 1]; Y may have one row."""
    check_variable_and_dtype(X, "X", FLOATS, "cos_sim")
    check_variable_and_dtype(Y, "Y", FLOATS, "cos_sim")
    helper = LayerHelper("cos_sim")
    out, xnorm, ynorm = (helper.create_variable_for_type_inference(X.dtype) for _ in range(3))
    helper.append_op(
        type="cos_sim", inputs={"X": [X], "Y": [Y]}, outputs={"Out": [out], "XNorm": [xnorm], "YNorm": [ynorm]}, attrs={}
    )
    return out


def bilinear_tensor_product(
    x: Any, y: Any, size: int, act: Any = None, name: str | None = None, param_attr: Any = None, bias_attr: Any = None
) -> Any:
    """act(x[i] W_k y[i] + b_k) for k < size: [batch, size] from [batch, M] and [batch, N]; the weight is [size, M, N]."""
    check_variable_and_dtype(x, "x", FLOATS, "bilinear_tensor_product")
    check_variable_and_dtype(y, "y", FLOATS, "bilinear_tensor_product")
    helper = LayerHelper("bilinear_tensor_product", name=name, act=act, param_attr=param_attr, bias_attr=bias_attr)
    weight = helper.create_parameter(
        attr=helper.param_attr, shape=[size, x.shape[1], y.shape[1]], dtype=x.dtype, is_bias=False
    )
    out = helper.create_variable_for_type_inference(x.dtype)
    inputs: dict[str, Any] = {"X": [x], "Y": [y], "Weight": [weight]}
    if helper.bias_attr:
        inputs["Bias"] = [helper.create_parameter(attr=helper.bias_attr, shape=[1, size], dtype=x.dtype, is_bias=True)]
    helper.append_op(type="bilinear_tensor_product", inputs=inputs, outputs={"Out": [out]}, attrs={})
    return helper.append_activation(out)


def fsp_matrix(x: Any, y: Any) -> Any:
    """Flow between two feature maps (Yim et al., 2017): [batch, Cx, Cy], the mean over positions of x[i] y[j]."""
    check_variable_and_dtype(x, "x", FLOATS, "fsp_matrix")
    check_variable_and_dtype(y, "y", FLOATS, "fsp_matrix")
    return append("fsp_matrix", "fsp", {"X": [x], "Y": [y]}, dtype=x.dtype)
