"""``fluid.op``: operators made one by one: to be run on a Scope, or as OpDesc messages.

``Operator("scale", X="x", Out="y", scale=3.0).run(scope, place)``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from millstream.errors import InvalidProgramError
from millstream.fluid.core import Operator as LoneOperator
from millstream.fluid.op_proto import get_all_op_protos, proto_of
from millstream.ir.framework import message_class
from millstream.ir.operator import COMMON_ATTRS
from millstream.ir.proto_write import VALUE_FIELDS
from millstream.ir.types import AttrType
from millstream.ops import REGISTRY
from millstream.ops._opdef import OpDef

__all__ = [
    "OpDescCreationMethod",
    "OpInfo",
    "Operator",
    "OperatorFactory",
    "create_op_creation_method",
    "get_all_op_protos",
    "is_str",
]


class OpInfo(NamedTuple):
    """What the factory knows of an operator; `method` makes its OpDesc message from keyword arguments."""

    name: str
    method: Callable[..., Any]
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
        return create_op_creation_method(proto_of(self._find(t)))

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


def is_str(s: Any) -> bool:
    """Whether `s` is text."""
    return isinstance(s, str)


class OpDescCreationMethod:
    """Makes OpDesc messages of one operator: slots and attributes are keyword arguments, what is neither is left out.

    Args:
        op_proto: an OpProto message, see :func:`get_all_op_protos`.

    Raises TypeError: `op_proto` is something else; an attribute has the wrong type. ValueError (at the call): positional
    arguments; several names for a slot that takes one.
    """

    def __init__(self, op_proto: Any) -> None:
        if not isinstance(op_proto, message_class("OpProto")):
            raise TypeError(f"OpDescCreationMethod takes an OpProto message, received {type(op_proto).__name__}")
        self.__op_proto__ = op_proto

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if args:
            raise ValueError("Only keyword arguments are supported.")
        proto = self.__op_proto__
        desc = message_class("OpDesc")(type=proto.type)
        for slots, made, what in ((proto.inputs, desc.inputs, "Input"), (proto.outputs, desc.outputs, "Output")):
            for slot in slots:
                names = kwargs.get(slot.name, [])
                names = [names] if is_str(names) else list(names)
                if len(names) > 1 and not slot.duplicable:
                    raise ValueError(f"{what} {slot.name} expects only one variable, but {len(names)} are given: {names}")
                made.add(parameter=slot.name, arguments=names)
        for attr in proto.attrs:
            if attr.name in kwargs:
                self._add(desc, attr, kwargs[attr.name])
        return desc

    @staticmethod
    def _add(desc: Any, attr: Any, value: Any) -> None:
        field, repeated = VALUE_FIELDS[AttrType(attr.type)]
        made = desc.attrs.add(name=attr.name, type=attr.type)
        if repeated:
            getattr(made, field).extend(value)
        else:
            setattr(made, field, value)

    @staticmethod
    def any_is_true(generator: Iterable[Any]) -> bool:
        """Whether one of them is true."""
        return any(generator)


def create_op_creation_method(op_proto: Any) -> OpInfo:
    """Slots, attributes and the maker of OpDesc messages of the operator in an OpProto message."""
    inputs, outputs = ([(s.name, s.duplicable) for s in slots] for slots in (op_proto.inputs, op_proto.outputs))
    return OpInfo(op_proto.type, OpDescCreationMethod(op_proto), inputs, outputs, [a.name for a in op_proto.attrs])


def _of_blocks(kind: str, instead: str) -> Callable[..., Any]:
    def refused(*args: Any, **kwargs: Any) -> Any:
        raise InvalidProgramError(f"{kind}: an operator with a Block belongs to a Program; build it with {instead}")

    return refused


RecurrentOp = _of_blocks("RecurrentOp", "fluid.layers.StaticRNN")
DynamicRecurrentOp = _of_blocks("DynamicRecurrentOp", "fluid.layers.DynamicRNN")
CondOp = _of_blocks("CondOp", "fluid.layers.cond")
