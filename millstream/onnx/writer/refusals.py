"""What of a Program ONNX can't say, found without reading a parameter."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from millstream.errors import NotSupportedError
from millstream.ir import walk
from millstream.ir.operator import Operator
from millstream.ir.program import Program
from millstream.onnx.writer.emission import RefusedError
from millstream.onnx.writer.model import Writer


def refusals(
    program: Program | Iterable[Operator],
    feeds: Sequence[str] | None = None,
    fetches: Sequence[str] | None = None,
    values: Callable[[str], Any] | Mapping[str, Any] | None = None,
    *,
    opset: int = 17,
) -> list[tuple[Operator, str]]:
    """Operators that :func:`export` would refuse, each with the reason.

    Args:
        program: a Program, or operators of one Block in order.
        feeds: what comes from outside; None: every variable that is read before it is written.
        fetches: only the operators that these need are judged; None: all.
        values: parameters, for the few operators that must know one (None: such are judged as if they were fed).
    """
    if isinstance(program, Program):
        block = program.global_block()
        ops = block.ops if fetches is None else walk.needed_ops(block, fetches, feeds or ())
    else:
        ops = list(program)
        if not ops:
            return []
        block = ops[0].block
    refused: list[tuple[Operator, str]] = []
    writer = Writer(block.program, values, opset, refused)
    for op in ops:
        if op.type in ("feed", "fetch"):
            continue
        for name in walk.reads_of(op) if feeds is None else feeds:
            _given(writer, block, name)
        writer.block([op], writer.graph, writer.env)
    return refused


def _given(writer: Writer, block: Any, name: str) -> None:
    """Let `name` come from outside unless it is known."""
    var = block._find_var_recursive(name)
    if writer.env.find(name) is not None or var is None or (var.persistable and writer.values is not None):
        return
    try:
        writer.feed(name)
    except (NotSupportedError, RefusedError):
        return  # an array or a reader: whatever reads it is refused for want of it
