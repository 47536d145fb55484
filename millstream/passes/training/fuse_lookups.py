"""Lookups side by side in one concat, and their gradients -> lookup_concat and lookup_concat_grad; with the sums of
sequences between (sequence_pool) -> lookup_pool_concat and its gradient.

The ids of neighbours in one table are looked up by one call that writes the rows where concat would have laid them; the
table gets the gradients of all of them as one set of rows.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from millstream.ir.names import EMPTY_VAR
from millstream.ir.operator import Operator
from millstream.ir.types import VarType
from millstream.passes._pass import program_pass
from millstream.passes._rewrite import operator_like, replace_all
from millstream.passes._uses import Uses
from millstream.passes._work import Work

_NAME = "fuse_lookups"
_LOOKUPS = ("lookup_table", "lookup_table_v2")


@dataclass
class _Place:
    """Positions: of the concat, of the lookups by the place of their rows in it; of the gradients, where there are any."""

    concat: int
    lookups: dict[int, int]
    concat_grad: int | None = None
    grads: dict[int, int] = field(default_factory=dict)
    sums: dict[str, int] = field(default_factory=dict)  # table -> where its parts are added
    pools: dict[int, int] = field(default_factory=dict)  # sequence_pool after each lookup; empty where there is none
    pool_grads: dict[int, int] = field(default_factory=dict)

    def forward(self) -> set[int]:
        return {self.concat, *self.lookups.values(), *self.pools.values()}

    def backward(self) -> set[int]:
        return {p for p in (self.concat_grad, *self.grads.values(), *self.pool_grads.values()) if p is not None}


@program_pass(_NAME)
def fuse_lookups(work: Work) -> int:
    """Returns how many concats took their lookups in."""
    uses = work.uses(work.block)
    replaced: dict[int, Operator | None] = {}
    shorter: dict[int, Operator] = {}
    changes = 0
    for at, op in enumerate(uses.ops):
        if op.type != "concat" or len(op.input("X")) < 2 or op.input("AxisTensor"):
            continue
        place = _Place(at, lookups_of(uses, at))
        if not place.lookups:
            place = pooled_lookups_of(uses, at)
        if len(place.lookups) < 2 or not _on_last_axis(uses, op):
            continue
        why = _with_gradients(uses, place) or _in_the_way(uses, place)
        if why is not None:
            work.refuse(_NAME, op, why)
            continue
        replaced.update(dict.fromkeys(place.forward() | place.backward()))
        forward, backward = _build(work, uses, place)
        replaced[at] = forward
        if place.concat_grad is not None and backward is not None:
            replaced[place.concat_grad] = backward
            _shorten_sums(uses, place, shorter)
        changes += 1
    replace_all(work, {**shorter, **replaced})
    return changes


def lookups_of(uses: Uses, concat: int) -> dict[int, int]:
    """Place in the concat -> position of the lookup that only this concat reads; all of one kind and padding."""
    found: dict[int, int] = {}
    first: Operator | None = None
    for k, name in enumerate(uses.ops[concat].input("X")):
        at = uses.producer(name, concat)
        if at is None or uses.ops[at].type not in _LOOKUPS or len(uses.writers[name]) > 1 or uses.seen_outside(name):
            continue
        op = uses.ops[at]
        readers = [uses.ops[r] for r in uses.readers[name] if r != concat]
        if any(r.type != "concat_grad" for r in readers) or uses.ops[concat].input("X").count(name) > 1:
            continue
        first = first or op
        alike = op.type == first.type and op.attr("padding_idx") == first.attr("padding_idx")
        if alike and _form(uses, op) == _form(uses, first) is not None:
            found[k] = at
    return found


def pooled_lookups_of(uses: Uses, concat: int) -> _Place:
    """The same for sums of looked-up sequences."""
    place = _Place(concat, {})
    first: Any = None
    for k, name in enumerate(uses.ops[concat].input("X")):
        pool = uses.producer(name, concat)
        if pool is None or not _hidden(uses, name, concat, "concat_grad") or not _adds(uses.ops[pool]):
            continue
        if any(uses.seen_outside(n) for n in uses.ops[pool].output("MaxIndex")):
            continue
        rows = uses.ops[pool].input("X")[0]
        at = uses.producer(rows, pool)
        if at is None or uses.ops[at].type != "lookup_table" or not _hidden(uses, rows, pool, "sequence_pool_grad"):
            continue
        table, ids = (uses.block._find_var_recursive(uses.ops[at].input(s)[0]) for s in ("W", "Ids"))
        plain = table is not None and table.type is VarType.LOD_TENSOR and table.dtype in (VarType.FP32, VarType.FP64)
        if not plain or ids is None or uses.ops[at].attr("padding_idx") != -1 or uses.seen_outside(rows):
            continue
        first = first or (table.dtype if table is not None else None)
        if table is not None and table.dtype == first and uses.ops[concat].input("X").count(name) == 1:
            place.lookups[k], place.pools[k] = at, pool
    return place


def _adds(op: Operator) -> bool:
    return op.type == "sequence_pool" and op.attr("pooltype") == "SUM" and op.attr("pad_value") == 0.0


def _hidden(uses: Uses, name: str, reader: int, grad: str) -> bool:
    """Whether only the operator at `reader` and gradients of type `grad` see `name`."""
    if len(uses.writers[name]) > 1 or uses.seen_outside(name):
        return False
    return all(r == reader or uses.ops[r].type == grad for r in uses.readers[name])


def _form(uses: Uses, op: Operator) -> Any:
    """What lookups must have in common: the declared shape of the ids; None where they may be sequences."""
    ids, table = (uses.block._find_var_recursive(op.input(s)[0]) for s in ("Ids", "W"))
    if ids is None or table is None or not ids.has_shape or ids.lod_level or table.type is not VarType.LOD_TENSOR:
        return None
    return tuple(ids.shape), table.dtype


def _on_last_axis(uses: Uses, op: Operator) -> bool:
    out, axis = uses.block._find_var_recursive(op.output("Out")[0]), op.attr("axis")
    return axis == -1 or (out is not None and out.has_shape and axis == len(out.shape) - 1)


def _with_gradients(uses: Uses, place: _Place) -> str | None:
    """Fill in the gradients of `place`; why they can't be one."""
    concat = uses.ops[place.concat]
    out = concat.output("Out")[0]
    grads = [
        p for p, op in enumerate(uses.ops)
        if op.type == "concat_grad" and op.input("X") == concat.input("X") and p > place.concat
    ]  # fmt: skip
    if not grads:
        return "it has a gradient that is not concat_grad" if uses.has_gradient(concat) else None
    if len(grads) > 1 or len(uses.writers[out]) > 1:
        return "concat has several gradients, or its result is written twice"
    place.concat_grad = grads[0]
    for k, gradient in enumerate(uses.ops[grads[0]].output("X@GRAD")):
        if k not in place.lookups or gradient == EMPTY_VAR:
            continue
        lookup, readers = uses.ops[place.lookups[k]], uses.readers[gradient]
        if len(readers) > 1 or len(uses.writers[gradient]) > 1 or uses.seen_outside(gradient):
            return f"{gradient!r} is read, written or seen elsewhere too"
        if not readers:  # its table is not trained
            continue
        if place.pools:
            inner = _through_pool(uses, place, k, readers[0])
            if isinstance(inner, str):
                return inner
            readers = inner
            if not readers:
                continue
        grad = uses.ops[readers[0]]
        same = grad.input("Ids") == lookup.input("Ids") and grad.input("W") == lookup.input("W")
        if grad.type != lookup.type + "_grad" or not same or not grad.output("W@GRAD"):
            return f"{gradient!r} is not read by the lookup's gradient"
        if grad.attr("is_sparse") != lookup.attr("is_sparse") or grad.attr("padding_idx") != lookup.attr("padding_idx"):
            return "the gradient is another lookup's"
        place.grads[k] = readers[0]
    return _parts_are_added(uses, place)


