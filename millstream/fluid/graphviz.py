"""``fluid.graphviz``: graphs as text for the program ``dot``."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import webbrowser
from typing import Any

from millstream.errors import NotSupportedError
from millstream.files.atomic import write_bytes

__all__ = ["Edge", "Graph", "GraphPreviewGenerator", "Node", "Rank", "crepr"]


def crepr(v: Any) -> Any:
    """A value as ``dot`` reads it: text in quotation marks."""
    return json.dumps(v, ensure_ascii=False) if isinstance(v, str) else v


def _attributes(attrs: dict[str, Any]) -> str:
    return ",".join(f"{k}={crepr(v)}" for k, v in attrs.items())


class Rank:
    """Nodes that stand on one level.

    Args:
        kind: "same", "min", "max", "source" or "sink".
        priority: ranks of a smaller one are written first.
    """

    def __init__(self, kind: str, name: str, priority: int) -> None:
        if kind not in ("same", "min", "max", "source", "sink"):
            raise ValueError(f"a rank is same, min, max, source or sink, received {kind!r}")
        self.kind = kind
        self.name = name
        self.priority = priority
        self.nodes: list[Node] = []

    def __str__(self) -> str:
        if not self.nodes:
            return ""
        return "{" + f"rank={self.kind};" + ",".join(node.name for node in self.nodes) + "}"


class Node:
    """A node; its name is `prefix` and a number."""

    counter = 1

    def __init__(self, label: str, prefix: str, description: str = "", **attrs: Any) -> None:
        self.label = label
        self.name = f"{prefix}_{Node.counter}"
        self.description = description
        self.attrs = attrs
        Node.counter += 1

    def __str__(self) -> str:
        label = self.label if self.label.startswith("<<") else crepr(self.label)
        extra = f" ,{_attributes(self.attrs)}" if self.attrs else ""
        return f"{self.name} [label={label}{extra} ];"


class Edge:
    """An arrow from `source` to `target`."""

    def __init__(self, source: Node, target: Node, **attrs: Any) -> None:
        self.source = source
        self.target = target
        self.attrs = attrs

    def __str__(self) -> str:
        extra = f" [{_attributes(self.attrs)}]" if self.attrs else ""
        return f"{self.source.name} -> {self.target.name}{extra}"


class Graph:
    """A directed graph.

    Args:
        title: of the picture.
        **attrs: attributes of the whole graph, such as ``rankdir="TB"``.
    """

    def __init__(self, title: str, **attrs: Any) -> None:
        self.title = title
        self.attrs = attrs
        self.nodes: list[Node] = []
        self.edges: list[Edge] = []
        self.rank_groups: dict[str, Rank] = {}
        self._ranks = itertools.count()

    def rank_group(self, kind: str, priority: int) -> str:
        """A new level; returns the name to give to :meth:`node`."""
        name = f"rankgroup-{next(self._ranks)}"
        self.rank_groups[name] = Rank(kind, name, priority)
        return name

    def node(self, label: str, prefix: str, description: str = "", **attrs: Any) -> Node:
        """Add a node; ``rank=<name of a level>`` puts it there."""
        rank = attrs.pop("rank", None)
        made = Node(label, prefix, description, **attrs)
        if rank is not None:
            self.rank_groups[rank].nodes.append(made)
        self.nodes.append(made)
        return made

    def edge(self, source: Node, target: Node, **attrs: Any) -> Edge:
        """Add an arrow."""
        made = Edge(source, target, **attrs)
        self.edges.append(made)
        return made

    def code(self) -> str:
        """The graph in dot's language."""
        lines = ["digraph G {", f"title = {crepr(self.title)}"]
        lines += [f"{k}={crepr(v)};" for k, v in self.attrs.items()]
        lines += [str(r) for r in sorted(self.rank_groups.values(), key=lambda r: r.priority)]
        lines += map(str, [*self.nodes, *self.edges])
        return "\n".join(line for line in lines if line) + "\n}"

    __str__ = code

    def compile(self, dot_path: str) -> str:
        """Write the text to `dot_path` and a PDF beside it; returns the PDF's path.

        Raises NotSupportedError: the program ``dot`` is not installed; the text is written all the same.
        """
        write_bytes(dot_path, self.code().encode())
        image = os.path.join(os.path.dirname(dot_path), os.path.basename(dot_path).rsplit(".", 1)[0] + ".pdf")
        program = shutil.which("dot")
        if program is None:
            raise NotSupportedError(f"graphviz: the program `dot` is not installed; {dot_path} holds the graph as text")
        subprocess.run([program, "-Tpdf", dot_path, "-o", image], check=True)
        return image

    def show(self, dot_path: str) -> None:
        """:meth:`compile`, then open the picture with the desktop's program."""
        webbrowser.open(f"file://{os.path.abspath(self.compile(dot_path))}")


class GraphPreviewGenerator:
    """A picture of a network: parameters, operators and other values."""

    def __init__(self, title: str) -> None:
        self.graph = Graph(title, layout="dot", concentrate="true", rankdir="TB")
        self.op_rank = self.graph.rank_group("same", 2)
        self.param_rank = self.graph.rank_group("same", 1)
        self.arg_rank = self.graph.rank_group("same", 0)

    def __call__(self, path: str = "temp.dot", show: bool = False) -> str | None:
        """Write the picture; see :meth:`Graph.compile`. Returns the PDF's path unless it is shown."""
        if not show:
            return self.graph.compile(path)
        self.graph.show(path)
        return None

    def add_param(self, name: str, data_type: str, highlight: bool = False) -> Node:
        """A parameter."""
        cells = f'<tr><td bgcolor="#2b787e"><b>{name}</b></td></tr><tr><td>{data_type}</td></tr>'
        label = f'<<table cellpadding="5">{cells}</table>>'
        color = "orange" if highlight else "#148b97"
        return self.graph.node(
            label,
            "param",
            name,
            shape="none",
            style="rounded,filled,bold",
            width="1.3",
            color=color,
            fontcolor="#ffffff",
            fontname="Arial",
        )

    def add_op(self, opType: str, **kwargs: Any) -> Node:
        """An operator; ``highlight=True`` draws it in orange."""
        color = "orange" if kwargs.pop("highlight", False) else "#303A3A"
        return self.graph.node(
            f"<<B>{opType}</B>>",
            "op",
            opType,
            shape="box",
            style="rounded, filled, bold",
            color=color,
            fontname="Arial",
            fontcolor="#ffffff",
            width="1.3",
            height="0.84",
            **kwargs,
        )

    def add_arg(self, name: str, highlight: bool = False) -> Node:
        """A value that is no parameter."""
        color = "orange" if highlight else "#dddddd"
        return self.graph.node(
            name, "arg", name, shape="box", style="rounded,filled,bold", fontname="Arial", fontcolor="#999999", color=color
        )

    def add_edge(self, source: Node, target: Node, **kwargs: Any) -> Edge:
        """An arrow; ``highlight=True`` draws it in orange."""
        return self.graph.edge(source, target, color="orange" if kwargs.pop("highlight", False) else "#000000", **kwargs)
