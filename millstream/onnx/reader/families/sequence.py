"""Sequences of tensors as LoDTensorArrays: an operator that changes one works on a copy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from millstream.onnx.reader.families.control import (
    assign,
    counter,
    held,
    increment,
    less_than,
    new_array,
    one_row,
    while_block,
    write_array,
)
from millstream.onnx.reader.node import Node, reads
from millstream.onnx.reader.values import Tensor, constant


def array(n: Node, i: int = 0) -> Tensor:
    """Input number i, which must be a sequence."""
    found = n.values.find(n.node.input[i])
    if found.sort != "sequence":
        n.fail(f"input {i} is a tensor, not a sequence of tensors")
    return found


def length(n: Node, of: Tensor) -> Tensor:
    return n.b.op("lod_array_length", {"X": of})


def element(n: Node, of: Tensor, i: Tensor) -> Tensor:
    return n.b.op("read_from_array", {"X": of, "I": i})


def place(n: Node, i: int, of: Tensor) -> Tensor:
    """A position (input i), int64 [1]; negative ones count from the end, none is the end."""
    if not n.has(i):
        return length(n, of)
    at = one_row(n, n.b.cast(n.x(i), np.int64))
    if at.const is not None and int(at.const[0]) >= 0:
        return at
    below = n.b.cast(less_than(n, at, constant(np.array([0], np.int64))), np.int64)
    return n.b.binary("elementwise_add", at, n.b.binary("elementwise_mul", below, length(n, of)))


def loop(n: Node, i: Tensor, limit: Tensor, body: Callable[[], None]) -> None:
    """`body` while i < limit; it must not change them, i counts by one."""
    limit = held(n, limit, f"{n.hint}.limit")
    condition = held(n, less_than(n, i, limit), f"{n.hint}.going")

    def step() -> None:
        body()
        increment(n, i)
        assign(n, less_than(n, i, limit), condition.name or "")

    while_block(n, condition, step)


def _empty(n: Node, like: Tensor) -> Tensor:
    made = Tensor(new_array(n, like, n.hint), like.dtype, like.shape)
    made.sort = "sequence"
    return made


@reads("SequenceConstruct")
def sequence_construct(n: Node) -> None:
    values = n.xs()
    made = _empty(n, values[0])
    for i, value in enumerate(values):
        write_array(n, made.name or "", constant(np.array([i], np.int64)), value)
    n.set(made)


@reads("SequenceInsert")
def sequence_insert(n: Node) -> None:
    """What stands from the position on moves up by one, the last element first."""
    old, value = array(n), n.x(1)
    at = place(n, 2, old)
    made = held(n, old, n.hint)
    if n.has(2):
        end = length(n, old)
        last = n.b.binary("elementwise_add", end, at)  # what is written when `i` stands at i is last - i
        i = held(n, at, f"{n.hint}.count")

        def move() -> None:
            to = n.b.binary("elementwise_sub", last, i)
            write_array(n, made.name or "", to, element(n, old, n.b.scale(to, 1.0, -1.0)))

        loop(n, i, end, move)
    write_array(n, made.name or "", at, value)
    n.set(made)


def sequence_replace(n: Node) -> None:
    """A SequenceInsert into what :func:`overwrites` found: the element is replaced, or added at the end."""
    old = array(n)
    made = held(n, old, n.hint)
    write_array(n, made.name or "", place(n, 2, old), n.x(1))
    n.set(made)


@reads("SequenceErase")
def sequence_erase(n: Node) -> None:
    """The other elements, one after another."""
    old = array(n)
    if n.has(1):
        at = place(n, 1, old)
    else:
        at = n.b.scale(length(n, old), 1.0, -1.0)
    made, i = _empty(n, old), counter(n, 0)

    def copy() -> None:
        behind = n.b.cast(n.b.op("greater_equal", {"X": i, "Y": at}, {"axis": -1}), np.int64)
        write_array(n, made.name or "", i, element(n, old, n.b.binary("elementwise_add", i, behind)))

    loop(n, i, n.b.scale(length(n, old), 1.0, -1.0), copy)
    n.set(made)


@reads("SplitToSequence")
def split_to_sequence(n: Node) -> None:
    """Parts along an axis: of the sizes given, of one size, or of one."""
    x, b = n.x(), n.b
    axis = n.axis(0, x.rank)
    sizes = n.maybe(1)
    single = sizes is None or sizes.scalar
    drop = sizes is None and not n.attr("keepdims", 1)
    count = b.dim(x, axis)
    size = b.cast(one_row(n, sizes) if sizes is not None and sizes.scalar else constant(np.array([1])), np.int64)
    if single:
        limit = b.binary("elementwise_floordiv", b.binary("elementwise_add", count, b.scale(size, 1.0, -1.0)), size)
    else:
        assert sizes is not None
        limit = b.dim(sizes, 0)
    made, i, start = _empty(n, x), counter(n, 0), held(n, constant(np.array([0], np.int64)), f"{n.hint}.start")
    source = Tensor(b.variable(x), x.dtype, x.shape)

    def cut() -> None:
        here = size if single else b.cast(b.op("gather", {"X": sizes, "Index": i}, {"overwrite": False}), np.int64)
        end = b.binary("elementwise_add", start, here)
        inputs = {"Input": source, "StartsTensor": start, "EndsTensor": end}
        part = b.op("slice", inputs, {"axes": [axis], "starts": [0], "ends": [0]})
        if drop:
            part = b.op("squeeze2", {"X": part}, {"axes": [axis]})
        write_array(n, made.name or "", i, part)
        assign(n, end, start.name or "")

    loop(n, i, limit, cut)
    n.set(made)


@reads("SequenceEmpty")
def sequence_empty(n: Node) -> None:
    """An array that nothing was written to: its first write makes it."""
    kind = n.source.dtype(int(n.attr("dtype", 1)), "dtype")
    n.set(_empty(n, Tensor(None, kind, ())))


@reads("SequenceLength")
def sequence_length(n: Node) -> None:
    made = n.op("lod_array_length", {"X": array(n)})
    made.shape = ()
    n.set(made)


@reads("SequenceAt")
def sequence_at(n: Node) -> None:
    of = array(n)
    n.set(n.op("read_from_array", {"X": of, "I": place(n, 1, of)}))


@reads("ConcatFromSequence")
def concat_from_sequence(n: Node) -> None:
    of = array(n)
    index = n.b.block.create_var(name=n.b.fresh("sizes"))
    out = n.b.block.create_var(name=n.b.fresh(n.hint))
    n.b.block.append_op(
        type="tensor_array_to_tensor", inputs={"X": [of.name]}, outputs={"Out": [out], "OutIndex": [index]},
        attrs={"axis": int(n.need("axis")), "use_stack": bool(n.attr("new_axis", 0))},
    )  # fmt: skip
    n.set(n.b.tensor(out.name))


# ---- overwriting -----------------------------------------------------------------------------------------------
def overwrites(graph: Any) -> tuple[set[int], dict[int, str]]:
    """Ifs that erase an element if it is there, for a SequenceInsert at its place: ONNX's way to overwrite one.

    Returns:
        Indices of the Ifs, which need not be read, and by the index of each insert the sequence it writes into.
    """
    uses: dict[str, list[int]] = {}
    for i, node in enumerate(graph.node):
        for name in (*node.input, *_inner_reads(node)):
            uses.setdefault(name, []).append(i)
    results = {o.name for o in graph.output}
    gone: set[int] = set()
    inserts: dict[int, str] = {}
    for i, node in enumerate(graph.node):
        erased = _erased(node) if node.op_type == "If" else None
        if erased is None:
            continue
        found: dict[int, str] = {}
        for output, (sequence, position) in zip(node.output, erased):
            readers = uses.get(output, [])
            insert = graph.node[readers[0]] if len(readers) == 1 and output not in results else None
            if insert is None or insert.op_type != "SequenceInsert" or list(insert.input[2:3]) != [position]:
                break
            found[readers[0]] = sequence
        else:
            gone.add(i)
            inserts.update(found)
    return gone, inserts


def _inner_reads(node: Any) -> list[str]:
    found: list[str] = []
    for attribute in node.attribute:
        if attribute.HasField("g"):
            found += [o.name for o in attribute.g.output]
            for inner in attribute.g.node:
                found += [*inner.input, *_inner_reads(inner)]
    return found


def _erased(node: Any) -> list[tuple[str, str]] | None:
    """(sequence, position) of each output of an If whose one branch erases there and whose other does nothing."""
    branches = {a.name: a.g for a in node.attribute if a.HasField("g")}
    if set(branches) != {"then_branch", "else_branch"} or any(g.initializer for g in branches.values()):
        return None
    sides = []
    for graph in (branches["then_branch"], branches["else_branch"]):
        origin: dict[str, tuple[str, str]] = {}
        for inner in graph.node:
            if inner.op_type == "Identity":
                origin[inner.output[0]] = origin.get(inner.input[0], (inner.input[0], ""))
            elif inner.op_type == "SequenceErase" and len(inner.input) == 2:
                origin[inner.output[0]] = (inner.input[0], inner.input[1])
            else:
                return None
        sides.append([origin.get(o.name, (o.name, "")) for o in graph.output])
    then, other = sides
    if len(then) != len(other) or any(not p or (s, "") != q for (s, p), q in zip(then, other)):
        return None
    return then
