"""``core.Graph``: the global Block of a Program as nodes; a variable written twice has a node for each value."""

from __future__ import annotations

import enum
import heapq
from typing import Any

from millstream.errors import InvalidProgramError
from millstream.ir import walk
from millstream.ir.desc import OpDesc, ProgramDesc, VarDesc
from millstream.ir.names import EMPTY_VAR
from millstream.ir.operator import Operator
from millstream.ir.program import Program
from millstream.ir.variable import Variable as Described

_CONTROL = "__control_var"


class Node:
    """An operator or one value of a variable.

    Attributes:
        inputs, outputs: the neighbouring nodes.
    """

    class Type(enum.IntEnum):
        """What a node stands for."""

        Operation = 0
        Variable = 1

    Operation = Type.Operation
    Variable = Type.Variable

    def __init__(self, number: int, name: str, kind: Node.Type, op: Operator | None = None, var: Described | None = None):
        self._number = number
        self._name = name
        self._kind = kind
        self._op = op
        self._var = var
        self.inputs: list[Node] = []
        self.outputs: list[Node] = []

    def id(self) -> int:
        """A number that no other node of the graph has."""
        return self._number

    def name(self) -> str:
        """The operator's type or the variable's name."""
        return self._op.type if self._op is not None else self._name

    def node_type(self) -> Node.Type:
        """Operation or Variable."""
        return self._kind

    def is_op(self) -> bool:
        """Whether it is an operator."""
        return self._kind is Node.Type.Operation

    def is_var(self) -> bool:
        """Whether it is a variable."""
        return self._kind is Node.Type.Variable

    def is_ctrl_var(self) -> bool:
        """Whether it stands for an order between two operators, not for data."""
        return self.is_var() and self._name.startswith(_CONTROL)

    def op(self) -> OpDesc | None:
        """The description of the operator, or None."""
        return None if self._op is None else self._op.desc

    def var(self) -> VarDesc | None:
        """The description of the variable, or None."""
        return None if self._var is None else self._var.desc

    def append_input(self, node: Node) -> None:
        """Another neighbour before."""
        self.inputs.append(node)

    def append_output(self, node: Node) -> None:
        """Another neighbour after."""
        self.outputs.append(node)

    def remove_input(self, node: Node | int) -> None:
        """Forget a neighbour before, given as node or number."""
        self.inputs = [n for n in self.inputs if n is not node and n._number != node]

    def remove_output(self, node: Node | int) -> None:
        """Forget a neighbour after, given as node or number."""
        self.outputs = [n for n in self.outputs if n is not node and n._number != node]

    def clear_inputs(self) -> None:
        """Forget all neighbours before."""
        self.inputs = []

    def clear_outputs(self) -> None:
        """Forget all neighbours after."""
        self.outputs = []

    def __repr__(self) -> str:
        return f"<{'op' if self.is_op() else 'var'} node {self._number}: {self.name()}>"


