"""lstm: long short-term memory over ragged sequences, forward and backward without padding."""

from __future__ import annotations

from functools import cache
from types import ModuleType
from typing import NamedTuple

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
    check_state(h0, n, d, "H0")
    check_state(c0, n, d, "C0")
    out = Result(x.new_empty((total, 4 * d)), *(x.new_empty((total, d)) for _ in range(3)))
    if total == 0:
        return out
    k = panel_kernels()
    bs, peep = split_bias(bias, d, peepholes)
    xs, w = array(x), k.panels(array(weight))
    clip = xs.dtype.type(0)
    saved = tuple(t.numpy() for t in out)
    calls = []
    for share in batches(offsets, 4 * d * d):
        room = np.empty((share.size + 1, k.padded(4 * d)), xs.dtype)
        states = share.state(h0, d, x), share.state(c0, d, x)
        calls.append((xs, bs, w, share.starts, share.lengths, reverse, *saved, *states, room, peep, clip, acts))
    run_parts(lstm_kernels().forward, calls)
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
    "lstm", slots="Input#, H0?, C0?, Weight, Bias -> Hidden#, Cell#, BatchGate~, BatchCellPreAct~", infer=_spec, grad_lod="",
    flops=_flops.recurrence,
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
    d = weight.shape[0]
    whole = not drops_state_gradient(hidden, d)
    first = 0 if whole else 3 * d  # the first column of gates that a gradient reaches
    dx = torch.empty_like(gates) if whole else torch.zeros_like(gates)
    _, peep = split_bias(bias, d, use_peepholes)
    acts = codes(gate_activation, cell_activation, candidate_activation)
    k = panel_kernels()
    w = k.panels(array(weight[:, first:].t().contiguous()))
    saved, dhidden_, dx_ = (array(gates), array(cell), array(cell_act)), array(dhidden), dx.numpy()
    dtype = dhidden_.dtype
    shares = batches(offsets, d * (4 * d - first))
    calls = []
    for share in shares:
        dh, dc = np.zeros((share.size + 1, k.padded(d)), dtype), np.zeros((share.size, d), dtype)
        room = np.empty((share.size, k.padded(4 * d - first)), dtype)
        calls.append((
            dhidden_, w, share.starts, share.lengths, is_reverse, *saved, share.state(c0, d, hidden), dh, dc, room, dx_,
            peep, np.zeros_like(peep), dtype.type(0), acts, want[1], whole,
        ))  # fmt: skip
    run_parts(lstm_kernels().backward, calls)
    dbias = None
    if want[4]:
        dbias = torch.zeros_like(bias, memory_format=torch.contiguous_format).view(-1)
        torch.sum(dx[:, first:], 0, out=dbias[first : 4 * d])
        if use_peepholes:
            dbias[4 * d : 7 * d] = torch.from_numpy(sum(c[14] for c in calls))
        dbias = dbias.view(bias.shape)
    dweight = None
    if want[3]:
        dweight = product_of_rows(hidden_before(hidden, h0, offsets, is_reverse), dx[:, first:])
        dweight = torch.nn.functional.pad(dweight, (first, 0)) if first else dweight
    return (
        dx,
        by_sequence([c[9] for c in calls], shares, d, hidden) if want[1] else None,
        by_sequence([c[10] for c in calls], shares, d, hidden) if want[2] else None,
        dweight,
        dbias,
    )
