"""Values at places that are computed: GridSample, ReverseSequence."""

from __future__ import annotations

import numpy as np

from millstream.onnx.reader.families.shape import counted
from millstream.onnx.reader.node import Node, reads
from millstream.onnx.reader.values import Tensor, constant


# ---- images ------------------------------------------------------------------------------------------
@reads("GridSample")
def grid_sample(n: Node) -> None:
    """grid_sampler, which reads bilinearly, zeros outside, corners at ±1: other forms move the grid to where that agrees."""
    x, grid = n.x(0), n.x(1)
    mode, outside, aligned = n.attr("mode", "linear"), n.attr("padding_mode", "zeros"), bool(n.attr("align_corners", 0))
    if mode not in ("bilinear", "linear", "nearest") or outside not in ("zeros", "border", "reflection"):
        n.fail(f"mode {mode!r} with padding {outside!r}")
    if x.rank != 4:
        n.fail(f"an input of {x.rank} dims")
    if mode == "nearest" or outside != "zeros" or not aligned:
        if min(x.shape[2:]) < (2 if outside == "zeros" else 1):
            n.fail(f"an image of {list(x.shape[2:])} (sizes that are not known, or 1)")
        sides = []
        for k, size in enumerate((x.shape[3], x.shape[2])):
            at = n.b.op("slice", {"Input": grid}, {"axes": [3], "starts": [k], "ends": [k + 1]})
            sides.append(_moved(n, at, size, mode == "nearest", outside, aligned))
        grid = n.b.op("concat", {"X": sides}, {"axis": 3})
    n.set(n.op("grid_sampler", {"X": x, "Grid": grid}, {}))


def _moved(n: Node, at: Tensor, size: int, nearest: bool, outside: str, aligned: bool) -> Tensor:
    """Coordinates along a side of `size` pixels, from what they are to those of aligned corners."""
    b, last = n.b, float(size - 1)
    p = b.scale(at, last / 2, last / 2) if aligned else b.scale(at, size / 2, (size - 1) / 2)  # in pixels
    if outside == "border":
        p = b.op("clip", {"X": p}, {"min": 0.0, "max": last})
    elif outside == "reflection" and size > 1:
        low, span = (0.0, last) if aligned else (-0.5, float(size))
        away = b.op("abs", {"X": b.scale(p, 1.0, -low)})
        rounds = b.op("floor", {"X": b.scale(away, 1 / (2 * span))})
        into = b.op("elementwise_sub", {"X": away, "Y": b.scale(rounds, 2 * span)}, {"axis": -1})  # in [0, 2 span)
        back = b.op("elementwise_min", {"X": into, "Y": b.scale(into, -1.0, 2 * span)}, {"axis": -1})
        p = b.op("clip", {"X": b.scale(back, 1.0, low)}, {"min": 0.0, "max": last})
    if nearest:
        p = _to_even(n, p)
    return b.scale(p, 2 / last if last else 0.0, -1.0)


def _to_even(n: Node, p: Tensor) -> Tensor:
    """Rounded to whole numbers, halves to even ones (Fluid's round takes them away from zero)."""
    b = n.b
    up = b.op("floor", {"X": b.scale(p, 1.0, 0.5)})
    odd = b.op("elementwise_sub", {"X": up, "Y": b.scale(b.op("floor", {"X": b.scale(up, 0.5)}), 2.0)}, {"axis": -1})
    tie = b.cast(b.op("equal", {"X": b.scale(p, 1.0, 0.5), "Y": up}, {"axis": -1}), p.dtype)
    return b.op("elementwise_sub", {"X": up, "Y": b.binary("elementwise_mul", odd, tie)}, {"axis": -1})


# ---- sequences ---------------------------------------------------------------------------------------
@reads("ReverseSequence")
def reverse_sequence(n: Node) -> None:
    """The first `lengths` steps backwards, the others as they are: rows by their numbers."""
    x, lengths, b = n.x(0), n.b.cast(n.x(1), np.int64), n.b
    batch, time = n.axis(1, x.rank, "batch_axis"), n.axis(0, x.rank, "time_axis")
    if {batch, time} != {0, 1}:
        n.fail(f"time and batch in dims {time} and {batch}: they must be the first two")
    flipped = batch == 1
    x = b.transpose(x, [1, 0, *range(2, x.rank)]) if flipped else x
    steps = counted(n, b.dim(x, 1))
    t = b.reshape(steps, [1, -1])
    left = b.binary("elementwise_sub", b.reshape(lengths, [-1, 1]), t)  # [batch, time]; 1 or more: turned round
    inside = b.cast(b.op("greater_than", {"X": left, "Y": constant(np.zeros(1, np.int64))}, {"axis": -1}), np.int64)
    # t + inside * (length - 1 - 2 t)
    turned = b.binary("elementwise_sub", b.scale(left, 1, -1), t)
    at = b.binary("elementwise_add", b.binary("elementwise_mul", turned, inside), t)
    rows = b.binary("elementwise_add", b.scale(at, 0), b.reshape(counted(n, b.dim(x, 0)), [-1, 1]))
    index = b.ops("stack", {"X": [rows, at]}, {"axis": 2}, ["Y"])[0]
    if flipped:
        made = b.op("gather_nd", {"X": x, "Index": index}, {})
        n.set(b.transpose(made, [1, 0, *range(2, x.rank)]))
    else:
        n.set(n.op("gather_nd", {"X": x, "Index": index}, {}))
