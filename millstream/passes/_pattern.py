"""Patterns: small graphs of operators, matched from the operator whose result they describe back to what it reads.

    add = node("elementwise_add", X=node("mul", "product", X=value("x"), Y=constant("w")), Y=constant("bias"))
    relu = node("relu", X=add)

A node's keywords are input slots (a tuple stands for a list of variables); what is not mentioned is not looked at.
``either`` tries patterns in order, ``maybe`` is a node that may be left out. The two operands of `COMMUTING` operators
may stand either way round.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from millstream.ir.names import EMPTY_VAR
from millstream.passes._uses import Uses

COMMUTING = frozenset({"elementwise_add", "elementwise_mul", "sum"})


@dataclass(frozen=True)
class Leaf:
    """Any variable; it is the same one wherever its name stands. With `stored` only a persistable one."""

    name: str
    stored: bool = False


@dataclass(frozen=True, eq=False)
class Node:
    """An operator of one of `types`, whose output slot `out` is meant.

    Attributes:
        shared: its result may be read elsewhere too; the operator then stays.
    """

    types: tuple[str, ...]
    name: str
    out: str
    inputs: Mapping[str, Input] = field(default_factory=dict)
    shared: bool = False


@dataclass(frozen=True, eq=False)
class Either:
    """The first of `choices` that fits."""

    choices: tuple[Pattern, ...]


Pattern = Leaf | Node | Either
Input = Pattern | tuple[Pattern, ...]


def node(types: str, name: str = "", /, out: str = "Out", shared: bool = False, **inputs: Input) -> Node:
    """An operator; `types` are its possible types with ``|`` between them, `name` is what it is found by later."""
    return Node(tuple(types.split("|")), name, out, inputs, shared)


def value(name: str) -> Leaf:
    """Any variable."""
    return Leaf(name)


def constant(name: str) -> Leaf:
    """A persistable variable."""
    return Leaf(name, True)


def either(*choices: Pattern) -> Either:
    """The first of the patterns that fits."""
    return Either(choices)


def maybe(types: str, name: str, inner: Pattern, /, slot: str = "X", out: str = "Out", **inputs: Input) -> Either:
    """`inner`, or an operator of `types` over it."""
    return Either((Node(tuple(types.split("|")), name, out, {slot: inner, **inputs}), inner))


def chain(text: str) -> Node:
    """``"mul Out:X elementwise_add Out:Input gru"``: types and, between them, an output slot and the next input slot."""
    types, links = text.split()[::2], [w.split(":") for w in text.split()[1::2]]
    outs = [out for out, _ in links]
    found = Node((types[0],), "", outs[0] if outs else "Out")
    for k, (_, into) in enumerate(links):
        found = Node((types[k + 1],), "", outs[k + 1] if k + 1 < len(outs) else "", {into: found})
    return found


@dataclass(frozen=True)
class Found:
    """What a pattern was matched with.

    Attributes:
        names: variable of each Leaf.
        positions: position of each named Node.
        nodes: (position, Node), every operator of the pattern.
    """

    names: Mapping[str, str] = field(default_factory=dict)
    positions: Mapping[str, int] = field(default_factory=dict)
    nodes: tuple[tuple[int, Node], ...] = ()


def matches(root: Node, at: int, uses: Uses) -> Iterator[Found]:
    """The ways in which the operator at position `at` is the last one of the pattern."""
    if uses.ops[at].type in root.types:
        yield from _operator(root, at, uses, Found())


def _operator(pattern: Node, at: int, uses: Uses, found: Found) -> Iterator[Found]:
    for position, known in found.nodes:
        if position == at:  # one operator can't be two nodes, but may be reached twice as the same one
            if known is pattern:
                yield found
            return
        if known is pattern:
            return
    op = uses.ops[at]
    positions = {**found.positions, pattern.name: at} if pattern.name else found.positions
    now = Found(found.names, positions, (*found.nodes, (at, pattern)))
    orders: list[dict[str, Input]] = [dict(pattern.inputs)]
    if op.type in COMMUTING and pattern.inputs.keys() <= {"X", "Y"}:
        swap = {"X": "Y", "Y": "X"}
        orders.append({swap[slot]: inner for slot, inner in pattern.inputs.items()})
    for order in orders:
        slots = [(op.inputs.get(slot, []), p if isinstance(p, tuple) else (p,)) for slot, p in order.items()]
        if all(len(names) == len(patterns) and EMPTY_VAR not in names for names, patterns in slots):
            wanted = [pair for names, patterns in slots for pair in zip(names, patterns)]
            yield from _inputs(wanted, at, uses, now)


def _inputs(rest: list[tuple[str, Pattern]], at: int, uses: Uses, found: Found) -> Iterator[Found]:
    if not rest:
        yield found
        return
    (name, pattern), *others = rest
    for now in _variable(pattern, name, at, uses, found):
        yield from _inputs(others, at, uses, now)


def _variable(pattern: Pattern, name: str, reader: int, uses: Uses, found: Found) -> Iterator[Found]:
    if isinstance(pattern, Either):
        for choice in pattern.choices:
            yield from _variable(choice, name, reader, uses, found)
    elif isinstance(pattern, Leaf):
        if found.names.get(pattern.name, name) != name:
            return
        var = uses.block._find_var_recursive(name)
        if not pattern.stored or (var is not None and var.persistable):
            yield Found({**found.names, pattern.name: name}, found.positions, found.nodes)
    else:
        at = uses.producer(name, reader)
        if at is not None and uses.ops[at].type in pattern.types and uses.ops[at].outputs.get(pattern.out) == [name]:
            yield from _operator(pattern, at, uses, found)
