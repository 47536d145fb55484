"""Variable and Parameter: what a Program knows of a value at compile time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from millstream.errors import InvalidProgramError
from millstream.ir.names import grad_name
from millstream.ir.types import VarType, dtype_name, to_var_type

if TYPE_CHECKING:
    from millstream.ir.block import Block
    from millstream.ir.desc import VarDesc
    from millstream.ir.operator import Operator

_TENSOR_KINDS = frozenset({VarType.LOD_TENSOR, VarType.SELECTED_ROWS, VarType.LOD_TENSOR_ARRAY})
_STATED = {  # (persistable, lod_level was given) -> fields to write
    (given, level): frozenset(["persistable"] * (given is False) + ["lod_level"] * level)
    for given in (None, False, True)
    for level in (False, True)
}


class Variable:
    """A named value of a Block.

    Attributes:
        name: unique in its Block.
        shape: tuple of ints; -1 is a dimension known only at run time.
        dtype: :class:`VarType` element type.
        lod_level: number of LoD levels (0: not a sequence).
        type: kind of the variable (LOD_TENSOR, SELECTED_ROWS, LOD_TENSOR_ARRAY, …).
        persistable: lives in the Scope across runs.
        stop_gradient: no gradient flows into it.
        reader_slots: kind READER only: (shape, dtype, lod_level) of each thing a read gives.
        element_types: kind TUPLE only: the kinds of its elements.
        stated: optional fields that hold the default and are written all the same: what a file gave, or as 1.8.5 does.
    """

    reader_slots: tuple[tuple[tuple[int, ...], VarType, int], ...] = ()
    element_types: tuple[VarType, ...] = ()
    stated: frozenset[str] = frozenset()

    def __init__(
        self,
        block: Block,
        name: str,
        shape: Any = None,
        dtype: Any = None,
        lod_level: int | None = None,
        type: VarType | int = VarType.LOD_TENSOR,
        persistable: bool | None = None,
        stop_gradient: bool = False,
        is_data: bool = False,
        need_check_feed: bool = False,
        error_clip: Any = None,
    ) -> None:
        self.block = block
        self._name = name
        self._shape: tuple[int, ...] | None = None if shape is None else check_shape(shape, name)
        self._dtype: VarType | None = None if dtype is None else to_var_type(dtype)
        self._lod_level = lod_level or 0
        self._type = VarType(type)
        self._persistable = bool(persistable)
        self.stated = _STATED[None if persistable is None else bool(persistable), lod_level is not None]
        self.stop_gradient = stop_gradient
        self.is_data = is_data
        self.need_check_feed = need_check_feed
        self.error_clip = error_clip
        self.op: Operator | None = None

    @property
    def name(self) -> str:
        return self._name

    @name.setter
    def name(self, new: str) -> None:
        self.block._rename_var(self._name, new)

    @property
    def shape(self) -> tuple[int, ...]:
        return self._shape if self._shape is not None else ()

    @shape.setter
    def shape(self, value: Any) -> None:
        self._shape = check_shape(value, self._name)
        self.block._touch()

    @property
    def has_shape(self) -> bool:
        """False until a declaration or shape inference said what the shape is."""
        return self._shape is not None

    @property
    def dtype(self) -> VarType:
        return self._dtype if self._dtype is not None else VarType.FP32

    @dtype.setter
    def dtype(self, value: Any) -> None:
        self._dtype = to_var_type(value)
        self.block._touch()

    @property
    def has_dtype(self) -> bool:
        return self._dtype is not None

    @property
    def lod_level(self) -> int:
        return self._lod_level

    @lod_level.setter
    def lod_level(self, value: int) -> None:
        self._lod_level = int(value)

    @property
    def type(self) -> VarType:
        return self._type

    @type.setter
    def type(self, value: VarType | int) -> None:
        self._type = VarType(value)
        self.block._touch()

    @property
    def persistable(self) -> bool:
        return self._persistable

    @persistable.setter
    def persistable(self, value: bool) -> None:
        if bool(value) != self._persistable:
            self._persistable = bool(value)
            self.block._touch()

    @property
    def grad_name(self) -> str:
        return grad_name(self._name)

    @property
    def is_tensor(self) -> bool:
        return self._type in _TENSOR_KINDS

    @property
    def desc(self) -> VarDesc:
        """The methods of Fluid's description of this Variable."""
        from millstream.ir.desc import VarDesc

        return VarDesc(self)

    def set_error_clip(self, error_clip: Any) -> None:
        """Clip the gradient of this variable by `error_clip` while the backward pass is built."""
        self.error_clip = error_clip

    _set_error_clip = set_error_clip

    def describe(self) -> str:
        """``name: float32[-1, 784]`` with LoD level and kind where they are not the usual ones."""
        dims = ", ".join(map(str, self.shape)) if self.has_shape else "?"
        dtype = dtype_name(self._dtype) if self._dtype is not None else "?"
        text = f"{self._name}: {dtype}[{dims}]"
        if self._type is not VarType.LOD_TENSOR:
            text += f" {self._type.name.lower()}"
        if self._lod_level:
            text += f" lod={self._lod_level}"
        return text

    def state_lod_level(self) -> None:
        """Write the LoD level even when it is 0: an operator passed it on."""
        self.stated = _STATED[False if "persistable" in self.stated else None, True]

    def to_string(self, throw_on_error: bool = False, with_details: bool = False) -> str:
        """The VarDesc as protobuf text, which ``str`` gives too; see :meth:`Program.to_string`. ``repr`` gives one line."""
        from millstream.ir import proto_text

        proto_text.check_flags(throw_on_error=throw_on_error, with_details=with_details)
        return proto_text.variable_text(self, with_details)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.describe()}>"

    def __str__(self) -> str:
        return self.to_string()


class Parameter(Variable):
    """A persistable, usually trainable variable of the global Block."""

    def __init__(
        self,
        block: Block,
        name: str,
        shape: Any,
        dtype: Any,
        type: VarType | int = VarType.LOD_TENSOR,
        *,
        trainable: bool = True,
        optimize_attr: dict[str, Any] | None = None,
        regularizer: Any = None,
        gradient_clip_attr: Any = None,
        do_model_average: bool | None = None,
        is_distributed: bool = False,
        stop_gradient: bool | None = None,
        persistable: bool = True,
        lod_level: int | None = None,
        error_clip: Any = None,
        need_check_feed: bool = False,
        is_data: bool = False,
    ) -> None:
        dims = check_shape(shape, name)
        if not dims:
            raise InvalidProgramError(f"parameter {name!r}: expected a shape with at least one dimension, got ()")
        if any(d <= 0 for d in dims):
            raise InvalidProgramError(
                f"parameter {name!r}: every dimension must be positive, got {list(dims)}; "
                "a -1 here usually means that a layer was given an input whose feature size is unknown"
            )
        super().__init__(
            block, name, dims, dtype, lod_level, type, True, bool(stop_gradient), is_data, need_check_feed, error_clip
        )
        self.trainable = trainable
        self.optimize_attr = optimize_attr if optimize_attr is not None else {"learning_rate": 1.0}
        self.regularizer = regularizer
        self.gradient_clip_attr = gradient_clip_attr
        self.do_model_average = do_model_average
        self.is_distributed = is_distributed


def check_shape(shape: Any, name: str) -> tuple[int, ...]:
    """`shape` as a tuple of ints (None becomes -1)."""
    try:
        return tuple(-1 if d is None else int(d) for d in shape)
    except (TypeError, ValueError):
        raise InvalidProgramError(
            f"variable {name!r}: a shape is a list of ints (None or -1 for unknown), received {shape!r}"
        ) from None
