"""row_loop: a recurrent loop of row operations (passes/loops makes it of DynamicRNN and StaticRNN), and its gradient."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from millstream.errors import InvalidProgramError, ShapeError
from millstream.ops import _flops
from millstream.ops._opdef import op
from millstream.ops._values import Ragged, Spec


def _spec(steps, statics, inits, consts, shape, *, code, widths, train):
    return [Spec((-1, w), steps[0].dtype, 1) for w in widths], Spec((), steps[0].dtype)


def _lengths(steps: list[Ragged], shape: torch.Tensor | None) -> np.ndarray:
    """The length of each sequence of the step inputs."""
    if shape is not None:
        return np.full(shape.shape[1], shape.shape[0])
    lod = steps[0].lod
    if len(lod) != 1:
        raise InvalidProgramError(f"a DynamicRNN's step input must have one LoD level, received {len(lod)}")
    for other in steps[1:]:  # factors of a dropout have rows only
        same = other.values.shape[0] == lod[0][-1] and (not other.lod or np.array_equal(other.lod[0], lod[0]))
        if not same or len(other.lod) > 1:
            raise InvalidProgramError("step inputs of a DynamicRNN must have the same sequences")
    return np.diff(lod[0])


def _for_batch(statics: list[Ragged], program: Any, shape: torch.Tensor | None) -> list[Ragged]:
    """Static inputs; padded ones of a batch of one are there for every sequence, as in operator by operator."""
    found = list(statics or ())
    if shape is None:
        return found
    for _, value in program.of_kind("static"):
        values, lod = found[value.argument]
        if value.space and values.shape[0] == 1:
            found[value.argument] = Ragged(values.expand(shape.shape[1], *values.shape[1:]), lod)
    return found


def _padded_cuts(values: torch.Tensor, batch: int, value: Any, cuts: list[np.ndarray]) -> np.ndarray:
    """Offsets of a padded static input, [batch, rows, width]: every sequence keeps as many rows."""
    rows = values.numel() // max(1, batch * value.width)
    made, known = np.arange(batch + 1) * rows, cuts[value.space - 1]
    fits = values.shape[0] == batch and rows * batch * value.width == values.numel()
    if not fits or (known[-1] and not np.array_equal(known, made)):
        raise ShapeError(
            f"a StaticRNN over {batch} sequences attends to padded rows of {value.width} numbers"
            + (f", {int(known[-1]) // batch} a sequence" if known[-1] else "")
            + f"; received shape {list(values.shape)}; the first dim must be {batch}, or 1 for all"
        )
    return made


@op("row_loop", slots="Steps*#, Statics*#?, Inits*?, Consts*?, Shape? -> Outs*#, Tape~", infer=_spec, nodiff="Shape",
    flops=_flops.row_program)  # fmt: skip
def row_loop(steps, statics, inits, consts, shape, *, code: str, widths: list[int] = [], train: bool = False):
    """Run the program `code` (kernels/row_program.py) over the sequences of Steps.

    Steps: float32 [rows, width], one LoD level, the same for all. Statics: rows that each sequence keeps, with a LoD
    level, or one row a sequence. Inits: [sequences, width]. Outs: as Steps, of `widths`. Shape: a tensor [steps, batch, …]
    where Steps have no LoD: the rows of a step stand together.
    """
    from millstream.kernels import row_program, row_run

    program, device = row_program.compiled(code, train), steps[0].values.device
    lod = () if shape is not None else steps[0].lod
    lengths, statics = _lengths(steps, shape), _for_batch(statics, program, shape)
    cuts = [np.zeros(len(lengths) + 1, np.int64)] * (program.spaces - 1)
    for _, value in program.of_kind("static"):
        given = statics[value.argument].lod
        if value.space and shape is not None:
            cuts[value.space - 1] = _padded_cuts(statics[value.argument].values, len(lengths), value, cuts)
            continue
        if not value.space and (given or statics[value.argument].values.shape[0] != len(lengths)):
            raise InvalidProgramError(
                f"a DynamicRNN's static input that is declared without LoD must have one row for each of {len(lengths)} "
                f"sequences; it has {statics[value.argument].values.shape[0]} and LoD {given}; declare its lod_level"
            )
        if value.space:
            if len(given) != 1 or len(given[0]) != len(lengths) + 1:
                raise InvalidProgramError(
                    f"a DynamicRNN's static input must have {len(lengths)} sequences at one LoD level; its LoD is {given}"
                )
            cuts[value.space - 1] = np.asarray(given[0])
    schedule = row_run.schedule_of(program, lengths, cuts, shape is not None)
    tape = row_run.Tape(program, schedule, *row_run.allocate(program, schedule))
    outs = [torch.empty((int(lengths.sum()), w), dtype=torch.float32) for w in widths]
    if schedule.parts:
        row_run.set_constants(tape, consts)
        for i, value in program.of_kind("step"):
            row_run.fill(tape, i, steps[value.argument].values, schedule.order)
        for i, value in program.of_kind("static"):
            row_run.fill(tape, i, statics[value.argument].values, schedule.picked[value.space])
        for i, value in program.of_kind("init"):
            which, ranked = value.argument
            row_run.fill(tape, i, inits[which], schedule.of_states(ranked))
        row_run.run(tape, program.forward_code, False)
        for out, made in zip(outs, program.outputs):
            out.index_copy_(0, schedule.order, row_run.rows_of(tape, made))
    return [Ragged(out.to(device), lod) for out in outs], tape if train else None


@op(
    "row_loop_grad",
    slots="Steps*#, Statics*#?, Inits*?, Consts*?, Shape?, Tape, Outs@GRAD*? "
    "-> Steps@GRAD*, Statics@GRAD*, Inits@GRAD*, Consts@GRAD*",
)
def row_loop_grad(
    steps, statics, inits, consts, shape, tape, douts, *, code: str, widths: list[int] = [], train: bool = False
):
    from millstream.kernels import row_run

    program, schedule = tape.program, tape.schedule
    dsteps = [torch.zeros_like(x.values) for x in steps]
    kept = _for_batch(statics, program, shape)
    dstatics = [torch.zeros_like(x.values, memory_format=torch.contiguous_format) for x in kept]
    dinits = [torch.zeros_like(x) for x in inits or ()]
    if not schedule.parts:
        dstatics = [torch.zeros_like(x.values) for x in statics or ()]
        return dsteps, dstatics, dinits, [torch.zeros_like(c) for c in consts or ()]
    for made, dout in zip(program.outputs, douts):
        if dout is None:
            row_run.rows_of(tape, program.gradients[made]).zero_()
        else:
            row_run.fill(tape, program.gradients[made], dout, schedule.order)
    for i, _value in program.of_kind("static"):
        if i in program.gradients:
            row_run.rows_of(tape, program.gradients[i]).zero_()
    row_run.run(tape, program.backward_code, True)
    for i, value in program.of_kind("step"):
        if i in program.gradients:
            row_run.give_back(dsteps[value.argument], tape, program.gradients[i], schedule.order)
    for i, value in program.of_kind("static"):
        if i in program.gradients:
            row_run.give_back(dstatics[value.argument], tape, program.gradients[i], schedule.picked[value.space])
    for memory, _becomes, init in program.memories:
        if isinstance(init, int) and memory in program.gradients:
            which, ranked = program.values[init].argument
            row_run.give_back(dinits[which], tape, program.gradients[memory], schedule.of_states(ranked))
    for k, x in enumerate(statics or ()):
        if len(x.values) != len(dstatics[k]):  # one that was there for every sequence
            dstatics[k] = dstatics[k].sum(0, keepdim=True)
    return dsteps, dstatics, dinits, row_run.of_constants(tape, consts or [])


def _steps_spec(x, like):
    return x.like(shape=(*like.shape[:2], *x.shape[1:]), lod_level=0)


@op("rows_to_steps", slots="X, Like -> Out", infer=_steps_spec, nodiff="Like")
def rows_to_steps(x, like):
    """Rows [steps * batch, …] as [steps, batch, …], the first dimensions of Like."""
    return x.reshape(*like.shape[:2], *x.shape[1:])