def _through_pool(uses: Uses, place: _Place, k: int, at: int) -> list[int] | str:
    """Who reads the gradient of the rows that the sequence_pool of place `k` adds, or why nobody may."""
    grad, pool = uses.ops[at], uses.ops[place.pools[k]]
    if grad.type != "sequence_pool_grad" or grad.input("X") != pool.input("X") or grad.attr("pooltype") != "SUM":
        return f"{grad.input_arg_names[0]!r} is not read by the gradient of its sequence_pool"
    place.pool_grads[k] = at
    name = grad.output("X@GRAD")[0]
    if name == EMPTY_VAR:
        return []
    if len(uses.readers[name]) > 1 or len(uses.writers[name]) > 1 or uses.seen_outside(name):
        return f"{name!r} is read, written or seen elsewhere too"
    return list(uses.readers[name])


def _parts_are_added(uses: Uses, place: _Place) -> str | None:
    """Why the gradients of a table that is looked up several times can't be one."""
    by_table: dict[str, list[Operator]] = {}
    for p in place.grads.values():
        by_table.setdefault(uses.ops[p].input("W")[0], []).append(uses.ops[p])
    for table, grads in by_table.items():
        names = [g.output("W@GRAD")[0] for g in grads]
        if any(len(uses.writers[n]) > 1 for n in names):
            return f"{names[0]!r} is written twice"
        if len({bool(g.attr("is_sparse")) for g in grads}) > 1:
            return f"the gradient of {table!r} is sparse in one lookup and dense in another"
        if len(names) == 1:
            continue
        readers = {tuple(uses.readers[n]) for n in names}
        if len(readers) != 1 or any(len(r) != 1 or uses.ops[r[0]].type != "sum" for r in readers):
            return f"the parts of the gradient of {table!r} are not added in one place"
        if any(uses.seen_outside(n) for n in names):
            return f"a part of the gradient of {table!r} is fetched"
        place.sums[table] = readers.pop()[0]
    return None


