"""Resizing images, sampling grids, rearranging channels."""

from __future__ import annotations

from typing import Any

from millstream.fluid.layer_helper import LayerHelper
from millstream.fluid.layers._build import append, as_tensors, has_variable, int_list, known_part
from millstream.fluid.layers._check import (
    FLOATS,
    NUMBERS,
    check_choice,
    check_type,
    check_variable,
    check_variable_and_dtype,
    is_variable,
    refuse,
    refuse_type,
)

__all__ = [
    "add_position_encoding",
    "affine_channel",
    "affine_grid",
    "continuous_value_model",
    "grid_sampler",
    "image_resize",
    "image_resize_short",
    "interpolate",
    "pixel_shuffle",
    "resize_bilinear",
    "resize_nearest",
    "resize_trilinear",
    "shuffle_channel",
    "similarity_focus",
    "space_to_depth",
    "temporal_shift",
    "unfold",
]

_RESAMPLE = {"BILINEAR": "bilinear", "TRILINEAR": "trilinear", "NEAREST": "nearest"}


def image_resize(
    input: Any,
    out_shape: Any = None,
    scale: Any = None,
    name: str | None = None,
    resample: str = "BILINEAR",
    actual_shape: Any = None,
    align_corners: bool = True,
    align_mode: int = 1,
    data_format: str = "NCHW",
) -> Any:
    """Images (or volumes) of another size.

    Args:
        input: 4-D; 5-D for resample="TRILINEAR".
        out_shape: the size: a list of ints and int32 Variables of shape [1], or one 1-D int32 Variable. Goes before `scale`.
        scale: factor of every size; a number or a Variable of shape [1].
        resample: "BILINEAR", "TRILINEAR" or "NEAREST".
        actual_shape: (form of 1.1) a 1-D int32 Variable that overrides the size at run time.
        align_corners: corner pixels keep their values; else pixels are areas.
        align_mode: with align_corners=False: 0: source = scale * (target + 0.5) - 0.5; 1: source = scale * target.
    """
    layer = "image_resize"
    if resample not in _RESAMPLE:
        refuse(layer, f"'resample' must be one of {', '.join(_RESAMPLE)}; received {resample!r}")
    check_variable_and_dtype(input, "input", (*FLOATS, "uint8"), layer)
    n = len(input.shape) - 2
    if n != (3 if resample == "TRILINEAR" else 2):
        refuse(
            layer, f"'{resample}' does not fit {input.describe()}: it takes {5 if resample == 'TRILINEAR' else 4} dimensions"
        )
    check_choice(align_mode, "align_mode", (0, 1), layer)
    check_type(align_corners, "align_corners", bool, layer)
    check_choice(data_format, "data_format", ("NCHW", "NHWC") if n == 2 else ("NCDHW", "NDHWC"), layer)
    if out_shape is None and scale is None:
        refuse(layer, "'out_shape' or 'scale' must be given")
    method = _RESAMPLE[resample]
    helper = LayerHelper(f"{method}_interp", name=name)
    inputs: dict[str, Any] = {"X": input}
    attrs: dict[str, Any] = {
        "out_d": -1,
        "out_h": -1,
        "out_w": -1,
        "interp_method": method,
        "align_corners": align_corners,
        "align_mode": align_mode,
        "data_layout": "NCHW" if data_format.startswith("NC") else "NHWC",
    }
    if out_shape is not None:
        _size(helper, out_shape, n, inputs, attrs)
    elif is_variable(scale):
        scale.stop_gradient = True
        inputs["Scale"] = scale
    else:
        check_type(scale, "scale", (int, float), layer)
        if scale <= 0:
            refuse(layer, f"'scale' must be positive, received {scale}")
        attrs["scale"] = float(scale)
    if actual_shape is not None:
        check_variable(actual_shape, "actual_shape", layer)
        actual_shape.stop_gradient = True
        inputs["OutSize"] = actual_shape
    out = helper.create_variable_for_type_inference(input.dtype)
    helper.append_op(type=f"{method}_interp", inputs=inputs, outputs={"Out": out}, attrs=attrs)
    return out


interpolate = image_resize


def _size(helper: LayerHelper, out_shape: Any, n: int, inputs: dict[str, Any], attrs: dict[str, Any]) -> None:
    """The inputs and attributes that say the wanted size."""
    if is_variable(out_shape):
        out_shape.stop_gradient = True
        inputs["OutSize"] = out_shape
        return
    if not isinstance(out_shape, (list, tuple)):
        refuse_type(
            "image_resize", f"'out_shape' must be a list, a tuple or a Variable, received {type(out_shape).__name__}"
        )
    if len(out_shape) != n:
        refuse("image_resize", f"'out_shape' must have {n} elements, received {len(out_shape)}")
    known = known_part(out_shape)
    if any(d <= 0 and not is_variable(v) for d, v in zip(known, out_shape)):
        refuse("image_resize", f"each of 'out_shape' must be positive, received {known}")
    if has_variable(out_shape):
        inputs["SizeTensor"] = as_tensors(helper, out_shape)
    attrs |= dict(zip(("out_d", "out_h", "out_w")[3 - n :], known))


