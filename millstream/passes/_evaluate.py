"""One operator computed while passes run, and copies of operators over other variables."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from millstream.ir import walk
from millstream.ir.names import EMPTY_VAR
from millstream.ir.operator import Operator
from millstream.ops._opdef import REGISTRY

_GIVEN = frozenset({"want", "counts", "device", "aliased", "names", "state"})
_BESIDES = frozenset({"op_role", "op_role_var", "op_callstack", "op_namescope", "op_device"})


def is_pure(op: Operator) -> bool:
    """Whether the outputs depend on nothing but inputs and attributes, and nothing else happens."""
    definition = REGISTRY.find(op.type)
    if definition is None or definition.block or definition.side_effect or op.sub_blocks():
        return False
    if definition.reserved - _GIVEN or any(slot.inout for slot in definition.outputs):
        return _certain(op)
    return not set(op.input_arg_names) & set(op.output_arg_names)


def _certain(op: Operator) -> bool:
    """Operators that draw random numbers in training only."""
    return op.type == "dropout" and bool(op.attr("is_test"))


def evaluate(op: Operator, value_of: Callable[[str], torch.Tensor | None]) -> dict[str, torch.Tensor] | str:
    """The values of a pure operator's outputs by name, or why they can't be had. Inputs have no LoD."""
    definition = REGISTRY.get(op.type)
    if definition.reserved - _GIVEN or any(s.ragged for s in (*definition.inputs, *definition.outputs)):
        return "it works on sequences or on the runtime's state"
    args: list[Any] = []
    for slot in definition.inputs:
        found = [value_of(n) for n in op.inputs.get(slot.name, ()) if n != EMPTY_VAR]
        if any(v is None for v in found):
            return "an input is not known"
        args.append(found if slot.many else (found[0] if found else None))
    kwargs = definition.kernel_attrs(op.attrs)
    given = {
        "want": tuple(bool(op.outputs.get(s.name)) for s in definition.outputs),
        "counts": tuple(len(op.outputs.get(s.name, ())) for s in definition.outputs),
        "device": torch.device("cpu"),
        "aliased": frozenset(),
        "names": {**op.inputs, **op.outputs},
        "state": {},
    }
    kwargs.update({k: v for k, v in given.items() if k in definition.reserved})
    with torch.no_grad():
        out = definition.kernel(*args, **kwargs)
    listed = list(out) if isinstance(out, tuple) else [out]
    values: dict[str, torch.Tensor] = {}
    for slot, result in zip(definition.outputs, listed):
        names = op.outputs.get(slot.name, [])
        for name, value in zip(names, result if isinstance(result, list) else [result]):
            if isinstance(value, torch.Tensor):
                values[name] = value
    return values


def renamed(op: Operator, inputs: Mapping[str, str], outputs: Mapping[str, str] | None = None) -> Operator:
    """A copy of `op` that reads and writes other variables."""
    twin = walk.copy_op(op, op.block)
    twin._attrs = dict(op.attrs)
    twin.forward = op.forward
    twin.inputs = {s: [inputs.get(n, n) for n in names] for s, names in op.inputs.items()}
    if outputs:
        twin.outputs = {s: [outputs.get(n, n) for n in names] for s, names in op.outputs.items()}
    return twin


def meaning(op: Operator) -> tuple[Any, ...]:
    """The attributes that a kernel sees, in a form that can be compared and hashed."""
    definition = REGISTRY.get(op.type)
    return tuple(sorted((k, repr(v)) for k, v in definition.kernel_attrs(op.attrs).items() if k not in _BESIDES))
