"""gru: gated recurrent unit over ragged sequences, forward and backward without padding."""

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
    fits,
    hidden_before,
    need,
    panel_kernels,
    sequence_offsets,
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
    total = x.shape[0]
    check_state(h0, len(offsets) - 1, d, "H0")
    out = Result(x.new_empty((total, 3 * d)), x.new_empty((total, d)), x.new_empty((total, d)))
    if total == 0:
        return out
    k = panel_kernels()
    xs = array(x)
    bs = array(bias).reshape(-1) if bias is not None else np.zeros(3 * d, xs.dtype)
    w, wc = (k.panels(array(part)) for part in split_weight(weight))
    saved = tuple(t.numpy() for t in out)
    acts = code(gate_activation), code(activation), origin
    calls = []
    for share in batches(offsets, 3 * d * d):
        rooms = (np.empty((share.size + 1, k.padded(width)), xs.dtype) for width in (2 * d, d))
        calls.append((xs, bs, w, wc, share.starts, share.lengths, reverse, *saved, share.state(h0, d, x), *rooms, *acts))
    run_parts(_kernels().forward, calls)
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
    grad_lod="",
    flops=_flops.recurrence,
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
    d = weight.shape[0]
    dx = torch.empty_like(gates)
    k = panel_kernels()
    w, wc = (k.panels(array(part.t().contiguous())) for part in split_weight(weight))
    given, dx_ = (array(gates), array(hidden)), dx.numpy()
    dhidden_ = array(dhidden)
    acts = code(gate_activation), code(activation), origin_mode
    shares = batches(offsets, 3 * d * d)
    calls = []
    for share in shares:
        dh = np.zeros((share.size + 1, k.padded(d)), dx_.dtype)
        first = share.state(h0, d, hidden)
        calls.append((
            dhidden_, w, wc, share.starts, share.lengths, is_reverse, *given, first, dh, np.empty_like(dh), dx_, *acts
        ))  # fmt: skip
    run_parts(_kernels().backward, calls)
    dweight = None
    if want[2]:
        before = hidden_before(hidden, h0, offsets, is_reverse)
        dweight = torch.empty_like(weight, memory_format=torch.contiguous_format)
        dw, dwc = split_weight(dweight)
        dw.copy_(product_of_rows(before, dx[:, : 2 * d]))
        dwc.copy_(product_of_rows(reset, dx[:, 2 * d :]))
    return (
        dx,
        by_sequence([c[9] for c in calls], shares, d, hidden) if want[1] else None,
        dweight,
        dx.sum(0).reshape(bias.shape) if want[3] and bias is not None else None,
    )
