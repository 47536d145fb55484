"""``framework.IrGraph``: what passes written in Python see of a graph."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
from collections.abc import Iterable
from typing import Any

from millstream.errors import InvalidProgramError
from millstream.fluid.graph.node import Graph, Node, _link
from millstream.ir.desc import OpDesc, VarDesc
from millstream.ir.operator import Operator
from millstream.ir.program import Program
from millstream.ir.types import VarType
from millstream.ir.variable import Variable


class IrNode:
    """A view of one node. Two views of one node are equal."""

    def __init__(self, node: Node) -> None:
        if not isinstance(node, Node):
            raise TypeError(f"IrNode takes a node of core.Graph, received {type(node).__name__}")
        self.node = node

    def __eq__(self, other: object) -> bool:
        return isinstance(other, IrNode) and other.node is self.node

    def __hash__(self) -> int:
        return id(self.node)

    def __repr__(self) -> str:
        return repr(self.node)

    def name(self) -> str:
        """The operator's type or the variable's name."""
        return self.node.name()

    def node_type(self) -> Node.Type:
        """Node.Type.Operation or .Variable."""
        return self.node.node_type()

    def var(self) -> VarDesc | None:
        """The description of the variable, or None."""
        return self.node.var()

    def op(self) -> OpDesc | None:
        """The description of the operator, or None."""
        return self.node.op()

    def id(self) -> int:
        """The node's number."""
        return self.node.id()

    def is_op(self) -> bool:
        """Whether it is an operator."""
        return self.node.is_op()

    def is_var(self) -> bool:
        """Whether it is a variable."""
        return self.node.is_var()

    def is_ctrl_var(self) -> bool:
        """Whether it stands for an order, not for data."""
        return self.node.is_ctrl_var()

    def clear_inputs(self) -> None:
        """Forget all neighbours before."""
        self.node.clear_inputs()

    def clear_outputs(self) -> None:
        """Forget all neighbours after."""
        self.node.clear_outputs()

    def append_input(self, node: IrNode) -> None:
        """Another neighbour before."""
        self.node.append_input(node.node)

    def append_output(self, node: IrNode) -> None:
        """Another neighbour after."""
        self.node.append_output(node.node)

    def remove_input(self, node: IrNode) -> None:
        """Forget a neighbour before."""
        self.node.remove_input(node.node)

    def remove_output(self, node: IrNode) -> None:
        """Forget a neighbour after."""
        self.node.remove_output(node.node)

    def remove_input_by_id(self, node_id: int) -> None:
        """Forget the neighbour before with this number."""
        self.node.remove_input(node_id)

    def remove_output_by_id(self, node_id: int) -> None:
        """Forget the neighbour after with this number."""
        self.node.remove_output(node_id)

    @property
    def inputs(self) -> list[Any]:
        """The neighbours before."""
        return [_view(n) for n in self.node.inputs]

    @property
    def outputs(self) -> list[Any]:
        """The neighbours after."""
        return [_view(n) for n in self.node.outputs]


class IrVarNode(IrNode):
    """A view of a variable's node."""

    def _variable(self) -> Variable:
        var = self.node._var
        if var is None:
            raise InvalidProgramError(f"{self.node!r} stands for no variable")
        return var

    def shape(self) -> list[int]:
        """Its dimensions, -1 for unknown ones."""
        return list(self._variable().shape)

    def set_shape(self, shape: Iterable[int]) -> None:
        """Declare other dimensions."""
        self._variable().shape = tuple(shape)

    def dtype(self) -> VarType:
        """Its element type."""
        return self._variable().dtype

    def type(self) -> VarType:
        """Its kind: LOD_TENSOR, SELECTED_ROWS, ..."""
        return self._variable().type

    def persistable(self) -> bool:
        """Whether its value outlives a run."""
        return self._variable().persistable


