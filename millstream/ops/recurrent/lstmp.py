"""lstmp: LSTM with a recurrent projection layer."""

from __future__ import annotations

from functools import cache
from types import ModuleType

import numpy as np
import torch

from millstream.kernels.arrays import array
from millstream.kernels.gemm import product_of_rows
from millstream.kernels.threads import run_parts
from millstream.ops import _flops
from millstream.ops._opdef import op
from millstream.ops._values import Ragged
from millstream.ops.recurrent._steps import (
    batches,
    by_sequence,
    check_state,
    code,
    codes,
    drops_state_gradient,
    fits,
    hidden_before,
    need,
    panel_kernels,
    sequence_offsets,
)
from millstream.ops.recurrent.lstm import split_bias


@cache
def _kernels() -> ModuleType:
    from millstream.kernels import lstmp as module

    return module


def _spec(
    x, h0, c0, weight, proj, bias, *, use_peepholes, is_reverse, cell_clip, proj_clip, gate_activation, cell_activation,
    candidate_activation, proj_activation,
):
    codes(gate_activation, cell_activation, candidate_activation), code(proj_activation)
    need(len(proj.shape) == 2, "ProjWeight must be [D, P]", proj)
    d, p = proj.shape
    need(fits(weight.shape, p, 4 * d), f"Weight must be [P, 4D] = [{p}, {4 * d}]", weight)
    need(fits(x.shape, -1, 4 * d), f"Input must be [rows, 4D] with D = {d}", x)
    need((h0 is None) == (c0 is None), "H0 and C0 must be given together", h0, c0)
    need(h0 is None or fits(h0.shape, -1, p), f"H0 must be [sequences, {p}]", h0)
    need(c0 is None or fits(c0.shape, -1, d), f"C0 must be [sequences, {d}]", c0)
    width = 7 * d if use_peepholes else 4 * d
    need(fits(bias.shape, 1, width), f"Bias must be [1, {width}] with use_peepholes={use_peepholes}", bias)
    cell = x.like(shape=(x.shape[0], d))
    inner = cell.like(lod_level=0)
    return x.like(shape=(x.shape[0], p)), cell, x.like(lod_level=0), inner, inner


@op(
    "lstmp",
    slots="Input#, H0?, C0?, Weight, ProjWeight, Bias -> Projection#, Cell#, BatchGate~, BatchCellPreAct~, BatchHidden~",
    infer=_spec, grad_lod="",
    flops=_flops.projected_recurrence,
)
def lstmp(
    x, h0, c0, weight, proj, bias, *, use_peepholes: bool = True, is_reverse: bool = False, cell_clip: float = 0.0,
    proj_clip: float = 0.0, gate_activation: str = "sigmoid", cell_activation: str = "tanh",
    candidate_activation: str = "tanh", proj_activation: str = "tanh",
):
    """LSTM whose recurrent state is a projection r = act(h ProjWeight) of its output (Sak et al. 2014).

    As lstm, with r_prev for h_prev; cells are clipped to +-cell_clip and projections to +-proj_clip where these are
    positive. Like Fluid, any `proj_activation` other than identity applies `cell_activation`.
    Input: [rows, 4D] with LoD; Weight: [P, 4D]; ProjWeight: [D, P]; Bias: [1, 4D] or [1, 7D]; H0: [sequences, P];
    C0: [sequences, D]; Projection: [rows, P]; Cell: [rows, D]. The Batch* outputs keep the input's row order.
    """
    offsets = sequence_offsets(x, "Input")
    values, n, (d, p) = x.values, len(offsets) - 1, proj.shape
    check_state(h0, n, p, "H0")
    check_state(c0, n, d, "C0")
    total = values.shape[0]
    gates = values.new_empty((total, 4 * d))
    cell, cell_act, hidden = (values.new_empty((total, d)) for _ in range(3))
    projection = values.new_empty((total, p))
    result = Ragged(projection, x.lod), Ragged(cell, x.lod), gates, cell_act, hidden
    if total == 0:
        return result
    k = panel_kernels()
    xs = array(values)
    bs, peep = split_bias(bias, d, use_peepholes)
    clips = xs.dtype.type(cell_clip), xs.dtype.type(proj_clip)
    acts = _codes(gate_activation, cell_activation, candidate_activation, proj_activation)
    matrices = k.panels(array(weight)), k.panels(array(proj))
    saved = tuple(t.numpy() for t in (gates, cell, cell_act, hidden, projection))
    calls = []
    for share in batches(offsets, 5 * d * p):
        states = share.state(h0, p, values), share.state(c0, d, values)
        rooms = (np.empty((share.size + 1, k.padded(width)), xs.dtype) for width in (4 * d, p))
        calls.append((
            xs, bs, *matrices, share.starts, share.lengths, is_reverse, *saved, *states, *rooms, peep, *clips, acts
        ))  # fmt: skip
    run_parts(_kernels().forward, calls)
    return result


