"""Images: resizing, sampling, windows as columns, channels rearranged."""

from __future__ import annotations

from typing import Any

import numpy as np

from millstream.onnx.writer.emission import Emission, emits
from millstream.onnx.writer.families.conv import channels_back, channels_second, spatial
from millstream.onnx.writer.graph import Graph, Value
from millstream.onnx.writer.segments import Segments, from_lengths
from millstream.ops.nn._window import CHANNELS_LAST


# ---- resizing --------------------------------------------------------------------------------------------
def _sizes(e: Emission, x: Value, sizes: tuple[int, ...]) -> list[Any]:
    """The output size: SizeTensor, else OutSize, else Scale (or `scale`), else the attributes."""
    g, n = e.g, len(sizes)
    if e.xs("SizeTensor"):
        return [g.cast(v, np.int64) for v in e.xs("SizeTensor")]
    if e.has("OutSize"):
        given = e.x("OutSize")
        return [g.cast(g.slice(g.reshape(given, -1), 0, i, i + 1), np.int64) for i in range(n)]
    factor: Any = None
    if e.has("Scale"):
        factor = g.reshape(g.cast(e.x("Scale"), np.float32), 1)
    elif e["scale"] > 0:
        if min(sizes) > 0:
            return [int(np.float32(s) * np.float32(e["scale"])) for s in sizes]
        factor = g.const([e["scale"]], np.float32)
    if factor is not None:
        return [g.cast(g.cast(g.dim(x, i + 2), np.float32) * factor, np.int64) for i in range(n)]
    return [int(v) for v in (e["out_d"], e["out_h"], e["out_w"])[3 - n :]]


_MODES = {"nearest": "nearest", "bilinear": "linear", "trilinear": "linear", "bicubic": "cubic"}


def _collapsed(e: Emission, x: Value, sizes: tuple[int, ...], out: list[Any], method: str) -> Value:
    """An axis that shrinks to 1 is read at its very start."""
    g = e.g
    for i, size in enumerate(out):
        if size != 1 or isinstance(size, Value) or sizes[i] == 1:
            continue
        first = g.slice(x, i + 2, 0, 1)
        if method == "bicubic":
            if sizes[i] < 0:
                e.refuse("bicubic interpolation of an unknown size to 1")
            first = first * 1.09375 + g.slice(x, i + 2, 1, 2) * -0.09375
        x = first
    return x


@emits("nearest_interp", "bilinear_interp", "trilinear_interp", "bicubic_interp")
def interp(e: Emission) -> None:
    g, x, method = e.g, e.x("X"), e.op.type.removesuffix("_interp")
    rank, last = e.rank("X"), e["data_layout"] in CHANNELS_LAST
    sizes = spatial(e.shape("X"), e["data_layout"])
    kind = x.dtype
    if last:
        x = channels_second(g, x, rank)
    out = _sizes(e, x, sizes)
    corners = bool(e["align_corners"])
    if not corners:
        x = _collapsed(e, x, sizes, out, method)
    attrs: dict[str, Any] = {"mode": _MODES[method]}
    if corners:
        attrs["coordinate_transformation_mode"] = "align_corners"
    elif method == "nearest" or (method in ("bilinear", "trilinear") and e["align_mode"] == 1):
        attrs["coordinate_transformation_mode"] = "asymmetric"
    else:
        attrs["coordinate_transformation_mode"] = "half_pixel"
    if method == "nearest":
        attrs["nearest_mode"] = "round_prefer_ceil" if corners else "floor"
    if method == "bicubic":
        attrs["cubic_coeff_a"] = -0.75
    x = x if kind.kind == "f" else g.cast(x, np.float32)
    target = g.concat([g.slice(g.shape(x), 0, 0, 2), g.ints(*out)], 0)
    y = g.cast(g.ops("Resize", 1, x, None, None, target, dtypes=[x.dtype], **attrs)[0], kind)
    e.set("Out", channels_back(g, y, rank) if last else y)


# ---- sampling ----------------------------------------------------------------------------------------------
@emits("grid_sampler")
def grid_sampler(e: Emission) -> None:
    mode = "bilinear" if e.g.opset < 20 else "linear"
    e.set("Output", e.g.op("GridSample", e.x("X"), e.x("Grid"), mode=mode, padding_mode="zeros", align_corners=1))


