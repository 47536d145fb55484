"""Checks of a new operator, and shape inference of its outputs while the Program is built."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from millstream.errors import AttributeTypeError, InvalidProgramError, MillstreamError, ShapeError
from millstream.ir import library
from millstream.ir.names import EMPTY_VAR, strip_grad
from millstream.ir.operator import Operator
from millstream.ir.printer import brief
from millstream.ir.types import AttrType, VarType, to_var_type
from millstream.ir.variable import Parameter, Variable
from millstream.ops._opdef import REGISTRY, REQUIRED, OpDef, Slot, float32
from millstream.ops._values import TORCH_DTYPE, VAR_DTYPE, Ragged, Spec

# Unknown dimensions are tried with two sizes; composite, so that reshapes such as [-1, 4] -> [-1, 8] divide.
PROBES = (48, 96)


class _Library:
    """The operator library as the IR sees it."""

    def check_and_infer(self, op: Operator) -> None:
        definition = REGISTRY.get(op.type)
        _check_slots(definition, op)
        _check_attrs(definition, op)
        try:
            infer(definition, op)
        except MillstreamError as error:
            raise _with_context(op, error) from None
        except (RuntimeError, ValueError, IndexError, TypeError, NotImplementedError, ZeroDivisionError) as error:
            raise _with_context(op, ShapeError(_first_line(error))) from error

    def attr_types(self, op_type: str) -> dict[str, AttrType]:
        found = REGISTRY.find(op_type)
        return {} if found is None else {n: a.type for n, a in found.attrs.items()}

    def attr_default(self, op_type: str, name: str) -> Any:
        found = REGISTRY.find(op_type)
        if found is None or name not in found.attrs or found.attrs[name].default is REQUIRED:
            raise KeyError(f"operator {op_type} has no attribute {name!r}")
        return found.attrs[name].default

    def slot_errors(self, op: Operator) -> list[str]:
        definition = REGISTRY.find(op.type)
        if definition is None:
            return ["it is not in the operator library"]
        try:
            _check_slots(definition, op)
        except MillstreamError as error:
            return [_first_line(error)]
        return []


library.install(_Library())


# ---- checks ----------------------------------------------------------------------------------
def _check_slots(definition: OpDef, op: Operator) -> None:
    for given, slots, what in ((op.inputs, definition.in_slots, "input"), (op.outputs, definition.out_slots, "output")):
        for name, args in given.items():
            slot = slots.get(name)
            if slot is None:
                if not args:
                    continue
                raise _with_context(
                    op, InvalidProgramError(f"no {what} slot {name!r}; its {what} slots are {', '.join(slots) or 'none'}")
                )
            if len(args) > 1 and not slot.many:
                raise _with_context(op, InvalidProgramError(f"{what} slot {name} takes one variable, received {args}"))
    for slot in definition.inputs:
        if not slot.optional and not op.inputs.get(slot.name) and not slot.many:
            raise _with_context(op, InvalidProgramError(f"required input slot {slot.name} is missing"))
    outside = op.inputs.get(definition.extra.get("from_scope", ""), ())  # objects of the Scope that no Block declares
    for name in op.input_arg_names:
        if name != EMPTY_VAR and name not in outside and op.block._find_var_recursive(name) is None:
            raise _with_context(
                op, InvalidProgramError(f"input variable {name!r} is not declared in block {op.block.idx} or around it")
            )


def _check_attrs(definition: OpDef, op: Operator) -> None:
    attrs = op._attrs
    for name, spec in definition.attrs.items():
        if name in attrs:
            attrs[name] = coerce(op, name, spec.type, attrs[name], spec.is_dtype)
        elif spec.default is REQUIRED:
            raise _with_context(op, AttributeTypeError(f"required attribute {name!r} is missing"))


def _int(value: Any) -> int:
    if isinstance(value, (str, bytes)) or (isinstance(value, float) and not value.is_integer()):
        raise TypeError
    return int(value)


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        return value.decode()
    if not isinstance(value, str):
        raise TypeError
    return value


def _items(value: Any) -> list[Any]:
    if isinstance(value, (list, tuple)):
        return list(value)
    if isinstance(value, np.ndarray):
        return list(value.ravel())
    raise TypeError


def _ints(value: Any) -> list[int]:
    items = _items(value)
    return items if _ONLY_INT.issuperset(map(type, items)) else [_int(x) for x in items]


_ONLY_INT = frozenset({int})
_COERCE = {
    AttrType.INT: _int,
    AttrType.LONG: _int,
    AttrType.FLOAT: lambda v: float32(float(v)),
    AttrType.STRING: _text,
    AttrType.BOOLEAN: bool,
    AttrType.INTS: _ints,
    AttrType.LONGS: _ints,
    AttrType.FLOATS: lambda v: [float32(float(x)) for x in _items(v)],
    AttrType.STRINGS: lambda v: [_text(x) for x in _items(v)],
    AttrType.BOOLEANS: lambda v: [bool(x) for x in _items(v)],
}


def coerce(op: Operator, name: str, kind: AttrType, value: Any, is_dtype: bool = False) -> Any:
    """`value` in the attribute's declared type; AttributeTypeError when it can't be."""
    if is_dtype:
        return int(value) if isinstance(value, int) and value < 0 else int(to_var_type(value))
    convert = _COERCE.get(kind)
    if convert is None:
        return value
    try:
        return convert(value)
    except (TypeError, ValueError):
        raise _with_context(
            op,
            AttributeTypeError(f"attribute {name} must be {kind.name}, received {type(value).__name__}: {brief(value)}"),
        ) from None


def coerce_value(op_type: str, name: str, spec: Any, value: Any) -> Any:
    """An attribute's value in its declared type, where there is no Operator (eager mode)."""
    if spec.is_dtype:
        return int(value) if isinstance(value, int) and value < 0 else int(to_var_type(value))
    convert = _COERCE.get(spec.type)
    try:
        return value if convert is None else convert(value)
    except (TypeError, ValueError):
        raise AttributeTypeError(
            f"{op_type}: attribute {name} must be {spec.type.name}, received {type(value).__name__}: {brief(value)}"
        ) from None


