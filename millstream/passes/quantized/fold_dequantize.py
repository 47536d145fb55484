"""Weights kept as integers -> floats, for kernels that compute in floats."""

from __future__ import annotations

import torch

from millstream.passes._evaluate import evaluate, renamed
from millstream.passes._pass import program_pass
from millstream.passes._work import Work


@program_pass("fold_dequantize")
def fold_dequantize(work: Work) -> int:
    """Counts dequantize_linear operators whose inputs are all parameters; their results become parameters."""
    changes = 0
    for block in work.blocks:
        uses = work.uses(block)
        folded: dict[str, str] = {}
        kept = []
        for op in block.ops:
            values = None
            if op.type == "dequantize_linear" and all(work.value(n) is not None for n in op.input_arg_names):
                name = op.output("Y")[0]
                plain = not uses.seen_outside(name) and len(uses.writers[name]) == 1
                if plain and not any(uses.ops[r].sub_blocks() for r in uses.readers[name]):
                    values = evaluate(op, work.value)
            if isinstance(values, dict) and isinstance(values[name], torch.Tensor):
                folded[name] = work.store(name, values[name])
            else:
                kept.append(op)
        if folded:
            block.ops = [renamed(op, folded) if any(n in folded for n in op.input_arg_names) else op for op in kept]
            changes += len(folded)
            work.program._touch()
    return changes