def _even(g: Graph, n: Value, kind: Any) -> Value:
    """From -1 to 1 in n ([1]) steps."""
    return g.cast(g.arange(n), kind) * (g.const([2], kind) / g.cast(n - 1, kind)) - 1


@emits("affine_grid")
def affine_grid(e: Emission) -> None:
    g, theta = e.g, e.x("Theta")
    if e.has("OutputShape"):
        dims = g.cast(g.reshape(e.x("OutputShape"), -1), np.int64)
        h, w = g.slice(dims, 0, 2, 3), g.slice(dims, 0, 3, 4)
    else:
        h, w = (g.const([int(e["output_shape"][i])], np.int64) for i in (2, 3))
    xs = g.expand(g.unsqueeze(_even(g, w, theta.dtype), 0), h, w)
    ys = g.expand(g.unsqueeze(_even(g, h, theta.dtype), 1), h, w)
    flat = [g.reshape(v, -1, 1) for v in (xs, ys)]
    base = g.concat([*flat, g.full(g.shape(flat[0]), 1, theta.dtype)], 1)
    out = g.op("MatMul", base, g.transpose(theta, [0, 2, 1]))
    e.set("Output", g.reshape(out, g.dim(theta, 0), h, w, 2))


# ---- windows -----------------------------------------------------------------------------------------------
def windows(
    e: Emission, x: Value, kernel: list[int], strides: list[int], pads: list[int], dilations: list[int]
) -> tuple[Value, Value, Value]:
    """([N, C, kh * kw, oh, ow] of every window, oh, ow); pads are top, left, bottom, right."""
    g = e.g
    padded = g.op("Pad", x, g.ints(0, 0, pads[0], pads[1], 0, 0, pads[2], pads[3])) if any(pads) else x
    shape = x.shape or (-1,) * 4
    out = []
    for i in range(2):
        span = dilations[i] * (kernel[i] - 1) + 1
        if shape[2 + i] > 0:
            out.append(g.const([(shape[2 + i] + pads[i] + pads[2 + i] - span) // strides[i] + 1], np.int64))
        else:
            out.append((g.dim(x, 2 + i) + (pads[i] + pads[2 + i] - span)) / strides[i] + 1)
    parts = []
    for a in range(kernel[0]):
        rows = g.slice(padded, 2, a * dilations[0], (out[0] - 1) * strides[0] + (a * dilations[0] + 1), strides[0])
        for b in range(kernel[1]):
            end = (out[1] - 1) * strides[1] + (b * dilations[1] + 1)
            parts.append(g.unsqueeze(g.slice(rows, 3, b * dilations[1], end, strides[1]), 2))
    return g.concat(parts, 2), out[0], out[1]


@emits("unfold")
def unfold(e: Emission) -> None:
    g, x = e.g, e.x("X")
    x.shape = x.shape or e.shape("X")
    found, oh, ow = windows(e, x, list(e["kernel_sizes"]), list(e["strides"]), list(e["paddings"]), list(e["dilations"]))
    k = int(np.prod(e["kernel_sizes"]))
    channels = g.dim(x, 1) * k
    e.set("Y", g.reshape(found, g.dim(x, 0), channels, oh * ow))


@emits("im2sequence")
def im2sequence(e: Emission) -> None:
    g, x = e.g, e.x("X")
    x.shape = x.shape or e.shape("X")
    if e.has("Y"):
        e.refuse("windows of images of different real sizes (input Y)")
    found, oh, ow = windows(e, x, list(e["kernels"]), list(e["strides"]), list(e["paddings"]), [1, 1])
    k = int(np.prod(e["kernels"]))
    rows = g.reshape(g.transpose(found, [0, 3, 4, 1, 2]), -1, g.dim(x, 1) * k)
    rows.shape = (-1, e.shape("X")[1] * k if e.shape("X")[1] > 0 else -1)  # the declared rows are those of X
    e.set("Out", rows, [g.arange(g.dim(x, 0) + 1) * (oh * ow)])


# ---- channels ------------------------------------------------------------------------------------------------
@emits("pixel_shuffle")
def pixel_shuffle(e: Emission) -> None:
    e.set("Out", e.g.op("DepthToSpace", e.x("X"), blocksize=int(e["upscale_factor"]), mode="CRD"))


@emits("space_to_depth")
def space_to_depth(e: Emission) -> None:
    g, x, b = e.g, e.x("X"), int(e["blocksize"])
    n, c, h, w = (g.dim(x, i) for i in range(4))
    blocks = g.transpose(g.reshape(x, n, b, b, c / (b * b), h, w), [0, 3, 4, 1, 5, 2])
    e.set("Out", g.reshape(blocks, n, c * (b * b), h / b, w / b))


@emits("shuffle_channel")
def shuffle_channel(e: Emission) -> None:
    g, x, group = e.g, e.x("X"), int(e["group"])
    n, c, h, w = (g.dim(x, i) for i in range(4))
    dealt = g.transpose(g.reshape(x, n, group, c / group, h, w), [0, 2, 1, 3, 4])
    e.set("Out", g.reshape(dealt, n, c, h, w))


@emits("temporal_shift")
def temporal_shift(e: Emission) -> None:
    g, x, seg, c = e.g, e.x("X"), int(e["seg_num"]), e.shape("X")[1]
    if c < 0:
        e.refuse("the number of channels must be known")
    frames = g.reshape(x, -1, seg, *[g.dim(x, i) for i in (1, 2, 3)])
    c1, c2 = int(c * e["shift_ratio"]), int(c * 2 * e["shift_ratio"])
    before = g.op("Pad", g.slice(g.slice(frames, 2, 0, c1), 1, 0, -1), g.ints(0, 1, *[0] * 8))
    after = g.op("Pad", g.slice(g.slice(frames, 2, c1, c2), 1, 1, seg), g.ints(*[0] * 6, 1, *[0] * 3))
    parts = [p for p, size in ((before, c1), (after, c2 - c1)) if size] + [g.slice(frames, 2, c2, c)]
    e.set("Out", g.op("Reshape", g.concat(parts, 2), g.shape(x)))


@emits("roll")
def roll(e: Emission) -> None:
    g, x = e.g, e.x("X")
    if not e["dims"]:
        flat = _rolled(g, g.reshape(x, -1), int(e["shifts"][0]), 0)
        e.set("Out", g.op("Reshape", flat, g.shape(x)))
        return
    for shift, axis in zip(e["shifts"], e["dims"]):
        x = _rolled(g, x, int(shift), int(axis) % e.rank("X"))
    e.set("Out", x)


def _rolled(g: Graph, x: Value, shift: int, axis: int) -> Value:
    n = g.dim(x, axis)
    at = g.op("Mod", g.arange(n) + n - g.op("Mod", g.const([shift], np.int64), n), n)
    return g.gather(x, at, axis)


@emits("tril_triu")
def tril_triu(e: Emission) -> None:
    k = e.g.const(int(e["diagonal"]), np.int64)
    e.set("Out", e.g.op("Trilu", e.x("X"), k, upper=int(not e["lower"])))


@emits("kron")
def kron(e: Emission) -> None:
    g, x, y = e.g, e.x("X"), e.x("Y")
    rank = max(e.rank("X"), e.rank("Y"))
    a, b = ([1] * (rank - e.rank(s)) + [e.g.dim(e.x(s), i) for i in range(e.rank(s))] for s in ("X", "Y"))
    wide = g.reshape(x, *[d for v in a for d in (v, 1)]) * g.reshape(y, *[d for v in b for d in (1, v)])
    e.set("Out", g.reshape(wide, *[g.ints(m) * g.ints(n) for m, n in zip(a, b)]))


@emits("label_smooth")
def label_smooth(e: Emission) -> None:
    g, x, eps = e.g, e.x("X"), float(e["epsilon"])
    if e.has("PriorDist"):
        added = g.reshape(e.x("PriorDist"), -1) * eps
    else:
        added = g.const(eps, x.dtype) / g.cast(g.dim(x, e.rank("X") - 1), x.dtype)
    e.set("Out", x * (1 - eps) + added)


@emits("diag_embed")
def diag_embed(e: Emission) -> None:
    g, x, offset = e.g, e.x("Input"), int(e["offset"])
    rank = e.rank("Input") + 1
    n = g.dim(x, rank - 2) + abs(offset)
    at = g.arange(n)
    columns = g.unsqueeze(at, 0) - g.unsqueeze(at, 1)
    before, after = max(-offset, 0), max(offset, 0)
    # row i of the matrix holds the number of place i - before
    wide = g.op("Pad", g.unsqueeze(x, -1), g.ints(*[0] * (rank - 2), before, 0, *[0] * (rank - 2), after, 0))
    out = g.where(g.op("Equal", columns, g.const(offset, np.int64)), wide, g.const(0, x.dtype))
    a, b = int(e["dim1"]) % rank, int(e["dim2"]) % rank
    rest = iter(range(rank - 2))
    e.set("Out", g.transpose(out, [rank - 2 if i == a else rank - 1 if i == b else next(rest) for i in range(rank)]))


@emits("trace")
def trace(e: Emission) -> None:
    g, x, rank = e.g, e.x("Input"), e.rank("Input")
    a, b = int(e["dim1"]) % rank, int(e["dim2"]) % rank
    moved = g.transpose(x, [*[i for i in range(rank) if i not in (a, b)], a, b])
    rows, cols = g.arange(g.dim(x, a)), g.arange(g.dim(x, b))
    on = g.op("Equal", g.unsqueeze(cols, 0) - g.unsqueeze(rows, 1), g.const(int(e["offset"]), np.int64))
    out = g.reduce("ReduceSum", g.where(on, moved, g.const(0, x.dtype)), [rank - 2, rank - 1])
    e.set("Out", g.reshape(out, 1) if rank == 2 else out)


@emits("cross")
def cross(e: Emission) -> None:
    g, x, y, dim = e.g, e.x("X"), e.x("Y"), int(e["dim"])
    shape = e.shape("X")
    axis = dim if -len(shape) <= dim < len(shape) else next((i for i, d in enumerate(shape) if d == 3), -1)
    first, second = np.array([1, 2, 0], np.int64), np.array([2, 0, 1], np.int64)
    e.set("Out", g.gather(x, first, axis) * g.gather(y, second, axis) - g.gather(x, second, axis) * g.gather(y, first, axis))


def images_of(e: Emission, slot: str, offsets: str, counts: str = "") -> Value:
    """The image of each region: from a tensor of offsets or counts, else from the LoD."""
    g = e.g
    if offsets and e.has(offsets):
        return Segments(g, g.cast(g.reshape(e.x(offsets), -1), np.int64)).ids
    lod = e.lod(slot)
    if not lod:
        e.refuse(f"input {slot} ({e.name(slot)!r}) has no LoD that says the image of each region")
    return Segments(g, lod[-1]).ids


@emits("roi_align")
def roi_align(e: Emission) -> None:
    rois = e.g.cast(e.g.reshape(e.x("ROIs"), -1, 4), e.x("X").dtype)
    out = e.g.op(
        "RoiAlign", e.x("X"), rois, images_of(e, "ROIs", "RoisLod"), mode="avg",
        output_height=int(e["pooled_height"]), output_width=int(e["pooled_width"]), spatial_scale=float(e["spatial_scale"]),
        sampling_ratio=max(int(e["sampling_ratio"]), 0), coordinate_transformation_mode="output_half_pixel",
    )  # fmt: skip
    e.set("Out", out)


@emits("roi_pool")
def roi_pool(e: Emission) -> None:
    g, x = e.g, e.x("X")
    image = g.unsqueeze(g.cast(images_of(e, "ROIs", "RoisLod"), x.dtype), 1)
    rois = g.concat([image, g.cast(e.x("ROIs"), x.dtype)], 1)
    shape = [int(e["pooled_height"]), int(e["pooled_width"])]
    e.set("Out", g.op("MaxRoiPool", x, rois, pooled_shape=shape, spatial_scale=float(e["spatial_scale"])))


def _rounded(g: Graph, x: Value) -> Value:
    """To the nearest whole number, halves away from zero."""
    return g.where(x >= 0, g.op("Floor", x + 0.5), g.op("Ceil", x - 0.5))


def _bin_ends(g: Graph, start: Value, end: Value, bins: int, size: Value) -> tuple[Value, Value]:
    """The first and the last position of each bin between `start` and `end` [regions]: int64 [regions, bins]."""
    step = g.op("Max", end - start, g.const(0.1, start.dtype)) / float(bins)
    k = g.const(np.arange(bins, dtype=start.dtype).reshape(1, -1))
    low = g.op("Floor", g.unsqueeze(step, 1) * k + g.unsqueeze(start, 1))
    high = g.op("Ceil", g.unsqueeze(step, 1) * (k + 1.0) + g.unsqueeze(start, 1))
    zero = g.const(0, np.int64)
    first, last = (g.op("Max", g.op("Min", g.cast(v, np.int64), size), zero) for v in (low, high))
    return first, last


@emits("psroi_pool")
def psroi_pool(e: Emission) -> None:
    """Means out of running sums over rows and columns (in float64: differences of them are exact enough)."""
    g, x = e.g, e.x("X")
    scale, ph, pw, out_channels = (
        float(e["spatial_scale"]), int(e["pooled_height"]), int(e["pooled_width"]), int(e["output_channels"])
    )  # fmt: skip
    image = images_of(e, "ROIs", "")
    corner = _rounded(g, g.cast(e.x("ROIs"), x.dtype))
    x1, y1 = (g.squeeze(g.slice(corner, 1, k, k + 1), 1) * scale for k in (0, 1))
    x2, y2 = ((g.squeeze(g.slice(corner, 1, k, k + 1), 1) + 1.0) * scale for k in (2, 3))
    top, bottom = _bin_ends(g, y1, y2, ph, g.dim(x, 2))
    left, right = _bin_ends(g, x1, x2, pw, g.dim(x, 3))
    sums = g.op("Pad", g.cast(x, np.float64), g.ints(0, 0, 1, 1, 0, 0, 0, 0))
    for axis in (2, 3):
        sums = g.op("CumSum", sums, g.const(axis, np.int64))
    channel = g.const(np.arange(out_channels * ph * pw, dtype=np.int64).reshape(1, out_channels, ph, pw))
    shape = g.ints(g.dim(image, 0), out_channels, ph, pw)
    which = g.reshape(image, -1, 1, 1, 1)

    def sum_at(rows: Value, columns: Value) -> Value:
        places = (which, channel, g.unsqueeze(rows, 1, 3), g.unsqueeze(columns, 1, 2))
        return g.op("GatherND", sums, g.concat([g.unsqueeze(g.op("Expand", p, shape), -1) for p in places], -1))

    total = sum_at(bottom, right) - sum_at(top, right) - sum_at(bottom, left) + sum_at(top, left)
    high, wide = (g.op("Max", b - a, g.const(0, np.int64)) for a, b in ((top, bottom), (left, right)))
    area = g.unsqueeze(high, 1, 3) * g.unsqueeze(wide, 1, 2)
    mean = g.cast(total / g.cast(g.op("Max", area, g.const(1, np.int64)), np.float64), x.dtype)
    e.set("Out", g.where(area > 0, mean, g.const(0, x.dtype)))


def _hat_integral(g: Graph, start: Value, end: Value, size: Value) -> Value:
    """[regions, bins, size]: integrals over [start, end] of the triangle max(0, 1 - |t - i|) around each i."""
    at = g.cast(g.arange(size), start.dtype)

    def upto(t: Value) -> Value:
        u = g.op("Clip", g.unsqueeze(t, -1) - at, g.const(-1, t.dtype), g.const(1, t.dtype))
        rising, falling = u + 1.0, 1.0 - u
        return g.where(u < 0, rising * rising * 0.5, 1.0 - falling * falling * 0.5)

    return upto(end) - upto(start)


@emits("prroi_pool")
def prroi_pool(e: Emission) -> None:
    """The integral is separable: hat_y^T X hat_x / area."""
    g, x = e.g, e.x("X")
    if e.has("BatchRoINums"):
        image = Segments(g, from_lengths(g, g.cast(g.reshape(e.x("BatchRoINums"), -1), np.int64))).ids
    else:
        image = images_of(e, "ROIs", "")
    rois = g.cast(e.x("ROIs"), x.dtype) * float(e["spatial_scale"])
    x1, y1, x2, y2 = (g.slice(rois, 1, k, k + 1) for k in range(4))
    hats, steps = [], []
    for start, end, bins, axis in ((y1, y2, "pooled_height", 2), (x1, x2, "pooled_width", 3)):
        count = int(e[bins])
        step = g.op("Max", end - start, g.const(0, x.dtype)) / float(count)
        low = start + step * g.const(np.arange(count, dtype=x.dtype).reshape(1, -1))
        hats.append(_hat_integral(g, low, low + step, g.dim(x, axis)))
        steps.append(step)
    rows = g.op("MatMul", g.unsqueeze(hats[0], 1), g.gather(x, image))
    total = g.op("MatMul", rows, g.unsqueeze(g.transpose(hats[1], [0, 2, 1]), 1))
    area = g.reshape(steps[0] * steps[1], -1, 1, 1, 1)
    e.set("Out", g.where(area > 0, total / g.where(area > 0, area, 1.0 + area * 0.0), g.const(0, x.dtype)))
