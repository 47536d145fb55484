"""Prior boxes and anchors laid over a feature map."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from millstream.fluid.layers._check import FLOATS, check_type, check_variable, check_variable_and_dtype, refuse, refuse_type
from millstream.fluid.layers.detection._emit import emit
from millstream.fluid.layers.nn.conv import conv2d
from millstream.fluid.layers.nn.manipulate import flatten, reshape, transpose
from millstream.fluid.layers.tensor import concat

__all__ = ["anchor_generator", "density_prior_box", "multi_box_head", "prior_box"]


def _floats(value: Any, argument: str, layer: str) -> list[float]:
    """A number or a list of numbers as a list of floats."""
    if not isinstance(value, (list, tuple)):
        value = [value]
    try:
        return [float(v) for v in value]
    except (TypeError, ValueError):
        refuse_type(layer, f"'{argument}' must be a number or a list of numbers, received {value!r}")


def _pair(value: Any, argument: str, layer: str) -> list[float]:
    if not isinstance(value, (list, tuple)) or len(value) != 2:
        refuse(layer, f"'{argument}' must be two numbers (width, height), received {value!r}")
    return _floats(value, argument, layer)


def prior_box(
    input: Any,
    image: Any,
    min_sizes: Any,
    max_sizes: Any = None,
    aspect_ratios: Any = [1.0],
    variance: Any = [0.1, 0.1, 0.2, 0.2],
    flip: bool = False,
    clip: bool = False,
    steps: Any = [0.0, 0.0],
    offset: float = 0.5,
    name: str | None = None,
    min_max_aspect_ratios_order: bool = False,
) -> tuple[Any, Any]:
    """Prior boxes of SSD (Liu et al., 2016, arXiv:1512.02325) at every cell of `input`.

    Args:
        input: feature map [N, C, H, W]; image: [N, C, H', W'].
        min_sizes, max_sizes: pixels; as many maxima as minima.
        steps: distance of the cells (width, height) in pixels; 0: image size / map size.
        min_max_aspect_ratios_order: the square boxes of the minimum and maximum come first.

    Returns:
        boxes and variances, both [H, W, boxes per cell, 4]; boxes as fractions of the image.
    """
    layer = "prior_box"
    check_variable_and_dtype(input, "input", ("uint8", "int8", *FLOATS), layer)
    check_variable(image, "image", layer)
    step = _pair(steps, "steps", layer)
    attrs: dict[str, Any] = {
        "min_sizes": _floats(min_sizes, "min_sizes", layer),
        "aspect_ratios": _floats(aspect_ratios, "aspect_ratios", layer),
        "variances": _floats(variance, "variance", layer),
        "flip": flip,
        "clip": clip,
        "step_w": step[0],
        "step_h": step[1],
        "offset": offset,
        "min_max_aspect_ratios_order": min_max_aspect_ratios_order,
    }
    maxima = [] if max_sizes is None else _floats(max_sizes, "max_sizes", layer)
    if maxima and maxima[0] > 0:
        attrs["max_sizes"] = maxima
    outputs = [("Boxes", input.dtype), ("Variances", input.dtype)]
    boxes, variances = emit(layer, {"Input": input, "Image": image}, outputs, attrs, name=name, constant=True)
    return boxes, variances


def density_prior_box(
    input: Any,
    image: Any,
    densities: Any = None,
    fixed_sizes: Any = None,
    fixed_ratios: Any = None,
    variance: Any = [0.1, 0.1, 0.2, 0.2],
    clip: bool = False,
    steps: Any = [0.0, 0.0],
    offset: float = 0.5,
    flatten_to_2d: bool = False,
    name: str | None = None,
) -> tuple[Any, Any]:
    """Prior boxes set ``densities[i]`` squared times in a cell for each ``fixed_sizes[i]`` and ratio (FaceBoxes, 2017).

    Returns:
        boxes and variances, both [H, W, boxes per cell, 4], or [boxes, 4] with `flatten_to_2d`.
    """
    layer = "density_prior_box"
    check_variable_and_dtype(input, "input", FLOATS, layer)
    check_variable(image, "image", layer)
    for value, argument in ((densities, "densities"), (fixed_sizes, "fixed_sizes"), (fixed_ratios, "fixed_ratios")):
        check_type(value, argument, (list, tuple), layer)
    if len(densities) != len(fixed_sizes):
        refuse(layer, f"'densities' ({len(densities)}) and 'fixed_sizes' ({len(fixed_sizes)}) must have one length")
    step = _pair(steps, "steps", layer)
    attrs = {
        "variances": _floats(variance, "variance", layer),
        "clip": clip,
        "step_w": step[0],
        "step_h": step[1],
        "offset": offset,
        "densities": [int(d) for d in densities],
        "fixed_sizes": _floats(fixed_sizes, "fixed_sizes", layer),
        "fixed_ratios": _floats(fixed_ratios, "fixed_ratios", layer),
        "flatten_to_2d": flatten_to_2d,
    }
    outputs = [("Boxes", input.dtype), ("Variances", input.dtype)]
    boxes, variances = emit(layer, {"Input": input, "Image": image}, outputs, attrs, name=name, constant=True)
    return boxes, variances


def anchor_generator(
    input: Any,
    anchor_sizes: Any = None,
    aspect_ratios: Any = None,
    variance: Any = [0.1, 0.1, 0.2, 0.2],
    stride: Any = None,
    offset: float = 0.5,
    name: str | None = None,
) -> tuple[Any, Any]:
    """Anchors of Faster R-CNN (Ren et al., 2015, arXiv:1506.01497) at every cell of `input` [N, C, H, W].

    Args:
        anchor_sizes: pixels; aspect_ratios: height / width; stride: pixels of the image per cell (width, height).

    Returns:
        anchors in pixels and variances, both [H, W, anchors per cell, 4].
    """
    layer = "anchor_generator"
    check_variable_and_dtype(input, "input", FLOATS, layer)
    attrs = {
        "anchor_sizes": _floats(anchor_sizes, "anchor_sizes", layer),
        "aspect_ratios": _floats(aspect_ratios, "aspect_ratios", layer),
        "variances": _floats(variance, "variance", layer),
        "stride": _pair(stride, "stride", layer),
        "offset": offset,
    }
    outputs = [("Anchors", input.dtype), ("Variances", input.dtype)]
    anchors, variances = emit(layer, {"Input": input}, outputs, attrs, name=name, constant=True)
    return anchors, variances


def multi_box_head(
    inputs: Sequence[Any],
    image: Any,
    base_size: int,
    num_classes: int,
    aspect_ratios: Any,
    min_ratio: Any = None,
    max_ratio: Any = None,
    min_sizes: Any = None,
    max_sizes: Any = None,
    steps: Any = None,
    step_w: Any = None,
    step_h: Any = None,
    offset: float = 0.5,
    variance: Any = [0.1, 0.1, 0.2, 0.2],
    flip: bool = True,
    clip: bool = False,
    kernel_size: int = 1,
    pad: int = 0,
    stride: int = 1,
    name: str | None = None,
    min_max_aspect_ratios_order: bool = False,
) -> tuple[Any, Any, Any, Any]:
    """The head of SSD (arXiv:1512.02325): on each feature map prior boxes, their offsets and their class scores.

    Args:
        inputs: feature maps [N, C_i, H_i, W_i], from fine to coarse.
        aspect_ratios: for each map, a ratio or a list of them.
        min_ratio, max_ratio: per cent of `base_size` that the box sizes run through, for three maps or more; or else
            `min_sizes` and `max_sizes`, one (or a list) for each map.
        steps, step_w, step_h: pixels between cells, one for each map; `steps` is for both directions.
        name: accepted for the form; the parts are named after themselves.

    Returns:
        (offsets [N, boxes, 4], scores [N, boxes, num_classes], boxes [boxes, 4], variances [boxes, 4]); of a single map
        the parts as they come: [N, ...] and [H, W, boxes per cell, 4].
    """
    layer = "multi_box_head"
    check_type(inputs, "inputs", (list, tuple), layer)
    count = len(inputs)
    min_sizes, max_sizes = _box_sizes(count, base_size, min_ratio, max_ratio, min_sizes, max_sizes)
    widths, heights = (steps, steps) if steps else (step_w, step_h)
    for value, argument in (
        (aspect_ratios, "aspect_ratios"),
        (min_sizes, "min_sizes"),
        (max_sizes, "max_sizes"),
        (widths, "steps or step_w"),
        (heights, "steps or step_h"),
    ):
        if value is not None and len(value) != count:
            refuse(layer, f"'{argument}' must have one element for each of the {count} inputs, received {len(value)}")
    parts: list[tuple[Any, Any, Any, Any]] = []
    for i, feature in enumerate(inputs):
        step = [widths[i] if widths else 0.0, heights[i] if heights else 0.0]
        maximum = max_sizes[i] if max_sizes is not None else None
        boxes, variances = prior_box(
            feature, image, min_sizes[i], maximum, aspect_ratios[i], variance, flip, clip, step, offset, None,
            min_max_aspect_ratios_order,
        )  # fmt: skip
        per_cell = boxes.shape[2]
        found = []
        for width in (per_cell * 4, per_cell * num_classes):
            conv = conv2d(feature, num_filters=width, filter_size=kernel_size, padding=pad, stride=stride)
            found.append(flatten(transpose(conv, perm=[0, 2, 3, 1]), axis=1))
        parts.append((found[0], found[1], boxes, variances))
    if count == 1:
        return parts[0]
    flat = [(flatten(boxes, axis=3), flatten(variances, axis=3)) for _, _, boxes, variances in parts]
    all_boxes = concat([boxes for boxes, _ in flat])
    all_variances = concat([variances for _, variances in flat])
    all_boxes.stop_gradient = all_variances.stop_gradient = True
    offsets = reshape(concat([part[0] for part in parts], axis=1), shape=[0, -1, 4])
    scores = reshape(concat([part[1] for part in parts], axis=1), shape=[0, -1, num_classes])
    return offsets, scores, all_boxes, all_variances


def _box_sizes(
    count: int, base_size: int, min_ratio: Any, max_ratio: Any, min_sizes: Any, max_sizes: Any
) -> tuple[list[Any], Any]:
    """Sizes for each map: as given, or in even steps of per cent from `min_ratio` to `max_ratio`, the first at 10 and 20."""
    layer = "multi_box_head"
    if min_sizes is not None:
        return min_sizes, max_sizes
    if count <= 2:
        refuse(layer, f"{count} inputs need 'min_sizes' and 'max_sizes'; ratios are for three or more")
    if min_ratio is None or max_ratio is None:
        refuse(layer, "give 'min_ratio' and 'max_ratio', or 'min_sizes' and 'max_sizes'")
    step = math.floor((max_ratio - min_ratio) / (count - 2))
    if step < 1:
        refuse(layer, f"'max_ratio' {max_ratio} must exceed 'min_ratio' {min_ratio} by at least {count - 2}")
    low, high = [base_size * 0.10], [base_size * 0.20]
    for ratio in range(min_ratio, max_ratio + 1, step):
        low.append(base_size * ratio / 100.0)
        high.append(base_size * (ratio + step) / 100.0)
    return low[:count], high[:count]
