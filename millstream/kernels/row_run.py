"""Running a row program (row_program.py) over a batch: which rows run when, the array of all values, gradients of constants.

All float32 values of the loop stand in one array (row_machine.py), the rows of a step together, the longest sequences
first, so that the running ones are always the first rows. The batch is cut into parts for threads; each part has rows of its
own. Gradients of constants are one product over the rows of all steps.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from millstream.errors import ShapeError
from millstream.kernels import row_machine, threads
from millstream.kernels.arrays import array
from millstream.kernels.gemm import product_of_rows
from millstream.kernels.panels import lay_out, padded
from millstream.kernels.row_program import NONE, Recipe, RowProgram, stride

_SLACK = 64  # numbers behind the last value: a tile of a product writes whole vectors


@dataclass
class _Part:
    """Sequences that one thread runs, the longest first."""

    counts: np.ndarray  # [spaces, steps]
    first: np.ndarray  # [spaces, steps]: the step's first kept row
    cuts: np.ndarray  # [spaces, sequences + 1]
    at: np.ndarray  # [spaces]: the part's first row of what is not kept


@dataclass
class Schedule:
    """Which rows run when.

    Attributes:
        order: kept row -> row of the step inputs.
        kept: rows of each space over all steps.
        once: rows of each space.
        picked: of each space, row -> row of the static inputs.
        ranks: row of space 0 -> its sequence's place in the order of lengths.
    """

    parts: list[_Part]
    order: torch.Tensor
    kept: np.ndarray
    once: np.ndarray
    picked: list[torch.Tensor]
    ranks: torch.Tensor

    def of_states(self, ranked: bool) -> torch.Tensor:
        """Row of space 0 -> row of initial states."""
        return self.ranks if ranked else self.picked[0]


@dataclass
class Tape:
    """What the forward run leaves for the gradient."""

    program: RowProgram
    schedule: Schedule
    memory: torch.Tensor
    base: np.ndarray


# ---- schedule ------------------------------------------------------------------------------------
def schedule_of(program: RowProgram, lengths: np.ndarray, statics: list[np.ndarray], by_step: bool = False) -> Schedule:
    """`statics`: offsets of the rows that each sequence keeps, of spaces 1 and up; `by_step`: a step's rows lie together."""
    ranked = np.argsort(-lengths, kind="stable")
    ranked = ranked[lengths[ranked] > 0]
    total = int(lengths.sum())
    number = threads.parts(total * program.multiplications, len(ranked)) if len(ranked) else 0
    starts, apart = np.concatenate(([0], np.cumsum(lengths))), 1
    if by_step:
        starts, apart = np.arange(len(lengths) + 1), len(lengths)
    offsets = [np.arange(len(lengths) + 1), *statics]
    parts, order = [], []
    picked: list[list[np.ndarray]] = [[] for _ in offsets]
    kept, once = np.zeros(len(offsets), np.int64), np.zeros(len(offsets), np.int64)
    for k in range(number):
        mine = ranked[k::number]
        steps = np.arange(lengths[mine[0]] if len(mine) else 0)
        running = np.searchsorted(-lengths[mine], -steps, side="left")
        counts, first, cuts = [], [], []
        at = once.copy()
        for s, offset in enumerate(offsets):
            sizes = offset[mine + 1] - offset[mine]
            cut = np.concatenate(([0], np.cumsum(sizes)))
            count = cut[running]
            first.append(kept[s] + np.concatenate(([0], np.cumsum(count)[:-1])) if len(count) else count)
            counts.append(count)
            cuts.append(cut)
            kept[s] += count.sum()
            once[s] += cut[-1]
            picked[s].append(np.repeat(offset[mine] - cut[:-1], sizes) + np.arange(cut[-1]))
        rank = np.repeat(np.arange(len(mine)), lengths[mine])
        step = np.arange(len(rank)) - np.repeat(np.cumsum(lengths[mine]) - lengths[mine], lengths[mine])
        order.append((starts[:-1][mine][rank] + step * apart)[np.lexsort((rank, step))])
        parts.append(_Part(_table(counts), _table(first), _table(cuts), at))
    joined = [torch.from_numpy(np.concatenate(p).astype(np.int64)) for p in picked] if parts else []
    rows = np.concatenate(order) if order else np.zeros(0, np.int64)
    ranks = np.concatenate([np.arange(len(ranked))[k::number] for k in range(number)]) if parts else rows
    return Schedule(parts, torch.from_numpy(rows.astype(np.int64)), kept, once, joined, torch.from_numpy(ranks))


def _table(rows: list[np.ndarray]) -> np.ndarray:
    return np.ascontiguousarray(np.stack(rows).astype(np.int64))


# ---- memory --------------------------------------------------------------------------------------
def allocate(program: RowProgram, schedule: Schedule) -> tuple[torch.Tensor, np.ndarray]:
    """(one array for all values, where each begins)."""
    tables = program.tables
    rows = np.where(tables.per_row > 0, schedule.kept[tables.space], schedule.once[tables.space])
    sizes = np.where(tables.shared, tables.room, tables.room * rows)
    sizes[NONE] = program.zeros
    ends = np.cumsum(sizes)
    base = (ends - sizes)[tables.root] + tables.column
    memory = torch.empty(int(ends[-1]) + _SLACK, dtype=torch.float32)
    memory[: program.zeros] = 0
    return memory, base