class Graph:
    """The global Block of a Program as nodes. The Program given stays as it is; sub-Blocks belong to their operators.

    Args:
        desc: the Program (``program.desc``).
    """

    def __init__(self, desc: ProgramDesc | Program) -> None:
        program = desc.program if isinstance(desc, ProgramDesc) else desc
        if not isinstance(program, Program):
            raise TypeError(f"core.Graph takes a Program (program.desc), received {type(desc).__name__}")
        self._origin = program
        self._work = walk.clone(program)
        self._attributes: dict[str, Any] = {}
        self._next = 0
        self._nodes: dict[int, Node] = {}
        self._build()

    def _build(self) -> None:
        block = self._work.global_block()
        current: dict[str, Node] = {}
        for op in block.ops:
            node = self.create_op_node(op)
            for name in dict.fromkeys(n for n in op.input_arg_names if n != EMPTY_VAR):
                if name not in current:
                    current[name] = self._value(name, block)
                _link(current[name], node)
            for name in dict.fromkeys(n for n in op.output_arg_names if n != EMPTY_VAR):
                old = current.get(name)
                current[name] = self._value(name, block)
                _link(node, current[name])
                if old is not None:
                    self._order(old, node)

    def _value(self, name: str, block: Any) -> Node:
        return self._add(Node(self._next, name, Node.Type.Variable, var=block._find_var_recursive(name)))

    def _order(self, old: Node, writer: Node) -> None:
        """Who reads or wrote the old value runs before `writer`."""
        for before in (*old.outputs, *old.inputs):
            if before is not writer and before.is_op():
                between = self.create_control_dep_var()
                _link(before, between)
                _link(between, writer)

    def _add(self, node: Node) -> Node:
        self._nodes[node._number] = node
        self._next += 1
        return node

    # ---- nodes -----------------------------------------------------------------------------------
    def nodes(self) -> set[Node]:
        """All nodes."""
        return set(self._nodes.values())

    def create_op_node(self, op_desc: Operator | OpDesc) -> Node:
        """A node for an operator, without neighbours."""
        op_desc = op_desc._op if isinstance(op_desc, OpDesc) else op_desc
        return self._add(Node(self._next, op_desc.type, Node.Type.Operation, op=op_desc))

    def create_var_node(self, var_desc: Described | VarDesc) -> Node:
        """A node for a variable, without neighbours."""
        var_desc = var_desc._var if isinstance(var_desc, VarDesc) else var_desc
        return self._add(Node(self._next, var_desc.name, Node.Type.Variable, var=var_desc))

    def create_empty_node(self, name: str, node_type: Node.Type) -> Node:
        """A node with nothing but a name."""
        return self._add(Node(self._next, name, node_type))

    def create_control_dep_var(self) -> Node:
        """A node that stands for an order between two operators."""
        return self.create_empty_node(f"{_CONTROL}@{self._next}", Node.Type.Variable)

    def retrieve_node(self, node_id: int) -> Node:
        """The node with a number; ValueError (InvalidProgramError) when there is none."""
        if node_id not in self._nodes:
            raise InvalidProgramError(f"there is no node {node_id} in the graph of {len(self._nodes)} nodes")
        return self._nodes[node_id]

    def remove_node(self, node: Node) -> Node:
        """Take a node and its edges away."""
        if self._nodes.get(node._number) is not node:
            raise InvalidProgramError(f"{node!r} is not in the graph")
        for other in node.inputs:
            other.remove_output(node)
        for other in node.outputs:
            other.remove_input(node)
        return self._nodes.pop(node._number)

    def release_nodes(self) -> list[Node]:
        """Take all nodes away and return them."""
        found = list(self._nodes.values())
        self._nodes.clear()
        return found

    def resolve_hazard(self, variables: dict[str, list[Node]] | None = None) -> None:
        """Nothing is left to do: the order of reads and writes of one variable is kept in the graph from the start."""

    # ---- attributes ------------------------------------------------------------------------------
    def has(self, name: str) -> bool:
        """Whether there is an attribute."""
        return name in self._attributes

    def set(self, name: str, value: Any) -> None:
        """Keep a bool, number, string or set of nodes under a name."""
        self._attributes[name] = value

    set_not_owned = set

    def erase(self, name: str) -> None:
        """Drop an attribute."""
        self._attributes.pop(name, None)

    def _get(self, name: str) -> Any:
        if name not in self._attributes:
            raise InvalidProgramError(f"the graph has no attribute {name!r}; it has {', '.join(self._attributes) or 'none'}")
        return self._attributes[name]

    get_bool = get_double = get_float = get_int = get_string = get_marked_nodes = _get

    # ---- Programs --------------------------------------------------------------------------------
    def origin_program_desc(self) -> Program:
        """The Program that the graph was made of."""
        return self._origin

    def clone(self) -> Graph:
        """A graph of the Program that this one stands for, with its attributes."""
        twin = Graph(self.program)
        twin._origin = self._origin
        twin._attributes = dict(self._attributes)
        return twin

    def sorted_ops(self) -> list[Node]:
        """Operator nodes, each after what it reads; what may come in either order comes as it was made.

        Raises InvalidProgramError: the graph has a cycle.
        """
        waiting = {}
        for node in self._nodes.values():
            if node.is_op():
                waiting[node] = {b for v in node.inputs for b in v.inputs if b.is_op()}
        after: dict[Node, list[Node]] = {}
        for node, before in waiting.items():
            for b in before:
                after.setdefault(b, []).append(node)
        ready = [n._number for n, before in waiting.items() if not before]
        heapq.heapify(ready)
        order: list[Node] = []
        while ready:
            node = self._nodes[heapq.heappop(ready)]
            order.append(node)
            for n in after.get(node, ()):
                waiting[n].discard(node)
                if not waiting[n]:
                    heapq.heappush(ready, n._number)
        if len(order) < len(waiting):
            stuck = ", ".join(sorted(n.name() for n in set(waiting) - set(order)))
            raise InvalidProgramError(f"the graph has a cycle through the operators {stuck}")
        return order

    @property
    def program(self) -> Program:
        """A new Program of the nodes as they are now."""
        block = self._work.global_block()
        kept, block.ops = block.ops, [n._op for n in self.sorted_ops() if n._op is not None]
        within = [op for op in walk.all_ops(self._work) if op.block is not block]
        inner = {n for op in within for n in (*op.input_arg_names, *op.output_arg_names)}
        old = dict(block.vars)
        block.vars = {n: v for n, v in old.items() if n in inner}
        for node in self._nodes.values():
            if node._var is not None and node._name not in block.vars:
                block.vars[node._name] = node._var
        made = walk.clone(self._work)
        block.ops, block.vars = kept, old
        return made


def _link(node_in: Node, node_out: Node) -> None:
    node_in.append_output(node_out)
    node_out.append_input(node_in)