class IrOpNode(IrNode):
    """A view of an operator's node."""

    def _operator(self) -> Operator:
        op = self.node._op
        if op is None:
            raise InvalidProgramError(f"{self.node!r} holds no operator")
        return op

    def input(self, name: str) -> list[str]:
        """Names of the variables in an input slot."""
        return self._operator().input(name)

    def output(self, name: str) -> list[str]:
        """Names of the variables in an output slot."""
        return self._operator().output(name)

    def input_arg_names(self) -> list[str]:
        """Names of all variables it reads."""
        return self._operator().input_arg_names

    def output_arg_names(self) -> list[str]:
        """Names of all variables it writes."""
        return self._operator().output_arg_names

    def rename_input(self, old_input_name: str, new_input_name: str) -> None:
        """Read another variable instead."""
        self._operator()._rename_input(old_input_name, new_input_name)

    def rename_output(self, old_output_name: str, new_output_name: str) -> None:
        """Write another variable instead."""
        self._operator()._rename_output(old_output_name, new_output_name)

    def set_attr(self, name: str, val: Any) -> None:
        """Set an attribute."""
        self._operator()._set_attr(name, val)

    def set_type(self, new_type: str) -> None:
        """Make it an operator of another type."""
        self._operator().type = new_type


def _view(node: Node) -> IrNode:
    return IrOpNode(node) if node.is_op() else IrVarNode(node)


def _several(nodes: Any) -> list[IrNode]:
    if isinstance(nodes, IrNode):
        return [nodes]
    return list(nodes)