def _codes(gate: str, cell: str, candidate: str, proj: str) -> np.ndarray:
    return codes(gate, cell, candidate, "identity" if proj == "identity" else cell)


@op(
    "lstmp_grad",
    slots="Input#, H0?, C0?, Weight, ProjWeight, Bias, Projection, Cell, BatchGate, BatchCellPreAct, BatchHidden,"
    " Projection@GRAD -> Input@GRAD, H0@GRAD, C0@GRAD, Weight@GRAD, ProjWeight@GRAD, Bias@GRAD",
)
def lstmp_grad(
    x, h0, c0, weight, proj, bias, projection, cell, gates, cell_act, hidden, dprojection, *, use_peepholes: bool = True,
    is_reverse: bool = False, cell_clip: float = 0.0, proj_clip: float = 0.0, gate_activation: str = "sigmoid",
    cell_activation: str = "tanh", candidate_activation: str = "tanh", proj_activation: str = "tanh", want,
):
    """Backpropagation through time; clipped values get no gradient, and like Fluid it ignores Cell's gradient.

    Fluid's vectorised kernels (see drops_state_gradient) compare the first of 8 cells with cell_clip and drop the gradient
    of all: of none where it lies inside, and, as they don't ask whether there is a limit, of every one without.
    """
    offsets = x.lod[-1]
    d, p = proj.shape
    as_vectors = drops_state_gradient(hidden, d)
    whole = cell_clip > 0 or not as_vectors
    start = 0 if whole else 3 * d  # the first column of gates that a gradient reaches
    dx = torch.empty_like(gates) if whole else torch.zeros_like(gates)
    dlinear = torch.empty_like(projection, memory_format=torch.contiguous_format)
    _, peep = split_bias(bias, d, use_peepholes)
    k = panel_kernels()
    matrices = k.panels(array(weight[:, start:].t().contiguous())), k.panels(array(proj.t().contiguous()))
    given = array(gates), array(cell), array(cell_act), array(projection)
    dprojection_, dlinear_, dx_ = array(dprojection), dlinear.numpy(), dx.numpy()
    dtype = dx_.dtype
    settings = dtype.type(cell_clip), 8 if as_vectors else 1, dtype.type(proj_clip)
    acts = _codes(gate_activation, cell_activation, candidate_activation, proj_activation)
    shares = batches(offsets, d * p + (4 * d - start) * p)
    calls = []
    for share in shares:
        dr, dh = (np.zeros((share.size + 1, k.padded(width)), dtype) for width in (p, d))
        dc, room = np.zeros((share.size, d), dtype), np.empty((share.size, k.padded(4 * d - start)), dtype)
        calls.append((
            dprojection_, *matrices, share.starts, share.lengths, is_reverse, *given, share.state(c0, d, hidden), dr, dc, dh,
            room, dlinear_, dx_, peep, np.zeros_like(peep), *settings, acts, whole,
        ))  # fmt: skip
    run_parts(_kernels().backward, calls)
    dbias = None
    if want[5]:
        dbias = torch.zeros_like(bias, memory_format=torch.contiguous_format).view(-1)
        torch.sum(dx[:, start:], 0, out=dbias[start : 4 * d])
        if use_peepholes:
            dbias[4 * d : 7 * d] = torch.from_numpy(sum(c[18] for c in calls))
        dbias = dbias.view(bias.shape)
    dweight = None
    if want[3]:
        dweight = product_of_rows(hidden_before(projection, h0, offsets, is_reverse), dx[:, start:])
        dweight = torch.nn.functional.pad(dweight, (start, 0)) if start else dweight
    return (
        dx,
        by_sequence([c[11] for c in calls], shares, p, hidden) if want[1] else None,
        by_sequence([c[12] for c in calls], shares, d, hidden) if want[2] else None,
        dweight,
        product_of_rows(hidden, dlinear) if want[4] else None,
        dbias,
    )
