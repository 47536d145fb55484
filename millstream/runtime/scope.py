"""Scope: names to values that outlive a run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from millstream.errors import InvalidProgramError
from millstream.ops._values import NO_LOD, LoD, Ragged, TensorArray
from millstream.ops._values import SelectedRows as Rows
from millstream.runtime.tensor import LoDTensor, LoDTensorArray, SelectedRows


class ScopeVar:
    """One value of a Scope (``core.Variable``): a LoDTensor, SelectedRows, array, or another object."""

    __slots__ = ("name", "obj")

    def __init__(self, name: str) -> None:
        self.name = name
        self.obj: Any = None

    def get_tensor(self) -> LoDTensor:
        """The LoDTensor in it (made when the variable is empty)."""
        if self.obj is None:
            self.obj = LoDTensor()
        if not isinstance(self.obj, LoDTensor):
            raise InvalidProgramError(f"variable {self.name!r} holds a {type(self.obj).__name__}, not a LoDTensor")
        return self.obj

    def get_selected_rows(self) -> SelectedRows:
        """The SelectedRows in it (made when the variable is empty)."""
        if self.obj is None or (isinstance(self.obj, LoDTensor) and not self.obj._is_initialized()):
            self.obj = SelectedRows()
        if not isinstance(self.obj, SelectedRows):
            raise InvalidProgramError(f"variable {self.name!r} holds a {type(self.obj).__name__}, not SelectedRows")
        return self.obj

    def get_lod_tensor_array(self) -> LoDTensorArray:
        if self.obj is None:
            self.obj = LoDTensorArray()
        return self.obj

    def set_int(self, value: int) -> None:
        self.obj = int(value)

    def get_int(self) -> int:
        return int(self.obj)

    def is_int(self) -> bool:
        return isinstance(self.obj, int)

    def set_float(self, value: float) -> None:
        self.obj = float(value)

    def get_float(self) -> float:
        return float(self.obj)

    def is_float(self) -> bool:
        return isinstance(self.obj, float)

    # ---- the runtime's side ------------------------------------------------------------------
    def load(self) -> tuple[Any, LoD]:
        """(kernel value, LoD); (None, ()) when nothing was written."""
        obj = self.obj
        if isinstance(obj, LoDTensor):
            return obj._t, obj._lod
        if isinstance(obj, SelectedRows):
            return obj.value(), NO_LOD
        if isinstance(obj, LoDTensorArray):
            return TensorArray(Ragged(t.torch(), t._lod) for t in obj), NO_LOD
        return obj, NO_LOD

    def store(self, value: Any, lod: LoD) -> None:
        """Keep a kernel value."""
        if isinstance(value, Rows):
            self.obj = SelectedRows.of(value)
        elif isinstance(value, TensorArray):
            self.obj = LoDTensorArray(LoDTensor.of(v.values, v.lod) for v in value if v is not None)
        elif hasattr(value, "data_ptr"):
            tensor = self.obj if isinstance(self.obj, LoDTensor) else LoDTensor()
            tensor._t, tensor._lod = value, lod
            self.obj = tensor
        else:
            self.obj = value


class Scope:
    """A table of variables; lookups go on to the parent."""

    def __init__(self, parent: Scope | None = None) -> None:
        self._vars: dict[str, ScopeVar] = {}
        self._parent = parent
        self._kids: list[Scope] = []
        self._generation = 0  # counts removals, after which cached bindings are looked up again

    def var(self, name: str) -> ScopeVar:
        """The variable `name` of this Scope, made if needed."""
        found = self._vars.get(name)
        if found is None:
            found = self._vars[name] = ScopeVar(name)
        return found

    def find_var(self, name: str) -> ScopeVar | None:
        """The variable in this Scope or the nearest parent that has it, or None."""
        scope: Scope | None = self
        while scope is not None:
            found = scope._vars.get(name)
            if found is not None:
                return found
            scope = scope._parent
        return None

    def erase(self, names: list[str]) -> None:
        """Forget variables of this Scope."""
        for name in names:
            self._vars.pop(name, None)
        self._generation += 1

    def new_scope(self) -> Scope:
        kid = Scope(self)
        self._kids.append(kid)
        return kid

    def drop_kids(self) -> None:
        self._kids.clear()

    def local_var_names(self) -> list[str]:
        return list(self._vars)


class _Current:
    scope = Scope()


def global_scope() -> Scope:
    """The Scope that Executors use when none is given."""
    return _Current.scope


def switch_scope(scope: Scope) -> Scope:
    old, _Current.scope = _Current.scope, scope
    return old


@contextmanager
def scope_guard(scope: Scope) -> Iterator[None]:
    """Make `scope` the global one inside the ``with``."""
    old = switch_scope(scope)
    try:
        yield
    finally:
        switch_scope(old)
