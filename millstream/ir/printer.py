"""An operator as text that reads like code."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from millstream.ir.operator import Operator

_HIDDEN = frozenset({"op_role", "op_role_var", "op_namescope", "op_callstack", "op_device", "use_cudnn", "use_mkldnn"})


def op_text(op: Operator, indent: str = "") -> str:
    """``out: float32[-1, 10] = softmax(X=fc_0.tmp_1, axis=-1)``."""
    outs = []
    for slot, names in op.outputs.items():
        for name in names:
            var = op.block._find_var_recursive(name)
            outs.append((f"{slot}=" if len(op.outputs) > 1 else "") + (var.describe() if var is not None else name))
    args = [f"{s}={n[0] if len(n) == 1 else '[' + ', '.join(n) + ']'}" for s, n in op.inputs.items() if n]
    args += [f"{k}={_value(v)}" for k, v in op.attrs.items() if k not in _HIDDEN]
    left = ", ".join(outs)
    return f"{indent}{left + ' = ' if left else ''}{op.type}({', '.join(args)})"


def _value(value: Any) -> str:
    if hasattr(value, "idx"):
        return f"block[{value.idx}]"
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "…"


def brief(value: Any, width: int = 60) -> str:
    """The start of what stands for `value` in an error: one line of a Variable, an Operator, …; text of anything else."""
    return (repr(value) if hasattr(value, "to_string") else str(value))[:width]
