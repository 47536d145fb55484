"""Lookups of sequences of ids whose rows are added up and laid side by side, as one operator. Plans make it
(passes/training/fuse_lookups.py)."""

from __future__ import annotations

from functools import cache
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import torch

from millstream.errors import EnforceNotMet
from millstream.kernels.arrays import array, tensor
from millstream.ops._opdef import op
from millstream.ops._values import SelectedRows, Spec
from millstream.ops.sequence._lod import check_rows, offsets_of
from millstream.ops.tensor.lookup import dense_table_grad


@cache
def _kernels() -> ModuleType:
    from millstream.kernels import rows as module

    return module


class _Slots(NamedTuple):
    """The slots of one table: ids one slot after another, where each begins, offsets [slots, sequences + 1], columns."""

    rows: torch.Tensor
    starts: np.ndarray
    offsets: np.ndarray
    columns: np.ndarray


def _slots(ids, members, columns) -> _Slots:
    chosen = [ids[k].values.reshape(-1) for k in members]
    starts = np.cumsum([0, *(len(c) for c in chosen[:-1])], dtype=np.int64)
    rows = (chosen[0] if len(chosen) == 1 else torch.cat(chosen)).long()
    offsets = np.stack([ids[k].lod[-1] for k in members])
    return _Slots(rows, starts, offsets, np.array([columns[k] for k in members], np.int64))


def _layout(ws, xs, tables, order):
    """(column of each lookup, column of each X, columns of all)."""
    lookups, others, column = {}, {}, 0
    for k in order:
        (lookups if k >= 0 else others)[k if k >= 0 else -1 - k] = column
        column += ws[tables[k]].shape[1] if k >= 0 else xs[-1 - k].shape[-1]
    return lookups, others, column


def _sequences(ids) -> int:
    """How many sequences each slot has; EnforceNotMet when they differ."""
    counts = []
    for one in ids:
        counts.append(len(offsets_of(one, "Ids")) - 1)
        check_rows(one, "Ids")
    if len(set(counts)) > 1:
        raise EnforceNotMet(f"all slots must have as many sequences, received {counts}")
    return counts[0]


def _spec(ws, ids, xs, *, tables, order, sparse):
    widths = [ws[tables[k]].shape[1] if k >= 0 else xs[-1 - k].shape[-1] for k in order]
    return Spec((-1, -1 if min(widths) < 0 else sum(widths)), ws[0].dtype)


def _lod(lods, attrs, ins):
    first = attrs["order"][0]
    return {"Out": lods["Ids"][first][:-1] if first >= 0 else lods["X"][-1 - first]}


@op("lookup_pool_concat", slots="W*, Ids*#, X* -> Out", infer=_spec, lod=_lod, nodiff="Ids", picks="W")
def lookup_pool_concat(ws, ids, xs, *, tables: list[int], order: list[int], sparse: list[int]):
    """For each slot the sum of the rows of W[tables[k]] by the ids of a sequence of Ids[k], side by side with X.

    `order` names what stands there from left to right: k >= 0 a slot, k < 0 X[-1 - k]. Empty sequences give zeros.
    """
    lookups, others, width = _layout(ws, xs, tables, order)
    out = torch.empty((_sequences(ids), width), dtype=ws[0].dtype)
    for t, w in enumerate(ws):
        slots = _slots(ids, [k for k, table in enumerate(tables) if table == t], lookups)
        _kernels().gather_sums(array(w), array(slots.rows), slots.offsets, slots.starts, slots.columns, out.numpy())
    for k, column in others.items():
        out[:, column : column + xs[k].shape[-1]] = xs[k]
    return out.to(ws[0].device)


@op(
    "lookup_pool_concat_grad", slots="W*, Ids*#, X*, Out@GRAD -> W@GRAD*, X@GRAD*",
    infer=lambda ws, ids, xs, dout, **_: (ws, xs),
)  # fmt: skip
def lookup_pool_concat_grad(ws, ids, xs, dout, *, tables: list[int], order: list[int], sparse: list[int]):
    """W@GRAD: SelectedRows where `sparse` is 1 (rows as they come, repeats apart), dense where it is 0, nothing at -1."""
    lookups, others, _ = _layout(ws, xs, tables, order)
    grads: list[Any] = []
    for t, (w, kind) in enumerate(zip(ws, sparse)):
        if kind < 0:
            grads.append(None)
            continue
        slots = _slots(ids, [k for k, table in enumerate(tables) if table == t], lookups)
        values = np.empty((len(slots.rows), w.shape[1]), array(dout[:0]).dtype)
        _kernels().spread(array(dout), slots.offsets, slots.starts, slots.columns, values)
        made = tensor(values, dout)
        rows = SelectedRows(slots.rows, made, w.shape[0])
        grads.append(rows if kind else dense_table_grad(slots.rows, made, w.shape[0], -1))
    dxs = [dout[:, others[k] : others[k] + x.shape[-1]].reshape(x.shape) if k in others else None for k, x in enumerate(xs)]
    return grads, dxs
