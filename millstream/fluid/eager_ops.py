"""``fluid.core.ops``: an eager function for every operator, called by position.

``core.ops.conv2d(x, w, "strides", [2, 2])``: the demanded input slots in the order of the declaration, then attribute
names and values by turns. The functions are derived from the declarations; only what 1.8.5 passes otherwise is listed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from millstream.errors import InvalidProgramError, MillstreamError
from millstream.ir import mode
from millstream.ops import REGISTRY
from millstream.ops._opdef import OpDef, Slot

# Optional inputs that are passed (None for absent).
_ALSO_PASSED = {
    "assign": ("X",),
    "generate_proposals": ("Variances",),
    "gru_unit": ("Bias",),
    "instance_norm": ("Scale", "Bias"),
    "label_smooth": ("PriorDist",),
    "layer_norm": ("Scale", "Bias"),
    "pyramid_hash": ("WhiteList", "BlackList"),
    "random_crop": ("Seed",),
    "shuffle_batch": ("Seed",),
}
# Outputs that the caller passes after the inputs, to be written in place.
_PASSED_OUTPUTS = {
    "accuracy": ("Correct", "Total"),
    "adam": ("ParamOut", "Moment1Out", "Moment2Out", "Beta1PowOut", "Beta2PowOut"),
    "batch_norm": ("MeanOut", "VarianceOut"),
    "fill_constant": ("Out",),
    "matmul": ("Out",),
    "momentum": ("ParamOut", "VelocityOut"),
    "sgd": ("ParamOut",),
}


def __getattr__(name: str) -> Callable[..., Any]:
    if name.startswith("__"):
        raise AttributeError(name)
    try:
        made = globals()[name] = _function(REGISTRY.get(name))
    except MillstreamError as error:
        raise AttributeError(f"core.ops.{name}: {error}") from None
    return made


def __dir__() -> list[str]:
    return [d.name for d in REGISTRY.declared() if REGISTRY.forward_type(d.name) is None and not d.block]


def _is_passed(op: str, slot: Slot) -> bool:
    if slot.optional:
        return slot.name in _ALSO_PASSED.get(op, ())
    return not (slot.many and "tensor" in slot.name.lower())  # ShapeTensorList and its like replace an attribute


def _function(definition: OpDef) -> Callable[..., Any]:
    name = definition.name
    inputs = [s for s in definition.inputs if _is_passed(name, s)]
    given = [definition.out_slots[s] for s in _PASSED_OUTPUTS.get(name, ())]
    made = [s for s in definition.outputs if not s.optional and s not in given]
    counted = [s for s in made if s.many]
    results = [s for s in definition.outputs if s in made or s in given]
    order = [s.name for s in inputs] + [s.name for s in given] + [f"number of {s.name}" for s in counted]

    def run(*args: Any) -> Any:
        eager: Any = mode.tracer()
        if eager is None:
            raise InvalidProgramError(f"core.ops.{name} runs at once: it needs dygraph mode (`with fluid.dygraph.guard():`)")
        if len(args) < len(order):
            raise TypeError(f"core.ops.{name}: expected {', '.join(order)}, then attributes; received {len(args)} arguments")
        attrs = _attributes(definition, args[len(order) :])
        ins = {s.name: _variables(name, s, value) for s, value in zip(inputs, args)}
        outs = {s.name: _variables(name, s, value) for s, value in zip(given, args[len(inputs) :])}
        counts = dict(zip((s.name for s in counted), args[len(inputs) + len(given) :]))
        for slot in made:
            outs[slot.name] = [eager.new_variable(None, None) for _ in range(counts.get(slot.name, 1))]
        eager.trace_op(
            name, {s: v for s, v in ins.items() if v is not None}, {s: v for s, v in outs.items() if v is not None}, attrs
        )
        values = [outs[s.name] if s.many else (outs[s.name] or [None])[0] for s in results]
        return values[0] if len(values) == 1 else tuple(values) if values else None

    run.__name__ = run.__qualname__ = name
    run.__doc__ = f"{definition.doc}\n\nArguments: {', '.join(order) or 'none'}; then attribute names and values by turns."
    return run


def _variables(op: str, slot: Slot, value: Any) -> list[Any] | None:
    if value is None and (slot.optional or slot.name in _PASSED_OUTPUTS.get(op, ())):
        return None
    values = list(value) if slot.many and isinstance(value, (list, tuple)) else [value]
    for one in values:
        if not hasattr(one, "_ivar"):
            raise TypeError(f"core.ops.{op}: {slot.name} must be an eager variable, received {type(one).__name__}: {one!r}")
    return values


def _attributes(definition: OpDef, rest: tuple[Any, ...]) -> dict[str, Any]:
    if len(rest) % 2 or not all(isinstance(n, str) for n in rest[::2]):
        raise InvalidProgramError(
            f"core.ops.{definition.name}: attributes are names and values by turns, received {rest!r}; "
            f"its attributes are {', '.join(definition.attrs) or 'none'}"
        )
    return dict(zip(rest[::2], rest[1::2]))
