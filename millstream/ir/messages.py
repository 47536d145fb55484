"""The messages of ``framework.proto``, built at import from one table; no generated code.

Two deviations in how values are seen, none in the bytes: strings are declared ``bytes`` (Fluid's C++ does not check
UTF-8, so a string attribute may hold any bytes), enums are declared ``int32`` (a number outside the enum then reaches
our own check instead of vanishing into the unknown fields).
"""

from __future__ import annotations

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from millstream.ir.wire import BYTES, Buffer, WireError, fields

_PACKAGE = "millstream.framework"

# message: "number label type name" …; label ! required, ? optional, * repeated
TABLE = {
    "Version": ["1 ? int64 version"],
    "TensorDesc": ["1 ! enum data_type", "2 * int64 dims"],
    "LoDTensorDesc": ["1 ! TensorDesc tensor", "2 ? int32 lod_level"],
    "ReaderDesc": ["1 * LoDTensorDesc lod_tensor"],
    "Tuple": ["1 * enum element_type"],
    "VarType": [
        "1 ! enum type", "2 ? TensorDesc selected_rows", "3 ? LoDTensorDesc lod_tensor",
        "4 ? LoDTensorDesc tensor_array", "5 ? ReaderDesc reader", "7 ? Tuple tuple",
    ],
    "VarDesc": ["1 ! string name", "2 ! VarType type", "3 ? bool persistable", "4 ? bool need_check_feed"],
    "Var": ["1 ! string parameter", "2 * string arguments"],
    "Attr": [
        "1 ! string name", "2 ! enum type", "3 ? int32 i", "4 ? float f", "5 ? string s", "6 * int32 ints",
        "7 * float floats", "8 * string strings", "10 ? bool b", "11 * bool bools", "12 ? int32 block_idx",
        "13 ? int64 l", "14 * int32 blocks_idx", "15 * int64 longs",
    ],
    "OpDesc": ["1 * Var inputs", "2 * Var outputs", "3 ! string type", "4 * Attr attrs", "5 ? bool is_target"],
    "BlockDesc": [
        "1 ! int32 idx", "2 ! int32 parent_idx", "3 * VarDesc vars", "4 * OpDesc ops", "5 ? int32 forward_block_idx",
    ],
    "CompatibleInfo": ["1 ! string version", "2 ! enum type"],
    "OpCompatiblePair": ["1 ! string op_name", "2 ! CompatibleInfo compatible_info"],
    "OpCompatibleMap": ["1 * OpCompatiblePair pair", "2 ? string default_required_version"],
}  # fmt: skip
LABELS = {"!": 2, "?": 1, "*": 3}
TYPES = {"int32": 5, "int64": 3, "float": 2, "bool": 8, "string": 12, "enum": 5}
_DEFAULTS = {"forward_block_idx": "-1"}
_MESSAGE = 11

_Layout = dict[int, tuple[str, str, str]]  # field number -> (name, type, label)


def _build() -> tuple[dict[str, Any], dict[str, _Layout]]:
    file = descriptor_pb2.FileDescriptorProto(name="millstream/framework.proto", package=_PACKAGE, syntax="proto2")
    layouts: dict[str, _Layout] = {}
    for message, rows in TABLE.items():
        made = file.message_type.add(name=message)
        layout = layouts[message] = {}
        for row in rows:
            number, label, kind, name = row.split()
            field = made.field.add(name=name, number=int(number), label=LABELS[label], type=TYPES.get(kind, _MESSAGE))
            if kind not in TYPES:
                field.type_name = f".{_PACKAGE}.{kind}"
            if name in _DEFAULTS:
                field.default_value = _DEFAULTS[name]
            layout[int(number)] = (name, kind, label)
    pool = descriptor_pool.DescriptorPool()  # our own: another library may hold the real framework.proto
    pool.Add(file)
    classes = {m: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.{m}")) for m in TABLE}
    return classes, layouts


_CLASSES, _LAYOUTS = _build()
Version: Any = _CLASSES["Version"]
BlockDesc: Any = _CLASSES["BlockDesc"]
OpDesc: Any = _CLASSES["OpDesc"]
VarDesc: Any = _CLASSES["VarDesc"]
OpCompatibleMap: Any = _CLASSES["OpCompatibleMap"]


def first_missing(message: Any, path: str) -> str:
    """Path of the first required field that is not set; protobuf's own search lists all, however many."""
    for name, kind, label in _LAYOUTS[message.DESCRIPTOR.name].values():
        if label != "*" and not message.HasField(name):
            if label == "!":
                return f"{path}.{name}"
        elif kind in _LAYOUTS:
            children = getattr(message, name) if label == "*" else [getattr(message, name)]
            for n, child in enumerate(children):
                if not child.IsInitialized():
                    return first_missing(child, f"{path}.{name}[{n}]" if label == "*" else f"{path}.{name}")
    return path


def locate_error(message: str, data: Buffer, start: int, end: int, path: str) -> tuple[int, str, str]:
    """(offset, path, problem) of the first place in ``data[start:end]`` that is no valid `message`.

    For bytes that protobuf has refused already: it does not say where.
    """
    counts: dict[str, int] = {}
    layout = _LAYOUTS[message]
    walk = fields(data, start, end)
    while True:
        try:
            field = next(walk, None)
        except WireError as error:
            return error.offset, path, error.problem
        if field is None:
            return start, path, f"expected a {message}, found {end - start} bytes that are none"
        name, kind, _ = layout.get(field.number, ("", "", ""))
        if kind in _LAYOUTS and field.wire_type == BYTES:
            n = counts.get(name, 0)
            counts[name] = n + 1
            found = locate_error(kind, data, field.start, field.end, f"{path}.{name}[{n}]")
            if not found[2].endswith("that are none"):
                return found
