"""gru: gated recurrent unit over ragged sequences, forward and backward without padding."""

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
def _kernels() -> ModuleType:
    from millstream.kernels import gru as module

    return module


class Result(NamedTuple):
    """What the forward pass leaves, all in the input's row order.

    Attributes:
        gates: activated u, r, c, [rows, 3D].
        reset: r * h_prev, [rows, D].
        hidden: [rows, D].
    """

    gates: torch.Tensor
    reset: torch.Tensor
    hidden: torch.Tensor


def split_weight(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """([D, 2D] for u and r, [D, D] for the candidate) from the flat memory of a [D, 3D] weight."""
    d = weight.shape[0]
    flat = weight.contiguous().view(-1)
    return flat[: 2 * d * d].view(d, 2 * d), flat[2 * d * d :].view(d, d)


def run(
    x: torch.Tensor, offsets: np.ndarray, h0: torch.Tensor | None, weight: torch.Tensor, bias: torch.Tensor | None, *,
    activation: str, gate_activation: str, reverse: bool, origin: bool,
) -> Result:
    """The forward pass over CPU tensors; x: [rows, 3D], the input's projections."""
    d = weight.shape[0]
    total, n = x.shape[0], len(offsets) - 1
    x = x.contiguous()
    out = Result(x.new_empty((total, 3 * d)), x.new_empty((total, d)), x.new_empty((total, d)))
    if total == 0:
        return out
    h = initial(h0, n, d, x, "H0")
    xs, bs = array(x), array(bias).reshape(-1) if bias is not None else np.zeros(3 * d, array(x).dtype)
    gates, reset, hidden = out.gates.numpy(), out.reset.numpy(), out.hidden.numpy()
    act_gate, act = code(gate_activation), code(activation)
    k = _kernels()
    if few(offsets, d):
        flat = array(weight).reshape(-1)
        w_, wc_ = flat[: 2 * d * d].reshape(d, 2 * d), flat[2 * d * d :].reshape(d, d)
        k.sequences(xs, bs, w_, wc_, offsets, reverse, gates, reset, hidden, array(h), act_gate, act, origin)
        return out
    w, wc = split_weight(weight)
    steps = steps_of(offsets, reverse)
    h = h[torch.from_numpy(steps.order)]
    reset_now = torch.zeros_like(h)
    h_, r_ = h.numpy(), reset_now.numpy()
    times_w, times_wc = Factor(w), Factor(wc)
    s = 0
    for m in steps.counts:
        product = times_w(h, m).numpy()
        k.step_gates(product, xs, bs, steps.rows, s, m, gates, reset, r_, h_, act_gate)
        product = times_wc(reset_now, m).numpy()
        k.step_hidden(product, xs, bs, steps.rows, s, m, gates, hidden, h_, act, origin)
        s += m
    return out


def _spec(x, h0, weight, bias, *, activation, gate_activation, is_reverse, origin_mode):
    code(activation), code(gate_activation)
    d = weight.shape[0]
    need(fits(weight.shape, d, 3 * d), "Weight must be [D, 3D]", weight)
    need(fits(x.shape, -1, 3 * d), f"Input must be [rows, 3D] with D = {d}", x)
    need(h0 is None or fits(h0.shape, -1, d), f"H0 must be [sequences, {d}]", h0)
    need(bias is None or fits(bias.shape, 1, 3 * d), f"Bias must be [1, {3 * d}]", bias)
    hidden = x.like(shape=(x.shape[0], d))
    inner = hidden.like(lod_level=0)
    return inner.like(shape=(x.shape[0], 3 * d)), inner, inner, hidden


@op(
    "gru", slots="Input#, H0?, Weight, Bias? -> BatchGate~, BatchResetHiddenPrev~, BatchHidden~, Hidden#", infer=_spec,
)
def gru(
    x, h0, weight, bias, *, activation: str = "tanh", gate_activation: str = "sigmoid", is_reverse: bool = False,
    origin_mode: bool = False,
):
    """Gated recurrent unit (Cho et al. 2014) over each sequence; Input holds the input's projections.

    u, r = gate_activation(x_ur + h_prev W_ur + b_ur); c = activation(x_c + (r * h_prev) W_c + b_c);
    h = (1 - u) h_prev + u c, or u h_prev + (1 - u) c with `origin_mode`.
    Input: [rows, 3D] with LoD, order u, r, c; Weight: [D, 3D], in memory W_ur [D, 2D] then W_c [D, D]; Bias: [1, 3D];
    H0: [sequences, D]; Hidden: [rows, D]. The Batch* outputs keep the input's row order.
    """
    offsets = sequence_offsets(x, "Input")
    found = run(
        x.values, offsets, h0, weight, bias,
        activation=activation, gate_activation=gate_activation, reverse=is_reverse, origin=origin_mode,
    )
    return found.gates, found.reset, found.hidden, Ragged(found.hidden, x.lod)


@op(
    "gru_grad",
    slots="Input#, H0?, Weight, Bias?, BatchGate, BatchResetHiddenPrev, Hidden, Hidden@GRAD"
    " -> Input@GRAD, H0@GRAD, Weight@GRAD, Bias@GRAD",
)
def gru_grad(
    x, h0, weight, bias, gates, reset, hidden, dhidden, *, activation: str = "tanh", gate_activation: str = "sigmoid",
    is_reverse: bool = False, origin_mode: bool = False, want,
):
    offsets = x.lod[-1]
    n, d = len(offsets) - 1, weight.shape[0]
    dx = torch.empty_like(gates)
    w, wc = split_weight(weight)
    steps = steps_of(offsets, is_reverse)
    order = torch.from_numpy(steps.order)
    first = initial(h0, n, d, hidden, "H0")
    dh, dgates = hidden.new_zeros((n, d)), hidden.new_zeros((n, 2 * d))
    dcandidate = hidden.new_zeros((n, d))
    gates_, hidden_, first_, dhidden_ = array(gates), array(hidden), array(first[order]), array(dhidden)
    dh_, dg_, dc_, dx_ = dh.numpy(), dgates.numpy(), dcandidate.numpy(), dx.numpy()
    act_gate, act = code(gate_activation), code(activation)
    times_wt, times_wct = Factor(w.t()), Factor(wc.t())
    k = _kernels()
    s = hidden.shape[0]
    for t in range(len(steps.counts) - 1, -1, -1):
        m = steps.counts[t]
        s -= m
        back = steps.back if t else 0
        k.step_back_hidden(
            dhidden_, steps.rows, s, m, back, gates_, hidden_, first_, dh_, dg_, dc_, act_gate, act, origin_mode
        )
        dreset = times_wct(dcandidate, m).numpy()
        k.step_back_gates(dreset, steps.rows, s, m, back, gates_, hidden_, first_, dh_, dg_, dc_, dx_, act_gate)
        dh[:m] += times_wt(dgates, m)[:m]
    dweight = None
    if want[2]:
        before = hidden_before(hidden, first, offsets, is_reverse)
        flat = torch.empty_like(weight, memory_format=torch.contiguous_format)
        dw, dwc = split_weight(flat)
        dw.copy_(product_of_rows(before, dx[:, : 2 * d]))
        dwc.copy_(product_of_rows(reset, dx[:, 2 * d :]))
        dweight = flat
    return (
        dx,
        unsort(dh, steps.order) if want[1] else None,
        dweight,
        dx.sum(0).reshape(bias.shape) if want[3] and bias is not None else None,
    )
