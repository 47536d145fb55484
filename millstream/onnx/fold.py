"""Evaluating nodes whose inputs are all known: shape arithmetic, anchors, repacked weights."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

LARGEST = 1 << 22  # elements of a folded result, unless an input is as large: a file can't make constants grow and grow
Array = np.ndarray[Any, Any]
Folder = Callable[..., Any]


def _slice(x: Array, starts: Array, ends: Array, axes: Array | None = None, steps: Array | None = None) -> Array:
    where: list[slice] = [slice(None)] * x.ndim
    every = range(len(starts)) if axes is None else axes
    by = np.ones(len(starts), np.int64) if steps is None else steps
    for axis, start, end, step in zip(every, starts, ends, by):
        size = x.shape[axis]
        first, last, stride = (int(v) for v in (start, end, step))
        stop: int | None = last
        if stride < 0 and last < -size:
            stop = None
        where[axis] = slice(max(first, -size) if first < 0 else first, stop, stride)
    return x[tuple(where)]


def _reshape(x: Array, shape: Array, allowzero: int = 0) -> Array:
    dims = [int(d) for d in shape]
    return x.reshape([x.shape[i] if d == 0 and not allowzero else d for i, d in enumerate(dims)])


def _unsqueeze(x: Array, axes: Array) -> Array:
    return np.expand_dims(x, tuple(int(a) for a in axes))


def _squeeze(x: Array, axes: Array | None = None) -> Array:
    return np.squeeze(x, None if axes is None else tuple(int(a) for a in axes))


def _div(a: Array, b: Array) -> Array | None:
    if a.dtype.kind == "f":
        return a / b
    if not b.all():
        return None
    return (np.sign(a) * np.sign(b) * (np.abs(a) // np.abs(b))).astype(a.dtype)


def _mod(a: Array, b: Array, fmod: int = 0) -> Array | None:
    if a.dtype.kind in "iu" and not b.all():
        return None
    return np.fmod(a, b) if fmod else np.mod(a, b)


def _range(start: Array, limit: Array, delta: Array) -> Array | None:
    first, last, by = (v.reshape(()).item() for v in (start, limit, delta))
    count = max(math.ceil((last - first) / by), 0) if by else 0
    if count > LARGEST:
        return None
    return (first + np.arange(count) * by).astype(start.dtype)


def _expand(x: Array, shape: Array) -> Array | None:
    target = np.broadcast_shapes(x.shape, tuple(int(d) for d in shape))
    return np.broadcast_to(x, target) if math.prod(target) <= LARGEST else None


def _tile(x: Array, repeats: Array) -> Array | None:
    times = [int(r) for r in repeats]
    return np.tile(x, times) if x.size * math.prod(times) <= LARGEST else None


def _filled(shape: Array, value: Any = None) -> Array | None:
    dims = tuple(int(d) for d in shape)
    if math.prod(dims) > LARGEST:
        return None
    return np.full(dims, 0, np.float32) if value is None else np.full(dims, value.reshape(()), value.dtype)


def _cumsum(x: Array, axis: Array, exclusive: int = 0, reverse: int = 0) -> Array | None:
    return None if exclusive or reverse else np.cumsum(x, int(axis.reshape(()).item()), dtype=x.dtype)


def _reduce(function: Any) -> Folder:
    def fold(x: Array, axes: Array | None = None, keepdims: int = 1, **named: Any) -> Array | None:
        if "noop_with_empty_axes" in named:
            return None
        given = named.get("axes", axes)
        return function(x, axis=None if given is None else tuple(int(a) for a in given), keepdims=bool(keepdims))

    return fold


def _same(function: Any) -> Folder:
    """A function of arrays of one dtype that keeps it."""
    return lambda *arrays: function(*arrays).astype(arrays[0].dtype)


FOLDERS: dict[str, Folder] = {
    "Abs": _same(np.abs),
    "Add": _same(np.add),
    "And": np.logical_and,
    "Ceil": _same(np.ceil),
    "Concat": lambda *arrays, axis: np.concatenate(arrays, axis),
    "ConstantOfShape": _filled,
    "CumSum": _cumsum,
    "Div": _div,
    "Equal": np.equal,
    "Exp": _same(np.exp),
    "Expand": _expand,
    "Floor": _same(np.floor),
    "Gather": lambda x, index, axis=0: np.take(x, index, axis, mode="wrap") if x.size else None,
    "Greater": np.greater,
    "GreaterOrEqual": np.greater_equal,
    "Identity": lambda x: x,
    "Less": np.less,
    "LessOrEqual": np.less_equal,
    "Log": _same(np.log),
    "MatMul": lambda a, b: (a @ b).astype(a.dtype) if max(a.size, b.size) <= LARGEST else None,
    "Max": lambda *arrays: np.maximum.reduce(np.broadcast_arrays(*arrays)),
    "Min": lambda *arrays: np.minimum.reduce(np.broadcast_arrays(*arrays)),
    "Mod": _mod,
    "Mul": _same(np.multiply),
    "Neg": _same(np.negative),
    "Not": np.logical_not,
    "Or": np.logical_or,
    "Range": _range,
    "Reciprocal": lambda x: (1 / x).astype(x.dtype),
    "ReduceMax": _reduce(np.max),
    "ReduceMin": _reduce(np.min),
    "ReduceProd": _reduce(np.prod),
    "ReduceSum": _reduce(np.sum),
    "Reshape": _reshape,
    "Shape": lambda x: np.array(x.shape, np.int64),
    "Size": lambda x: np.array(x.size, np.int64),
    "Slice": _slice,
    "Sqrt": _same(np.sqrt),
    "Squeeze": _squeeze,
    "Sub": _same(np.subtract),
    "Tile": _tile,
    "Transpose": lambda x, perm: np.transpose(x, perm),
    "Unsqueeze": _unsqueeze,
    "Where": np.where,
}


_SHRINKING = frozenset({"Reshape", "Shape", "Size", "Slice", "Squeeze", "Transpose", "Unsqueeze", "Identity", "CumSum"})
_LIMITED = frozenset({"ConstantOfShape", "Expand", "Range", "Tile"})  # they look at LARGEST themselves


def _size(op_type: str, given: list[Array], attrs: dict[str, Any]) -> int:
    """At most so many elements a result has."""
    if op_type in _SHRINKING or op_type in _LIMITED or op_type.startswith("Reduce"):
        return 0
    if op_type == "Concat":
        return sum(a.size for a in given)
    if op_type == "Gather":
        axis = int(attrs.get("axis", 0))
        return given[1].size * (given[0].size // max(given[0].shape[axis], 1))
    if op_type == "MatMul":
        if min(a.ndim for a in given) < 2:
            return max(a.size for a in given)
        batch = np.broadcast_shapes(*(a.shape[:-2] for a in given))
        return math.prod(batch) * given[0].shape[-2] * given[1].shape[-1]
    return math.prod(np.broadcast_shapes(*(a.shape for a in given)))


def fold(op_type: str, arrays: list[Array | None], attrs: dict[str, Any], trusted: bool = False) -> Array | None:
    """The result of a node over known arrays, or None where it is not to be folded (`trusted`: weights are put together)."""
    folder = FOLDERS.get(op_type)
    if folder is None:
        return None
    given = [a for a in arrays if a is not None]
    limit = max([LARGEST, *(a.size for a in given)])
    if trusted:
        limit = max(limit, sum(a.size for a in given))
    with np.errstate(all="ignore"):
        try:
            if _size(op_type, given, attrs) > limit:
                return None
            found = folder(*arrays, **attrs)
        except (ValueError, IndexError, TypeError):
            return None  # a node that fails is left to the engine, which says so when it runs
    if found is None:
        return None
    return np.asarray(found)