def _in_the_way(uses: Uses, place: _Place) -> str | None:
    """Why lookups can't wait for the concat, or their gradients can't stand where the concat's stands."""
    for p in place.lookups.values():
        changed = uses.written_between(uses.ops[p].input_arg_names, p, place.concat)
        if changed is not None:
            return f"{changed!r} is overwritten before the concat"
    if place.concat_grad is None:
        return None
    names = [n for p in place.lookups.values() for n in uses.ops[p].input("Ids")]
    changed = uses.written_between(names, place.concat, max(place.backward()))
    if changed is not None:
        return f"{changed!r} is overwritten before the gradient"
    for p in place.grads.values():
        changed = uses.written_between(uses.ops[p].input("W"), place.concat_grad, p)
        if changed is not None or any(uses.has_gradient(uses.ops[q]) for q in place.backward()):
            return f"{changed!r} is overwritten between the gradients" if changed else "its gradient has a gradient"
    return None


def _build(work: Work, uses: Uses, place: _Place) -> tuple[Operator, Operator | None]:
    concat = uses.ops[place.concat]
    lookups = [uses.ops[p] for p in place.lookups.values()]
    rest = [n for k, n in enumerate(concat.input("X")) if k not in place.lookups]
    tables = list(dict.fromkeys(op.input("W")[0] for op in lookups))
    order, taken = [], [0, 0]
    for k in range(len(concat.input("X"))):
        mine = k in place.lookups
        order.append(taken[0] if mine else -1 - taken[1])
        taken[0 if mine else 1] += 1
    kind = "lookup_pool_concat" if place.pools else "lookup_concat"
    attrs: dict[str, Any] = {"order": order, "sparse": [-1] * len(tables)}
    attrs["tables"] = [tables.index(op.input("W")[0]) for op in lookups]
    if not place.pools:
        attrs.update(padding_idx=lookups[0].attr("padding_idx"), any_shape=lookups[0].type == "lookup_table_v2")
    inputs = {"W": tables, "Ids": [op.input("Ids")[0] for op in lookups], "X": rest}
    forward = operator_like(work, concat, kind, inputs, {"Out": concat.output("Out")}, attrs)
    if place.concat_grad is None:
        return forward, None
    concat_grad = uses.ops[place.concat_grad]
    of_table: dict[str, str] = {}
    sparse = [-1] * len(tables)
    for p in place.grads.values():
        table = uses.ops[p].input("W")[0]
        of_table.setdefault(table, uses.ops[p].output("W@GRAD")[0])
        sparse[tables.index(table)] = int(bool(uses.ops[p].attr("is_sparse")))
    dxs = [n for k, n in enumerate(concat_grad.output("X@GRAD")) if k not in place.lookups]
    outputs = {"W@GRAD": [of_table.get(t, EMPTY_VAR) for t in tables], "X@GRAD": dxs}
    given = {**inputs, "Out@GRAD": concat_grad.input("Out@GRAD")}
    backward = operator_like(work, concat_grad, kind + "_grad", given, outputs, {**attrs, "sparse": sparse})
    backward.forward = forward
    return forward, backward


def _shorten_sums(uses: Uses, place: _Place, shorter: dict[int, Operator]) -> None:
    """Sums of parts take the one part that there is now."""
    for table, at in place.sums.items():
        parts = [uses.ops[p].output("W@GRAD")[0] for p in place.grads.values() if uses.ops[p].input("W") == [table]]
        old = shorter.get(at, uses.ops[at])
        left = [n for n in old.input("X") if n not in parts[1:]]
        shorter[at] = Operator(old.block, "sum", {"X": left}, old.outputs, old.attrs, old.site)
