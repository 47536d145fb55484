"""Operators as ``OpProto`` messages: slots, attributes and their types, made from the declarations."""

from __future__ import annotations

from typing import Any

from millstream.errors import ArgumentError, InvalidProgramError
from millstream.ir.framework import message_class
from millstream.ir.operator import COMMON_ATTRS
from millstream.ir.types import implied_attr_type
from millstream.ops import REGISTRY
from millstream.ops._opdef import OpDef, Slot

__all__ = ["OpProtoHolder", "get_all_op_protos", "proto_of"]


def proto_of(definition: OpDef) -> Any:
    """The OpProto of one operator; its comment is the operator's description here, slots and attributes have none."""
    proto = message_class("OpProto")(type=definition.name, comment=definition.doc or "")
    for slots, target in ((definition.inputs, proto.inputs), (definition.outputs, proto.outputs)):
        for slot in slots:
            _add_slot(target.add(name=slot.name, comment=""), slot)
    for name, attr in definition.attrs.items():
        proto.attrs.add(name=name, type=int(attr.type), comment="", generated=False)
    for name, default in COMMON_ATTRS.items():
        kind = implied_attr_type(default if default != [] else [""])
        proto.attrs.add(name=name, type=int(kind), comment="", generated=False)  # type: ignore[arg-type]
    return proto


def _add_slot(made: Any, slot: Slot) -> None:
    """The marks that are set; an absent mark means False, as Fluid writes it."""
    if slot.many:
        made.duplicable = True
    if slot.intermediate:
        made.intermediate = True
    if slot.optional:
        made.dispensable = True


def get_all_op_protos() -> list[Any]:
    """The OpProto message of every declared operator."""
    return [proto_of(definition) for definition in REGISTRY.declared()]


class OpProtoHolder:
    """OpProto messages by operator type. There is one: ``OpProtoHolder.instance()``.

    Raises ArgumentError: it is made by hand.
    """

    _instance: OpProtoHolder | None = None

    @classmethod
    def instance(cls) -> OpProtoHolder:
        """The holder."""
        if cls._instance is None:
            made = object.__new__(cls)
            made.op_proto_map = {}
            cls._instance = made
        return cls._instance

    def __init__(self) -> None:
        raise ArgumentError("OpProtoHolder has one object; use OpProtoHolder.instance()")

    op_proto_map: dict[str, Any]

    def get_op_proto(self, type: str) -> Any:
        """The OpProto of operator `type`, made at its first use; InvalidProgramError when there is none."""
        if type not in REGISTRY:
            raise InvalidProgramError(f'Operator "{type}" has not been registered.')
        found = self.op_proto_map.get(type)
        if found is None:
            found = self.op_proto_map[type] = proto_of(REGISTRY.get(type))
        return found

    def update_op_proto(self) -> None:
        """Make the protos of all operators, those declared since too."""
        for proto in get_all_op_protos():
            self.op_proto_map.setdefault(proto.type, proto)

    @staticmethod
    def generated_op_attr_names() -> set[str]:
        """Attributes that every operator has without being asked: op_role, op_callstack, …"""
        return set(COMMON_ATTRS)
