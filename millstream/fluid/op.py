"""``fluid.op``: operators made one by one, to be run on a Scope.

``Operator("scale", X="x", Out="y", scale=3.0).run(scope, place)``.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from millstream.fluid.core import Operator as LoneOperator
from millstream.ir.operator import COMMON_ATTRS
from millstream.ops import REGISTRY
from millstream.ops._opdef import OpDef

__all__ = ["OpInfo", "Operator", "OperatorFactory"]


class OpInfo(NamedTuple):
    """What the factory knows of an operator."""

    name: str
    inputs: list[tuple[str, bool]]
    outputs: list[tuple[str, bool]]
    attrs: list[str]


class OperatorFactory:
    """Makes operators by name: inputs, outputs and attributes are keyword arguments.

    Raises:
        ValueError: the operator is not registered; an argument besides the type has no keyword.
        TypeError: an argument is neither a slot nor an attribute of the operator.
    """

    def __call__(self, *args: Any, **kwargs: Any) -> LoneOperator:
        if "type" in kwargs:
            if args:
                raise ValueError('Except the argument "type", all of the other arguments should be keyword arguments.')
            op_type = kwargs.pop("type")
        elif len(args) == 1:
            op_type = args[0]
        else:
            raise ValueError('Except the argument "type", all of the other arguments should be keyword arguments.')
        definition = self._find(op_type)
        slots = {s.name for s in (*definition.inputs, *definition.outputs)}
        attrs = set(self.get_op_attr_names(op_type))
        unknown = sorted(set(kwargs) - slots - attrs)
        if unknown:
            raise TypeError(
                f"Operator({op_type!r}): {', '.join(unknown)} is neither a slot ({', '.join(sorted(slots))}) nor an "
                f"attribute ({', '.join(sorted(attrs))})"
            )
        return LoneOperator(
            op_type, {k: v for k, v in kwargs.items() if k in slots}, {k: v for k, v in kwargs.items() if k not in slots}
        )

    def types(self) -> list[str]:
        """Names of all operators."""
        return [d.name for d in REGISTRY.declared()]

    def get_op_info(self, t: str) -> OpInfo:
        """Slots and attributes of operator `t`."""
        return OpInfo(t, self.get_op_inputs(t), self.get_op_outputs(t), self.get_op_attr_names(t))

    def get_op_inputs(self, type: str) -> list[tuple[str, bool]]:
        """(input slot, whether it takes several variables)."""
        return [(s.name, s.many) for s in self._find(type).inputs]

    def get_op_outputs(self, type: str) -> list[tuple[str, bool]]:
        """(output slot, whether it takes several variables)."""
        return [(s.name, s.many) for s in self._find(type).outputs]

    def get_op_input_names(self, type: str) -> list[str]:
        """Input slots."""
        return [name for name, _ in self.get_op_inputs(type)]

    def get_op_output_names(self, type: str) -> list[str]:
        """Output slots."""
        return [name for name, _ in self.get_op_outputs(type)]

    def get_op_attr_names(self, type: str) -> list[str]:
        """Attributes, those that every operator has at the end."""
        declared = self._find(type).attrs
        return [*declared, *(n for n in COMMON_ATTRS if n not in declared)]

    def _find(self, op_type: str) -> OpDef:
        if op_type not in REGISTRY:
            raise ValueError(f"The operator: {op_type} is not registered.")
        return REGISTRY.get(op_type)


Operator = OperatorFactory()
