"""How often the operators of a Program occur."""

from __future__ import annotations

from collections import Counter

from millstream.ir.program import Program

__all__ = ["op_freq_statistic"]


def op_freq_statistic(program: Program) -> tuple[list[tuple[str, int]], list[tuple[str, int]]]:
    """Operators, and pairs ``producer->consumer``, of the global Block with their counts, the most frequent first.

    Raises:
        TypeError: not a Program.
    """
    if not isinstance(program, Program):
        raise TypeError(f"op_freq_statistic: 'program' must be a Program, received {type(program).__name__}")
    single: Counter[str] = Counter()
    pairs: Counter[str] = Counter()
    producer: dict[str, str] = {}
    for op in program.global_block().ops:
        single[op.type] += 1
        for name in op.input_arg_names:
            if name in producer:
                pairs[f"{producer[name]}->{op.type}"] += 1
        for name in op.output_arg_names:
            producer[name] = op.type
    return single.most_common(), pairs.most_common()
