"""``fluid.debugger``: Programs as text and as graphs, and a hunt for NaN and Inf."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from millstream.config import get_flags, set_flags
from millstream.files.atomic import write_bytes
from millstream.ir.block import Block
from millstream.ir.operator import ROLE_BACKWARD, ROLE_OPTIMIZE, Operator
from millstream.ir.printer import op_text
from millstream.ir.program import Program, default_main_program
from millstream.ir.types import VarType, dtype_name
from millstream.ir.variable import Parameter, Variable

__all__ = [
    "draw_block_graphviz",
    "pprint_block_codes",
    "pprint_program_codes",
    "prepare_fast_nan_inf_debug",
    "repr_attr",
    "repr_data_type",
    "repr_op",
    "repr_var",
    "run_fast_nan_inf_debug",
]


def repr_data_type(type: Any) -> str:
    """The name of an element type."""
    return dtype_name(VarType(type))


def repr_attr(desc: tuple[str, Any]) -> str:
    """``name=value`` of one attribute, given as a pair."""
    name, value = desc
    return f"{name}={value!r}"


def repr_var(vardesc: Variable) -> str:
    """A variable's declaration."""
    return f"{vardesc.describe()} persistable={vardesc.persistable} stop_gradient={vardesc.stop_gradient}"


def repr_op(opdesc: Operator) -> str:
    """An operator as one line of code."""
    return op_text(opdesc)


def pprint_program_codes(program_desc: Program) -> str:
    """Print all Blocks as code; returns the text."""
    return "\n".join(pprint_block_codes(block) for block in program_desc.blocks)


def pprint_block_codes(block_desc: Block, show_backward: bool = False) -> str:
    """Print a Block as code; returns the text.

    Args:
        show_backward: with gradient and optimizer operators and their variables.
    """

    def forward(op: Operator) -> bool:
        return not op.role & (ROLE_BACKWARD | ROLE_OPTIMIZE)

    ops = [op for op in block_desc.ops if show_backward or forward(op)]
    used = {n for op in ops for n in (*op.input_arg_names, *op.output_arg_names)}
    variables = [v for n, v in sorted(block_desc.vars.items()) if show_backward or n in used or "@GRAD" not in n]
    lines = [f"# block-{block_desc.idx} of {len(block_desc.program.blocks)}, inside {block_desc.parent_idx}"]
    lines += [f"var {repr_var(v)}" for v in variables]
    lines += [op_text(op) for op in ops]
    text = "\n".join(lines) + "\n"
    print(text)
    return text


def draw_block_graphviz(block: Block, highlights: Iterable[str] | None = None, path: str = "./temp.dot") -> None:
    """Write a Block as a graph in Graphviz's dot language.

    Args:
        highlights: regular expressions; variables whose whole name matches one are drawn in another colour.
        path: the file.
    """
    patterns = [re.compile(h) for h in highlights or ()]
    lines = ["digraph G {", "  rankdir=TB;", '  node [fontname="Helvetica", fontsize=12];']
    ids: dict[str, str] = {}

    def variable(name: str) -> str:
        if name not in ids:
            ids[name] = f"var_{len(ids)}"
            lines.append(f"  {ids[name]} [{_variable_style(block, name, patterns)}];")
        return ids[name]

    for k, op in enumerate(block.ops):
        lines.append(f'  op_{k} [label="{_quoted(op.type)}", shape=box, style="rounded,filled", fillcolor="#d6e8fa"];')
        for slot, args in op.inputs.items():
            lines += [f'  {variable(n)} -> op_{k} [label="{_quoted(slot)}"];' for n in args]
        for slot, args in op.outputs.items():
            lines += [f'  op_{k} -> {variable(n)} [label="{_quoted(slot)}"];' for n in args]
    lines.append("}")
    write_bytes(path, ("\n".join(lines) + "\n").encode())


def _variable_style(block: Block, name: str, patterns: list[re.Pattern[str]]) -> str:
    var = block._find_var_recursive(name)
    label = _quoted(name if var is None or not var.has_shape else var.describe())
    if any(p.fullmatch(name) for p in patterns):
        colour = "#f9d262"
    elif isinstance(var, Parameter):
        colour = "#d2d6dc"
    else:
        colour = "#ffffff"
    return f'label="{label}", shape=ellipse, style=filled, fillcolor="{colour}"'


def _quoted(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')


def prepare_fast_nan_inf_debug(_program: Program) -> None:
    """Nothing to prepare: run_fast_nan_inf_debug checks every operator of any Program."""
    if not isinstance(_program, Program):
        raise TypeError(f"prepare_fast_nan_inf_debug takes a Program, received {type(_program).__name__}")


def run_fast_nan_inf_debug(
    executor: Any,
    program: Program | None = None,
    feed: Any = None,
    fetch_list: Any = None,
    feed_var_name: str = "feed",
    fetch_var_name: str = "fetch",
    scope: Any = None,
    return_numpy: bool = True,
    use_program_cache: bool = False,
    dump_core: bool = True,
) -> Any:
    """Executor.run that raises OperatorError at the first operator with NaN or Inf in its output.

    Args:
        dump_core: without effect: the error names the operator and the program goes on.
    """
    old = get_flags(["FLAGS_check_nan_inf"])
    set_flags({"FLAGS_check_nan_inf": True})
    try:
        return executor.run(
            default_main_program() if program is None else program,
            feed=feed,
            fetch_list=fetch_list,
            feed_var_name=feed_var_name,
            fetch_var_name=fetch_var_name,
            scope=scope,
            return_numpy=return_numpy,
            use_program_cache=use_program_cache,
        )
    finally:
        set_flags(old)
