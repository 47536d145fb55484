"""Resizing: Fluid's operators where they compute the same, else, for images of known size, a product for each axis."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from millstream.onnx.fold import LARGEST
from millstream.onnx.reader.node import Node, reads
from millstream.onnx.reader.values import Tensor, constant

Array = np.ndarray[Any, Any]
_ROUND: dict[str, Callable[[Array], Array]] = {
    "round_prefer_floor": lambda x: np.ceil(x - 0.5), "round_prefer_ceil": lambda x: np.floor(x + 0.5), "floor": np.floor,
    "ceil": np.ceil,
}  # fmt: skip


@reads("Resize", "Upsample")
def resize(n: Node) -> None:
    x, rank = n.x(), n.x().rank - 2
    mode, where = n.attr("mode", "nearest"), n.attr("coordinate_transformation_mode", "half_pixel")
    if n.type == "Upsample" or n.opset < 11:
        where = "asymmetric"
    if mode not in ("nearest", "linear", "cubic"):
        n.fail(f"mode {mode}")
    axes = _axes(n, mode, where)
    method = _method(n, mode, where, rank)
    if method is None or (axes is not None and not _by_sizes(axes, where)):
        if axes is None:
            rounding = f" and nearest_mode {n.attr('nearest_mode', 'round_prefer_floor')}" if mode == "nearest" else ""
            n.fail(
                f"{mode} with coordinate_transformation_mode {where}{rounding}, of an image of unknown size, or one of "
                f"more than {LARGEST} pairs of pixels along an axis"
            )
        n.set(_by_axes(n, x, axes, mode == "nearest"))
        return
    inputs, size_attrs = _resize_target(n, rank)
    made = n.op(method[0], {"X": x, **inputs}, {**method[1], **size_attrs, "data_layout": "NCHW"})
    made.shape = (*x.shape[:2], *made.shape[2:])
    n.set(made)


# ---- axis by axis -------------------------------------------------------------------------------------------
class Axis(NamedTuple):
    """How one axis is read: from `size` to `out` pixels, where those come from, and the weights [out, size]."""

    axis: int
    size: int
    out: int
    scale: float
    weights: Array
    outside: Array


def _axes(n: Node, mode: str, where: str) -> list[Axis] | None:
    """What happens to each axis; None where the image's or the result's size is not known."""
    x = n.x()
    target = _scales(n, x)
    if target is None:
        return None
    found = []
    for axis, (scale, out, begin, end) in enumerate(target):
        size = x.shape[axis]
        if scale == 1.0 and (out is None or out == size) and (begin, end) == (0.0, 1.0):
            continue
        if size <= 0 or out is None or not 0 < out * size <= LARGEST:
            return None
        if n.attr("antialias", 0) and abs(out / size - scale) > 1e-6 * scale:
            n.fail(f"antialias with a scale ({scale}) that is not the sizes' ({size} to {out})")
        at = _places(where, size, out, scale, begin, end)
        outside = (at < 0) | (at > size - 1) if where == "tf_crop_and_resize" else np.zeros(out, bool)
        weights = _nearest(n, at, size) if mode == "nearest" else _weights(n, at, size, scale, mode == "cubic")
        found.append(Axis(axis, size, out, scale, weights.astype(np.float32), outside))
    return found


def _scales(n: Node, x: Tensor) -> list[tuple[float, int | None, float, float]] | None:
    """(scale, pixels of the result, region) for each axis; None where they are computed."""
    old = n.type == "Upsample" or n.opset < 11
    sizes = None if old else n.maybe(3)
    scales = n.maybe(1 if old else 2)
    if scales is None and old and n.attr("scales"):
        scales = n.constant(n.attr("scales"), np.float32)
    axes = [int(a) % x.rank for a in n.attr("axes", list(range(x.rank)))]
    roi = n.maybe(1) if not old and n.attr("coordinate_transformation_mode", "") == "tf_crop_and_resize" else None
    region = np.array([0.0] * len(axes) + [1.0] * len(axes)) if roi is None else n.const(1, "roi").reshape(-1)
    whole: list[tuple[float, int | None, float, float]] = [(1.0, None, 0.0, 1.0)] * x.rank
    by_size = sizes is not None and sizes.shape != (0,)
    given = sizes if by_size else scales
    if given is None or given.const is None:
        return None
    if given.const.size != len(axes) or region.size != 2 * len(axes):
        n.fail(f"{given.const.size} sizes or scales and a region of {region.size} for {len(axes)} axes")
    numbers = [float(v) for v in given.const.reshape(-1)]
    policy = n.attr("keep_aspect_ratio_policy", "stretch")
    known = [x.shape[a] for a in axes]
    if by_size and policy != "stretch":
        if min(known) <= 0:
            return None
        ratios = [v / s for v, s in zip(numbers, known)]
        one = min(ratios) if policy == "not_larger" else max(ratios)
        return _filled(whole, axes, [(one, int(one * s + 0.5)) for s in known], region)
    pairs: list[tuple[float, int | None]] = []
    for size, v in zip(known, numbers):
        if by_size:
            pairs.append((v / size if size > 0 else 0.0, int(v)))
        else:
            pairs.append((v, int(np.floor(size * v)) if size > 0 else None))
    return _filled(whole, axes, pairs, region)


def _filled(whole: Any, axes: list[int], pairs: Any, region: Array) -> Any:
    for i, (axis, (scale, out)) in enumerate(zip(axes, pairs)):
        whole[axis] = (scale, out, float(region[i]), float(region[len(axes) + i]))
    return whole


def _by_sizes(axes: list[Axis], where: str) -> bool:
    """Whether coordinates are those of the ratio of sizes, as in Fluid's operators, which look at the last axes alone."""
    exact = where == "align_corners" or all(abs(a.out / a.size - a.scale) < 1e-6 * a.scale for a in axes)
    single = where == "pytorch_half_pixel" and any(a.out == 1 for a in axes)
    return exact and not single and all(a.axis >= 2 for a in axes)


