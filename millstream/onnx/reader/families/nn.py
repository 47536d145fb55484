"""Convolutions, poolings, normalisations, products of matrices, resizing."""

from __future__ import annotations

from typing import Any

import numpy as np

from millstream.onnx.fold import LARGEST
from millstream.onnx.reader.node import Node, reads
from millstream.onnx.reader.values import Tensor, constant


def _pads(n: Node, rank: int, kernel: list[int], strides: list[int], dilations: list[int]) -> tuple[list[int], str]:
    """(pads before and after by dim, Fluid's padding algorithm)."""
    auto = n.attr("auto_pad", "NOTSET")
    if auto in ("NOTSET", ""):
        pads = [int(p) for p in n.attr("pads", [0] * (2 * rank))]
        if len(pads) != 2 * rank:
            n.fail(f"pads must have {2 * rank} numbers, received {pads}")
        return [p for i in range(rank) for p in (pads[i], pads[rank + i])], "EXPLICIT"
    if auto == "VALID":
        return [0] * (2 * rank), "VALID"
    if auto == "SAME_UPPER" and all(d == 1 for d in dilations):
        return [0] * (2 * rank), "SAME"
    sizes = n.x().shape[2:]
    if min(sizes) < 0:
        n.fail(f"auto_pad {auto} of an image of unknown size")
    found = []
    for size, k, s, d in zip(sizes, kernel, strides, dilations):
        total = max((-(-size // s) - 1) * s + d * (k - 1) + 1 - size, 0)
        less, more = total // 2, total - total // 2
        found += [more, less] if auto == "SAME_LOWER" else [less, more]
    return found, "EXPLICIT"


def _plain(pads: list[int]) -> list[int]:
    """One number a dim where both sides are alike."""
    before, after = pads[::2], pads[1::2]
    return before if before == after else pads


def _spatial(n: Node, least: int = 1) -> int:
    rank = n.x().rank - 2
    if not least <= rank <= 3:
        n.fail(f"an input of {n.x().rank} dims")
    return rank


def _ints(n: Node, name: str, default: list[int]) -> list[int]:
    values = [int(v) for v in n.attr(name, default)]
    if len(values) != len(default):
        n.fail(f"{name} must have {len(default)} numbers, received {values}")
    return values


def add_bias(n: Node, out: Tensor, bias: Tensor) -> Tensor:
    """A bias over the channels (dim 1)."""
    return n.b.op("elementwise_add", {"X": out, "Y": bias}, {"axis": 1}, hint=n.hint)


def _lifted(n: Node, x: Tensor) -> Tensor:
    """[N, C, L] as [N, C, 1, L]: Fluid has no one-dimensional windows."""
    return n.b.op("unsqueeze2", {"X": x}, {"axes": [2]})


def _lowered(n: Node, x: Tensor) -> Tensor:
    return n.b.op("squeeze2", {"X": x}, {"axes": [2]})


@reads("Conv")
def conv(n: Node) -> None:
    x, w, rank = n.x(0), n.x(1), _spatial(n)
    kernel = list(w.shape[2:])
    if len(kernel) != rank or min(kernel, default=0) <= 0:
        n.fail(f"a filter of shape {list(w.shape)} over an input of {x.rank} dims")
    strides, dilations = _ints(n, "strides", [1] * rank), _ints(n, "dilations", [1] * rank)
    pads, algorithm = _pads(n, rank, kernel, strides, dilations)
    groups = int(n.attr("group", 1))
    if rank == 1:
        x, w = _lifted(n, x), _lifted_filter(n, w)
        strides, dilations, pads = [1, *strides], [1, *dilations], [0, 0, *pads]
    depthwise = rank < 3 and groups > 1 and groups == x.shape[1] and w.shape[1] == 1
    kind = "conv3d" if rank == 3 else "depthwise_conv2d" if depthwise else "conv2d"
    attrs = {"strides": strides, "paddings": _plain(pads), "dilations": dilations, "groups": groups,
             "padding_algorithm": algorithm}  # fmt: skip
    out = n.op(kind, {"Input": x, "Filter": w}, attrs)
    if n.has(2):
        out = add_bias(n, out, n.x(2))
    n.set(_lowered(n, out) if rank == 1 else out)


def _lifted_filter(n: Node, w: Tensor) -> Tensor:
    return constant(np.expand_dims(w.const, 2)) if w.const is not None else n.b.op("unsqueeze2", {"X": w}, {"axes": [2]})


@reads("ConvTranspose")
def conv_transpose(n: Node) -> None:
    x, w, rank = n.x(0), n.x(1), _spatial(n, 2)
    kernel = list(w.shape[2:])
    if n.attr("auto_pad", "NOTSET") not in ("NOTSET", "", "VALID"):
        n.fail("auto_pad")
    strides, dilations = _ints(n, "strides", [1] * rank), _ints(n, "dilations", [1] * rank)
    pads = [int(p) for p in n.attr("pads", [0] * (2 * rank))]
    extra, shape = [int(v) for v in n.attr("output_padding", [0] * rank)], n.attr("output_shape")
    if shape:
        n.fail("output_shape")
    ends = [b - e for b, e in zip(pads[rank:], extra)]
    attrs = {"strides": strides, "dilations": dilations, "groups": int(n.attr("group", 1)), "output_size": []}
    paddings = [p for a, b in zip(pads[:rank], ends) for p in (a, b)]
    if min(ends) < 0:
        paddings = [p for a in pads[:rank] for p in (a, 0)]
    attrs["paddings"] = _plain(paddings)
    out = n.op("conv2d_transpose" if rank == 2 else "conv3d_transpose", {"Input": x, "Filter": w}, attrs)
    if min(ends) < 0:  # rows beyond the last window are zeros
        if max(ends) > 0:
            n.fail("output_padding that exceeds the padding in one dim and not in another")
        out = n.b.op("pad", {"X": out}, {"paddings": [0] * 4 + [p for e in ends for p in (0, -e)], "pad_value": 0.0})
    assert kernel
    n.set(add_bias(n, out, n.x(2)) if n.has(2) else out)


@reads("MaxPool", "AveragePool")
def pool(n: Node) -> None:
    x, rank = n.x(), _spatial(n)
    kernel = [int(v) for v in n.need("kernel_shape")]
    if len(kernel) != rank:
        n.fail(f"kernel_shape must have {rank} numbers, received {kernel}")
    strides, dilations = _ints(n, "strides", [1] * rank), _ints(n, "dilations", [1] * rank)
    if any(d != 1 for d in dilations):
        n.fail("dilations of a pooling")
    if n.wants(1):
        _pool_with_index(n, x, kernel, strides)
        return
    pads, algorithm = _pads(n, rank, kernel, strides, dilations)
    if rank == 1:
        x, kernel, strides, pads = _lifted(n, x), [1, *kernel], [1, *strides], [0, 0, *pads]
    attrs = {
        "pooling_type": "max" if n.type == "MaxPool" else "avg", "ksize": kernel, "strides": strides,
        "paddings": _plain(pads), "exclusive": not n.attr("count_include_pad", 0), "adaptive": False,
        "global_pooling": False, "ceil_mode": bool(n.attr("ceil_mode", 0)), "padding_algorithm": algorithm,
    }  # fmt: skip
    out = n.op("pool3d" if rank == 3 else "pool2d", {"X": x}, attrs)
    n.set(_lowered(n, out) if rank == 1 else out)


def _pool_with_index(n: Node, x: Tensor, kernel: list[int], strides: list[int]) -> None:
    """Maxima and their places: Fluid counts inside one image, ONNX over the whole tensor."""
    b, rank = n.b, len(kernel)
    pads = [int(p) for p in n.attr("pads", [0] * (2 * rank))]
    if rank < 2 or pads[:rank] != pads[rank:] or n.attr("ceil_mode", 0) or n.attr("storage_order", 0):
        n.fail("the places of the maxima with uneven padding, ceil_mode or storage_order")
    attrs = {"ksize": kernel, "strides": strides, "paddings": pads[:rank], "global_pooling": False, "adaptive": False}
    out, mask = b.ops(f"max_pool{rank}d_with_index", {"X": x}, attrs, ["Out", "Mask"], n.hint)
    n.set(out)
    dims = b.dims(x)
    planes, area = (b.op("slice", {"Input": dims}, {"axes": [0], "starts": [a], "ends": [e]}) for a, e in ((0, 2), (2, 9)))
    count, size = (b.op("reduce_prod", {"X": v}, {"dim": [0], "keep_dim": True}) for v in (planes, area))
    ones = b.op("fill_constant", {"ShapeTensor": b.cast(count, np.int32)}, {"shape": [], "dtype": 3, "value": 1.0})
    ones.shape = (-1,)
    first = b.binary("elementwise_mul", b.scale(b.op("cumsum", {"X": ones}, {"axis": 0}), 1.0, -1.0), size)
    target = b.op("concat", {"X": [planes, constant(np.ones(rank, np.int64))]}, {"axis": 0})
    spread = b.op("reshape2", {"X": first, "Shape": b.cast(target, np.int32)}, {"shape": []})
    spread.shape = (*x.shape[:2], *[1] * rank)
    b.block.vars[spread.name].shape = list(spread.shape)  # type: ignore[index]
    n.set(b.binary("elementwise_add", b.cast(mask, np.int64), spread), 1)


@reads("GlobalAveragePool", "GlobalMaxPool")
def global_pool(n: Node) -> None:
    x, rank = n.x(), _spatial(n)
    x = _lifted(n, x) if rank == 1 else x
    kind = "avg" if n.type == "GlobalAveragePool" else "max"
    attrs = {"pooling_type": kind, "ksize": [1] * max(rank, 2), "global_pooling": True}
    out = n.op("pool3d" if rank == 3 else "pool2d", {"X": x}, attrs)
    n.set(_lowered(n, out) if rank == 1 else out)


@reads("BatchNormalization")
def batch_norm(n: Node) -> None:
    x = n.x()
    if n.attr("training_mode", 0):
        n.fail("training_mode")
    if not 2 <= x.rank <= 5:
        n.fail(f"an input of {x.rank} dims")
    scale, bias = n.b.variable(n.x(1)), n.b.variable(n.x(2))
    stats = []
    for i in (3, 4):
        t = n.x(i)
        if t.const is not None and (t.name is None or n.b.values.get(t.name) is None):
            t = Tensor(n.b.parameter(t.const, n.node.input[i], False), t.dtype, t.shape)
        stats.append(n.b.variable(t))
    attrs = {"epsilon": float(n.attr("epsilon", 1e-5)), "momentum": float(n.attr("momentum", 0.9)), "is_test": True,
             "data_layout": "NCHW"}  # fmt: skip
    block = n.b.block
    y = block.create_var(name=n.b.fresh(n.hint))
    saved = [block.create_var(name=n.b.fresh("batch_norm")) for _ in range(2)]
    block.append_op(
        type="batch_norm",
        inputs={"X": [n.b.variable(x)], "Scale": [scale], "Bias": [bias], "Mean": [stats[0]], "Variance": [stats[1]]},
        outputs={"Y": [y], "MeanOut": [stats[0]], "VarianceOut": [stats[1]], "SavedMean": [saved[0]],
                 "SavedVariance": [saved[1]]},
        attrs=attrs,
    )  # fmt: skip
    out = n.b.tensor(y.name)
    out.shape = x.shape
    n.set(out)


@reads("InstanceNormalization")
def instance_norm(n: Node) -> None:
    x = n.x()
    outs = {"X": x, "Scale": n.x(1), "Bias": n.x(2)}
    made = n.b.ops("instance_norm", outs, {"epsilon": float(n.attr("epsilon", 1e-5))}, ["Y"], n.hint)[0]
    made.shape = x.shape
    n.set(made)


@reads("LayerNormalization")
def layer_norm(n: Node) -> None:
    x = n.x()
    axis = n.axis(-1, x.rank)
    inputs = {"X": x, "Scale": _flat(n, n.x(1)), "Bias": _flat(n, n.x(2)) if n.has(2) else None}
    attrs = {"begin_norm_axis": axis, "epsilon": float(n.attr("epsilon", 1e-5))}
    if n.wants(1) or n.wants(2):
        n.fail("the mean and deviation (further outputs)")
    if axis == 0:
        inputs["X"] = n.b.op("unsqueeze2", {"X": x}, {"axes": [0]})
        attrs["begin_norm_axis"] = 1
    made = n.b.ops("layer_norm", inputs, attrs, ["Y"], n.hint)[0]
    if axis == 0:
        made = n.b.op("squeeze2", {"X": made}, {"axes": [0]})
    made.shape = x.shape
    n.set(made)


def _flat(n: Node, x: Tensor) -> Tensor:
    if x.rank == 1:
        return x
    return constant(x.const.reshape(-1)) if x.const is not None else n.b.reshape(x, [-1])


@reads("LRN")
def lrn(n: Node) -> None:
    size = int(n.need("size"))
    attrs = {"n": size, "k": float(n.attr("bias", 1.0)), "alpha": float(n.attr("alpha", 1e-4)) / size,
             "beta": float(n.attr("beta", 0.75))}  # fmt: skip
    n.set(n.op("lrn", {"X": n.x()}, attrs, "Out"))


@reads("LpNormalization")
def lp_normalization(n: Node) -> None:
    x = n.x()
    axis = n.axis(-1, x.rank)
    attrs = {"porder": float(n.attr("p", 2)), "axis": axis, "keepdim": True}
    n.set(n.b.binary("elementwise_div", x, n.b.op("p_norm", {"X": x}, attrs)))


# ---- products ----------------------------------------------------------------------------------------------
@reads("MatMul")
def matmul(n: Node) -> None:
    x, y = n.x(0), n.x(1)
    if x.rank == 0 or y.rank == 0:
        n.fail("a product of scalars")
    if x.rank >= 2 and y.rank == 2:
        # `mul` is the product that passes know: fc, quantisation
        made = n.op("mul", {"X": x, "Y": y}, {"x_num_col_dims": x.rank - 1, "y_num_col_dims": 1})
        made.shape = (*x.shape[:-1], y.shape[-1])
        n.set(made)
        return
    if x.rank > 2 and y.rank > 2:
        x, y = _batched(n, x, y), _batched(n, y, x)
    made = n.op("matmul", {"X": x, "Y": y}, {})
    if x.rank == 1 and y.rank == 1:
        made.shape = ()
    n.set(made)


def _batched(n: Node, x: Tensor, other: Tensor) -> Tensor:
    """x with the batch dims that broadcasting gives it."""
    rank = max(x.rank, other.rank)
    shape = (1,) * (rank - x.rank) + x.shape
    wide = (1,) * (rank - other.rank) + other.shape
    if len(shape) > x.rank:
        x = n.b.reshape(x, [1] * (rank - x.rank) + [d if d > 0 else 0 for d in x.shape] if min(x.shape) > 0 else
                        _keeping(n, x, rank))  # fmt: skip
    times = [b if a == 1 and b != 1 else 1 for a, b in zip(shape[:-2], wide[:-2])]
    if all(t == 1 for t in times):
        return x
    if min(times) < 0:
        n.fail("batch dims that are repeated an unknown number of times")
    return n.b.op("expand", {"X": x}, {"expand_times": [*times, 1, 1]})


def _keeping(n: Node, x: Tensor, rank: int) -> list[int]:
    if sum(d < 0 for d in x.shape) > 1:
        n.fail("operands of different ranks with several unknown dims")
    return [1] * (rank - x.rank) + [d if d > 0 else -1 for d in x.shape]


@reads("Gemm")
def gemm(n: Node) -> None:
    x, y = n.x(0), n.x(1)
    if x.rank != 2 or y.rank != 2:
        n.fail(f"operands of {x.rank} and {y.rank} dims")
    alpha, beta = float(n.attr("alpha", 1.0)), float(n.attr("beta", 1.0))
    if n.attr("transB", 0):
        y = n.b.transpose(y, [1, 0])
    if n.attr("transA", 0):
        x = n.b.transpose(x, [1, 0])
    out = n.b.op("mul", {"X": x, "Y": y}, {"x_num_col_dims": 1, "y_num_col_dims": 1}, hint=n.hint)
    if alpha != 1.0:
        out = n.b.scale(out, alpha)
    if n.has(2):
        c = n.x(2)
        if beta != 1.0:
            c = constant((c.const * beta).astype(c.dtype)) if c.const is not None else n.b.scale(c, beta)
        axis = 1 if c.rank == 1 and c.shape != (1,) else -1
        out = n.b.op("elementwise_add", {"X": out, "Y": c}, {"axis": axis}, hint=n.hint)
    n.set(out)


# ---- images ------------------------------------------------------------------------------------------------
@reads("Resize", "Upsample")
def resize(n: Node) -> None:
    x, rank = n.x(), _spatial(n)
    mode, where = n.attr("mode", "nearest"), n.attr("coordinate_transformation_mode", "half_pixel")
    if n.type == "Upsample" or n.opset < 11:
        where = "asymmetric"
    if n.attr("antialias", 0) or n.attr("axes") or n.attr("exclude_outside", 0):
        n.fail("antialias, axes or exclude_outside")
    method, attrs = _method(n, mode, where, rank)
    inputs, size_attrs = _resize_target(n, rank)
    made = n.op(method, {"X": x, **inputs}, {**attrs, **size_attrs, "data_layout": "NCHW"})
    made.shape = (*x.shape[:2], *made.shape[2:])
    n.set(made)


def _method(n: Node, mode: str, where: str, rank: int) -> tuple[str, dict[str, Any]]:
    if rank not in (2, 3) or (rank == 3 and mode != "linear"):
        n.fail(f"mode {mode} of {rank} spatial dims")
    if mode == "nearest":
        rounding = n.attr("nearest_mode", "round_prefer_floor")
        old = n.type == "Upsample" or n.opset < 11
        if where == "align_corners" and rounding in ("round_prefer_ceil", "round_prefer_floor"):
            return "nearest_interp", {"interp_method": "nearest", "align_corners": True}
        whole = _whole_scales(n)
        # a whole factor reads the same pixel whether half pixels are rounded or whole ones cut
        if (where == "asymmetric" and (rounding == "floor" or old)) or (
            whole and where == "half_pixel" and rounding.startswith("round")
        ):
            return "nearest_interp", {"interp_method": "nearest", "align_corners": False}
        n.fail(f"nearest with coordinate_transformation_mode {where} and nearest_mode {rounding}")
    name = {"linear": "trilinear" if rank == 3 else "bilinear", "cubic": "bicubic"}.get(mode)
    if name is None:
        n.fail(f"mode {mode}")
    if mode == "cubic" and abs(float(n.attr("cubic_coeff_a", -0.75)) + 0.75) > 1e-6:
        n.fail("cubic_coeff_a other than -0.75")
    modes = {"align_corners": (True, 1), "half_pixel": (False, 0), "pytorch_half_pixel": (False, 0),
             "asymmetric": (False, 1)}  # fmt: skip
    if where not in modes or (mode == "cubic" and where == "asymmetric"):
        n.fail(f"{mode} with coordinate_transformation_mode {where}")
    corners, align = modes[where]
    return f"{name}_interp", {"interp_method": name, "align_corners": corners, "align_mode": align}


def _whole_scales(n: Node) -> bool:
    at = 1 if n.type == "Upsample" or n.opset < 11 else 2
    scales = n.maybe(at)
    if scales is None or scales.const is None or scales.const.size == 0:
        return False
    return all(float(s) == int(s) and s >= 1 for s in scales.const.reshape(-1))


def _resize_target(n: Node, rank: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """(inputs, attributes) that say the output size."""
    old = n.type == "Upsample" or n.opset < 11
    names = ["out_d", "out_h", "out_w"][3 - rank :]
    sizes = None if old else n.maybe(3)
    if sizes is not None and sizes.shape != (0,):
        known = sizes.parts()
        if known is not None and all(isinstance(v, int) for v in known[2:]):
            return {}, dict(zip(names, [int(v) for v in known[2:]]))  # type: ignore[arg-type]
        tail = n.b.op("slice", {"Input": sizes}, {"axes": [0], "starts": [2], "ends": [2 + rank]})
        return {"OutSize": n.b.cast(tail, np.int32)}, dict.fromkeys(names, -1)
    scales = n.maybe(1 if old else 2)
    if scales is None and old and n.attr("scales"):
        scales = n.constant(n.attr("scales"), np.float32)
    if scales is None or scales.const is None:
        n.fail("scales must be constants (or sizes be given)")
    factors = [float(s) for s in scales.const.reshape(-1)]
    if len(factors) != rank + 2 or factors[:2] != [1.0, 1.0]:
        n.fail(f"scales {factors} for an input of {rank + 2} dims")
    x = n.x()
    if min(x.shape[2:]) > 0:
        return {}, {k: int(np.floor(s * f)) for k, s, f in zip(names, x.shape[2:], factors[2:])}
    if len(set(factors[2:])) == 1:
        return {}, {"scale": factors[2]}
    parts = []
    for i, f in enumerate(factors[2:]):
        size = n.b.cast(n.b.dim(x, i + 2), np.float32)
        parts.append(n.b.cast(n.b.op("floor", {"X": n.b.scale(size, f)}), np.int32))
    return {"SizeTensor": parts}, dict.fromkeys(names, -1)


@reads("GridSample")
def grid_sample(n: Node) -> None:
    mode = n.attr("mode", "bilinear")
    if mode not in ("bilinear", "linear") or n.attr("padding_mode", "zeros") != "zeros" or not n.attr("align_corners", 0):
        n.fail("other than bilinear reading with zeros outside and aligned corners")
    n.set(n.op("grid_sampler", {"X": n.x(0), "Grid": n.x(1)}, {}))


@reads("DepthToSpace")
def depth_to_space(n: Node) -> None:
    x, b = n.x(), int(n.need("blocksize"))
    if n.attr("mode", "DCR") == "CRD":
        n.set(n.op("pixel_shuffle", {"X": x}, {"upscale_factor": b}))
        return
    if x.rank != 4 or not 0 < x.shape[1] <= LARGEST or b < 1 or x.shape[1] % (b * b):
        n.fail(f"an input of shape {list(x.shape)}")
    # DCR keeps the block's place before the channel: bring it behind, then it is a pixel shuffle
    c = x.shape[1] // (b * b)
    order = np.arange(x.shape[1]).reshape(b * b, c).T.reshape(-1)
    moved = n.b.op("index_select", {"X": x, "Index": constant(order.astype(np.int64))}, {"dim": 1})
    n.set(n.op("pixel_shuffle", {"X": moved}, {"upscale_factor": b}))
