"""Convolutions, transposed convolutions, poolings, batch normalisation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from millstream.onnx.writer.emission import Emission, RefusedError, emits
from millstream.onnx.writer.families.activation import activate, clip
from millstream.onnx.writer.graph import Graph, Value
from millstream.ops.nn._window import CHANNELS_LAST, Pairs, explicit_pairs, resolve


def channels_second(g: Graph, x: Value, rank: int) -> Value:
    """[N, …, C] as [N, C, …]."""
    return g.transpose(x, [0, rank - 1, *range(1, rank - 1)])


def channels_back(g: Graph, x: Value, rank: int) -> Value:
    """[N, C, …] as [N, …, C]."""
    return g.transpose(x, [0, *range(2, rank), 1])


def spatial(shape: Sequence[int], layout: str) -> tuple[int, ...]:
    """The spatial dims of a shape."""
    return tuple(shape[1:-1] if layout in CHANNELS_LAST else shape[2:])


def _window(e: Emission, kernel: Sequence[int]) -> dict[str, Any]:
    """The pads (or auto_pad) and dilations of a convolution."""
    rank = len(kernel)
    algorithm, dilations = e["padding_algorithm"], list(e["dilations"])
    if algorithm == "SAME":
        return {"auto_pad": "SAME_UPPER", "dilations": [1] * rank}
    pairs = [(0, 0)] * rank if algorithm == "VALID" else explicit_pairs(e["paddings"], rank)
    return {"pads": [a for a, _ in pairs] + [b for _, b in pairs], "dilations": dilations}


@emits("conv2d", "depthwise_conv2d", "conv3d")
def conv(e: Emission) -> None:
    g, x, w = e.g, e.x("Input"), e.x("Filter")
    kernel = e.shape("Filter")[2:]
    rank, layout = len(kernel) + 2, e["data_format"]
    if min(kernel) <= 0:
        e.refuse("the size of the filter is not known")
    last = layout in CHANNELS_LAST
    fused = bool(e.attrs.get("use_mkldnn"))  # without it the kernel looks at Input and Filter only
    bias = e.maybe("Bias") if fused and "Bias" in e.definition.in_slots else None
    if bias is not None and e.rank("Bias") != 1:  # none where it is not needed: engines look for a bias of integers
        bias = g.reshape(bias, -1)
    out = g.op(
        "Conv", channels_second(g, x, rank) if last else x, w, bias, kernel_shape=list(kernel), strides=list(e["strides"]),
        group=int(e["groups"]), **_window(e, kernel),
    )  # fmt: skip
    if last:
        out = channels_back(g, out, rank)
    if fused and e.has("ResidualData") and e["fuse_residual_connection"]:
        out = out + e.x("ResidualData")
    e.set("Output", _activated(e, out))


@emits("packed_conv2d")
def packed_conv(e: Emission) -> None:
    """What passes make of conv2d: its weights are packed only while it runs."""
    g, bias = e.g, e.maybe("Bias")
    pairs = explicit_pairs(e["paddings"], 2)
    out = g.op(
        "Conv", e.x("Input"), e.x("Filter"), None if bias is None else g.reshape(bias, -1), strides=list(e["strides"]),
        pads=[a for a, _ in pairs] + [b for _, b in pairs], dilations=list(e["dilations"]), group=int(e["groups"]),
    )  # fmt: skip
    if e.has("ResidualData"):
        out = out + e.x("ResidualData")
    e.set("Output", activate(g, out, e["activation"], e["number"]))


def _activated(e: Emission, out: Value) -> Value:
    """The activation that a pass fused into a convolution."""
    if not e.attrs.get("use_mkldnn"):
        return out
    if e.attrs.get("fuse_relu"):
        return e.g.op("Relu", out)
    if e.attrs.get("fuse_brelu"):
        return clip(e.g, out, 0.0, e["fuse_brelu_threshold"])
    kind = e.attrs.get("fuse_activation", "")
    return activate(e.g, out, kind, e["fuse_alpha"], e["fuse_beta"]) if kind else out


@emits("conv2d_transpose", "depthwise_conv2d_transpose", "conv3d_transpose")
def conv_transpose(e: Emission) -> None:
    g, x, w = e.g, e.x("Input"), e.x("Filter")
    kernel, layout = e.shape("Filter")[2:], e["data_format"]
    n = len(kernel)
    last = layout in CHANNELS_LAST
    sizes = spatial(e.shape("Input"), layout)
    algorithm, wanted = e["padding_algorithm"], list(e["output_size"])
    if (wanted or algorithm == "SAME") and min(sizes) < 0:
        e.refuse("the size of the input must be known for output_size or padding SAME")
    pairs, dilations = resolve(algorithm, e["paddings"], sizes, kernel, e["strides"], e["dilations"])
    extra = [0] * n
    for i in range(n if wanted else 0):
        a, b = pairs[i]
        least = (sizes[i] - 1) * e["strides"][i] - a - b + dilations[i] * (kernel[i] - 1) + 1
        extra[i] = wanted[i] - least
    # what the output lacks at its end is no padding there, and beyond that zeros
    ends = [b - min(b, more) for (_, b), more in zip(pairs, extra)]
    more = [m - min(b, m) for (_, b), m in zip(pairs, extra)]
    if last:
        x = channels_second(g, x, n + 2)
    out = g.op(
        "ConvTranspose", x, w, kernel_shape=list(kernel), strides=list(e["strides"]), dilations=list(dilations),
        pads=[a for a, _ in pairs] + ends, group=int(e["groups"]),
    )  # fmt: skip
    if any(more):
        out = g.op("Pad", out, g.ints(*[0] * (n + 2), 0, 0, *more))
    if e.has("Bias") and e.attrs.get("use_mkldnn"):
        out = out + g.reshape(e.x("Bias"), -1, *[1] * n)
    if last:
        out = channels_back(g, out, n + 2)
    e.set("Output", _activated(e, out))


# ---- pooling -----------------------------------------------------------------------------------------
def _padded_pool(
    g: Graph, kind: str, x: Value, ksize: Sequence[int], strides: Sequence[int], pairs: Pairs, exclusive: bool
) -> Value:
    n = len(ksize)
    pads = [a for a, _ in pairs] + [b for _, b in pairs]
    shape = {"kernel_shape": list(ksize), "strides": list(strides)}
    fits = all(p < k for p, k in zip(pads, [*ksize, *ksize]))
    if kind == "max":
        if not fits:
            x = g.op("Pad", x, g.ints(0, 0, *pads[:n], 0, 0, *pads[n:]), g.const(np.finfo(x.dtype).min, x.dtype))
            pads = [0] * (2 * n)
        return g.op("MaxPool", x, pads=pads, **shape)
    if not fits and exclusive:
        raise RefusedError("a mean over windows that may lie wholly in the padding")
    if not exclusive and any(pads):
        x = g.op("Pad", x, g.ints(0, 0, *pads[:n], 0, 0, *pads[n:]))
        pads = [0] * (2 * n)
    return g.op("AveragePool", x, pads=pads, count_include_pad=0, **shape)


def _adaptive_mean(g: Graph, x: Value, axis: int, size: int, out: int) -> Value:
    """Means over windows floor(i * n / out) to ceil((i + 1) * n / out) of one axis, as a product with a matrix."""
    rank = 4 if x.shape is None else len(x.shape)
    n = g.const([size], np.int64) if size > 0 else g.dim(x, axis)
    i = g.const(np.arange(out, dtype=np.int64).reshape(1, -1))
    start = i * n / out
    end = ((i + 1) * n + (out - 1)) / out
    at = g.unsqueeze(g.arange(n), 1)
    inside = g.cast((at >= start) & (at < end), x.dtype)
    matrix = inside / g.cast(end - start, x.dtype)
    moved = [a for a in range(rank) if a != axis] + [axis]
    product = g.op("MatMul", g.transpose(x, moved), matrix)
    return g.transpose(product, [moved.index(a) for a in range(rank)])


def _adaptive(e: Emission, x: Value, kind: str, sizes: tuple[int, ...], ksize: list[int]) -> Value:
    g = e.g
    if kind == "max":
        if min(sizes) < 0:
            e.refuse("adaptive maximum pooling of an image of unknown size")
        asked = explicit_pairs(e["paddings"], len(ksize))
        pairs = [(a, (k - 1) * s + k - size - a) for (a, _), k, s, size in zip(asked, ksize, e["strides"], sizes)]
        low = g.const(np.finfo(x.dtype).min, x.dtype)
        x = g.op("Pad", x, g.ints(0, 0, *[a for a, _ in pairs], 0, 0, *[b for _, b in pairs]), low)
        return g.op("MaxPool", x, kernel_shape=ksize, strides=list(e["strides"]))
    if all(k == 1 for k in ksize):
        return g.op("GlobalAveragePool", x)
    if min(sizes) > 0 and all(size % k == 0 for size, k in zip(sizes, ksize)):
        by = [size // k for size, k in zip(sizes, ksize)]
        return g.op("AveragePool", x, kernel_shape=by, strides=by)
    shape = list(x.shape or [-1] * (len(ksize) + 2))
    for i, (size, k) in enumerate(zip(sizes, ksize)):
        x.shape = tuple(shape)
        x = _adaptive_mean(g, x, i + 2, size, k)
        shape[i + 2] = k
    return x


@emits("pool2d", "pool3d")
def pool(e: Emission) -> None:
    g, x, layout, kind = e.g, e.x("X"), e["data_format"], e["pooling_type"]
    rank, sizes = e.rank("X"), spatial(e.shape("X"), layout)
    last = layout in CHANNELS_LAST
    if last:
        x = channels_second(g, x, rank)
    ksize, strides = list(e["ksize"]), list(e["strides"])
    if e["global_pooling"]:
        out = g.op("GlobalAveragePool" if kind == "avg" else "GlobalMaxPool", x)
    elif e["adaptive"]:
        out = _adaptive(e, x, kind, sizes, ksize)
    else:
        if e["padding_algorithm"] == "SAME" and min(sizes) < 0:
            node = "AveragePool" if kind == "avg" else "MaxPool"
            if kind == "avg" and not e["exclusive"]:
                e.refuse("padding SAME of an image of unknown size with exclusive=False")
            out = g.op(node, x, kernel_shape=ksize, strides=strides, auto_pad="SAME_UPPER")
        else:
            pairs, _ = resolve(e["padding_algorithm"], e["paddings"], sizes, ksize, strides, [1] * len(ksize))
            if e["ceil_mode"]:  # with stride - 1 more at the end, floor division gives the same number of windows
                pairs = [(a, b + s - 1) for (a, b), s in zip(pairs, strides)]
            if min(sizes) > 0:
                pairs = _trimmed(sizes, ksize, strides, pairs)
            out = _padded_pool(g, kind, x, ksize, strides, pairs, e["exclusive"])
    e.set("Out", channels_back(g, out, rank) if last else out)


def _trimmed(
    sizes: Sequence[int], ksize: Sequence[int], strides: Sequence[int], pairs: Pairs
) -> Pairs:
    """Pairs whose ends reach no further than the last window."""
    found = []
    for size, k, s, (a, b) in zip(sizes, ksize, strides, pairs):
        windows = (size + a + b - k) // s + 1
        found.append((a, max((windows - 1) * s + k - size - a, 0)))
    return found


@emits("max_pool2d_with_index", "max_pool3d_with_index")
def max_pool_with_index(e: Emission) -> None:
    g, x = e.g, e.x("X")
    n = e.rank("X") - 2
    sizes = e.shape("X")[2:]
    ksize, strides, pads = list(e["ksize"]), list(e["strides"]), list(e["paddings"])
    if e["global_pooling"]:
        if min(sizes) < 0:
            e.refuse("the place of the maximum of an image of unknown size")
        ksize, strides, pads = list(sizes), list(sizes), [0] * n
    if e["adaptive"]:
        if min(sizes) < 0 or any(s % k for s, k in zip(sizes, ksize)):
            e.refuse("adaptive pooling with index whose windows are not all of one size")
        ksize = strides = [s // k for s, k in zip(sizes, ksize)]
        pads = [0] * n
    if any(p >= k for p, k in zip(pads, ksize)):
        e.refuse("padding as large as the window")
    out, index = g.ops(
        "MaxPool", 2, x, dtypes=[x.dtype, np.int64], kernel_shape=ksize, strides=strides, pads=pads * 2
    )
    # ONNX counts over the whole tensor, Fluid inside one image
    area = g.reduce("ReduceProd", g.slice(g.shape(x), 0, 2, 2 + n), None)
    e.set("Out", out)
    e.set("Mask", g.cast(g.op("Mod", index, area), e.out_dtype("Mask")))


@emits("unpool")
def unpool(e: Emission) -> None:
    g, x = e.g, e.x("X")
    sizes = []
    for i in range(2):
        grown = (g.dim(x, i + 2) - 1) * int(e["strides"][i])
        sizes.append(grown + (int(e["ksize"][i]) - 2 * int(e["paddings"][i])))
    lead = g.slice(g.shape(x), 0, 0, 2)
    planes = g.concat([lead, g.const([-1], np.int64)], 0)
    zeros = g.full(g.concat([lead, sizes[0] * sizes[1]], 0), 0, x.dtype)
    at = g.cast(g.op("Reshape", e.x("Indices"), planes), np.int64)
    out = g.op("ScatterElements", zeros, at, g.op("Reshape", x, planes), axis=2)
    e.set("Out", g.op("Reshape", out, g.concat([lead, *sizes], 0)))


@emits("spp")
def spp(e: Emission) -> None:
    g, x, levels = e.g, e.x("X"), []
    sizes = e.shape("X")[2:]
    if min(sizes) < 0:
        e.refuse("a pyramid over an image of unknown size")
    for level in range(int(e["pyramid_height"])):
        bins = 2**level
        ksize = [-(-s // bins) for s in sizes]
        pads = [(k * bins - s + 1) // 2 for k, s in zip(ksize, sizes)]
        if any(p >= k for p, k in zip(pads, ksize)):
            e.refuse(f"{bins} bins of an image of {list(sizes)}: padding as large as the window")
        attrs: dict[str, Any] = {"kernel_shape": ksize, "strides": ksize, "pads": pads * 2}
        out = g.op("MaxPool" if e["pooling_type"] == "max" else "AveragePool", x, **attrs)
        levels.append(g.op("Flatten", out))
    e.set("Out", g.concat(levels, 1))


# ---- deformable convolution ------------------------------------------------------------------------------
def _read_at(g: Graph, x: Value, h: Value, w: Value) -> Value:
    """x [B, C, H, W] at fractional rows and columns [B, P]: [B, C, P]; zero outside the image."""
    height, width = g.dim(x, 2), g.dim(x, 3)
    flat = g.op("Reshape", x, g.ints(0, 0, -1))
    rows, columns = g.op("Floor", h), g.op("Floor", w)
    shape = g.concat([g.slice(g.shape(x), 0, 0, 2), g.dim(h, 1)], 0)
    total: Value | None = None
    for dh in (0.0, 1.0):
        for dw in (0.0, 1.0):
            row, column = rows + dh, columns + dw
            weight = (1.0 - g.op("Abs", h - row)) * (1.0 - g.op("Abs", w - column))
            at_row, at_column = g.cast(row, np.int64), g.cast(column, np.int64)
            inside = (at_row >= 0) & (at_row < height) & (at_column >= 0) & (at_column < width)
            low = g.const(0, np.int64)
            at_row, at_column = (
                g.op("Max", g.op("Min", at, size - 1), low) for at, size in ((at_row, height), (at_column, width))
            )
            index = g.op("Expand", g.unsqueeze(at_row * width + at_column, 1), shape)
            read = g.op("GatherElements", flat, index, axis=2) * g.unsqueeze(weight * g.cast(inside, x.dtype), 1)
            total = read if total is None else total + read
    assert total is not None
    return total


@emits("deformable_conv", "deformable_conv_v1")
def deformable_conv(e: Emission) -> None:
    """The patches are gathered, the rest is one product."""
    g, x, offset, w = e.g, e.x("Input"), e.x("Offset"), e.x("Filter")
    filters, per, kh, kw = e.shape("Filter")
    groups, parts = int(e["groups"]), int(e["deformable_groups"])
    strides, pads, dilations = list(e["strides"]), list(e["paddings"]), list(e["dilations"])
    taps, n = kh * kw, g.dim(x, 0)
    oh, ow = g.dim(offset, 2), g.dim(offset, 3)
    moved = g.reshape(offset, n * parts, taps, 2, oh, ow)

    def places(which: int, steps: Value, around: int, base: np.ndarray[Any, Any]) -> Value:
        at = g.cast(g.arange(steps), x.dtype) * float(strides[which]) - float(pads[which])
        shift = g.const(base.reshape(-1, 1, 1).astype(x.dtype))
        at = g.squeeze(g.slice(moved, 2, which, which + 1), 2) + (g.unsqueeze(at, around) + shift)
        return g.reshape(at, n * parts, -1)

    rows = places(0, oh, 1, np.repeat(np.arange(kh) * dilations[0], kw))
    columns = places(1, ow, 0, np.tile(np.arange(kw) * dilations[1], kh))
    image = g.reshape(x, n * parts, per * groups // parts, g.dim(x, 2), g.dim(x, 3))
    read = _read_at(g, image, rows, columns)
    if e.op.type == "deformable_conv":
        read = read * g.reshape(e.x("Mask"), n * parts, 1, -1)
    read = g.reshape(read, n, groups, per * taps, oh * ow)
    out = g.op("MatMul", g.reshape(w, 1, groups, filters // groups, per * taps), read)
    step = int(e["im2col_step"])
    if step > 1:  # a chunk of images whole, else every image by itself: as the operator lays it out
        whole = g.op("Equal", g.op("Mod", n, g.const([step], np.int64)), g.const([0], np.int64)) & (n >= step)
        chunk = g.where(whole, g.const([step], np.int64), g.const([1], np.int64))
        out = g.transpose(g.reshape(out, n / chunk, chunk, filters, oh * ow), [0, 2, 1, 3])
    e.set("Output", g.reshape(out, n, filters, oh, ow))


@emits("batch_norm", "sync_batch_norm", "inplace_abn")
def batch_norm(e: Emission) -> None:
    g, x = e.g, e.x("X")
    if not (e["use_global_stats"] or (e["is_test"] and not e["trainable_statistics"])):
        e.refuse("batch_norm in training form; export the test program (clone(for_test=True))")
    scale, bias, mean, variance = (e.x(s) for s in ("Scale", "Bias", "Mean", "Variance"))
    rank = e.rank("X")
    if e["data_layout"] in ("NHWC", "NDHWC") and rank > 2:
        factor = scale / g.op("Sqrt", variance + e["epsilon"])
        out = x * factor + (bias - mean * factor)
    else:
        out = g.op("BatchNormalization", x, scale, bias, mean, variance, epsilon=float(e["epsilon"]))
    out.shape = x.shape
    if all(e.attrs.get(name) for name in ("fuse_with_relu", "use_mkldnn", "is_test")):
        out = g.op("Relu", out)
    kind = e.attrs.get("activation", "")
    if kind and kind != "identity":
        out = g.op("Elu", out, alpha=float(e["alpha"])) if kind == "elu" else activate(g, out, kind, e["alpha"])
    e.set("Y", out)
    e.set("MeanOut", mean)
    e.set("VarianceOut", variance)
    e.set("SavedMean", mean)
    if e.wants("SavedVariance"):
        e.set("SavedVariance", g.op("Reciprocal", g.op("Sqrt", variance + e["epsilon"])))
