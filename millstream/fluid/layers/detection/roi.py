"""Features of regions: pooling by maximum, by interpolation, position-sensitive, and by perspective."""

from __future__ import annotations

from typing import Any

from millstream.fluid.layers._check import FLOATS, check_type, check_variable, check_variable_and_dtype, refuse
from millstream.fluid.layers.detection._emit import emit

__all__ = [
    "deformable_roi_pooling",
    "prroi_pool",
    "psroi_pool",
    "roi_align",
    "roi_perspective_transform",
    "roi_pool",
]


def _check(input: Any, rois: Any, layer: str) -> None:
    check_variable_and_dtype(input, "input", FLOATS, layer)
    check_variable_and_dtype(rois, "rois", FLOATS, layer)


def _number(value: Any, argument: str, layer: str) -> float:
    check_type(value, argument, (int, float), layer)
    return float(value)


def roi_pool(
    input: Any,
    rois: Any,
    pooled_height: int = 1,
    pooled_width: int = 1,
    spatial_scale: float = 1.0,
    rois_lod: Any = None,
) -> Any:
    """Maximum of each cell of a grid over each region (Fast R-CNN, Girshick, 2015).

    Args:
        input: [N, C, H, W]; rois: sequence [R, 4] of corners in the image's pixels.
        spatial_scale: map size / image size; rois_lod: int64 offsets of the images' regions, in place of a sequence.

    Returns:
        [R, C, pooled_height, pooled_width].
    """
    layer = "roi_pool"
    _check(input, rois, layer)
    attrs = {"pooled_height": pooled_height, "pooled_width": pooled_width, "spatial_scale": spatial_scale}
    inputs = {"X": input, "ROIs": rois, "RoisLod": rois_lod}
    return emit(layer, inputs, [("Out", input.dtype), ("Argmax", "int32")], attrs)[0]


def roi_align(
    input: Any,
    rois: Any,
    pooled_height: int = 1,
    pooled_width: int = 1,
    spatial_scale: float = 1.0,
    sampling_ratio: int = -1,
    name: str | None = None,
    rois_lod: Any = None,
) -> Any:
    """Mean of bilinear samples in each cell of a grid over each region (Mask R-CNN, arXiv:1703.06870).

    Args:
        as `roi_pool`; sampling_ratio: samples each way in a cell, -1: as many as pixels.
    """
    layer = "roi_align"
    _check(input, rois, layer)
    attrs = {
        "pooled_height": pooled_height,
        "pooled_width": pooled_width,
        "spatial_scale": spatial_scale,
        "sampling_ratio": sampling_ratio,
    }
    inputs = {"X": input, "ROIs": rois, "RoisLod": rois_lod}
    return emit(layer, inputs, [("Out", input.dtype)], attrs, name=name)[0]


def psroi_pool(
    input: Any,
    rois: Any,
    output_channels: int,
    spatial_scale: float,
    pooled_height: int,
    pooled_width: int,
    name: str | None = None,
) -> Any:
    """Position-sensitive mean (R-FCN, Dai et al., 2016): each cell of the grid reads channels of its own.

    Args:
        input: [N, output_channels * pooled_height * pooled_width, H, W]; rois: sequence [R, 4].

    Returns:
        [R, output_channels, pooled_height, pooled_width].
    """
    layer = "psroi_pool"
    _check(input, rois, layer)
    for value, argument in (
        (output_channels, "output_channels"),
        (pooled_height, "pooled_height"),
        (pooled_width, "pooled_width"),
    ):
        check_type(value, argument, int, layer)
    attrs = {
        "output_channels": output_channels,
        "spatial_scale": _number(spatial_scale, "spatial_scale", layer),
        "pooled_height": pooled_height,
        "pooled_width": pooled_width,
    }
    return emit(layer, {"X": input, "ROIs": rois}, [("Out", input.dtype)], attrs, name=name)[0]


