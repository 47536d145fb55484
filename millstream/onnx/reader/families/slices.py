"""Slices and borders."""

from __future__ import annotations

from typing import Any

import numpy as np

from millstream.onnx.fold import LARGEST
from millstream.onnx.reader.node import Node, reads
from millstream.onnx.reader.values import Dim, Element, Tensor, constant

_END = 2**31 - 1


@reads("Slice")
def slice_(n: Node) -> None:
    x = n.x()
    if n.opset < 10:
        starts, ends = n.need("starts"), n.need("ends")
        axes, steps = n.attr("axes", list(range(len(starts)))), [1] * len(starts)
    else:
        known = [n.maybe(i) for i in range(1, 5)]
        if known[0] is None or known[1] is None:
            n.fail("starts and ends are missing")
        if any(t is not None and t.const is None for t in known):
            n.set(_dynamic_slice(n, x, known))
            return
        starts, ends = n.ints(1, "starts"), n.ints(2, "ends")
        axes = n.ints(3, "axes") if n.has(3) else list(range(len(starts)))
        steps = n.ints(4, "steps") if n.has(4) else [1] * len(starts)
    n.set(sliced(n, x, [int(a) % max(x.rank, 1) for a in axes], starts, ends, steps))


def known_numbers(parts: list[Element], dtype: Any) -> Tensor | None:
    """A constant, where every number of an integer vector is known."""
    if any(not isinstance(p, int) or isinstance(p, Dim) for p in parts):
        return None
    return constant(np.array(parts, dtype))


def _short(v: Any) -> int:
    return int(max(min(int(v), _END), -_END))


def sliced(n: Node, x: Tensor, axes: list[int], starts: Any, ends: Any, steps: Any) -> Tensor:
    """A slice by numbers."""
    starts, ends = [_short(v) for v in starts], [_short(v) for v in ends]
    if not len(axes) == len(starts) == len(ends) == len(steps):
        n.fail("starts, ends, axes and steps are not as many")
    parts = x.parts() if x.rank == 1 and axes == [0] else None
    if parts is not None:
        known = known_numbers(parts[starts[0] : ends[0] : int(steps[0])], x.dtype)
        if known is not None:
            return known
    if all(s == 1 for s in steps):
        made = n.op("slice", {"Input": x}, {"axes": axes, "starts": starts, "ends": ends})
    else:
        made = x
        for a, s, e, step in zip(axes, starts, ends, steps):
            if step < 0 and s in (-1, _END) and e <= -_END and step == -1:
                made = n.b.op("flip", {"X": made}, {"dims": [a]}, hint=n.hint)
            elif step > 0:
                attrs = {"axes": [a], "starts": [s], "ends": [e], "strides": [int(step)]}
                made = n.b.op("strided_slice", {"Input": made}, attrs, hint=n.hint)
            elif x.shape[a] > 0 and step:
                places = range(x.shape[a])[s if s > -_END else None : e if e > -_END else None : step]
                if len(places) > LARGEST:
                    n.fail(f"a slice of {len(places)} places in steps of {step}")
                made = at_places(n, made, a, np.array(places, np.int64))
            else:
                n.fail(f"a slice from {s} to {e} in steps of {step} of a dim of unknown size")
    if parts is not None:
        made.elements = parts[starts[0] : ends[0] : int(steps[0])]
    return made


def _dynamic_slice(n: Node, x: Tensor, known: list[Tensor | None]) -> Tensor:
    starts, ends, axes, steps = known
    assert starts is not None and ends is not None
    if steps is not None and (steps.const is None or (steps.const != 1).any()):
        n.fail("a slice with steps between bounds that are computed")
    count = starts.shape[0]
    if count < 0:
        n.fail("the number of sliced axes is not known")
    where = list(range(count)) if axes is None else [int(a) % x.rank for a in n.ints(3, "axes")]

    def listed(t: Tensor) -> list[Tensor]:
        return [n.b.cast(n.b.op("slice", {"Input": t}, {"axes": [0], "starts": [i], "ends": [i + 1]}), np.int32)
                for i in range(count)]  # fmt: skip

    inputs = {"Input": x, "StartsTensorList": listed(starts), "EndsTensorList": listed(ends)}
    attrs = {"axes": where, "starts": [0] * count, "ends": [0] * count, "infer_flags": [-1] * count}
    made = n.op("slice", inputs, attrs)
    made.shape = tuple(-1 if i in where else d for i, d in enumerate(x.shape))
    return made


@reads("Pad")
def pad(n: Node) -> None:
    x, mode = n.x(), n.attr("mode", "constant")
    pads = n.ints(1, "pads") if n.has(1) else [int(p) for p in n.attr("pads", [])]
    if n.has(3):
        axes = [a % x.rank for a in n.ints(3, "axes")]
        whole = [0] * (2 * x.rank)
        for i, a in enumerate(axes):
            whole[a], whole[x.rank + a] = pads[i], pads[len(axes) + i]
        pads = whole
    if len(pads) != 2 * x.rank:
        n.fail(f"pads must have {2 * x.rank} numbers, received {pads}")
    value = float(n.const(2, "the padding value").reshape(-1)[0]) if n.has(2) else float(n.attr("value", 0.0))
    before, after = pads[: x.rank], pads[x.rank :]
    if min(pads) < 0:
        ends = [_END if a >= 0 else a for a in after]
        axes = [i for i in range(x.rank) if before[i] < 0 or after[i] < 0]
        x = sliced(n, x, axes, [max(-before[i], 0) for i in axes], [ends[i] for i in axes], [1] * len(axes))
        before, after = [max(p, 0) for p in before], [max(p, 0) for p in after]
    if mode == "constant":
        paddings = [p for pair in zip(before, after) for p in pair]
        n.set(n.op("pad", {"X": x}, {"paddings": paddings, "pad_value": value}))
        return
    if mode not in ("reflect", "edge") or x.rank != 4 or any(before[:2]) or any(after[:2]):
        n.set(_padded_by_places(n, x, mode, before, after))
        return
    attrs = {"paddings": [before[2], after[2], before[3], after[3]], "mode": mode, "data_format": "NCHW"}
    n.set(n.op("pad2d", {"X": x}, attrs))


def _padded_by_places(n: Node, x: Tensor, mode: str, before: list[int], after: list[int]) -> Tensor:
    """Axis by axis the places that are read."""
    if mode not in ("reflect", "edge", "wrap"):
        n.fail(f"mode {mode}")
    made = x
    for axis in [i for i in range(x.rank) if before[i] or after[i]]:
        if x.shape[axis] <= 0 or x.shape[axis] + before[axis] + after[axis] > LARGEST:
            n.fail(f"mode {mode} with pads {before} and {after} of a tensor of shape {list(x.shape)}")
        index = np.pad(np.arange(x.shape[axis]), (before[axis], after[axis]), mode)  # type: ignore[call-overload]
        made = at_places(n, made, axis, index)
    return made


def at_places(n: Node, x: Tensor, axis: int, index: np.ndarray[Any, Any]) -> Tensor:
    """The slices of x at known places of an axis."""
    made = n.b.op("index_select", {"X": x, "Index": constant(index.astype(np.int64))}, {"dim": axis}, hint=n.hint)
    made.shape = tuple(len(index) if i == axis else d for i, d in enumerate(x.shape))
    return made
