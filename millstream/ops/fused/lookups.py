"""Lookups whose rows are laid side by side, as one operator. Plans make it (passes/training/fuse_lookups.py)."""

from __future__ import annotations

from itertools import groupby
from math import prod

import torch

from millstream.ops._opdef import Long, op
from millstream.ops._values import SelectedRows, Spec
from millstream.ops.tensor.lookup import dense_table_grad, looked_up


def _runs(order, tables):
    """`order` in runs: (table, positions in Ids) of neighbours in one table, or (None, [position in X])."""
    found = []
    for table, members in groupby(order, lambda k: tables[k] if k >= 0 else None):
        members = list(members)
        found += [(table, members)] if table is not None else [(None, [-1 - k]) for k in members]
    return found


def _side_by_side(ids, members, rows):
    """The ids of `members`, [rows, number of members]."""
    columns = [ids[k] if ids[k].dim() == 2 and ids[k].shape[1] == 1 else ids[k].reshape(rows, 1) for k in members]
    return columns[0] if len(columns) == 1 else torch.cat(columns, 1)


def _spec(ws, ids, xs, *, order, **attrs):
    first = xs[0].shape[:-1] if xs else None
    widths = [ws[attrs["tables"][k]].shape[1] if k >= 0 else xs[-1 - k].shape[-1] for k in order]
    if first is None:
        shape = ids[0].shape
        first = shape if attrs["any_shape"] else shape[:-1]
    return Spec((*first, -1 if min(widths) < 0 else sum(widths)), ws[0].dtype)


def _lod(lods, attrs, ins):
    first = attrs["order"][0]
    return {"Out": lods["Ids"][first] if first >= 0 else lods["X"][-1 - first]}


@op("lookup_concat", slots="W*, Ids*, X* -> Out", infer=_spec, lod=_lod, nodiff="Ids", picks="W")
def lookup_concat(
    ws, ids, xs, *, tables: list[int], order: list[int], sparse: list[int], padding_idx: Long = -1,
    any_shape: bool = False,
):  # fmt: skip
    """concat on the last axis of lookups and of other tensors.

    `order` names what stands there from left to right: k >= 0 the rows of W[tables[k]] by Ids[k], k < 0 X[-1 - k].
    Ids: [..., 1] of one shape, with `any_shape` without the 1 (lookup_table_v2). Rows of `padding_idx` are zero.
    """
    shape = ids[0].shape if any_shape else ids[0].shape[:-1]
    rows, parts = prod(shape), []
    for table, members in _runs(order, tables):
        if table is None:
            x = xs[members[0]]
            parts.append(x.reshape(rows, x.shape[-1]))
        else:
            found = looked_up(ws[table], _side_by_side(ids, members, rows), padding_idx)
            parts.append(found.reshape(rows, len(members) * found.shape[-1]))
    out = parts[0] if len(parts) == 1 else torch.cat(parts, 1)
    return out if len(shape) == 1 else out.reshape(*shape, out.shape[1])


@op(
    "lookup_concat_grad", slots="W*, Ids*, X*, Out@GRAD -> W@GRAD*, X@GRAD*",
    infer=lambda ws, ids, xs, dout, **_: (ws, xs),
)  # fmt: skip
def lookup_concat_grad(
    ws, ids, xs, dout, *, tables: list[int], order: list[int], sparse: list[int], padding_idx: Long = -1,
    any_shape: bool = False,
):  # fmt: skip
    """W@GRAD of each table: SelectedRows where `sparse` is 1 (rows as they come, repeats apart), dense where it is 0,
    nothing where it is -1. X@GRAD: the other columns."""
    flat = dout.reshape(-1, dout.shape[-1])
    rows, column = flat.shape[0], 0
    numbers: list[list[torch.Tensor]] = [[] for _ in ws]
    values: list[list[torch.Tensor]] = [[] for _ in ws]
    dxs = [None] * len(xs)
    for table, members in _runs(order, tables):
        if table is None:
            x = xs[members[0]]
            dxs[members[0]] = flat[:, column : column + x.shape[-1]].reshape(x.shape)
            column += x.shape[-1]
            continue
        width = ws[table].shape[1]
        stretch = width * len(members)
        values[table].append(flat[:, column : column + stretch].reshape(rows * len(members), width))
        numbers[table].append(_side_by_side(ids, members, rows).reshape(-1))
        column += stretch
    rows_of, values_of = ([c[0] if len(c) == 1 else torch.cat(c) for c in cut] for cut in (numbers, values))
    return [_table_grad(*four, padding_idx) for four in zip(ws, sparse, rows_of, values_of)], dxs


def _table_grad(w, kind, rows, values, padding_idx):
    if kind < 0:
        return None
    return SelectedRows(rows.long(), values, w.shape[0]) if kind else dense_table_grad(rows, values, w.shape[0], padding_idx)


@op("join_rows", slots="X* -> Out", infer=lambda xs: xs[0], grad=False)
def join_rows(xs):
    """The sum of SelectedRows as one of them, repeats apart. Plans make it where only sgd reads the sum."""
    if len(xs) == 1:
        return xs[0]
    return SelectedRows(torch.cat([x.rows for x in xs]), torch.cat([x.values for x in xs]), xs[0].height)
