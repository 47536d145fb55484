"""``fluid.net_drawer``: Programs as graphs for the program ``dot``.

    draw_graph(startup, main, filename="net.gv")

writes the Blocks' operators and variables in dot's language, which ``dot -Tpdf net.gv -o net.pdf`` turns into a picture.
:mod:`millstream.fluid.debugger` draws one Block with more of its detail.
"""

from __future__ import annotations

import itertools
from typing import Any

from millstream.files.atomic import write_bytes
from millstream.fluid.graphviz import Edge, Graph, Node
from millstream.ir.operator import Operator
from millstream.ir.program import Program

__all__ = ["draw_edge", "draw_graph", "draw_node", "parse_graph", "unique_id"]

OP_STYLE = {"shape": "oval", "color": "#0F9D58", "style": "filled", "fontcolor": "#FFFFFF"}
VAR_STYLE: dict[str, Any] = {}
GRAPH_STYLE = {"rankdir": "TB"}

_numbers = itertools.count()


def unique_id() -> int:
    """A number that no earlier call gave."""
    return next(_numbers)


def draw_node(op: Operator) -> dict[str, Any]:
    """The attributes of an operator's node: its style, and its type as name and label."""
    return {**OP_STYLE, "name": op.type, "label": op.type}


def draw_edge(var_parent: dict[str, Node], op: Operator, var: str, arg: str) -> dict[str, Any]:
    """The attributes of the arrow that carries variable `arg` into slot `var` of `op`."""
    source = var_parent.get(arg)
    return {**VAR_STYLE, "label": f"{arg}->{var}" if source is not None else arg}


def parse_graph(program: Program, graph: Graph, var_dict: dict[str, Node], **kwargs: Any) -> None:
    """Add the operators of all Blocks of `program` to `graph`, and arrows from the operator that wrote a variable.

    Args:
        var_dict: name of a variable -> node that it comes from; what is written here is added.
        kwargs: attributes of every node.

    A variable that no operator wrote so far (a parameter, a feed) becomes a node of its own.
    """
    for block in program.blocks:
        for op in block.ops:
            attrs = {**draw_node(op), **kwargs}
            node = graph.node(attrs.pop("label"), attrs.pop("name"), **attrs)
            for slot, names in op.inputs.items():
                for name in names:
                    if name not in var_dict:
                        var_dict[name] = graph.node(name, "var", **VAR_STYLE)
                    _connect(graph, var_dict[name], node, draw_edge(var_dict, op, slot, name))
            for names in op.outputs.values():
                for name in names:
                    var_dict[name] = node


def _connect(graph: Graph, source: Node, target: Node, attrs: dict[str, Any]) -> Edge:
    return graph.edge(source, target, **attrs)


def draw_graph(startup_program: Program, main_program: Program, **kwargs: Any) -> Graph:
    """Both Programs as one graph, parameters' initialisation first.

    Args:
        filename: write dot's text there (not written without it).
        graph_attr: attributes of the graph, such as ``{"size": "30"}``.
        node_attr: attributes of every node.
        graph: title; "net" by default.

    Raises TypeError: another keyword argument, or no Program.
    """
    unknown = set(kwargs) - {"filename", "graph_attr", "node_attr", "graph"}
    if unknown:
        raise TypeError(
            f"draw_graph has no argument {', '.join(sorted(unknown))}; it has filename, graph_attr, node_attr and graph"
        )
    for program in (startup_program, main_program):
        if not isinstance(program, Program):
            raise TypeError(f"draw_graph takes two Programs, received {type(program).__name__}")
    graph = Graph(kwargs.get("graph", "net"), **{**GRAPH_STYLE, **kwargs.get("graph_attr", {})})
    var_dict: dict[str, Node] = {}
    for program in (startup_program, main_program):
        parse_graph(program, graph, var_dict, **kwargs.get("node_attr", {}))
    if kwargs.get("filename"):
        write_bytes(kwargs["filename"], graph.code().encode())
    return graph
