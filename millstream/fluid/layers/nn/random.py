"""Random tensors. `seed` 0: a different draw each run, unless Program.random_seed says otherwise."""

from __future__ import annotations

from typing import Any

import numpy as np

from millstream.fluid.layer_helper import LayerHelper
from millstream.fluid.layers._build import append, as_tensors, has_variable, known_part
from millstream.fluid.layers._check import (
    FLOATS,
    INDICES,
    NUMBERS,
    check_dtype,
    check_type,
    check_variable,
    check_variable_and_dtype,
    is_variable,
    refuse,
)
from millstream.ir import names
from millstream.ir.types import to_var_type

__all__ = [
    "gaussian_random",
    "gaussian_random_batch_size_like",
    "randint",
    "randn",
    "random_crop",
    "randperm",
    "sampling_id",
    "uniform_random",
    "uniform_random_batch_size_like",
]


def _shape_slots(
    helper: LayerHelper, shape: Any, dtype: str, fill_prefix: str | None, attr: bool = True
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The inputs and attributes that say `shape`: a list of ints, a list with Variables, or one Variable."""
    layer = helper.layer_type
    if is_variable(shape):
        shape.stop_gradient = True
        return {"ShapeTensor": [shape]}, {}
    if not isinstance(shape, (list, tuple)) or not shape:
        refuse(layer, f"'shape' must be a Variable or a non-empty list of ints and Variables, received {shape!r}")
    if has_variable(shape):
        inputs = {"ShapeTensorList": as_tensors(helper, shape, dtype, fill_prefix)}
        return inputs, {"shape": known_part(shape)} if attr else {}
    return {}, {"shape": [int(d) for d in shape]}


def uniform_random(
    shape: Any, dtype: Any = "float32", min: float | None = -1.0, max: float | None = 1.0, seed: int | None = 0
) -> Any:
    """Uniform draws in [min, max).

    Args:
        shape: list of ints and int Variables of shape [1], or one 1-D int Variable.
        dtype: float32 or float64. (Fluid 1.8.5 drew float32 whatever was asked for.)
    """
    check_dtype(dtype, "dtype", FLOATS, "uniform_random")
    helper = LayerHelper("uniform_random")
    attrs: dict[str, Any] = {"seed": seed or 0, "min": -1.0 if min is None else min, "max": 1.0 if max is None else max}
    inputs, shape_attr = _shape_slots(helper, shape, "int64", None)
    out = helper.create_variable_for_type_inference(dtype)
    attrs |= shape_attr | {"dtype": to_var_type(dtype)}
    helper.append_op(type="uniform_random", inputs=inputs, outputs={"Out": [out]}, attrs=attrs)
    return out


def gaussian_random(shape: Any, mean: float = 0.0, std: float = 1.0, seed: int = 0, dtype: Any = "float32") -> Any:
    """Normal draws; `shape` as for :func:`uniform_random`."""
    check_dtype(dtype, "dtype", FLOATS, "gaussian_random")
    helper = LayerHelper("gaussian_random")
    inputs, shape_attr = _shape_slots(helper, shape, "int32", "fill_constant")
    out = helper.create_variable_for_type_inference(dtype)
    attrs = {"mean": float(mean), "std": float(std), "seed": seed, "dtype": to_var_type(dtype), **shape_attr}
    helper.append_op(type="gaussian_random", inputs=inputs, outputs={"Out": [out]}, attrs=attrs)
    return out


def randn(
    shape: Any,
    out: Any = None,
    dtype: Any = None,
    device: str | None = None,
    stop_gradient: bool = True,
    name: str | None = None,
) -> Any:
    """Draws from the standard normal distribution.

    Args:
        out: Variable to write; None: a new one.
        device: accepted, without meaning: the Executor's place decides.
    """
    dtype = check_dtype(dtype if dtype is not None else "float32", "dtype", FLOATS, "randn")
    check_type(shape, "shape", (list, tuple), "randn")
    helper = LayerHelper("randn", name=name)
    if out is None:
        out = helper.create_variable_for_type_inference(dtype)
    else:
        check_variable_and_dtype(out, "out", (dtype,), "randn")
    out.stop_gradient = stop_gradient
    attrs = {
        "shape": [int(d) for d in shape],
        "mean": 0.0,
        "std": 1.0,
        # drawn here, so that two layers of one Program differ and every run repeats them
        "seed": int(np.random.randint(0, 10000)),
        "dtype": to_var_type(dtype),
    }
    helper.append_op(type="gaussian_random", inputs={}, outputs={"Out": [out]}, attrs=attrs)
    return out


def randint(
    low: int,
    high: int | None = None,
    shape: Any = None,
    out: Any = None,
    dtype: Any = None,
    device: str | None = None,
    stop_gradient: bool = False,
    seed: int = 0,
    name: str | None = None,
) -> Any:
    """Integers in [low, high), or in [0, low) when `high` is None; `shape` [1] by default, dtype int64."""
    dtype = check_dtype(dtype if dtype is not None else "int64", "dtype", INDICES, "randint")
    if high is None:
        low, high = 0, low
    if low >= high:
        refuse("randint", f"'low' must be less than 'high', received low={low}, high={high}")
    helper = LayerHelper("randint", name=name)
    inputs, shape_attr = _shape_slots(helper, [1] if shape is None else shape, "int64", None, attr=False)
    if out is None and name is not None:  # called so itself, as in 1.8.5
        out = helper.create_variable(name=name, dtype=dtype, persistable=False)
    elif out is None:
        out = helper.create_variable_for_type_inference(dtype)
    else:
        check_variable_and_dtype(out, "out", (dtype,), "randint")
    out.stop_gradient = stop_gradient
    attrs = {"low": low, "high": high, "seed": seed, "dtype": to_var_type(dtype), **shape_attr}
    helper.append_op(type="randint", inputs=inputs, outputs={"Out": [out]}, attrs=attrs)
    return out


def randperm(
    n: int,
    out: Any = None,
    dtype: Any = "int64",
    device: str | None = None,
    stop_gradient: bool = True,
    seed: int = 0,
) -> Any:
    """A random permutation of 0 … n-1, shape [n]."""
    dtype = check_dtype(dtype, "dtype", INDICES, "randperm")
    if n < 1:
        refuse("randperm", f"'n' must be positive, received {n}")
    helper = LayerHelper("randperm")
    if out is None:
        out = helper.create_variable_for_type_inference(dtype)
    else:
        check_variable_and_dtype(out, "out", (dtype,), "randperm")
    out.stop_gradient = stop_gradient
    attrs = {"n": int(n), "dtype": to_var_type(dtype), "seed": seed}
    helper.append_op(type="randperm", inputs={}, outputs={"Out": [out]}, attrs=attrs)
    return out


def uniform_random_batch_size_like(
    input: Any,
    shape: Any,
    dtype: Any = "float32",
    input_dim_idx: int = 0,
    output_dim_idx: int = 0,
    min: float = -1.0,
    max: float = 1.0,
    seed: int = 0,
) -> Any:
    """Uniform draws of `shape`, whose dimension `output_dim_idx` is dimension `input_dim_idx` of `input`."""
    check_variable(input, "input", "uniform_random_batch_size_like")
    check_dtype(dtype, "dtype", FLOATS, "uniform_random_batch_size_like")
    attrs = {
        "shape": list(shape),
        "input_dim_idx": input_dim_idx,
        "output_dim_idx": output_dim_idx,
        "min": min,
        "max": max,
        "seed": seed,
        "dtype": to_var_type(dtype),
    }
    kind = "uniform_random_batch_size_like"
    return append(kind, kind, {"Input": [input]}, attrs, dtype=dtype)


def gaussian_random_batch_size_like(
    input: Any,
    shape: Any,
    input_dim_idx: int = 0,
    output_dim_idx: int = 0,
    mean: float = 0.0,
    std: float = 1.0,
    seed: int = 0,
    dtype: Any = "float32",
) -> Any:
    """Normal draws of `shape`, whose dimension `output_dim_idx` is dimension `input_dim_idx` of `input`."""
    check_variable(input, "input", "gaussian_random_batch_size_like")
    check_dtype(dtype, "dtype", FLOATS, "gaussian_random_batch_size_like")
    attrs = {
        "shape": list(shape),
        "input_dim_idx": input_dim_idx,
        "output_dim_idx": output_dim_idx,
        "mean": mean,
        "std": std,
        "seed": seed,
        "dtype": to_var_type(dtype),
    }
    kind = "gaussian_random_batch_size_like"
    return append(kind, kind, {"Input": [input]}, attrs, dtype=dtype)


def sampling_id(x: Any, min: float = 0.0, max: float = 1.0, seed: int = 0, dtype: Any = "float32") -> Any:
    """One category a row, drawn from the probabilities `x` [batch, categories]; uniform numbers in [min, max) decide."""
    check_variable_and_dtype(x, "x", FLOATS, "sampling_id")
    attrs = {"min": min, "max": max, "seed": seed}
    return append("sampling_id", "sampling_id", {"X": [x]}, attrs, dtype=dtype)


def random_crop(x: Any, shape: Any, seed: Any = None) -> Any:
    """A random window of the trailing dimensions of each instance of `x`.

    Args:
        shape: sizes of the window, as many as it has trailing dimensions.
        seed: an int (None: drawn now), or an int64 Variable that is read and advanced.
    """
    check_variable_and_dtype(x, "x", (*NUMBERS, "uint8", "int16"), "random_crop")
    helper = LayerHelper("random_crop")
    out = helper.create_variable_for_type_inference(x.dtype)
    attrs: dict[str, Any] = {"shape": [int(d) for d in shape]}
    if not is_variable(seed):
        attrs["startup_seed"] = int(np.random.randint(-65536, 65536)) if seed is None else int(seed)
        seed = helper.create_variable(
            name=names.generate("random_crop_seed"), dtype="int64", shape=[], persistable=True
        )
    helper.append_op(
        type="random_crop", inputs={"X": [x], "Seed": [seed]}, outputs={"Out": [out], "SeedOut": [seed]}, attrs=attrs
    )
    return out
