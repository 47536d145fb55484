"""Programs as graphs of operator and variable nodes, for passes that Fluid programs write themselves."""

from millstream.fluid.graph.ir_graph import IrGraph, IrNode, IrOpNode, IrVarNode
from millstream.fluid.graph.node import Graph, Node

__all__ = ["Graph", "IrGraph", "IrNode", "IrOpNode", "IrVarNode", "Node"]
