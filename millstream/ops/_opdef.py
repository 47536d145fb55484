"""How ONE operator is declared, and the registry of all of them.

    @op("relu", slots="X -> Out", infer="X", lod="X", traceable=True)
    def relu(x): return torch.relu(x)

    @op("relu_grad", slots="Out, Out@GRAD -> X@GRAD")
    def relu_grad(out, dout): return dout * (out > 0)

Slots: ``Name`` then marks: ``?`` may be absent (None), ``*`` list, ``~`` intermediate output, ``#`` the kernel
takes (or returns) a :class:`Ragged`, values with LoD; an output marked ``!`` is updated: its present value (or
None) is passed after the inputs. Keyword-only parameters with type and default are the
attributes; the reserved keywords in `RESERVED` are given by the runtime instead.
"""

from __future__ import annotations

import difflib
import inspect
import struct
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from importlib import metadata
from typing import Any, NamedTuple

from millstream.errors import UnknownOperatorError
from millstream.ir.types import AttrType

# rng: torch.Generator; want: one bool an output slot; counts: number of variables in each output slot;
# ctx: runtime context; device: torch.device; aliased: output slots that name a variable which is also an input
# (give it a default: callers without variables leave it out); names: variable names by slot; state: a dict that
# belongs to this operator as long as its Plan lives;
# op_seed is not reserved: `seed` is an ordinary attribute and the runtime seeds `rng` from it.
RESERVED = frozenset({"rng", "want", "counts", "ctx", "device", "aliased", "tape", "handle", "names", "state"})

_ATTR_TYPES = {
    "int": AttrType.INT,
    "DType": AttrType.INT,
    "float": AttrType.FLOAT,
    "str": AttrType.STRING,
    "bool": AttrType.BOOLEAN,
    "Long": AttrType.LONG,
    "list[int]": AttrType.INTS,
    "list[float]": AttrType.FLOATS,
    "list[str]": AttrType.STRINGS,
    "list[bool]": AttrType.BOOLEANS,
    "Longs": AttrType.LONGS,
    "Block": AttrType.BLOCK,
    "list[Block]": AttrType.BLOCKS,
}

# Annotations for attributes whose serialized type differs from the Python type.
Long = int
DType = int
Longs = list[int]
Block = Any

REQUIRED = inspect.Parameter.empty
ENTRY_POINTS = "millstream.operators"


class Slot(NamedTuple):
    name: str
    optional: bool = False
    many: bool = False
    intermediate: bool = False
    ragged: bool = False
    inout: bool = False


class Attr(NamedTuple):
    type: AttrType
    default: Any
    is_dtype: bool = False


@dataclass(eq=False)
class OpDef:
    """One operator: everything the rest of the system knows of it."""

    name: str
    kernel: Callable[..., Any]
    inputs: tuple[Slot, ...]
    outputs: tuple[Slot, ...]
    attrs: dict[str, Attr]
    reserved: frozenset[str]
    infer: Any = None
    lod: Any = None
    grad_lod: str | None = None
    grad: Any = None
    nodiff: frozenset[str] = frozenset()
    block: bool = False
    side_effect: bool = False
    derived_from: OpDef | None = None
    doc: str = ""
    overrides: tuple[str, ...] = ()
    extra: dict[str, Any] = field(default_factory=dict)
    in_slots: dict[str, Slot] = field(init=False)
    out_slots: dict[str, Slot] = field(init=False)

    def __post_init__(self) -> None:
        self.in_slots = {s.name: s for s in self.inputs}
        self.out_slots = {s.name: s for s in self.outputs}

    @property
    def differentiable(self) -> bool:
        return self.grad is not False

    @property
    def grad_type(self) -> str | None:
        """The type of its gradient operator; None when there is none, or a maker decides."""
        if isinstance(self.grad, str):
            return self.grad
        return self.name + "_grad" if self.grad is None else None

    def kernel_attrs(self, given: dict[str, Any]) -> dict[str, Any]:
        """The kernel's keyword arguments from an operator's attributes."""
        out = {}
        for name, spec in self.attrs.items():
            value = given.get(name, spec.default)
            if value is not REQUIRED:
                out[name] = value
        return out


@dataclass
class OpSpec:
    """An operator that is not appended yet: what the maker of a custom gradient returns.

    Attributes:
        forward: the operator whose gradient it is (None for sums and fills).
    """

    type: str
    inputs: dict[str, list[str]]
    outputs: dict[str, list[str]]
    attrs: dict[str, Any] = field(default_factory=dict)
    forward: Any = None


