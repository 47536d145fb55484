"""projected_bigru, embedded_bigru over stored weights: these also as 16-bit integers, which take half the time to read."""

from __future__ import annotations

from functools import cache
from types import ModuleType

import numpy as np
import torch

from millstream.ir import walk
from millstream.ir.block import Block
from millstream.ir.operator import Operator
from millstream.passes._pass import program_pass
from millstream.passes._uses import Uses
from millstream.passes._work import Work

# What the largest weight times sqrt(depth) may be. A sum over `depth` products is off by 1.2e-5 of it at most (measured; the
# root of the mean square is 6e-6), a state by about as much. Results that are numbers keep within 1e-4 so; where all are
# decisions (tags), only those may change whose scores stand within 1e-4 of each other.
_NUMBERS, _DECISIONS = 2.0, 50.0
_GAIN = 2.5  # the same for the root of the mean square (LAC's: 1.7): steps would multiply errors otherwise
_DECIDE = ("crf_decoding", "arg_max")


@cache
def _digits() -> ModuleType:
    """Imported at first use: it loads numba."""
    from millstream.kernels import digits

    return digits


@program_pass("pack_bigru")
def pack_bigru(work: Work) -> int:
    """Counts operators."""
    changes = 0
    for block in work.blocks:
        for at, op in enumerate(block.ops):
            if op.type not in ("projected_bigru", "embedded_bigru") or op.input("DigitsH"):
                continue
            why = _why_not(work, op, _DECISIONS if _only_decides(work, block, at) else _NUMBERS)
            if why is not None:
                work.refuse("pack_bigru", op, why)
                continue
            _pack(work, op, _is_bounded(work.uses(block), block, at))
            changes += 1
    return changes


def _weights(work: Work, op: Operator) -> list[torch.Tensor | None]:
    slots = ("WeightH", "WeightH2", "WeightX", "WeightX2")
    return [work.value(name) for slot in slots if slot in op.input_names for name in op.input(slot)]


def _only_decides(work: Work, block: Block, at: int) -> bool:
    """Whether all results that the operator at `at` leads to are decisions between tags."""
    if block is not work.block:
        return False
    reached = set(block.ops[at].output_arg_names)
    for op in block.ops[at + 1 :]:
        if op.type not in _DECIDE and not reached.isdisjoint(walk.reads_of(op)):
            reached.update(walk.writes_of(op))
    return reached.isdisjoint(work.keep)


def _why_not(work: Work, op: Operator, largest: float) -> str | None:
    if not _digits().available():
        return "the processor has no products of bytes (AVX-512 VNNI)"
    if op.attr("activation") != "tanh" or op.attr("gate_activation") != "sigmoid":
        return "its states may lie outside of [-1, 1]"
    for w in _weights(work, op):
        if w is None or w.dtype is not torch.float32 or not w.is_cpu:
            return "the weights are not known, or not float32"
        if w.shape[1] % (3 * _digits().COLUMNS):
            return f"its states are no multiple of {_digits().COLUMNS} wide"
        gain = float(w.square().mean()) ** 0.5 * w.shape[0] ** 0.5
        if not gain <= _GAIN:
            return f"errors would grow from step to step (weights of {gain:.3g} for each state, not {_GAIN})"
        size = float(w.abs().max()) * w.shape[0] ** 0.5
        if not size <= largest:  # nor where it is NaN
            return f"weights are too large for 16 bits (the largest times the depth's root is {size:.3g}, not {largest})"
    return None


def fits_scores(work: Work, name: str) -> bool:
    """Whether the weight [depth, tags] that makes scores of states may be integers too, as those of layers may."""
    w = work.value(name)
    return w is not None and w.shape[0] % 4 == 0 and float(w.abs().max()) * w.shape[0] ** 0.5 <= _DECISIONS


def digits_of(w: np.ndarray) -> np.ndarray:
    """A weight as kernels/digits.py has it."""
    made: np.ndarray = _digits().digits_of(w)
    return made


def _is_bounded(uses: Uses, block: Block, at: int) -> bool:
    """Whether the rows that are projected are states of another such layer, within [-1, 1]."""
    op = block.ops[at]
    if op.type != "projected_bigru":
        return False
    made = uses.producer(op.input("X")[0], at)
    below = None if made is None else block.ops[made]
    if below is None or below.type not in ("projected_bigru", "embedded_bigru"):
        return False
    settings = (below.attr("activation"), below.attr("gate_activation"))
    return settings == ("tanh", "sigmoid")


def _pack(work: Work, op: Operator, bounded: bool) -> None:
    for mark in ("", "2"):
        name = op.input("WeightH" + mark)[0]
        w = work.value(name)
        assert w is not None  # _why_not looked
        d = w.shape[0]
        gates, candidate = w.reshape(-1)[: 2 * d * d].reshape(d, 2 * d), w.reshape(-1)[2 * d * d :].reshape(d, d)
        both = torch.cat([torch.from_numpy(digits_of(part.numpy())) for part in (gates, candidate)])
        op.set_input("DigitsH" + mark, [work.store(name, both)])
        if bounded:
            name = op.input("WeightX" + mark)[0]
            w = work.value(name)
            assert w is not None
            op.set_input("DigitsX" + mark, [work.store(name, torch.from_numpy(digits_of(w.contiguous().numpy())))])
