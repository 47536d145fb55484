"""``fluid.net_drawer``: names of 1.x; Programs are drawn by :mod:`millstream.fluid.debugger`."""

from __future__ import annotations

from typing import Any, NoReturn

from millstream.errors import NotSupportedError

__all__ = ["draw_edge", "draw_graph", "draw_node", "parse_graph", "unique_id"]


def _refuse(name: str) -> NoReturn:
    raise NotSupportedError(
        f"net_drawer.{name} is not in millstream: use fluid.debugger.draw_block_graphviz(program.global_block(), path=...), "
        "which writes a .dot file, or fluid.debugger.pprint_program_codes(program)"
    )


def draw_graph(startup_program: Any, main_program: Any, **kwargs: Any) -> None:
    """Raises NotSupportedError, which names draw_block_graphviz."""
    _refuse("draw_graph")


def parse_graph(program: Any, graph: Any, var_dict: Any, **kwargs: Any) -> None:
    """Raises NotSupportedError, which names draw_block_graphviz."""
    _refuse("parse_graph")


def draw_node(op: Any) -> None:
    """Raises NotSupportedError, which names draw_block_graphviz."""
    _refuse("draw_node")


def draw_edge(var_parent: Any, op: Any, var: Any, arg: Any) -> None:
    """Raises NotSupportedError, which names draw_block_graphviz."""
    _refuse("draw_edge")


def unique_id() -> None:
    """Raises NotSupportedError, which names draw_block_graphviz."""
    _refuse("unique_id")