@cache
def _plugged(paths: tuple[str, ...]) -> dict[str, metadata.EntryPoint]:
    """Operators that packages on `paths` bring, by type; importing the entry point's object declares them."""
    return {point.name: point for point in metadata.entry_points(group=ENTRY_POINTS)}


class Registry:
    """All operators by type. Gradient operators that nobody declared are derived on first use."""

    def __init__(self) -> None:
        self._defs: dict[str, OpDef] = {}
        self.derive: Callable[[OpDef], OpDef] | None = None
        self._forward_types: dict[str, str] = {}

    def add(self, definition: OpDef) -> None:
        if definition.name in self._defs and self._defs[definition.name].derived_from is None:
            raise ValueError(f"operator {definition.name!r} is declared twice")
        self._defs[definition.name] = definition
        if isinstance(definition.grad, str):
            self._forward_types[definition.grad] = definition.name

    def forward_type(self, name: str) -> str | None:
        """The operator whose gradient operator type `name` is, or None."""
        if name in self._forward_types:
            return self._forward_types[name]
        return name[: -len("_grad")] if name.endswith("_grad") else None

    def find(self, name: str) -> OpDef | None:
        """The declaration, one of an installed package (entry points `millstream.operators`), a derived one for
        ``<op>_grad``, or None."""
        found = self._defs.get(name)
        if found is None and (point := _plugged(tuple(sys.path)).get(name)) is not None:
            point.load()
            found = self._defs.get(name)
            if found is None:
                raise UnknownOperatorError(f"the entry point {point.value!r} for operator {name!r} does not declare it")
        if found is None and name.endswith("_grad") and self.derive is not None:
            forward = self.find(name[: -len("_grad")])
            if forward is not None and forward.grad is None and not forward.block:
                found = self._defs[name] = self.derive(forward)
        return found

    def get(self, name: str) -> OpDef:
        """The declaration; UnknownOperatorError (with near names) when there is none."""
        found = self.find(name)
        if found is None:
            close = difflib.get_close_matches(name, self._defs, 3)
            hint = f"; did you mean {' or '.join(close)}?" if close else ""
            raise UnknownOperatorError(f"operator {name!r} is not in the operator library{hint}")
        return found

    def declared(self) -> Iterator[OpDef]:
        """Declared operators (derived gradients left out), by name."""
        own = (d for d in self._defs.values() if d.derived_from is None and "again_of" not in d.extra)
        return iter(sorted(own, key=lambda d: d.name))

    def meter(self) -> dict[str, int]:
        """How many forward operators there are, and how many override each derived artefact: our complexity meter."""
        forward = [d for d in self.declared() if self.forward_type(d.name) is None]
        explicit = {self.forward_type(d.name) for d in self.declared()}
        return {
            "operators": len(forward),
            "shape: rule": sum(isinstance(d.infer, str) for d in forward),
            "shape: function": sum(callable(d.infer) for d in forward),
            "shape: kernel on meta tensors": sum(d.infer is None and not d.block for d in forward),
            "gradient: derived": sum(d.grad is None and d.name not in explicit and not d.block for d in forward),
            "gradient: declared": sum(d.grad_type is not None and d.name in explicit for d in forward),
            "gradient: maker": sum(callable(d.grad) for d in forward),
            "gradient: none": sum(d.grad is False for d in forward),
            "LoD: function": sum(callable(d.lod) for d in forward),
            "LoD of gradients: rule": sum(d.grad_lod is not None for d in forward),
            "sub-Block": sum(d.block for d in forward),
        }

    def __contains__(self, name: str) -> bool:
        return self.find(name) is not None


REGISTRY = Registry()


