"""``fluid.layers.utils``: nested structures and arguments that are one value or several."""

from __future__ import annotations

from typing import Any

from millstream.fluid.layers.cells._structure import map_structure
from millstream.fluid.layers.control_flow import flatten_structure, pack_structure

__all__ = ["assert_same_structure", "convert_to_list", "flatten", "is_sequence", "map_structure", "pack_sequence_as"]


def flatten(nest: Any) -> list[Any]:
    """The leaves of nested lists, tuples and dicts (by sorted keys), in order; one value gives a list of it."""
    return flatten_structure(nest)


def convert_to_list(value: Any, n: int, name: str, dtype: type = int) -> list[Any]:
    """`value`, or `n` times the one value of type `dtype`, as a list; ValueError when it is neither."""
    if isinstance(value, dtype):
        return [value] * n
    try:
        found = list(value)
    except TypeError:
        raise ValueError(f"{name} must be a {dtype.__name__} or {n} of them, received {value!r}") from None
    if len(found) != n:
        raise ValueError(f"{name} must have {n} elements, received {value!r}")
    for item in found:
        if not isinstance(item, dtype):
            raise ValueError(f"{name} must be {n} of {dtype.__name__}, received {value!r} with {item!r}")
    return found


def is_sequence(seq: Any) -> bool:
    """Whether `seq` is a list, tuple or dict."""
    return isinstance(seq, (list, tuple, dict))


def pack_sequence_as(structure: Any, flat_sequence: Any) -> Any:
    """The elements of a flat list in the structure of `structure`; ValueError when their number differs."""
    leaves = list(flat_sequence)
    if len(leaves) != len(flatten(structure)):
        raise ValueError(f"{len(leaves)} elements for a structure of {len(flatten(structure))}")
    return pack_structure(structure, iter(leaves))


def assert_same_structure(nest1: Any, nest2: Any, check_types: bool = True) -> None:
    """ValueError when two structures differ in their elements, TypeError when in their kinds (with `check_types`)."""
    if len(flatten(nest1)) != len(flatten(nest2)):
        raise ValueError(f"the structures have different numbers of elements: {nest1!r} and {nest2!r}")
    _same_kind(nest1, nest2, check_types)


def _same_kind(a: Any, b: Any, check_types: bool) -> None:
    if is_sequence(a) != is_sequence(b):
        raise ValueError(f"one of {a!r} and {b!r} is nested and the other is not")
    if not is_sequence(a):
        return
    if check_types and type(a) is not type(b):
        raise TypeError(f"the structures are of different kinds: {type(a).__name__} and {type(b).__name__}")
    if isinstance(a, dict) and isinstance(b, dict):
        if set(a) != set(b):
            raise ValueError(f"the dicts have different keys: {sorted(a)} and {sorted(b)}")
        pairs = [(a[key], b[key]) for key in a]
    else:
        pairs = list(zip(a, b))
    for x, y in pairs:
        _same_kind(x, y, check_types)