class IrGraph:
    """Nodes of a Program, to be looked at and rewired; :meth:`to_program` gives the new Program.

    Args:
        graph: a ``core.Graph``.
        for_test: what :meth:`is_test` says.
    """

    def __init__(self, graph: Graph, for_test: bool = False) -> None:
        if not isinstance(graph, Graph):
            raise TypeError(f"IrGraph takes a core.Graph, received {type(graph).__name__}")
        self.graph = graph
        self._for_test = for_test

    def is_test(self) -> bool:
        """Whether it was made for testing."""
        return self._for_test

    def clone(self) -> IrGraph:
        """A copy; nodes are new ones."""
        return IrGraph(self.graph.clone(), self._for_test)

    # ---- looking ---------------------------------------------------------------------------------
    def all_nodes(self) -> set[IrNode]:
        """All nodes."""
        return {IrNode(n) for n in self.graph.nodes()}

    def all_var_nodes(self) -> set[IrVarNode]:
        """Variables and control variables."""
        return {IrVarNode(n) for n in self.graph.nodes() if n.is_var()}

    def all_persistable_nodes(self) -> set[IrVarNode]:
        """Variables whose values outlive a run."""
        return {IrVarNode(n) for n in self.graph.nodes() if n._var is not None and n._var.persistable}

    def all_op_nodes(self) -> set[IrOpNode]:
        """Operators."""
        return {IrOpNode(n) for n in self.graph.nodes() if n.is_op()}

    def _find_node_by_name(self, nodes: Iterable[IrNode], node_name: str) -> IrNode:
        for node in nodes:
            if node.name() == node_name:
                return node
        raise InvalidProgramError(f"no node is named {node_name!r}")

    def has_circle(self) -> bool:
        """Whether operators wait for each other."""
        try:
            self.graph.sorted_ops()
        except InvalidProgramError:
            return True
        return False

    def graph_num(self) -> int:
        """Number of parts that nothing connects."""
        left, parts = self.graph.nodes(), 0
        while left:
            parts += 1
            border = [left.pop()]
            while border:
                node = border.pop()
                for other in (*node.inputs, *node.outputs):
                    if other in left:
                        left.discard(other)
                        border.append(other)
        return parts

    def topology_sort(self) -> list[IrOpNode]:
        """Operators, each after what it reads."""
        return [IrOpNode(n) for n in self.graph.sorted_ops()]

    def build_adjacency_list(self) -> dict[IrOpNode, set[IrOpNode]]:
        """For each operator those that must run before it."""
        return {
            IrOpNode(n): {IrOpNode(b) for v in n.inputs for b in v.inputs if b.is_op()} for n in self.graph.sorted_ops()
        }

    # ---- rewiring --------------------------------------------------------------------------------
    def create_persistable_node(self, name: str, var_type: Any, shape: Any, var_dtype: Any) -> IrVarNode:
        """A new variable whose value outlives a run."""
        return self._new_var(name, var_type, shape, var_dtype, True)

    def create_var_node(self, name: str, var_type: Any, shape: Any, var_dtype: Any) -> IrVarNode:
        """A new variable."""
        return self._new_var(name, var_type, shape, var_dtype, False)

    def _new_var(self, name: str, var_type: Any, shape: Any, var_dtype: Any, persistable: bool) -> IrVarNode:
        block = self.graph._work.global_block()
        var = Variable(block, name, type=var_type, shape=shape, dtype=var_dtype, persistable=persistable)
        return IrVarNode(self.graph.create_var_node(var))

    def create_var_node_from_desc(self, var_desc: Variable | VarDesc) -> IrVarNode:
        """A node for a Variable."""
        return IrVarNode(self.graph.create_var_node(var_desc))

    def create_control_dep_var(self) -> IrVarNode:
        """A node that stands for an order."""
        return IrVarNode(self.graph.create_control_dep_var())

    def create_op_node(self, op_type: str, attrs: Any, inputs: Any, outputs: Any) -> IrOpNode:
        """A new operator, not linked yet.

        Args:
            inputs, outputs: slot -> variable node or list of them.
        """
        ins, outs = ({s: [n.name() for n in _several(v)] for s, v in part.items()} for part in (inputs, outputs))
        return IrOpNode(self.graph.create_op_node(Operator(self.graph._work.global_block(), op_type, ins, outs, attrs)))

    def create_op_node_from_desc(self, op_desc: Operator | OpDesc) -> IrOpNode:
        """A node for an Operator."""
        return IrOpNode(self.graph.create_op_node(op_desc))

    def _check_in(self, *nodes: IrNode) -> None:
        for node in nodes:
            if self.graph._nodes.get(node.id()) is not node.node:
                raise InvalidProgramError(f"{node!r} is not in the graph")

    def link_to(self, node_in: IrNode, node_out: IrNode) -> None:
        """An edge."""
        self._check_in(node_in, node_out)
        _link(node_in.node, node_out.node)

    def update_input_link(self, old_input_node: IrNode, new_input_node: IrNode, op_node: IrOpNode) -> None:
        """Let `op_node` read another variable."""
        self._check_in(old_input_node, new_input_node, op_node)
        old_input_node.remove_output(op_node)
        op_node.remove_input(old_input_node)
        self.link_to(new_input_node, op_node)
        op_node.rename_input(old_input_node.name(), new_input_node.name())

    def update_output_link(self, old_output_node: IrNode, new_output_node: IrNode, op_node: IrOpNode) -> None:
        """Let `op_node` write another variable."""
        self._check_in(old_output_node, new_output_node, op_node)
        old_output_node.remove_input(op_node)
        op_node.remove_output(old_output_node)
        self.link_to(op_node, new_output_node)
        op_node.rename_output(old_output_node.name(), new_output_node.name())

    def safe_remove_nodes(self, remove_nodes: Any) -> None:
        """Take nodes and their edges away."""
        for node in _several(remove_nodes):
            self.graph.remove_node(node.node)

    def resolve_hazard(self) -> None:
        """See Graph.resolve_hazard."""
        self.graph.resolve_hazard()

    # ---- out -------------------------------------------------------------------------------------
    def to_program(self) -> Program:
        """A Program of the operators and variables as they are now."""
        return self.graph.program

    def draw(self, save_path: str, name: str, marked_nodes: Any = None, remove_ctr_var: bool = True) -> None:
        """Write ``<save_path>/<name>.dot``, and a PDF of it where Graphviz is installed.

        Args:
            marked_nodes: shown in another colour; remove_ctr_var: leave control variables out of the picture.
        """
        marked = {n.node for n in _several(marked_nodes or ())}
        shown = [n for n in sorted(self.graph.nodes(), key=Node.id) if not (remove_ctr_var and n.is_ctrl_var())]
        print(f"Total ops num = {sum(n.is_op() for n in shown)}.")
        lines = ["digraph G {"]
        for node in shown:
            look = "shape=box, style=filled" if node.is_op() else "shape=ellipse, style=filled"
            colour = "yellow" if node in marked else "lightblue" if node.is_op() else "white"
            lines.append(f'  n{node.id()} [label="{node.name()}", {look}, fillcolor={colour}];')
        lines += [f"  n{n.id()} -> n{o.id()};" for n in shown for o in n.outputs if o in shown]
        os.makedirs(save_path, exist_ok=True)
        path = os.path.join(save_path, f"{name}.dot")
        with open(path, "w", encoding="utf-8") as out:
            out.write("\n".join([*lines, "}"]) + "\n")
        if shutil.which("dot") is None:
            logging.getLogger(__name__).info("%s is written; for a PDF of it install Graphviz (the command dot)", path)
        else:
            subprocess.run(["dot", "-Tpdf", path, "-o", os.path.join(save_path, f"{name}.pdf")], check=True)


