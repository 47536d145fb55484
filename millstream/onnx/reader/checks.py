"""What must hold of a graph before it is translated: operators, names, order, types."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from millstream.onnx.reader.file import Source

OPSETS = range(7, 25)
_MOST_NODES = 1_000_000
_DEEPEST = 20


def check_model(source: Source) -> int:
    """The opset of a model whose graph is well formed; FileFormatError says what is not."""
    model = source.model
    if not model.HasField("graph") or not model.graph.output:
        raise source.fail("the model has no graph, or a graph without outputs")
    if model.functions:
        raise source.fail(f"the model defines functions of its own ({model.functions[0].name!r}), which is not supported")
    versions = {entry.domain: entry.version for entry in model.opset_import}
    opset = versions.get("", versions.get("ai.onnx"))
    if opset is None:
        raise source.fail("the model does not say which opset of ONNX's own operators it uses")
    if opset not in OPSETS:
        raise source.fail(f"opset {opset} is not supported; expected {OPSETS.start} to {OPSETS.stop - 1}")
    graph = model.graph
    known = _graph_values(source, graph)
    _check_nodes(source, graph.node, known, 0)
    _check_outputs(source, graph, known, "the graph")
    return int(opset)


def _graph_values(source: Source, graph: Any) -> set[str]:
    known: set[str] = set()
    for info in graph.input:
        if not info.name or info.name in known:
            raise source.fail(f"input {info.name!r} is given twice or has no name")
        known.add(info.name)
    constants: set[str] = set()
    for tensor in graph.initializer:
        if not tensor.name or tensor.name in constants:
            raise source.fail(f"initializer {tensor.name!r} is given twice or has no name")
        constants.add(tensor.name)
    if graph.sparse_initializer:
        raise source.fail("sparse initializers are not supported")
    return known | constants


def _check_outputs(source: Source, graph: Any, known: set[str], what: str) -> None:
    for info in graph.output:
        if info.name not in known:
            raise source.fail(f"output {info.name!r} of {what} is not computed")


def _check_nodes(source: Source, nodes: Iterable[Any], known: set[str], depth: int) -> None:
    """Every input stands before its node (so there is no cycle), every output is new."""
    if depth > _DEEPEST:
        raise source.fail(f"graphs are nested deeper than {_DEEPEST}")
    made = set()
    for count, node in enumerate(nodes):
        if count > _MOST_NODES:
            raise source.fail(f"the graph has more than {_MOST_NODES} nodes")
        title = node_title(node)
        if not node.op_type:
            raise source.fail(f"{title} has no operator")
        for name in node.input:
            if name and name not in known:
                raise source.fail(
                    f"{title} reads {name!r}, which nothing before it computes: the graph has a cycle, is not in order, "
                    "or a tensor is missing"
                )
        if len({a.name for a in node.attribute}) != len(node.attribute):
            raise source.fail(f"{title} has an attribute twice")
        for attribute in node.attribute:
            if attribute.HasField("g"):
                inner = known | _graph_values(source, attribute.g)
                _check_nodes(source, attribute.g.node, inner, depth + 1)
                _check_outputs(source, attribute.g, inner, f"{attribute.name} of {title}")
        for name in node.output:
            if not name:
                continue
            if name in made or name in known:
                raise source.fail(f"{title} computes {name!r}, which exists already")
            made.add(name)
            known.add(name)


def node_title(node: Any) -> str:
    """How messages call a node."""
    outs = ", ".join(repr(n) for n in list(node.output)[:3])
    label = f" {node.name!r}" if node.name else ""
    return f"node{label} ({node.op_type or '?'} -> {outs})"
