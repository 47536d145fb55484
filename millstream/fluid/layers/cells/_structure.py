"""Functions over nested lists, tuples and dicts of Variables."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from millstream.fluid.layers.control_flow import flatten_structure, pack_structure


def map_structure(func: Callable[..., Any], *structure: Any) -> Any:
    """`func` over the leaves of equal structures, in the structure of the first."""
    columns = [flatten_structure(s) for s in structure]
    if len({len(c) for c in columns}) > 1:
        raise ValueError(f"structures have different numbers of leaves: {[len(c) for c in columns]}")
    return pack_structure(structure[0], iter([func(*leaves) for leaves in zip(*columns)]))