def resize_bilinear(
    input: Any,
    out_shape: Any = None,
    scale: Any = None,
    name: str | None = None,
    actual_shape: Any = None,
    align_corners: bool = True,
    align_mode: int = 1,
    data_format: str = "NCHW",
) -> Any:
    """Linear interpolation in both directions; see :func:`image_resize`."""
    return image_resize(input, out_shape, scale, name, "BILINEAR", actual_shape, align_corners, align_mode, data_format)


def resize_trilinear(
    input: Any,
    out_shape: Any = None,
    scale: Any = None,
    name: str | None = None,
    actual_shape: Any = None,
    align_corners: bool = True,
    align_mode: int = 1,
    data_format: str = "NCDHW",
) -> Any:
    """Linear interpolation in three directions; see :func:`image_resize`."""
    return image_resize(input, out_shape, scale, name, "TRILINEAR", actual_shape, align_corners, align_mode, data_format)


def resize_nearest(
    input: Any,
    out_shape: Any = None,
    scale: Any = None,
    name: str | None = None,
    actual_shape: Any = None,
    align_corners: bool = True,
    data_format: str = "NCHW",
) -> Any:
    """The nearest pixel; see :func:`image_resize`."""
    return image_resize(input, out_shape, scale, name, "NEAREST", actual_shape, align_corners, 1, data_format)


def image_resize_short(input: Any, out_short_len: int, resample: str = "BILINEAR") -> Any:
    """Images [N, C, H, W] resized so that their shorter side is `out_short_len` and their proportions stay."""
    if len(input.shape) != 4:
        refuse("image_resize_short", f"'input' must have 4 dimensions, received {input.describe()}")
    height, width = input.shape[2:4]
    if height <= 0 or width <= 0:
        refuse("image_resize_short", f"height and width must be known, received {input.describe()}")
    short = min(height, width)
    size = [int(side * out_short_len / short + 0.5) for side in (height, width)]
    size[0 if height == short else 1] = out_short_len
    return image_resize(input=input, out_shape=size, resample=resample)


def grid_sampler(x: Any, grid: Any, name: str | None = None) -> Any:
    """`x` [N, C, H, W] sampled bilinearly at `grid` [N, H', W', 2]: (x, y) from -1 to 1 between the corner pixels."""
    check_variable_and_dtype(x, "x", FLOATS, "grid_sampler")
    check_variable_and_dtype(grid, "grid", FLOATS, "grid_sampler")
    return append("grid_sampler", "grid_sampler", {"X": x, "Grid": grid}, dtype=x.dtype, slot="Output", name=name)


def affine_grid(theta: Any, out_shape: Any, name: str | None = None) -> Any:
    """Sampling points [N, H, W, 2] of affine maps `theta` [N, 2, 3] (Jaderberg et al., 2015, arXiv:1506.02025).

    Args:
        out_shape: [N, C, H, W]: a list of ints or a 1-D int32 Variable.
        name: no meaning (1.8.5 does not use it either).
    """
    check_variable_and_dtype(theta, "theta", FLOATS, "affine_grid")
    inputs: dict[str, Any] = {"Theta": theta}
    attrs = {}
    if is_variable(out_shape):
        check_variable_and_dtype(out_shape, "out_shape", ("int32",), "affine_grid")
        inputs["OutputShape"] = out_shape
    elif isinstance(out_shape, (list, tuple)):
        attrs["output_shape"] = int_list(out_shape, 4, "out_shape", "affine_grid")
    else:
        refuse("affine_grid", f"'out_shape' must be a list, a tuple or a Variable, received {out_shape!r}")
    return append("affine_grid", "affine_grid", inputs, attrs, dtype=theta.dtype, slot="Output")


def affine_channel(
    x: Any, scale: Any = None, bias: Any = None, data_layout: str = "NCHW", name: str | None = None, act: Any = None
) -> Any:
    """act(scale[c] * x + bias[c]) for each channel c; `scale` and `bias` are Variables of shape [C]."""
    check_variable_and_dtype(x, "x", FLOATS, "affine_channel")
    check_variable(scale, "scale", "affine_channel")
    check_variable(bias, "bias", "affine_channel")
    check_choice(data_layout, "data_layout", ("NCHW", "NHWC", "AnyLayout"), "affine_channel")
    inputs = {"X": x, "Scale": scale, "Bias": bias}
    attrs = {"data_layout": data_layout}
    return append("affine_channel", "affine_channel", inputs, attrs, dtype=x.dtype, name=name, act=act)