def op(
    name: str,
    slots: str,
    *,
    infer: Any = None,
    lod: Any = None,
    grad_lod: str | None = None,
    grad: Any = None,
    nodiff: str = "",
    block: bool = False,
    side_effect: bool = False,
    **extra: Any,
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Declare the decorated kernel as operator `name`.

    Args:
        slots: ``"X, Y? -> Out"``; the kernel's positional parameters are the input slots in this order, and it
            returns one value per output slot in this order (a bare value for one slot).
        infer: None: run the kernel on torch's meta device; ``"X"``: outputs have X's shape and dtype;
            ``"Out=X, Mask=X:uint8"``; or a function in the kernel's call form over :class:`Spec` values
            (lists for ``*`` slots, None for absent) that returns Spec values (None: leave that output alone).
        lod: None: outputs have no LoD; ``"X"``: every output that is not intermediate takes X's;
            ``"Out=X"``; or ``f(lods, attrs, ins) -> {slot: LoD}`` over dicts by input slot. Slots marked ``#`` are
            set by the kernel itself.
        grad_lod: which gradients carry a LoD: ``"X"``: X@GRAD takes X's; ``"X=Out@GRAD"``: that of another slot of the
            gradient operator; ``""``: none. None: slots marked ``#`` their own; where Out is like X in shape and LoD
            (``infer="X", lod="X"``), X@GRAD that of Out@GRAD.
        grad: None: the operator ``<name>_grad`` if one is declared, else derived by torch autograd;
            the name of another operator; False: not differentiable; or a function that makes the gradient
            operators (see ops/_grad.py).
        nodiff: input slots that never get a gradient (integer tensors never do).
        block: the kernel takes a BlockFrame and keyword attributes; it has a sub-Block.
        side_effect: must run even if nothing uses its outputs.
        **extra: what optional rooms know of the operator (onnx=, flops=, …); `traceable=True`: the kernel is torch
            calls whose autograd gradient equals the declared one (tests/ops/test_traceable.py checks it);
            `amp="white" | "gray" | "black"`: what mixed precision does with it (fluid/contrib/mixed_precision), and
            `amp_slots`: the only slots that it may touch, `amp_bfloat16=`: the same for bfloat16 alone; `captured=`: the
            kernel that whole-step capture compiles in place of this one (same call form, tensors only, changes nothing in
            place); `traced=`: torch calls in the kernel's call form whose autograd gradient is the declared one, for
            arguments so small that a gradient of our own costs more than it saves (they return None for all others);
            `again=`: a formula for gradients of gradients (ops/_again.py); `draws=True`: `ctx` is
            asked for generators only; `part_of=`: the input slot of which the result is a part (ops/_parts.py);
            `flops=`: what it computes (ops/_flops.py), `picks=`: the input slot of which it
            reads as much as it gives out, both for profiles; `shares=True`: an output may lie in the memory of an input (a
            view, or the input itself), which matters where that is updated in place later.
    """

    def declare(kernel: Callable[..., Any]) -> Callable[..., Any]:
        left, _, right = slots.partition("->")
        attrs, reserved = _attrs_of(kernel)
        overrides = tuple(
            k
            for k, v in (("infer", callable(infer)), ("lod", callable(lod)), ("grad", callable(grad)), ("block", block))
            if v
        )
        REGISTRY.add(
            OpDef(
                name=name,
                kernel=kernel,
                inputs=parse_slots(left),
                outputs=parse_slots(right),
                attrs=attrs,
                reserved=reserved,
                infer=infer,
                lod=lod,
                grad_lod=grad_lod,
                grad=grad,
                nodiff=frozenset(s.strip() for s in nodiff.split(",") if s.strip()),
                block=block,
                side_effect=side_effect,
                doc=inspect.getdoc(kernel) or "",
                overrides=overrides,
                extra=extra,
            )
        )
        return kernel

    return declare


def parse_slots(text: str) -> tuple[Slot, ...]:
    """``"X, Y?, Z*"`` as Slots."""
    found = []
    for part in text.split(","):
        part = part.strip()
        if part:
            name = part.rstrip("?*~#!")
            marks = part[len(name) :]
            found.append(Slot(name, "?" in marks, "*" in marks, "~" in marks, "#" in marks, "!" in marks))
    return tuple(found)


def float32(value: float) -> float:
    """`value` as the float32 that a FLOAT attribute holds."""
    try:
        return float(struct.unpack("f", struct.pack("f", value))[0])
    except OverflowError:
        return float("inf") if value > 0 else float("-inf")


def _attrs_of(kernel: Callable[..., Any]) -> tuple[dict[str, Attr], frozenset[str]]:
    attrs: dict[str, Attr] = {}
    reserved = set()
    for p in inspect.signature(kernel).parameters.values():
        if p.kind is not p.KEYWORD_ONLY:
            continue
        if p.name in RESERVED:
            reserved.add(p.name)
            continue
        note = p.annotation if isinstance(p.annotation, str) else getattr(p.annotation, "__name__", str(p.annotation))
        if note not in _ATTR_TYPES:
            raise TypeError(f"{kernel.__name__}: attribute {p.name}: {note!r} is not one of {', '.join(_ATTR_TYPES)}")
        default = float32(p.default) if note == "float" and p.default is not REQUIRED else p.default
        attrs[p.name] = Attr(_ATTR_TYPES[note], default, note == "DType")
    return attrs, frozenset(reserved)
