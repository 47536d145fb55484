"""A Program as text that reads like code."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from millstream.ir.block import Block
    from millstream.ir.operator import Operator
    from millstream.ir.program import Program

_HIDDEN = frozenset({"op_role", "op_role_var", "op_namescope", "op_callstack", "op_device", "use_cudnn", "use_mkldnn"})
_ROLES = {1: "backward", 2: "optimize", 16: "lr_sched", 18: "lr_sched"}


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


def block_text(block: Block, details: bool = False) -> str:
    """The Block as ``block N { … }`` with declarations of what comes from outside its operators."""
    pad = "    "
    lines = [f"block {block.idx}" + (f" in {block.parent_idx}" if block.parent_idx >= 0 else "") + " {"]
    made = {n for op in block.ops for n in op.output_arg_names}
    for var in block.vars.values():
        if details or var.name not in made or var.persistable:
            kind = type(var).__name__.lower() if type(var).__name__ == "Parameter" else "var"
            mark = "persist " if var.persistable and kind == "var" else ""
            remark = "  # stop_gradient" if details and var.stop_gradient else ""
            lines.append(f"{pad}{mark}{kind} {var.describe()}{remark}")
    role = 0
    for op in block.ops:
        now = op.role & ~256
        if now != role:
            lines.append(f"{pad}# {_ROLES.get(now, 'forward')}")
            role = now
        text = op_text(op, pad)
        subs = op.sub_blocks()
        if subs:
            text += "  # block " + ", ".join(str(b.idx) for b in subs)
        if details and op.site is not None:
            text += f"  # {op.site}"
        lines.append(text)
    return "\n".join([*lines, "}"])


def program_text(program: Program, details: bool = False) -> str:
    """All Blocks of a Program."""
    return "\n".join(block_text(b, details) for b in program.blocks)


def _value(value: Any) -> str:
    if hasattr(value, "idx"):
        return f"block[{value.idx}]"
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "…"
