"""One operator that runs on the variables of a Scope, outside of any Program (``core.Operator``)."""

from __future__ import annotations

from typing import Any

from millstream.errors import UninitializedError
from millstream.ir.operator import names_of
from millstream.ir.program import Program
from millstream.ir.types import VarType
from millstream.ops import REGISTRY
from millstream.ops._values import VAR_DTYPE
from millstream.runtime.executor import Executor
from millstream.runtime.place import Place
from millstream.runtime.scope import Scope, ScopeVar
from millstream.runtime.tensor import LoDTensorArray, SelectedRows

__all__ = ["LoneOperator"]


class LoneOperator:
    """An operator with the names of its variables.

    Args:
        op_type: a declared operator.
        slots: slot -> name or names; input and output slots are told apart by the declaration.
        attrs: attributes.

    Raises UnknownOperatorError: there is no such operator.
    """

    def __init__(self, op_type: str, slots: dict[str, Any], attrs: dict[str, Any]) -> None:
        self._definition = REGISTRY.get(op_type)
        named = {slot: names_of(value, op_type, slot) for slot, value in slots.items()}
        self._inputs = {s.name: named.get(s.name, []) for s in self._definition.inputs}
        self._outputs = {s.name: named.get(s.name, []) for s in self._definition.outputs}
        self._attrs = dict(attrs)

    def type(self) -> str:
        return self._definition.name

    def inputs(self) -> dict[str, list[str]]:
        """Slot -> names of variables; empty where none was given."""
        return {slot: list(names) for slot, names in self._inputs.items()}

    def outputs(self) -> dict[str, list[str]]:
        """Slot -> names of variables; empty where none was given."""
        return {slot: list(names) for slot, names in self._outputs.items()}

    def input_vars(self) -> list[str]:
        return [n for names in self._inputs.values() for n in names]

    def output_vars(self) -> list[str]:
        return [n for names in self._outputs.values() for n in names]

    def no_intermediate_outputs(self) -> list[str]:
        """The outputs that are results: not those that only the gradient reads."""
        return [n for s in self._definition.outputs if not s.intermediate for n in self._outputs[s.name]]

    def support_gpu(self) -> bool:
        """Whether this process can run it on a GPU."""
        import torch

        return torch.cuda.is_available()

    def run(self, scope: Scope, place: Place) -> None:
        """Read the inputs from `scope`, write the outputs to it.

        Raises UninitializedError: an input is not in the scope or has no value.
        """
        program = Program()
        block = program.global_block()
        for name in self.input_vars():
            found = scope.find_var(name)
            if found is None or found.obj is None:
                raise UninitializedError(f"operator {self.type()}: variable {name!r} has no value in the scope")
            block.create_var(name=name, persistable=True, **_declared(found))
        for name in self.output_vars():
            if not block.has_var(name):
                block.create_var(name=name, persistable=True)
        block.append_op(
            type=self.type(),
            inputs={s: n for s, n in self._inputs.items() if n},
            outputs={s: n for s, n in self._outputs.items() if n},
            attrs=self._attrs,
        )
        Executor(place).run(program, scope=scope)

    def __str__(self) -> str:
        ins, outs = (
            ", ".join(f"{slot}[{', '.join(names)}]" for slot, names in sorted(side.items()))
            for side in (self._inputs, self._outputs)
        )
        return f"Op({self.type()}), inputs:{{{ins}}}, outputs:{{{outs}}}."


def _declared(found: ScopeVar) -> dict[str, Any]:
    """What a Program must say of a variable of the Scope."""
    value = found.obj
    if isinstance(value, LoDTensorArray):
        return {"type": VarType.LOD_TENSOR_ARRAY}
    if isinstance(value, SelectedRows):
        rows = value.get_tensor().torch()
        return {
            "type": VarType.SELECTED_ROWS,
            "shape": [value.height(), *rows.shape[1:]],
            "dtype": VAR_DTYPE[rows.dtype],
        }
    tensor = found.get_tensor()
    if not tensor._is_initialized():
        raise UninitializedError(f"variable {found.name!r} has no value in the scope")
    return {"shape": tensor.shape(), "dtype": VAR_DTYPE[tensor.torch().dtype], "lod_level": len(tensor.lod())}
