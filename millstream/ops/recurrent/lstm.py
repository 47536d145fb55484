"""lstm: long short-term memory over ragged sequences, forward and backward without padding."""

from __future__ import annotations

from functools import cache
from types import ModuleType
from typing import NamedTuple

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
    few,
    fits,
    hidden_before,
    initial,
    need,
    sequence_offsets,
    steps_of,
    unsort,
)


@cache
def lstm_kernels() -> ModuleType:
    """The numba steps; imported at first use because numba takes long to load."""
    from millstream.kernels import lstm as module

    return module


class Result(NamedTuple):
    """What the forward pass leaves, all in the input's row order.

    Attributes:
        gates: activated candidate, input, forget and output gates, [rows, 4D].
        cell, cell_act, hidden: the cell, its activation, and o * that; [rows, D].
    """

    gates: torch.Tensor
    cell: torch.Tensor
    cell_act: torch.Tensor
    hidden: torch.Tensor


def split_bias(bias: torch.Tensor, d: int, peepholes: bool) -> tuple[np.ndarray, np.ndarray]:
    """(the 4D gate biases, the 3D peephole weights or an empty array)."""
    flat = array(bias.reshape(-1))
    return flat[: 4 * d], flat[4 * d : 7 * d] if peepholes else flat[:0]


def run(
    x: torch.Tensor, offsets: np.ndarray, h0: torch.Tensor | None, c0: torch.Tensor | None, weight: torch.Tensor,
    bias: torch.Tensor, *, peepholes: bool, reverse: bool, acts: np.ndarray,
) -> Result:
    """The forward pass over CPU tensors.

    Args:
        x: [rows, 4D], the input's projections.
        acts: codes of the gate, cell and candidate activations.
    """
    d = weight.shape[0]
    total, n = x.shape[0], len(offsets) - 1
    x = x.contiguous()
    out = Result(x.new_empty((total, 4 * d)), *(x.new_empty((total, d)) for _ in range(3)))
    if total == 0:
        return out
    weight = weight.contiguous()
    bs, peep = split_bias(bias, d, peepholes)
    h, c = initial(h0, n, d, x, "H0"), initial(c0, n, d, x, "C0")
    xs = array(x)
    clip = xs.dtype.type(0)
    gates, cell, cell_act, hidden = (t.numpy() for t in out)
    k = lstm_kernels()
    if few(offsets, d):
        k.sequences(
            xs, bs, array(weight), offsets, reverse, gates, cell, cell_act, hidden, h.numpy(), c.numpy(), peep, clip, acts
        )
        return out
    steps = steps_of(offsets, reverse)
    order = torch.from_numpy(steps.order)
    h, c = h[order], c[order]
    times_weight = Factor(weight)
    h_, c_ = h.numpy(), c.numpy()
    s = 0
    for m in steps.counts:
        product = times_weight(h, m).numpy()
        k.step(product, xs, bs, steps.rows, s, m, gates, cell, cell_act, hidden, h_, c_, peep, clip, acts)
        s += m
    return out


def _spec(x, h0, c0, weight, bias, *, use_peepholes, is_reverse, gate_activation, cell_activation, candidate_activation):
    code(gate_activation), code(cell_activation), code(candidate_activation)
    d = weight.shape[0]
    need(fits(weight.shape, d, 4 * d), "Weight must be [D, 4D]", weight)
    need(fits(x.shape, -1, 4 * d), f"Input must be [rows, 4D] with D = {d}", x)
    need((h0 is None) == (c0 is None), "H0 and C0 must be given together", h0, c0)
    need(h0 is None or (fits(h0.shape, -1, d) and fits(c0.shape, -1, d)), f"H0 and C0 must be [sequences, {d}]", h0, c0)
    width = 7 * d if use_peepholes else 4 * d
    need(fits(bias.shape, 1, width), f"Bias must be [1, {width}] with use_peepholes={use_peepholes}", bias)
    out = x.like(shape=(x.shape[0], d))
    return out, out, x.like(lod_level=0), out.like(lod_level=0)


