"""The table of ``layers.embedding(is_distributed=True)``: plain SGD updates it, whatever the optimizer is."""

from __future__ import annotations

from typing import Any

from millstream.errors import EnforceNotMet

__all__ = ["split_table"]

# layers.embedding makes these; fluid.embedding's tables are updated like other parameters
_LOOKUPS = frozenset({"lookup_table"})


def split_table(program: Any, pairs: list[tuple[Any, Any]]) -> tuple[list[tuple[Any, Any]], tuple[Any, Any] | None]:
    """(pairs without the distributed table's, that pair or None).

    Raises:
        EnforceNotMet: lookups with is_distributed read different tables.
    """
    tables = {
        op.input("W")[0]
        for block in program.blocks
        for op in block.ops
        if op.type in _LOOKUPS and op.attrs.get("is_distributed")
    }
    if len(tables) > 1:
        raise EnforceNotMet(f"embedding: all lookups with is_distributed=True must share one table, found {sorted(tables)}")
    mine = [pair for pair in pairs if pair[0].name in tables]
    return [pair for pair in pairs if pair[0].name not in tables], mine[0] if mine else None