def _with_context(op: Operator, error: MillstreamError) -> MillstreamError:
    """`error` with the operator, its inputs and the user's line added."""
    if getattr(error, "located", False):
        return error
    lines = [f"{op.type}: {error}"]
    for slot, names in op.inputs.items():
        for name in names:
            var = op.block._find_var_recursive(name)
            lines.append(f"    input {slot}: {var.describe() if var is not None else name + ' (not declared)'}")
    shown = {k: v for k, v in op.attrs.items() if not k.startswith("op_")}
    if shown:
        lines.append("    attributes: " + ", ".join(f"{k}={v!r}"[:60] for k, v in list(shown.items())[:12]))
    if op.site is not None:
        lines.append(f"    at {op.site}")
    located = type(error)("\n".join(lines))
    located.located = True  # type: ignore[attr-defined]
    return located


def _first_line(error: BaseException) -> str:
    text = str(error).strip().splitlines()
    return text[0] if text else type(error).__name__


# ---- inference -------------------------------------------------------------------------------
def infer(definition: OpDef, op: Operator) -> None:
    """Set shape, dtype, lod_level and kind of `op`'s outputs where they can be known."""
    if definition.block:
        if callable(definition.infer):
            definition.infer(op)
        return
    if definition.infer is False:
        return
    if definition.infer is None and REGISTRY.forward_type(op.type) is not None:
        _infer_grad(op)
        return
    specs, known = _input_specs(definition, op)
    if not known:
        return
    rule = definition.infer
    if isinstance(rule, str):
        results = _by_rule(definition, rule, specs)
    elif callable(rule):
        results = rule(*specs, **definition.kernel_attrs(op._attrs))
    else:
        results = _by_meta(definition, op, specs)
    listed = list(results) if isinstance(results, tuple) and not isinstance(results, Spec) else [results]
    levels = _lod_levels(definition, op, specs)
    for slot, result in zip(definition.outputs, listed):
        names = op.outputs.get(slot.name, ())
        many = result if isinstance(result, list) else [result] * len(names)
        for name, spec in zip(names, many):
            var = op.block._find_var_recursive(name)
            if var is not None and spec is not None:
                _set(var, spec, levels.get(slot.name))


def _infer_grad(op: Operator) -> None:
    for names in op.outputs.values():
        for name in names:
            var = op.block._find_var_recursive(name)
            like = op.block._find_var_recursive(strip_grad(name))
            if var is None or like is None or var is like:
                continue
            if like.has_shape:
                var._shape = like._shape
            var._dtype = like._dtype
            var._lod_level = like._lod_level
            var.state_lod_level()
            if like.type is VarType.LOD_TENSOR_ARRAY:
                var._type = like.type


def _set(var: Variable, spec: Spec, level: int | None) -> None:
    if isinstance(var, Parameter):
        return
    var._shape = tuple(int(d) for d in spec.shape)
    if not (spec.weak and var.has_dtype):
        var._dtype = spec.dtype
    if spec.type is not VarType.LOD_TENSOR or var._type is VarType.SELECTED_ROWS:
        var._type = spec.type
    var._lod_level = spec.lod_level if level is None else level
    if level is not None and not var._persistable:
        var.state_lod_level()


def _input_specs(definition: OpDef, op: Operator) -> tuple[list[Any], bool]:
    specs: list[Any] = []
    known = True
    for slot in definition.inputs:
        found: list[Spec | None] = []
        for name in op.inputs.get(slot.name, ()):
            var = op.block._find_var_recursive(name) if name != EMPTY_VAR else None
            if var is None:
                found.append(None)
                continue
            if not var.has_shape and var.is_tensor:
                known = False
            found.append(Spec(var.shape, var.dtype, var.lod_level, var.type))
        specs.append(found if slot.many else (found[0] if found else None))
    return specs, known


def _by_rule(definition: OpDef, rule: str, specs: list[Any]) -> tuple[Any, ...]:
    by_slot = {s.name: v for s, v in zip(definition.inputs, specs)}
    if "=" not in rule:
        return tuple(_rule_value(rule, by_slot) for _ in definition.outputs)
    parts = dict(p.strip().split("=", 1) for p in rule.split(","))
    return tuple(_rule_value(parts[s.name], by_slot) if s.name in parts else None for s in definition.outputs)


