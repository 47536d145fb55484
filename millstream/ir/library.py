"""What the IR asks of the operator library; the library installs itself when it is imported."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from millstream.ir.operator import Operator
    from millstream.ir.types import AttrType


class OpLibrary(Protocol):
    """Knowledge about operator types that the IR itself does not have."""

    def check_and_infer(self, op: Operator) -> None:
        """Check slots and attributes, then set shape, dtype and lod_level of the outputs."""

    def attr_types(self, op_type: str) -> dict[str, AttrType]:
        """Declared attribute types (empty for unknown operators)."""

    def attr_default(self, op_type: str, name: str) -> Any:
        """Declared default of an attribute; raises KeyError when there is none."""

    def slot_errors(self, op: Operator) -> list[str]:
        """What is wrong with the operator's type and slots (empty: nothing)."""


class _Installed:
    library: OpLibrary | None = None


def install(library: OpLibrary) -> None:
    """Make `library` the one that Blocks consult when operators are appended."""
    _Installed.library = library


def installed() -> OpLibrary | None:
    """The installed library, or None when the IR is used on its own."""
    return _Installed.library
