"""``fluid.proto.framework_pb2``: ProgramDesc and what it is made of, as protobuf message classes.

Built at import from the table that Programs are read and written with; no generated code. Field names, numbers and
enums are those of 1.8.5 (and BF16 of later versions).
"""

from __future__ import annotations

from typing import Any

from google.protobuf.internal.enum_type_wrapper import EnumTypeWrapper

from millstream.ir.framework import file_descriptor, message_class

DESCRIPTOR: Any = file_descriptor()
AttrType: Any = EnumTypeWrapper(DESCRIPTOR.enum_types_by_name["AttrType"])
INT, FLOAT, STRING, INTS, FLOATS, STRINGS, BOOLEAN, BOOLEANS, BLOCK, LONG, BLOCKS, LONGS = range(12)

Version: Any = message_class("Version")
OpDesc: Any = message_class("OpDesc")
OpProto: Any = message_class("OpProto")
VarType: Any = message_class("VarType")
VarDesc: Any = message_class("VarDesc")
BlockDesc: Any = message_class("BlockDesc")
CompatibleInfo: Any = message_class("CompatibleInfo")
OpCompatibleMap: Any = message_class("OpCompatibleMap")
ProgramDesc: Any = message_class("ProgramDesc")
