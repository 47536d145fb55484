"""Block: variables and the list of Operators over them; nested through `parent_idx`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from millstream.errors import InvalidProgramError
from millstream.ir import library, names
from millstream.ir.operator import OP_ROLE, OP_ROLE_VAR, Operator
from millstream.ir.site import Site
from millstream.ir.types import VarType
from millstream.ir.variable import Parameter, Variable

if TYPE_CHECKING:
    from millstream.ir.desc import BlockDesc
    from millstream.ir.program import Program


class Block:
    """An ordered list of Operators and a name table; looks names up in its parents."""

    def __init__(self, program: Program, idx: int, parent_idx: int = -1) -> None:
        self.program = program
        self.idx = idx
        self.parent_idx = parent_idx
        self.forward_block_idx = -1
        self.vars: dict[str, Variable] = {}
        self.ops: list[Operator] = []

    def _touch(self) -> None:
        self.program._touch()

    # ---- variables ---------------------------------------------------------------------------
    def create_var(self, name: str | None = None, **kwargs: Any) -> Variable:
        """Declare a variable; an existing one of that name is returned after its declaration is checked.

        Args are those of :class:`Variable` (shape, dtype, lod_level, type, persistable, stop_gradient, …).
        Raises InvalidProgramError when the name exists with another shape, dtype, kind or LoD level.
        """
        initializer = kwargs.pop("initializer", None)
        kwargs.pop("belong_to_optimizer", None)
        if name is None:
            name = names.generate("_generated_var")
        old = self.vars.get(name)
        if old is not None:
            _check_same(old, kwargs)
            var = old
        else:
            var = Variable(self, name, **kwargs)
            self.vars[name] = var
            self._touch()
        if initializer is not None:
            initializer(var, self)
        return var

    def create_parameter(self, **kwargs: Any) -> Parameter:
        """Declare a :class:`Parameter` in the global Block (and run its `initializer`, if given, on it)."""
        initializer = kwargs.pop("initializer", None)
        root = self.program.global_block()
        name = kwargs["name"]
        old = root.vars.get(name)
        if old is not None and tuple(old.shape) != tuple(kwargs.get("shape", old.shape)):
            raise InvalidProgramError(
                f"parameter {name!r} exists with shape {list(old.shape)}; "
                f"it can't be shared with a layer that wants {list(kwargs['shape'])}. "
                "Give the two layers different ParamAttr names"
            )
        param = Parameter(root, **kwargs)
        root.vars[name] = param
        self._touch()
        if initializer is not None:
            initializer(param, self)
        return param

    def has_var(self, name: str) -> bool:
        """Whether this Block itself (not a parent) declares `name`."""
        return name in self.vars

    def var(self, name: str) -> Variable:
        """The variable `name` of this very Block; ValueError when there is none."""
        if not isinstance(name, str):
            raise TypeError(f"Block.var takes a name (str), received {type(name).__name__}")
        found = self.vars.get(name)
        if found is None:
            raise InvalidProgramError(f"var {name} not in this block (block {self.idx}){_near(name, self.vars)}")
        return found

    def _find_var_recursive(self, name: str) -> Variable | None:
        block: Block | None = self
        while block is not None:
            found = block.vars.get(name)
            if found is not None:
                return found
            block = block.parent_block
        return None

    def _var_recursive(self, name: str) -> Variable:
        found = self._find_var_recursive(name)
        if found is None:
            raise InvalidProgramError(f"var {name} is not in block {self.idx} nor in any block around it")
        return found

    def _has_var_recursive(self, name: str) -> bool:
        return self._find_var_recursive(name) is not None

    def _rename_var(self, old: str, new: str) -> Variable:
        var = self.vars.pop(old, None)
        if var is None:
            raise InvalidProgramError(f"var {old} not in block {self.idx}, so it can't be renamed to {new}")
        if isinstance(new, bytes):
            new = new.decode()
        var._name = new
        self.vars[new] = var
        for op in self.ops:
            op._rename_input(old, new)
            op._rename_output(old, new)
        self._touch()
        return var

    def _clone_variable(self, var: Variable, force_persistable: bool = True) -> Variable:
        """A variable like `var` (of another Program) in this Block, persistable when `force_persistable`."""
        return self.create_var(
            name=var.name,
            shape=var.shape if var.has_shape else None,
            dtype=var.dtype if var.has_dtype else None,
            type=var.type,
            lod_level=var.lod_level,
            persistable=True if force_persistable else var.persistable,
            is_data=var.is_data,
            need_check_feed=var.need_check_feed,
        )

    def _remove_var(self, name: str) -> None:
        self.vars.pop(name, None)
        self._touch()

    def all_parameters(self) -> list[Parameter]:
        return [v for v in self.vars.values() if isinstance(v, Parameter)]

    def iter_parameters(self) -> Iterator[Parameter]:
        return iter(self.all_parameters())

    # ---- operators ---------------------------------------------------------------------------
    def append_op(
        self,
        type: str,
        inputs: dict[str, Any] | None = None,
        outputs: dict[str, Any] | None = None,
        attrs: dict[str, Any] | None = None,
        stop_gradient: bool = False,
    ) -> Operator:
        """Append an Operator; slots, attributes and shapes are checked and the outputs' shapes inferred now."""
        op = self._make_op(type, inputs, outputs, attrs)
        self.ops.append(op)
        try:
            self._finish(op, stop_gradient)
        except BaseException:
            self.ops.pop()
            raise
        return op

    def _prepend_op(self, type: str, inputs: Any = None, outputs: Any = None, attrs: Any = None, **_: Any) -> Operator:
        return self._insert_op(0, type=type, inputs=inputs, outputs=outputs, attrs=attrs)

    def _insert_op(
        self, index: int, type: str, inputs: Any = None, outputs: Any = None, attrs: Any = None, **_: Any
    ) -> Operator:
        op = self._make_op(type, inputs, outputs, attrs)
        self.ops.insert(index, op)
        self._finish(op, False)
        return op

    def _remove_op(self, index: int) -> None:
        del self.ops[index]
        self._touch()

    def _make_op(self, type: str, inputs: Any, outputs: Any, attrs: Any, site: Site | None = None) -> Operator:
        op = Operator(self, type, inputs, outputs, attrs, site)
        program = self.program
        op._attrs.setdefault(OP_ROLE, program._op_role)
        if program._op_role_vars:
            op._attrs.setdefault(OP_ROLE_VAR, list(program._op_role_vars))
        scope = program._name_scope
        if scope:
            op._attrs.setdefault("op_namescope", scope)
        device = program._device
        if device:
            op._attrs.setdefault("op_device", device)
        return op

    def _finish(self, op: Operator, stop_gradient: bool) -> None:
        lib = library.installed()
        if lib is not None:
            lib.check_and_infer(op)
        for name in op.output_arg_names:
            var = self._find_var_recursive(name)
            if var is not None:
                var.op = op
                if stop_gradient:
                    var.stop_gradient = True
        self._touch()

    # ---- structure ---------------------------------------------------------------------------
    @property
    def parent_block(self) -> Block | None:
        return None if self.parent_idx < 0 else self.program.blocks[self.parent_idx]

    @property
    def desc(self) -> BlockDesc:
        """The methods of Fluid's description of this Block."""
        from millstream.ir.desc import BlockDesc

        return BlockDesc(self)

    def to_string(self, throw_on_error: bool = False, with_details: bool = False) -> str:
        """The BlockDesc as protobuf text; see :meth:`Program.to_string`."""
        from millstream.ir import proto_text

        proto_text.check_flags(throw_on_error=throw_on_error, with_details=with_details)
        return proto_text.block_text(self, with_details)

    def __repr__(self) -> str:
        return f"<Block {self.idx} of {len(self.program.blocks)}: {len(self.vars)} vars, {len(self.ops)} ops>"

    def __str__(self) -> str:
        return self.to_string()