def rows_of(tape: Tape, value: int) -> torch.Tensor:
    """A value's rows: [rows of all steps, or of all sequences, width]."""
    program, root = tape.program, tape.program.root(value)
    of, whole = program.values[value], program.values[root]
    rows = (tape.schedule.kept if program.per_step(root) else tape.schedule.once)[of.space]
    wide, at = stride(whole), int(tape.base[root])
    return tape.memory[at : at + int(rows) * wide].view(int(rows), wide)[:, of.column : of.column + of.width]


def fill(tape: Tape, value: int, source: torch.Tensor, rows: torch.Tensor) -> None:
    target = rows_of(tape, value)
    kept = tape.program.values[value].space > 0 and source.numel() == target.numel()  # padded ones have a dim more
    source = source.reshape(target.shape if kept else (source.shape[0], -1)).cpu()
    if target.shape[1] != source.shape[1]:
        raise ShapeError(f"row_loop: expected rows of {target.shape[1]} numbers, received shape {list(source.shape)}")
    if target.is_contiguous():
        torch.index_select(source, 0, rows, out=target)
    else:
        target.copy_(source.index_select(0, rows))


def set_constants(tape: Tape, consts: list[torch.Tensor]) -> None:
    for i, value in enumerate(tape.program.values):
        at = int(tape.base[i])
        if value.kind == "line":
            tape.memory[at : at + value.width] = consts[value.argument].reshape(-1).cpu()
        elif value.kind == "matrix":
            matrix = _formed(consts[value.argument[0]], value.argument[1])
            if matrix.shape != (value.depth, value.width):
                raise ShapeError(f"row_loop: expected [{value.depth}, {value.width}], received {list(matrix.shape)}")
            whole = padded(value.width)
            room = tape.memory[at : at + value.depth * whole].view(value.depth, whole)
            lay_out(array(matrix), room.numpy())


def _formed(const: torch.Tensor, form: str) -> torch.Tensor:
    """A constant as the matrix that a step multiplies by; see :func:`_put_back`."""
    if form.endswith("'"):
        return _formed(const, form[:-1]).t()
    if form in ("gates", "candidate"):  # gru's layout: [D, 2D] before [D, D] in memory
        d, flat = const.shape[0], const.reshape(-1)
        return flat[: 2 * d * d].view(d, 2 * d) if form == "gates" else flat[2 * d * d :].view(d, d)
    return const.t() if form == "transposed" else const.reshape(const.shape[0], -1)


def _put_back(like: torch.Tensor, forms: dict[str, torch.Tensor]) -> torch.Tensor:
    """The gradient of a constant from those of its forms."""
    total = None
    if "gates" in forms or "candidate" in forms:
        d = like.shape[0]
        gates, candidate = (forms.pop(k, None) for k in ("gates", "candidate"))
        gates = like.new_zeros((d, 2 * d)) if gates is None else gates
        candidate = like.new_zeros((d, d)) if candidate is None else candidate
        total = torch.cat((gates.reshape(-1), candidate.reshape(-1))).reshape(like.shape)
    for form, grad in forms.items():
        part = (grad.t() if form == "transposed" else grad).reshape(like.shape)
        total = part if total is None else total + part
    return torch.zeros_like(like) if total is None else total


def run(tape: Tape, instructions: tuple[np.ndarray, np.ndarray], backwards: bool) -> None:
    code, numbers = instructions
    of = tape.program.tables
    moves = ~of.shared & (of.per_row == 0)  # every part has such rows of its own
    memory = tape.memory.numpy()
    calls = []
    for part in tape.schedule.parts:
        base = tape.base + np.where(moves, part.at[of.space] * of.stride, 0)
        about = (base, of.per_row, of.stride, of.width, of.space, of.view)
        calls.append((memory, code, numbers, *about, part.first, part.counts, part.cuts, backwards))
    threads.run_parts(row_machine.run, calls)


# ---- gradients -----------------------------------------------------------------------------------
def give_back(target: torch.Tensor, tape: Tape, value: int, rows: torch.Tensor) -> None:
    found = rows_of(tape, value)
    target.view(-1, found.shape[1]).index_copy_(0, rows.to(target.device), found.to(target.device))


def of_constants(tape: Tape, consts: list[torch.Tensor]) -> list[torch.Tensor]:
    forms: list[dict[str, torch.Tensor]] = [{} for _ in consts]
    for recipe in tape.program.recipes:
        found, have = _share(tape, recipe), forms[recipe.constant]
        found = found.to(consts[recipe.constant].device)
        have[recipe.form] = found if recipe.form not in have else have[recipe.form] + found
    return [_put_back(const, mine) for const, mine in zip(consts, forms)]


def _share(tape: Tape, recipe: Recipe) -> torch.Tensor:
    right = rows_of(tape, recipe.right)
    if recipe.kind == "sum":
        return right.sum(0)
    if recipe.kind == "minus":
        return -right.sum(0)
    left = rows_of(tape, recipe.left)
    return (left * right).sum(0) if recipe.kind == "dot" else product_of_rows(left, right)