def prroi_pool(
    input: Any,
    rois: Any,
    spatial_scale: float = 1.0,
    pooled_height: int = 1,
    pooled_width: int = 1,
    batch_roi_nums: Any = None,
    name: str | None = None,
) -> Any:
    """Exact integral of the bilinear interpolation over each cell (Jiang et al., 2018, arXiv:1807.11590).

    Args:
        as `roi_pool`; batch_roi_nums: int64 [N], regions of each image, in place of a sequence.
    """
    layer = "prroi_pool"
    _check(input, rois, layer)
    check_type(pooled_height, "pooled_height", int, layer)
    check_type(pooled_width, "pooled_width", int, layer)
    attrs = {
        "spatial_scale": _number(spatial_scale, "spatial_scale", layer),
        "pooled_height": pooled_height,
        "pooled_width": pooled_width,
    }
    inputs = {"X": input, "ROIs": rois, "BatchRoINums": batch_roi_nums}
    return emit(layer, inputs, [("Out", input.dtype)], attrs, name=name)[0]


def deformable_roi_pooling(
    input: Any,
    rois: Any,
    trans: Any,
    no_trans: bool = False,
    spatial_scale: float = 1.0,
    group_size: Any = [1, 1],
    pooled_height: int = 1,
    pooled_width: int = 1,
    part_size: Any = None,
    sample_per_part: int = 1,
    trans_std: float = 0.1,
    position_sensitive: bool = False,
    name: str | None = None,
) -> Any:
    """Pooling whose cells move by learnt offsets (Dai et al., 2017, arXiv:1703.06211).

    Args:
        input: [N, C, H, W]; rois: sequence [R, 4]; trans: offsets [R, 2, part height, part width].
        part_size: (height, width) of the offsets' grid, by default the pooled one.
        position_sensitive: C is output channels * pooled_height * pooled_width.

    Returns:
        [R, output channels, pooled_height, pooled_width].
    """
    layer = "deformable_roi_pooling"
    _check(input, rois, layer)
    check_variable_and_dtype(trans, "trans", FLOATS, layer)
    check_type(group_size, "group_size", (list, tuple), layer)
    if part_size is None:
        part_size = [pooled_height, pooled_width]
    check_type(part_size, "part_size", (list, tuple), layer)
    channels = int(input.shape[1])
    if position_sensitive:
        cells = pooled_height * pooled_width
        if channels % cells:
            refuse(layer, f"{channels} channels of {input.describe()} do not divide into {cells} cells")
        channels //= cells
    attrs = {
        "no_trans": no_trans,
        "spatial_scale": spatial_scale,
        "output_dim": channels,
        "group_size": list(group_size),
        "pooled_height": pooled_height,
        "pooled_width": pooled_width,
        "part_size": list(part_size),
        "sample_per_part": sample_per_part,
        "trans_std": trans_std,
    }
    inputs = {"Input": input, "ROIs": rois, "Trans": trans}
    outputs = [("Output", input.dtype), ("TopCount", "int32")]
    return emit("deformable_psroi_pooling", inputs, outputs, attrs, name=name)[0]


def roi_perspective_transform(
    input: Any,
    rois: Any,
    transformed_height: int,
    transformed_width: int,
    spatial_scale: float = 1.0,
    name: str | None = None,
) -> tuple[Any, Any, Any]:
    """Quadrilaterals straightened into rectangles by a perspective transform.

    Args:
        input: [N, C, H, W]; rois: sequence [R, 8] of four corners, clockwise from the top left.

    Returns:
        [R, C, transformed_height, transformed_width], the mask of places inside, int32 [R, 1, height, width], and the
        matrices [R, 9].
    """
    layer = "roi_perspective_transform"
    _check(input, rois, layer)
    check_variable(rois, "rois", layer)
    check_type(transformed_height, "transformed_height", int, layer)
    check_type(transformed_width, "transformed_width", int, layer)
    attrs = {
        "transformed_height": transformed_height,
        "transformed_width": transformed_width,
        "spatial_scale": _number(spatial_scale, "spatial_scale", layer),
    }
    outputs = [
        ("Out", input.dtype),
        ("Mask", "int32"),
        ("TransformMatrix", input.dtype),
        ("Out2InIdx", "int32"),
        ("Out2InWeights", input.dtype),
    ]
    out, mask, matrix, _, _ = emit(layer, {"X": input, "ROIs": rois}, outputs, attrs, name=name)
    return out, mask, matrix