def unfold(
    x: Any, kernel_sizes: Any, strides: Any = 1, paddings: Any = 0, dilations: Any = 1, name: str | None = None
) -> Any:
    """Windows of images as columns: [N, C * kh * kw, windows] from [N, C, H, W].

    Args:
        paddings: int, [h, w] or [top, left, bottom, right].
    """
    layer = "unfold"
    check_variable_and_dtype(x, "x", FLOATS, layer)
    if len(x.shape) != 4:
        refuse(layer, f"'x' must have 4 dimensions, received {x.describe()}")
    if isinstance(paddings, (list, tuple)) and len(paddings) == 2:
        paddings = [*paddings, *paddings]
    attrs = {
        "kernel_sizes": int_list(kernel_sizes, 2, "kernel_sizes", layer),
        "strides": int_list(strides, 2, "strides", layer),
        "paddings": int_list(paddings, 4, "paddings", layer),
        "dilations": int_list(dilations, 2, "dilations", layer),
    }
    return append(layer, layer, {"X": x}, attrs, dtype=x.dtype, slot="Y", name=name)


def pixel_shuffle(x: Any, upscale_factor: int) -> Any:
    """[N, C / (r * r), H * r, W * r] from [N, C, H, W] (Shi et al., 2016, arXiv:1609.05158)."""
    check_variable_and_dtype(x, "x", FLOATS, "pixel_shuffle")
    check_type(upscale_factor, "upscale_factor", int, "pixel_shuffle")
    return append("pixel_shuffle", "pixel_shuffle", {"X": x}, {"upscale_factor": upscale_factor}, dtype=x.dtype)


def space_to_depth(x: Any, blocksize: int, name: str | None = None) -> Any:
    """[N, C * b * b, H / b, W / b] from [N, C, H, W]: blocks of pixels become channels."""
    check_variable_and_dtype(x, "x", NUMBERS, "space_to_depth")
    check_type(blocksize, "blocksize", int, "space_to_depth")
    return append("space_to_depth", "space_to_depth", {"X": x}, {"blocksize": blocksize}, dtype=x.dtype, name=name)


def shuffle_channel(x: Any, group: int, name: str | None = None) -> Any:
    """Channels dealt out over the groups (Zhang et al., 2017, arXiv:1707.01083)."""
    check_variable_and_dtype(x, "x", FLOATS, "shuffle_channel")
    check_type(group, "group", int, "shuffle_channel")
    return append("shuffle_channel", "shuffle_channel", {"X": x}, {"group": group}, dtype=x.dtype, name=name)


def temporal_shift(x: Any, seg_num: int, shift_ratio: float = 0.25, name: str | None = None) -> Any:
    """Of the frames [N * seg_num, C, H, W], the first `shift_ratio` of the channels comes from the frame before, the next
    from the frame after (Lin et al., 2018, arXiv:1811.08383)."""
    check_variable_and_dtype(x, "x", FLOATS, "temporal_shift")
    check_type(seg_num, "seg_num", int, "temporal_shift")
    check_type(shift_ratio, "shift_ratio", float, "temporal_shift")
    attrs = {"seg_num": seg_num, "shift_ratio": shift_ratio}
    return append("temporal_shift", "temporal_shift", {"X": x}, attrs, dtype=x.dtype, name=name)


def similarity_focus(input: Any, axis: int, indexes: Any, name: str | None = None) -> Any:
    """0/1 masks of [N, A, B, C]: for each slice `indexes` along `axis`, the greatest element of each row and column."""
    check_variable_and_dtype(input, "input", FLOATS, "similarity_focus")
    check_choice(axis, "axis", (1, 2, 3), "similarity_focus")
    check_type(indexes, "indexes", (list, tuple), "similarity_focus")
    if not indexes:
        refuse("similarity_focus", "'indexes' must not be empty")
    attrs = {"axis": axis, "indexes": list(indexes)}
    return append("similarity_focus", "similarity_focus", {"X": input}, attrs, dtype=input.dtype, name=name)


def add_position_encoding(input: Any, alpha: float, beta: float, name: str | None = None) -> Any:
    """alpha * input + beta * sines and cosines of the position (Vaswani et al., 2017): [batch, T, D], or a sequence."""
    layer = "add_position_encoding"
    check_variable_and_dtype(input, "input", FLOATS, layer)
    return append(layer, layer, {"X": [input]}, {"alpha": alpha, "beta": beta}, dtype=input.dtype, name=name)


def continuous_value_model(input: Any, cvm: Any, use_cvm: bool = True) -> Any:
    """Embeddings whose first two columns are counts of shows and clicks.

    They become log(show + 1) and log(click + 1) - log(show + 1), or are dropped when `use_cvm` is False.

    Args:
        input: [batch, 2 + features].
        cvm: [batch, 2], the counts, for the gradient.
    """
    check_variable_and_dtype(input, "input", FLOATS, "continuous_value_model")
    check_variable(cvm, "cvm", "continuous_value_model")
    helper = LayerHelper("cvm")
    out = helper.create_variable(dtype=input.dtype)
    helper.append_op(type="cvm", inputs={"X": [input], "CVM": [cvm]}, outputs={"Y": [out]}, attrs={"use_cvm": use_cvm})
    return out
