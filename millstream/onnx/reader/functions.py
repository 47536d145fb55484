"""Operators that ONNX itself defines by others: the definition stands in the package, and its nodes are read instead."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from millstream.onnx._require import onnx_package
from millstream.onnx.reader.values import Tensor


def definition(proto: Any, opset: int, inputs: Sequence[Tensor | None]) -> Any:
    """The FunctionProto of a node's operator as of `opset`, or None."""
    onnx = onnx_package()
    try:
        schema = onnx.defs.get_schema(proto.op_type, max_inclusive_version=opset, domain="")
    except onnx.defs.SchemaError:
        return None
    plain, built = schema.function_opset_versions, schema.context_dependent_function_opset_versions
    if plain:
        return _parsed(schema.get_function_with_opset_version(_nearest(plain, opset)), schema)
    if not built:
        return None
    types = [_type_of(t).SerializeToString() for t in inputs]
    made = schema.get_context_dependent_function_with_opset_version(_nearest(built, opset), proto.SerializeToString(), types)
    return _parsed(made, schema)


def _nearest(versions: Sequence[int], opset: int) -> int:
    """Of the opsets in which one operator's definition is written, the last up to `opset`, or the first after it."""
    return max((v for v in versions if v <= opset), default=min(versions))


def _parsed(data: bytes, schema: Any) -> Any:
    function = onnx_package().FunctionProto()
    function.ParseFromString(data)
    known = {a.name for a in function.attribute_proto}
    for name, a in schema.attributes.items():
        if name not in known and a.default_value.name:
            function.attribute_proto.add().CopyFrom(a.default_value)
    return function if function.node else None


def _type_of(value: Tensor | None) -> Any:
    onnx = onnx_package()
    if value is None:
        return onnx.TypeProto()
    dims = [d if d >= 0 else None for d in value.shape]
    return onnx.helper.make_tensor_type_proto(onnx.helper.np_dtype_to_tensor_dtype(value.dtype), dims)


def bound(function: Any, proto: Any) -> list[Any]:
    """The function's nodes with the attributes of the node that calls it."""
    given = {a.name: a for a in function.attribute_proto}
    given.update({a.name: a for a in proto.attribute})
    return [_bound(node, given) for node in function.node]


def _bound(node: Any, given: dict[str, Any]) -> Any:
    copy = type(node)()
    copy.CopyFrom(node)
    del copy.attribute[:]
    for a in node.attribute:
        if a.ref_attr_name:
            if a.ref_attr_name in given:
                copy.attribute.add().CopyFrom(given[a.ref_attr_name])
                copy.attribute[-1].name = a.name
            continue
        copy.attribute.add().CopyFrom(a)
        if a.HasField("g"):
            inner = copy.attribute[-1].g
            nodes = [_bound(n, given) for n in a.g.node]
            del inner.node[:]
            inner.node.extend(nodes)
    return copy