def _places(where: str, size: int, out: int, scale: float, begin: float, end: float) -> Array:
    """Where the pixels of the result lie in the image, in float32 as in ONNX Runtime: ties must fall alike."""
    i = np.arange(out, dtype=np.float32)
    s, half = np.float32(scale), np.float32(0.5)
    if where == "align_corners":
        return i * np.float32(size - 1) / np.float32(out - 1) if out > 1 else i * 0
    if where == "asymmetric":
        return i / s
    if where == "tf_crop_and_resize":
        if out == 1:
            return np.array([0.5 * (begin + end) * (size - 1)], np.float32)
        return (begin * (size - 1) + i * (end - begin) * (size - 1) / (out - 1)).astype(np.float32)
    if where == "half_pixel_symmetric":
        middle = size / 2
        return (np.float32(middle * (1 - out / (scale * size))) + (i + half) / s - half).astype(np.float32)
    if where == "pytorch_half_pixel" and out == 1:
        return i * 0
    return (i + half) / s - half


def _nearest(n: Node, at: Array, size: int) -> Array:
    rounding = n.attr("nearest_mode", "round_prefer_floor")
    if n.type == "Upsample" or n.opset < 11:
        rounding = "floor"
    if rounding not in _ROUND:
        n.fail(f"nearest_mode {rounding}")
    index = np.clip(_ROUND[rounding](at), 0, size - 1).astype(int)
    return np.eye(size)[index]


def _weights(n: Node, at: Array, size: int, scale: float, cubic: bool) -> Array:
    """[out, size]; with antialias the kernel is as wide as what falls into a pixel."""
    a, exclude = float(n.attr("cubic_coeff_a", -0.75)), bool(n.attr("exclude_outside", 0))
    wide = bool(n.attr("antialias", 0)) and scale < 1
    squeeze = scale if wide else 1.0
    reach = (2 if cubic else 1) / squeeze
    first = np.floor(at.astype(float) - reach).astype(int)
    taps = first[:, None] + np.arange(int(np.ceil(2 * reach)) + 2)
    t = np.abs(taps - at.astype(float)[:, None]) * squeeze
    kernel = np.clip(1 - t, 0, None)
    if cubic:
        near = ((a + 2) * t - (a + 3)) * t * t + 1
        kernel = np.where(t < 1, near, np.where(t < 2, ((a * t - 5 * a) * t + 8 * a) * t - 4 * a, 0))
    inside = (taps >= 0) & (taps < size)
    if exclude or wide:
        kernel = kernel * inside if exclude else kernel
        kernel = kernel / kernel.sum(1, keepdims=True)
    whole = np.zeros((len(at), size))
    np.add.at(whole, (np.arange(len(at))[:, None], np.clip(taps, 0, size - 1)), kernel)
    return whole


def _by_axes(n: Node, x: Tensor, axes: list[Axis], nearest: bool) -> Tensor:
    b, made, fill = n.b, x, float(n.attr("extrapolation_value", 0.0))
    for a in axes:
        if nearest:
            index = constant(a.weights.argmax(1).astype(np.int64))
            made = b.op("index_select", {"X": made, "Index": index}, {"dim": a.axis}, hint=n.hint)
        else:
            perm = [*range(made.rank)]
            perm[a.axis], perm[-1] = perm[-1], perm[a.axis]
            turned = made if a.axis == made.rank - 1 else b.transpose(made, perm)
            by = Tensor(b.parameter(a.weights.T.astype(x.dtype), f"{n.hint}.weights", False), x.dtype, (a.size, a.out))
            made = b.op("mul", {"X": turned, "Y": by}, {"x_num_col_dims": x.rank - 1, "y_num_col_dims": 1})
            made = made if a.axis == x.rank - 1 else b.transpose(made, perm)
        if a.outside.any():
            shape = [a.out if i == a.axis else 1 for i in range(x.rank)]
            keep = constant((~a.outside).astype(x.dtype).reshape(shape))
            made = b.binary("elementwise_mul", made, keep)
            made = b.binary("elementwise_add", made, constant((a.outside * fill).astype(x.dtype).reshape(shape)))
        made.shape = tuple(a.out if i == a.axis else d for i, d in enumerate(made.shape))
    return made


# ---- Fluid's operators --------------------------------------------------------------------------------------
def _method(n: Node, mode: str, where: str, rank: int) -> tuple[str, dict[str, Any]] | None:
    """Fluid's operator and attributes that compute the same, where there is one."""
    plain = not (n.attr("antialias", 0) or n.attr("axes") or n.attr("exclude_outside", 0))
    if not plain or rank not in (2, 3) or (rank == 3 and mode != "linear"):
        return None
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
        return None
    name = {"linear": "trilinear" if rank == 3 else "bilinear", "cubic": "bicubic"}[mode]
    if mode == "cubic" and abs(float(n.attr("cubic_coeff_a", -0.75)) + 0.75) > 1e-6:
        return None
    modes = {"align_corners": (True, 1), "half_pixel": (False, 0), "pytorch_half_pixel": (False, 0),
             "asymmetric": (False, 1)}  # fmt: skip
    if where not in modes or (mode == "cubic" and where == "asymmetric"):
        return None
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
