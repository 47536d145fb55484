"""Splitting rows (or sequences) by a mask, merging them, and choosing between values."""

from __future__ import annotations

import numpy as np
import torch

from millstream.errors import InvalidProgramError
from millstream.ir.names import EMPTY_VAR, grad_name
from millstream.ops._opdef import op
from millstream.ops._values import Ragged
from millstream.ops.control.array import _expand_items, offsets


def _take(x: Ragged, items: np.ndarray, level: int) -> Ragged:
    """Items of LoD level `level` (rows when there is no LoD); no items have no LoD."""
    if not x.lod or not items.size:
        return Ragged(x.values.index_select(0, torch.from_numpy(items)), ())
    rows, lengths = _expand_items(items, x.lod[level:])
    return Ragged(x.values.index_select(0, torch.from_numpy(rows)), tuple(offsets(s) for s in lengths))


def _mask(mask: torch.Tensor) -> np.ndarray:
    return mask.reshape(-1).to(torch.bool).cpu().numpy()


def _split_spec(x, mask, *, level):
    return x, x


def _split_grad(operator, out_grads, wanted):
    x = operator.input("X")[0]
    true, false = operator.output("OutTrue")[0], operator.output("OutFalse")[0]
    if not wanted(x):
        return []
    specs = []
    names = []
    for out in (true, false):
        names.append(out_grads.get(out) or grad_name(out))
        if not out_grads.get(out):
            specs.append(("fill_zeros_like", {"X": [out]}, {"Out": [grad_name(out)]}, {}))
    inputs = {"X": [x], "Mask": operator.input("Mask"), "InTrue": [names[0]], "InFalse": [names[1]]}
    merge = ("merge_lod_tensor", inputs, {"Out": [grad_name(x)]}, {"level": operator.attr("level")})
    return [*specs, merge]


@op(
    "split_lod_tensor", slots="X#, Mask -> OutTrue#, OutFalse#", shares=True, infer=_split_spec, grad=_split_grad,
    nodiff="Mask",
)  # fmt: skip
def split_lod_tensor(x, mask, *, level: int = 0):
    """Rows (sequences of `level`) of X where Mask is true, and the others."""
    chosen = _mask(mask)
    count = x.lod[level].size - 1 if x.lod else x.values.shape[0]
    if chosen.size != count:
        raise InvalidProgramError(f"split_lod_tensor: the mask has {chosen.size} elements for {count} rows or sequences")
    return _take(x, np.flatnonzero(chosen), level), _take(x, np.flatnonzero(~chosen), level)


def _merge_spec(x, mask, in_true, in_false, *, level):
    return (in_true or in_false).like(lod_level=0)


def _merge_grad(operator, out_grads, wanted):
    true, false = operator.input("InTrue")[0], operator.input("InFalse")[0]
    out = operator.output("Out")[0]
    if not (wanted(true) or wanted(false)):
        return []
    outputs = {
        "OutTrue": [grad_name(true) if wanted(true) else EMPTY_VAR],
        "OutFalse": [grad_name(false) if wanted(false) else EMPTY_VAR],
    }
    inputs = {"X": [out_grads[out]], "Mask": operator.input("Mask")}
    return [("split_lod_tensor", inputs, outputs, {"level": operator.attr("level")})]


def _merge(x: Ragged, mask: torch.Tensor, in_true: Ragged, in_false: Ragged, level: int) -> Ragged:
    chosen = _mask(mask)
    parts = [p for p in (in_true, in_false) if p is not None and p.values is not None]
    if not parts:
        raise InvalidProgramError("merge_lod_tensor: neither branch gave a value")
    values = torch.cat([p.values for p in parts]) if len(parts) > 1 else parts[0].values
    n_true = int(chosen.sum())
    order = np.empty(chosen.size, dtype=np.int64)
    order[chosen] = np.arange(n_true)
    order[~chosen] = n_true + np.arange(chosen.size - n_true)
    # A sequence keeps its own lengths: those of X where the branches lost their LoD.
    lods = [p.lod for p in parts]
    if any(lods):
        depth = max(len(lod) for lod in lods)
        joined = tuple(
            offsets(np.concatenate([np.diff(lod[k]) for lod in lods if len(lod) > k])) for k in range(depth)
        )
        rows, lengths = _expand_items(order, joined)
        upper = x.lod[:level] if x.lod else ()
        return Ragged(values.index_select(0, torch.from_numpy(rows)), (*upper, *(offsets(s) for s in lengths)))
    if values.shape[0] != chosen.size:
        raise InvalidProgramError(
            f"merge_lod_tensor: the branches have {values.shape[0]} rows together, the mask has {chosen.size}"
        )
    return Ragged(values.index_select(0, torch.from_numpy(order)), ())


@op(
    "merge_lod_tensor",
    slots="X#, Mask, InTrue#, InFalse# -> Out#", shares=True,
    infer=_merge_spec,
    grad=_merge_grad,
    nodiff="X, Mask",
)
def merge_lod_tensor(x, mask, in_true, in_false, *, level: int = 0):
    """The inverse of split_lod_tensor: rows of InTrue where Mask is true, of InFalse elsewhere."""
    return _merge(x, mask, in_true, in_false, level)


@op("merge_lod_tensor_infer", slots="X#, Mask, InTrue#, InFalse# -> Out#", infer=_merge_spec, grad=False)
def merge_lod_tensor_infer(x, mask, in_true, in_false, *, level: int = 0):
    """merge_lod_tensor of inference Programs."""
    return _merge(x, mask, in_true, in_false, level)


def _select_grad(operator, out_grads, wanted):
    outputs = {"Out": [grad_name(n) if wanted(n) else EMPTY_VAR for n in operator.input("X")]}
    inputs = {"X": [out_grads[operator.output("Out")[0]]], "Mask": operator.input("Mask")}
    return [("select_output", inputs, outputs, {})]


@op("select_input", slots="X*#, Mask -> Out#", shares=True, infer=False, grad=_select_grad, nodiff="Mask")
def select_input(xs, mask):
    """X[Mask]."""
    k = int(mask)
    if not 0 <= k < len(xs):
        raise InvalidProgramError(f"select_input: the mask is {k}, there are {len(xs)} inputs")
    return xs[k]


def _select_output_grad(operator, out_grads, wanted):
    specs = []
    names = []
    x = operator.input("X")[0]
    for out in operator.output("Out"):
        names.append(out_grads.get(out) or grad_name(out))
        if not out_grads.get(out):  # like X: an output that was not chosen has no value
            specs.append(("fill_zeros_like", {"X": [x]}, {"Out": [grad_name(out)]}, {}))
    select = ("select_input", {"X": names, "Mask": operator.input("Mask")}, {"Out": [grad_name(x)]}, {})
    return [*specs, select] if wanted(x) else []


@op("select_output", slots="X#, Mask -> Out*#", shares=True, infer=False, grad=_select_output_grad, nodiff="Mask")
def select_output(x, mask, *, counts):
    """X in output number Mask; the others stay empty."""
    k = int(mask)
    return [x if i == k else Ragged(None, ()) for i in range(counts[0])]