@op(
    "lstm", slots="Input#, H0?, C0?, Weight, Bias -> Hidden#, Cell#, BatchGate~, BatchCellPreAct~", infer=_spec,
)
def lstm(
    x, h0, c0, weight, bias, *, use_peepholes: bool = True, is_reverse: bool = False, gate_activation: str = "sigmoid",
    cell_activation: str = "tanh", candidate_activation: str = "tanh",
):
    """Long short-term memory (Hochreiter & Schmidhuber 1997; peepholes: Gers et al. 2002) over each sequence.

    z = Input + h_prev W + b, in the order candidate, input, forget, output; c = i * cand + f * c_prev;
    h = o * cell_activation(c). Peepholes add c_prev * w_i, c_prev * w_f, c * w_o to the gates.
    Input: [rows, 4D] with LoD; Weight: [D, 4D]; Bias: [1, 4D], or [1, 7D] with peephole weights i, f, o behind;
    H0, C0: [sequences, D]; Hidden, Cell: [rows, D]. BatchGate and BatchCellPreAct (activated gates and cell
    activation) keep the input's row order.
    """
    offsets = sequence_offsets(x, "Input")
    acts = codes(gate_activation, cell_activation, candidate_activation)
    found = run(x.values, offsets, h0, c0, weight, bias, peepholes=use_peepholes, reverse=is_reverse, acts=acts)
    return Ragged(found.hidden, x.lod), Ragged(found.cell, x.lod), found.gates, found.cell_act


@op(
    "lstm_grad",
    slots="Input#, H0?, C0?, Weight, Bias, Hidden, Cell, BatchGate, BatchCellPreAct, Hidden@GRAD"
    " -> Input@GRAD, H0@GRAD, C0@GRAD, Weight@GRAD, Bias@GRAD",
)
def lstm_grad(
    x, h0, c0, weight, bias, hidden, cell, gates, cell_act, dhidden, *, use_peepholes: bool = True,
    is_reverse: bool = False, gate_activation: str = "sigmoid", cell_activation: str = "tanh",
    candidate_activation: str = "tanh", want,
):
    """Backpropagation through time; like Fluid it ignores a gradient that reaches Cell."""
    offsets = x.lod[-1]
    n, d = len(offsets) - 1, weight.shape[0]
    acts = codes(gate_activation, cell_activation, candidate_activation)
    steps = steps_of(offsets, is_reverse)
    order = torch.from_numpy(steps.order)
    first = initial(h0, n, d, hidden, "H0")
    c_first = array(initial(c0, n, d, hidden, "C0")[order])
    _, peep = split_bias(bias, d, use_peepholes)
    dpeep = np.zeros_like(peep)
    dx = torch.empty_like(gates)
    dh, dc, dgates = hidden.new_zeros((n, d)), hidden.new_zeros((n, d)), hidden.new_zeros((n, 4 * d))
    gates_, cell_, cell_act_, dhidden_ = array(gates), array(cell), array(cell_act), array(dhidden)
    dh_, dc_, dg_, dx_ = dh.numpy(), dc.numpy(), dgates.numpy(), dx.numpy()
    times_transposed = Factor(weight.t())
    back_step = lstm_kernels().step_back
    s = hidden.shape[0]
    output_gate_only = drops_state_gradient(hidden, d)
    for t in range(len(steps.counts) - 1, -1, -1):
        m = steps.counts[t]
        s -= m
        back_step(
            dhidden_, steps.rows, s, m, steps.back if t else 0, gates_, cell_, cell_act_, c_first, dh_, dc_, dg_, dx_,
            peep, dpeep, gates_.dtype.type(0), acts,
        )
        if output_gate_only:
            dgates[:, : 3 * d] = 0
            dc.zero_()
        if t or want[1]:
            dh[:m] = times_transposed(dgates, m)[:m]
    if output_gate_only:
        dx[:, : 3 * d] = 0
        dpeep[: 2 * d] = 0
    dbias = None
    if want[4]:
        dbias = torch.zeros_like(bias, memory_format=torch.contiguous_format).view(-1)
        torch.sum(dx, 0, out=dbias[: 4 * d])
        dbias[4 * d :] = torch.from_numpy(dpeep)
        dbias = dbias.view(bias.shape)
    return (
        dx,
        unsort(dh, steps.order) if want[1] else None,
        unsort(dc, steps.order) if want[2] else None,
        product_of_rows(hidden_before(hidden, first, offsets, is_reverse), dx) if want[3] else None,
        dbias,
    )