def _rule_value(text: str, by_slot: dict[str, Any]) -> Any:
    """``X``: like X; ``X:int64``: X's shape, that dtype; ``xshape(X)``: (0, *X's shape)."""
    text = text.strip()
    if text.startswith("xshape("):
        x = by_slot[text[7:-1]]
        return Spec((0, *x.shape), x.dtype)
    name, _, dtype = text.partition(":")
    x = by_slot[name]
    if isinstance(x, list):
        x = x[0] if len(x) == 1 else x
    if isinstance(x, list) or x is None:
        return x
    return Spec(x.shape, to_var_type(dtype) if dtype else x.dtype, x.lod_level, x.type)


def _lod_levels(definition: OpDef, op: Operator, specs: list[Any]) -> dict[str, int]:
    """Compile-time LoD level of each output slot for the rules that are written as text."""
    rule = definition.lod
    if rule is None:
        return {} if callable(definition.infer) else {s.name: 0 for s in definition.outputs if not s.ragged}
    if not isinstance(rule, str):
        return {}
    by_slot = {s.name: v for s, v in zip(definition.inputs, specs)}

    def level(slot: str) -> int:
        x = by_slot.get(slot)
        if isinstance(x, list):
            x = x[0] if x else None
        return x.lod_level if x is not None else 0

    return {out: level(src) for out, src in lod_sources(definition).items()}


def lod_sources(definition: OpDef) -> dict[str, str]:
    """For a textual LoD rule: output slot -> input slot whose LoD it takes.

    A gradient operator without a rule of its own follows `grad_lod` of its forward operator, whose slots it may name.
    """
    rule = definition.lod
    if rule is None and (base := REGISTRY.forward_type(definition.name)) is not None:
        forward = REGISTRY.find(base)
        return {} if forward is None else _gradient_sources(forward)
    if not isinstance(rule, str):
        return {}
    if "=" in rule:
        return _pairs(rule)
    return {s.name: rule for s in definition.outputs if not s.intermediate and not s.ragged}


def _pairs(rule: str) -> dict[str, str]:
    """``"Out=X, Mask"`` as {"Out": "X", "Mask": "Mask"}."""
    parts = [p.strip().partition("=") for p in rule.split(",") if p.strip()]
    return {k.strip(): source.strip() or k.strip() for k, _, source in parts}


def _gradient_sources(forward: OpDef) -> dict[str, str]:
    if forward.grad_lod is not None:
        return {k + "@GRAD": source for k, source in _pairs(forward.grad_lod).items()}
    found = {s.name + "@GRAD": s.name for s in forward.inputs if s.ragged}
    if forward.infer == forward.lod == "X":
        found["X@GRAD"] = forward.outputs[0].name + "@GRAD"
    return found


def _by_meta(definition: OpDef, op: Operator, specs: list[Any]) -> tuple[Any, ...]:
    unknown = any(d < 0 for s in _flat(specs) for d in s.shape)
    first = _run_meta(definition, op, specs, PROBES[0])
    second = _run_meta(definition, op, specs, PROBES[1]) if unknown else first
    return tuple(_merge(a, b) for a, b in zip(first, second))


def _flat(specs: list[Any]) -> list[Spec]:
    return [s for item in specs for s in (item if isinstance(item, list) else [item]) if s is not None]


def _run_meta(definition: OpDef, op: Operator, specs: list[Any], probe: int) -> list[Any]:
    def make(s: Spec | None, slot: Slot) -> Any:
        if s is None:
            return None
        t = torch.empty([probe if d < 0 else d for d in s.shape], dtype=TORCH_DTYPE[s.dtype], device="meta")
        return Ragged(t, ()) if slot.ragged else t

    args = [
        [make(s, slot) for s in item] if isinstance(item, list) else make(item, slot)
        for slot, item in zip(definition.inputs, specs)
    ]
    kwargs = definition.kernel_attrs(op._attrs)
    if "rng" in definition.reserved:
        kwargs["rng"] = None
    if "device" in definition.reserved:
        kwargs["device"] = torch.device("meta")
    if "counts" in definition.reserved:
        kwargs["counts"] = tuple(len(op.outputs.get(s.name, ())) for s in definition.outputs)
    if "want" in definition.reserved:
        kwargs["want"] = tuple(bool(op.outputs.get(s.name)) for s in definition.outputs)
    with torch.no_grad():
        out = definition.kernel(*args, **kwargs)
    return list(out) if isinstance(out, tuple) and not isinstance(out, Ragged) else [out]


def _merge(a: Any, b: Any) -> Any:
    if a is None:
        return None
    if isinstance(a, list):
        return [_merge(x, y) for x, y in zip(a, b)]
    if isinstance(a, Ragged):
        a, b = a.values, b.values
    shape = tuple(m if m == n else -1 for m, n in zip(a.shape, b.shape))
    return Spec(shape, VAR_DTYPE[a.dtype])
