"""lstmp: LSTM with a recurrent projection layer."""

from __future__ import annotations

import numpy as np
import torch

from millstream.kernels.arrays import array
from millstream.kernels.gemm import Factor, product_of_rows
from millstream.ops._opdef import op
from millstream.ops._values import Ragged
from millstream.ops.recurrent._steps import (
    code,
    codes,
    drops_state_gradient,
    fits,
    hidden_before,
    initial,
    need,
    sequence_offsets,
    steps_of,
    unsort,
)
from millstream.ops.recurrent.lstm import lstm_kernels, split_bias


def _activate(x: torch.Tensor, name: str) -> torch.Tensor:
    if name == "identity":
        return x
    return {"sigmoid": torch.sigmoid_, "tanh": torch.tanh_, "relu": torch.relu_}[name](x)


def _through(d: torch.Tensor, y: torch.Tensor, name: str) -> torch.Tensor:
    if name == "sigmoid":
        return d * (y * (1 - y))
    if name == "tanh":
        return d * (1 - y * y)
    return d * (y > 0) if name == "relu" else d


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
    infer=_spec,
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
    values, n, (d, p) = x.values.contiguous(), len(offsets) - 1, proj.shape
    total = values.shape[0]
    gates = torch.empty_like(values)
    cell, cell_act, hidden = (values.new_empty((total, d)) for _ in range(3))
    projection = values.new_empty((total, p))
    result = Ragged(projection, x.lod), Ragged(cell, x.lod), gates, cell_act, hidden
    if total == 0:
        return result
    steps = steps_of(offsets, is_reverse)
    order = torch.from_numpy(steps.order)
    r_now, c_now = initial(h0, n, p, values, "H0")[order], initial(c0, n, d, values, "C0")[order]
    times_weight, times_proj, h_now = Factor(weight), Factor(proj), values.new_zeros((n, d))
    bs, peep = split_bias(bias, d, use_peepholes)
    xs = array(values)
    clip = xs.dtype.type(cell_clip)
    acts = codes(gate_activation, cell_activation, candidate_activation)
    h_, c_ = h_now.numpy(), c_now.numpy()
    saved = gates.numpy(), cell.numpy(), cell_act.numpy(), hidden.numpy()
    rows = torch.from_numpy(steps.rows)
    step = lstm_kernels().step
    act = "identity" if proj_activation == "identity" else cell_activation
    s = 0
    for m in steps.counts:
        product = times_weight(r_now, m).numpy()
        step(product, xs, bs, steps.rows, s, m, *saved, h_, c_, peep, clip, acts)
        r = _activate(times_proj(h_now, m)[:m], act)
        if proj_clip > 0:
            r.clamp_(-proj_clip, proj_clip)
        r_now[:m] = r
        projection[rows[s : s + m]] = r
        s += m
    return result


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
    """Backpropagation through time; clipped values get no gradient, and like Fluid it ignores Cell's gradient."""
    offsets = x.lod[-1]
    n, (d, p) = len(offsets) - 1, proj.shape
    steps = steps_of(offsets, is_reverse)
    order, rows = torch.from_numpy(steps.order), torch.from_numpy(steps.rows)
    c_first = array(initial(c0, n, d, hidden, "C0")[order])
    _, peep = split_bias(bias, d, use_peepholes)
    dpeep = np.zeros_like(peep)
    dx, none = torch.empty_like(gates), hidden.new_zeros(hidden.shape)
    dr, dh, dc = hidden.new_zeros((n, p)), hidden.new_zeros((n, d)), hidden.new_zeros((n, d))
    dgates, dlinear = hidden.new_zeros((n, 4 * d)), projection.new_empty(projection.shape)
    saved = array(gates), array(cell), array(cell_act)
    clip = saved[0].dtype.type(cell_clip)
    state = dh.numpy(), dc.numpy(), dgates.numpy(), dx.numpy()
    acts = codes(gate_activation, cell_activation, candidate_activation)
    act = "identity" if proj_activation == "identity" else cell_activation
    times_transposed = Factor(weight.t())
    back_step, none_ = lstm_kernels().step_back, none.numpy()
    s = hidden.shape[0]
    output_gate_only = drops_state_gradient(hidden, d)
    for t in range(len(steps.counts) - 1, -1, -1):
        m = steps.counts[t]
        s -= m
        here = rows[s : s + m]
        linear = _through(dprojection[here] + dr[:m], projection[here], act)
        if proj_clip > 0:
            linear = linear * (projection[here].abs() < proj_clip)
        dlinear[here] = linear
        torch.mm(linear, proj.t(), out=dh[:m])
        back_step(none_, steps.rows, s, m, steps.back if t else 0, *saved, c_first, *state, peep, dpeep, clip, acts)
        if output_gate_only:
            dgates[:, : 3 * d] = 0
            dc.zero_()
        dr[:m] = times_transposed(dgates, m)[:m]
    if output_gate_only:
        dx[:, : 3 * d] = 0
        dpeep[: 2 * d] = 0
    dbias = None
    if want[5]:
        flat = torch.cat([dx.sum(0), torch.from_numpy(dpeep)])
        dbias = torch.zeros_like(bias, memory_format=torch.contiguous_format).view(-1)
        dbias[: len(flat)] = flat
        dbias = dbias.view(bias.shape)
    before = hidden_before(projection, initial(h0, n, p, projection, "H0"), offsets, is_reverse) if want[3] else None
    return (
        dx,
        unsort(dr, steps.order) if want[1] else None,
        unsort(dc, steps.order) if want[2] else None,
        product_of_rows(before, dx) if before is not None else None,
        product_of_rows(hidden, dlinear) if want[4] else None,
        dbias,
    )
