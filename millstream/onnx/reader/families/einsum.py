"""Einsum as transposes and products of matrices."""

from __future__ import annotations

import math
import re
import string
from collections.abc import Sequence

import numpy as np

from millstream.onnx.reader.node import Node, reads
from millstream.onnx.reader.values import Tensor, constant


@reads("Einsum")
def einsum(n: Node) -> None:
    """From the left, two operands at a time."""
    xs = n.xs()
    terms, result = _terms(n, str(n.need("equation")), xs)
    for x, term in zip(xs, terms):
        if len(term) != x.rank or len(set(term)) != len(term):
            n.fail(f"the term {term!r} for an operand of {x.rank} dims")
    made, term = xs[0], terms[0]
    for k, (x, other) in enumerate(zip(xs[1:], terms[1:]), 1):
        later = set(result).union(*terms[k + 1 :])
        made, term = _product(n, _summed(n, made, term, later | set(other)), _summed(n, x, other, later | set(term)), later)
    made, term = _summed(n, made, term, set(result))
    if sorted(term) != sorted(result):
        n.fail(f"the result {result!r}")
    if term != result:
        made = n.b.transpose(made, [term.index(c) for c in result])
    if not result:
        made.shape = ()
    n.set(made)


def _terms(n: Node, equation: str, xs: list[Tensor]) -> tuple[list[str], str]:
    """The letters of each operand and of the result; those of an ellipsis are taken from the capital ones from the end."""
    text = re.sub(r"\s", "", equation)
    if not re.fullmatch(r"[A-Za-z.,]*(->[A-Za-z.]*)?", text):
        n.fail(f"the equation {equation!r}")
    left, arrow, right = text.partition("->")
    terms = left.split(",")
    if len(terms) != len(xs):
        n.fail(f"{len(terms)} terms for {len(xs)} operands")
    free = [c for c in reversed(string.ascii_letters) if c not in text]
    widest = 0
    for k, (term, x) in enumerate(zip(terms, xs)):
        if "..." in term:
            count = x.rank - len(term) + 3
            if not 0 <= count <= len(free):
                n.fail(f"the term {term!r} for an operand of {x.rank} dims")
            widest = max(widest, count)
            terms[k] = term.replace("...", "".join(free[:count][::-1]))
    dots = "".join(free[:widest][::-1])
    if not arrow:
        joined = "".join(terms)
        right = ("..." if dots else "") + "".join(sorted(c for c in set(joined) if joined.count(c) == 1 and c not in dots))
    return terms, right.replace("...", dots)


def _summed(n: Node, x: Tensor, term: str, kept: set[str]) -> tuple[Tensor, str]:
    """Without the letters that nobody needs any more."""
    gone = [i for i, c in enumerate(term) if c not in kept]
    if not gone:
        return x, term
    attrs = {"dim": gone, "keep_dim": False, "reduce_all": len(gone) == x.rank}
    made = n.b.op("reduce_sum", {"X": x}, attrs)
    made.shape = tuple(d for i, d in enumerate(x.shape) if i not in gone)
    return made, "".join(c for c in term if c in kept)


def _product(n: Node, first: tuple[Tensor, str], second: tuple[Tensor, str], later: set[str]) -> tuple[Tensor, str]:
    """Two operands as one batch of products of matrices: [batch, rows, sums] and [batch, sums, columns]."""
    (x, a), (y, b) = first, second
    batch = "".join(c for c in a if c in b and c in later)
    sums = "".join(c for c in a if c in b and c not in later)
    rows, columns = ("".join(c for c in own if c not in other) for own, other in ((a, b), (b, a)))
    dims = {c: n.b.dim(t, i) for t, own in ((y, b), (x, a)) for i, c in enumerate(own)}
    for c in batch + sums:
        if {x.shape[a.index(c)], y.shape[b.index(c)]} - {-1, x.shape[a.index(c)]}:
            n.fail(f"operands that differ in {c!r}: {list(x.shape)} and {list(y.shape)}")
    x = _grouped(n, x, a, (batch, rows, sums), dims)
    y = _grouped(n, y, b, (batch, sums, columns), dims)
    made = n.b.op("matmul", {"X": x, "Y": y}, {}, hint=n.hint)
    term = batch + rows + columns
    return _shaped(n, made, [[c] for c in term], dims), term


def _grouped(n: Node, x: Tensor, term: str, groups: Sequence[str], dims: dict[str, Tensor]) -> Tensor:
    order = "".join(groups)
    moved = x if order == term else n.b.transpose(x, [term.index(c) for c in order])
    return _shaped(n, moved, [list(g) for g in groups], dims)


def _shaped(n: Node, x: Tensor, groups: list[list[str]], dims: dict[str, Tensor]) -> Tensor:
    """x with one dim for each group of letters."""
    sizes = []
    for group in groups:
        known = [dims[c].const for c in group]
        sizes.append(
            -1 if any(k is None for k in known) else math.prod(int(k.reshape(-1)[0]) for k in known if k is not None)
        )
    if tuple(sizes) == x.shape and -1 not in sizes:
        return x
    if sizes.count(-1) <= 1:
        return n.b.reshape(x, sizes)
    parts = []
    for group in groups:
        size = constant(np.array([1], np.int64))
        for c in group:
            size = dims[c] if size.const is not None and size.const[0] == 1 else n.b.binary("elementwise_mul", size, dims[c])
        parts.append(n.b.cast(size, np.int32))
    made = n.b.op("reshape2", {"X": x, "Shape": n.b.op("concat", {"X": parts}, {"axis": 0})}, {"shape": []})
    made.shape = tuple(sizes)
    if made.name is not None:
        n.b.block.vars[made.name].shape = list(sizes)
    return made
