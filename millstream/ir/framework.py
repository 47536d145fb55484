"""``framework.proto`` as other programs see it: real strings, enums and nested messages, in a descriptor pool of its own.

The messages that files are read and written with (:mod:`millstream.ir.messages`) hold the same fields; these are made from
the same table and are for text, and for programs that take ProgramDesc bytes apart themselves.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from millstream.ir.messages import LABELS, TABLE, TYPES
from millstream.ir.types import AttrType, VarType

PACKAGE = "paddle.framework.proto"
_INSIDE = {
    "TensorDesc": "VarType", "LoDTensorDesc": "VarType", "LoDTensorArrayDesc": "VarType", "ReaderDesc": "VarType",
    "Tuple": "VarType", "Var": "OpDesc", "Attr": "OpDesc", "OpCompatiblePair": "OpCompatibleMap",
    "OpProto.Var": "OpProto", "OpProto.Attr": "OpProto",
}  # fmt: skip
_TENSOR_TYPE = ".VarType.Type"
_ENUM_OF = {
    "TensorDesc.data_type": _TENSOR_TYPE, "Tuple.element_type": _TENSOR_TYPE, "VarType.type": _TENSOR_TYPE,
    "Attr.type": ".AttrType", "OpProto.Attr.type": ".AttrType", "CompatibleInfo.type": ".CompatibleInfo.Type",
}  # fmt: skip
_OWN = {
    "LoDTensorArrayDesc": TABLE["LoDTensorDesc"],
    "OpProto": ["1 ! string type", "2 * OpProto.Var inputs", "3 * OpProto.Var outputs", "4 * OpProto.Attr attrs",
                "5 ! string comment"],
    "OpProto.Var": ["1 ! string name", "2 ! string comment", "3 ? bool duplicable", "4 ? bool intermediate",
                    "5 ? bool dispensable"],
    "OpProto.Attr": ["1 ! string name", "2 ! enum type", "3 ! string comment", "4 ? bool generated"],
    "ProgramDesc": ["1 * BlockDesc blocks", "4 ? Version version", "3 ? OpCompatibleMap op_compatible_map"],
}  # fmt: skip
_ROWS = {**TABLE, **_OWN}
_COMPATIBLE = ["COMPATIBLE", "DEFINITELY_NOT", "POSSIBLE", "BUG_FIX", "PRECISION_CHANGE"]
_ARRAY_FIELD = "tensor_array"
_BYTES, _STRING, _ENUM, _INT32, _MESSAGE = 12, 9, 14, 5, 11


def _path(message: str) -> str:
    """`Attr` as ``.OpDesc.Attr``."""
    owner = _INSIDE.get(message)
    return f"{_path(owner) if owner else ''}.{message.rpartition('.')[2]}"


@cache
def file_descriptor() -> Any:
    """The FileDescriptor of ``framework.proto``."""
    file = descriptor_pb2.FileDescriptorProto(name="framework.proto", package=PACKAGE, syntax="proto2")
    _add_enum(file, "AttrType", {kind.name: int(kind) for kind in AttrType})
    made: dict[str, Any] = {}
    for message in sorted(_ROWS, key=lambda name: name in _INSIDE):
        name = message.rpartition(".")[2]
        owner = _INSIDE.get(message)
        made[message] = made[owner].nested_type.add(name=name) if owner else file.message_type.add(name=name)
        _add_fields(made[message], message)
    _add_enum(made["VarType"], "Type", {kind.name: int(kind) for kind in VarType})
    _add_enum(made["CompatibleInfo"], "Type", {name: number for number, name in enumerate(_COMPATIBLE)})
    pool = descriptor_pool.DescriptorPool()  # another library may hold a framework.proto in the default one
    pool.Add(file)
    return pool.FindFileByName("framework.proto")


def _add_enum(owner: Any, name: str, values: dict[str, int]) -> None:
    enum = owner.enum_type.add(name=name)
    for value, number in values.items():
        enum.value.add(name=value, number=number)


def _add_fields(made: Any, message: str) -> None:
    for row in _ROWS[message]:
        number, label, kind, name = row.split()
        if name == _ARRAY_FIELD:
            kind = "LoDTensorArrayDesc"
        code = TYPES.get(kind, _MESSAGE)
        field = made.field.add(name=name, number=int(number), label=LABELS[label])
        field.type = _STRING if code == _BYTES else code
        if code == _ENUM or f"{message}.{name}" in _ENUM_OF:
            field.type = _ENUM
            field.type_name = f".{PACKAGE}{_ENUM_OF[f'{message}.{name}']}"
        elif code == _MESSAGE:
            field.type_name = f".{PACKAGE}{_path(kind)}"
        if name == "forward_block_idx":
            field.default_value = "-1"


def message_class(name: str) -> Any:
    """The class of one of the outer messages: ``ProgramDesc``, ``BlockDesc``, ``OpDesc``, ``VarDesc``, ``VarType``, …"""
    return message_factory.GetMessageClass(file_descriptor().message_types_by_name[name])
