"""Functions over nested lists, tuples and dicts of Variables."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from millstream.fluid.layers.control_flow import flatten_structure, pack_structure


def map_structure(fn: Callable[..., Any], *structures: Any) -> Any:
    """`fn` over the leaves of equal structures, in the structure of the first."""
    columns = [flatten_structure(s) for s in structures]
    if len({len(c) for c in columns}) > 1:
        raise ValueError(f"structures have different numbers of leaves: {[len(c) for c in columns]}")
    return pack_structure(structures[0], iter([fn(*leaves) for leaves in zip(*columns)]))
