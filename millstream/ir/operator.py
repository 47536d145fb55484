"""Operator: a type, named input and output slots, and attributes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from millstream.errors import InvalidProgramError, MissingEntryError
from millstream.ir import library
from millstream.ir.printer import brief, op_text
from millstream.ir.site import Site, user_site
from millstream.ir.types import AttrType, implied_attr_type
from millstream.ir.variable import Variable

if TYPE_CHECKING:
    from millstream.ir.block import Block
    from millstream.ir.desc import OpDesc

ROLE_FORWARD, ROLE_BACKWARD, ROLE_OPTIMIZE = 0, 1, 2
_PLAIN = frozenset({bool, int, float, str})  # types of attributes that are no Blocks
ROLE_RPC, ROLE_DIST, ROLE_LR_SCHED, ROLE_LOSS = 4, 8, 16, 256
OP_ROLE, OP_ROLE_VAR = "op_role", "op_role_var"
# attributes of every operator, with what an operator without them means
COMMON_ATTRS: dict[str, Any] = {
    OP_ROLE: ROLE_FORWARD,
    OP_ROLE_VAR: [],
    "op_namescope": "/",
    "op_device": "",
    "op_callstack": [],
}


class Operator:
    """One computation of a Block; holds names only, never values."""

    __slots__ = ("_attrs", "attr_kinds", "block", "forward", "inputs", "is_target", "outputs", "site", "type")

    def __init__(
        self,
        block: Block,
        type: str,
        inputs: dict[str, Any] | None = None,
        outputs: dict[str, Any] | None = None,
        attrs: dict[str, Any] | None = None,
        site: Site | None = None,
    ) -> None:
        self.block = block
        self.type = type
        self.inputs: dict[str, list[str]] = {s: names_of(v, type, s) for s, v in (inputs or {}).items() if v is not None}
        self.outputs: dict[str, list[str]] = {s: names_of(v, type, s) for s, v in (outputs or {}).items() if v is not None}
        self._attrs: dict[str, Any] = {k: v for k, v in (attrs or {}).items() if v is not None}
        self.attr_kinds: dict[str, AttrType] | None = None  # only for operators read from a file
        self.is_target = False
        self.forward: Operator | None = None  # the operator whose gradient this one computes (not serialized)
        self.site = site if site is not None else user_site()

    # ---- names -------------------------------------------------------------------------------
    @property
    def input_names(self) -> list[str]:
        return list(self.inputs)

    @property
    def output_names(self) -> list[str]:
        return list(self.outputs)

    @property
    def input_arg_names(self) -> list[str]:
        return [n for names in self.inputs.values() for n in names]

    @property
    def output_arg_names(self) -> list[str]:
        return [n for names in self.outputs.values() for n in names]

    def input(self, name: str) -> list[str]:
        """Variable names in input slot `name` (empty when absent)."""
        return list(self.inputs.get(name, ()))

    def output(self, name: str) -> list[str]:
        """Variable names in output slot `name` (empty when absent)."""
        return list(self.outputs.get(name, ()))

    def _rename_input(self, old: str, new: str) -> None:
        for names in self.inputs.values():
            names[:] = [new if n == old else n for n in names]
        self.block._touch()

    def _rename_output(self, old: str, new: str) -> None:
        for names in self.outputs.values():
            names[:] = [new if n == old else n for n in names]
        self.block._touch()

    def set_input(self, slot: str, names: list[str]) -> None:
        self.inputs[slot] = list(names)
        self.block._touch()

    def set_output(self, slot: str, names: list[str]) -> None:
        self.outputs[slot] = list(names)
        self.block._touch()

    # ---- attributes --------------------------------------------------------------------------
    @property
    def attrs(self) -> dict[str, Any]:
        """The attributes that were given; read only by convention: change them by :meth:`_set_attr`."""
        return self._attrs

    def attr(self, name: str) -> Any:
        """The value of attribute `name`, or its default; a Block is given by its description, which is its index too."""
        if name in self._attrs:
            value = self._attrs[name]
            return value.desc if hasattr(value, "idx") else value
        if name in COMMON_ATTRS:
            value = COMMON_ATTRS[name]
            return list(value) if isinstance(value, list) else value
        lib = library.installed()
        try:
            if lib is not None:
                return lib.attr_default(self.type, name)
        except KeyError:
            pass
        raise MissingEntryError(f"operator {self.type} has no attribute {name!r}")

    def has_attr(self, name: str) -> bool:
        if name in self._attrs or name in COMMON_ATTRS:
            return True
        lib = library.installed()
        return lib is not None and name in lib.attr_types(self.type)

    @property
    def attr_names(self) -> list[str]:
        """Names of the given attributes and of those with a declared default."""
        return list({**COMMON_ATTRS, **self.all_attrs()})

    def all_attrs(self) -> dict[str, Any]:
        """Given attributes and declared defaults; block attributes give the block's index."""
        found: dict[str, Any] = {}
        lib = library.installed()
        if lib is not None:
            for name in lib.attr_types(self.type):
                try:
                    found[name] = lib.attr_default(self.type, name)
                except KeyError:
                    continue
        found.update((k, v.idx if hasattr(v, "idx") else v) for k, v in self._attrs.items())
        return found

    def attr_type(self, name: str) -> AttrType:
        """The serialized type of attribute `name`; MissingEntryError when there is none."""
        if self.attr_kinds and name in self.attr_kinds:
            return self.attr_kinds[name]
        lib = library.installed()
        declared = lib.attr_types(self.type).get(name) if lib is not None else None
        if declared is not None:
            return declared
        if name not in COMMON_ATTRS and name not in self._attrs:
            raise MissingEntryError(f"operator {self.type} has no attribute {name!r}")
        value = COMMON_ATTRS[name] if name in COMMON_ATTRS else self._attrs[name]
        if name in COMMON_ATTRS and isinstance(value, list):
            return AttrType.STRINGS  # also where the list is empty
        return implied_attr_type(value) or AttrType.STRING

    def _block_attr_id(self, name: str) -> int:
        return int(self.attr(name))

    def _blocks_attr_ids(self, name: str) -> list[int]:
        return [b.idx for b in self._attrs[name]]

    def _set_attr(self, name: str, value: Any) -> None:
        self._attrs[name] = value
        self.block._touch()

    def _remove_attr(self, name: str) -> None:
        self._attrs.pop(name, None)
        self.block._touch()

    def _block_attr(self, name: str) -> Block:
        value = self._attrs[name]
        return value if not isinstance(value, int) else self.block.program.block(value)

    def sub_blocks(self) -> list[Block]:
        """Blocks held in attributes, in attribute order."""
        found: list[Block] = []
        for value in self._attrs.values():
            if type(value) in _PLAIN:
                continue
            if hasattr(value, "idx"):
                found.append(value)
            elif isinstance(value, (list, tuple)) and value and hasattr(value[0], "idx"):
                found.extend(value)
        return found

    @property
    def role(self) -> int:
        return int(self._attrs.get(OP_ROLE, ROLE_FORWARD))

    @property
    def desc(self) -> OpDesc:
        """The methods of Fluid's description of this Operator."""
        from millstream.ir.desc import OpDesc

        return OpDesc(self)

    @property
    def idx(self) -> int:
        return self.block.ops.index(self)

    def to_string(self, throw_on_error: bool = False) -> str:
        """The OpDesc as protobuf text, which ``str`` gives too; see :meth:`Program.to_string`. ``repr`` gives one line."""
        from millstream.ir import proto_text

        proto_text.check_flags(throw_on_error=throw_on_error)
        return proto_text.operator_text(self)

    def __repr__(self) -> str:
        return f"<Operator {op_text(self)}>"

    def __str__(self) -> str:
        return self.to_string()


def names_of(value: Any, op_type: str, slot: str) -> list[str]:
    """Variable names in what a caller gave for a slot: a Variable, a name, or a list of these."""
    if isinstance(value, (Variable, str, bytes)):
        value = [value]
    names = []
    try:
        items = list(value)
    except TypeError:
        items = [value]
    for item in items:
        if isinstance(item, str):
            names.append(item)
        elif isinstance(item, bytes):
            names.append(item.decode())
        elif hasattr(item, "name"):
            names.append(item.name)
        else:
            raise InvalidProgramError(
                f"operator {op_type}: slot {slot} takes Variables or their names, "
                f"received {type(item).__name__}: {brief(item, 80)!r}"
            )
    return names