def _check_same(old: Variable, kwargs: dict[str, Any]) -> None:
    kind = kwargs.get("type")
    if kind is not None and VarType(kind) is not old.type:
        raise InvalidProgramError(f"variable {old.name!r} exists as {old.type.name}, not {VarType(kind).name}")
    shape = kwargs.get("shape")
    if shape is not None and not old.has_shape:
        old.shape = shape
    elif shape is not None and tuple(-1 if d is None else int(d) for d in shape) != old.shape:
        raise InvalidProgramError(f"variable {old.name!r} exists with shape {list(old.shape)}, not {list(shape)}")
    dtype = kwargs.get("dtype")
    if dtype is not None and not old.has_dtype:
        old.dtype = dtype
    elif dtype is not None:
        probe = Variable(old.block, old.name, dtype=dtype)
        if probe.dtype != old.dtype:
            raise InvalidProgramError(f"variable {old.name!r} exists with dtype {old.dtype.name}, not {probe.dtype.name}")
    level = kwargs.get("lod_level")
    if level is not None and level != old.lod_level:
        raise InvalidProgramError(f"variable {old.name!r} exists with lod_level {old.lod_level}, not {level}")
    if kwargs.get("persistable"):
        old.persistable = True
    if "stop_gradient" in kwargs:
        old.stop_gradient = bool(kwargs["stop_gradient"])


def _near(name: str, known: dict[str, Variable]) -> str:
    import difflib

    close = difflib.get_close_matches(name, known, 3)
    return f"; did you mean {' or '.join(close)}?" if close else ""
