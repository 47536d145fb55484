"""gru_unit, lstm_unit: one step of a recurrent network over a plain batch."""

from __future__ import annotations

from functools import cache
from types import ModuleType

import torch

from millstream.errors import AttributeTypeError, ShapeError
from millstream.kernels.gemm import NARROW, zeros_at
from millstream.kernels.threads import parts
from millstream.ops import _flops
from millstream.ops._opdef import op
from millstream.ops.recurrent._steps import fits, need
from millstream.ops.recurrent.gru import split_weight


def _act(x: torch.Tensor, kind: int) -> torch.Tensor:
    if kind == 1:
        return torch.sigmoid(x)
    if kind == 2:
        return torch.tanh(x)
    return torch.relu(x) if kind == 3 else x


def _slope(d: torch.Tensor, y: torch.Tensor, kind: int) -> torch.Tensor:
    if kind == 1:
        return torch.ops.aten.sigmoid_backward(d, y)
    if kind == 2:
        return torch.ops.aten.tanh_backward(d, y)
    return d * (y > 0) if kind == 3 else d


@cache
def _kernels() -> ModuleType:
    from millstream.kernels import gru_unit as module

    return module


def _by_kernel(x: torch.Tensor, h: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> bool:
    """Whether the kernels of one step take these, which one thread should compute."""
    d, given = weight.shape[0], (x, h, weight) if bias is None else (x, h, weight, bias)
    return (
        d >= NARROW
        and x.dim() == h.dim() == weight.dim() == 2
        and all(type(t) is torch.Tensor and t.dtype is torch.float32 and t.is_cpu for t in given)
        and x.shape[1] == weight.shape[1] == 3 * d
        and h.shape[1] == d
        and 0 < h.shape[0] == x.shape[0]
        and (bias is None or bias.numel() == 3 * d)
        and parts(3 * d * d * x.shape[0], x.shape[0]) == 1
    )


def _gru_spec(x, h, weight, bias, *, activation, gate_activation, origin_mode):
    for name, kind in (("activation", activation), ("gate_activation", gate_activation)):
        if kind not in (0, 1, 2, 3):
            raise AttributeTypeError(f"{name} must be 0 identity, 1 sigmoid, 2 tanh or 3 relu, received {kind}")
    need(len(h.shape) == 2, "HiddenPrev must be [batch, D]", h)
    d = weight.shape[0]
    need(fits(weight.shape, d, 3 * d), "Weight must be [D, 3D]", weight)
    need(fits(h.shape, -1, d), f"HiddenPrev must be [batch, {d}]", h)
    need(fits(x.shape, -1, 3 * d), f"Input must be [batch, {3 * d}]", x)
    need(bias is None or fits(bias.shape, 1, 3 * d), f"Bias must be [1, {3 * d}]", bias)
    hidden = x.like(shape=(x.shape[0], d))
    return x, hidden, hidden


def _traced(x, h, weight, bias, *, activation: int = 2, gate_activation: int = 1, origin_mode: bool = False):
    """gru_unit by torch's calls where the kernels do not take it: 40 of them from Python were slower.

    Gates and reset state are leaves of their own: the declared gradient reads Hidden's only.
    """
    if _by_kernel(x, h, weight, bias):
        return None
    gate, reset, hidden = _formula(x, h, weight, bias, activation, gate_activation, origin_mode)
    return gate.detach().requires_grad_(), reset.detach().requires_grad_(), hidden


@op(
    "gru_unit", slots="Input, HiddenPrev, Weight, Bias? -> Gate~, ResetHiddenPrev~, Hidden", infer=_gru_spec,
    traced=_traced, flops=_flops.recurrence, again=True,
)
def gru_unit(x, h, weight, bias, *, activation: int = 2, gate_activation: int = 1, origin_mode: bool = False):
    """One step of a GRU: see gru. Activations by number: 0 identity, 1 sigmoid, 2 tanh, 3 relu.

    Input: [batch, 3D]; HiddenPrev: [batch, D]; Weight: [D, 3D] in gru's layout; Bias: [1, 3D];
    Gate: activated u, r, c; ResetHiddenPrev: r * HiddenPrev.
    """
    if torch.is_grad_enabled() or not _by_kernel(x, h, weight, bias):
        return _formula(x, h, weight, bias, activation, gate_activation, origin_mode)
    m, d = h.shape
    x, h, weight, bias = x.contiguous(), h.contiguous(), weight.contiguous(), bias if bias is None else bias.contiguous()
    gate, reset, hidden = x.new_empty((m, 3 * d)), x.new_empty((m, d)), x.new_empty((m, d))
    _kernels().forward(
        x.data_ptr(), h.data_ptr(), weight.data_ptr(), 0 if bias is None else bias.data_ptr(), gate.data_ptr(),
        reset.data_ptr(), hidden.data_ptr(), m, d, gate_activation, activation, bool(origin_mode),
    )  # fmt: skip
    return gate, reset, hidden


def _formula(x, h, weight, bias, activation, gate_activation, origin_mode):
    d = weight.shape[0]
    # Split, not sliced: autograd joins the gradients of the pieces where it would add up wholes with zeros around each.
    w, wc = weight.reshape(-1).split_with_sizes((2 * d * d, d * d))
    if bias is not None:
        x = x + bias.reshape(1, 3 * d)
    xg, xc = x.split_with_sizes((2 * d, d), 1)
    gates = _act(torch.addmm(xg, h, w.view(d, 2 * d)), gate_activation)
    u, r = gates.split_with_sizes((d, d), 1)
    reset = r * h
    c = _act(torch.addmm(xc, reset, wc.view(d, d)), activation)
    hidden = torch.lerp(c, h, u) if origin_mode else torch.lerp(h, c, u)
    return torch.cat((gates, c), 1), reset, hidden


def _back(h, weight, bias, gate, reset, dhidden, form, want):
    """gru_unit_grad by the kernel; form: codes of the gates' and the candidate's activation, and the mode."""
    m, d = h.shape
    h, weight, gate, reset, dhidden = (t.contiguous() for t in (h, weight, gate, reset, dhidden))
    dx, dh = torch.empty_like(gate), torch.empty_like(h)
    dweight = torch.empty_like(weight) if want[2] else None
    dbias = bias.new_empty(bias.shape) if want[3] and bias is not None else None
    _kernels().backward(
        dhidden.data_ptr(), h.data_ptr(), weight.data_ptr(), gate.data_ptr(), reset.data_ptr(), dx.data_ptr(), dh.data_ptr(),
        0 if dweight is None else dweight.data_ptr(), 0 if dbias is None else dbias.data_ptr(), zeros_at(2 * d), m, d, *form,
    )  # fmt: skip
    return dx, dh, dweight, dbias


@op(
    "gru_unit_grad",
    slots="Input, HiddenPrev, Weight, Bias?, Gate, ResetHiddenPrev, Hidden@GRAD"
    " -> Input@GRAD, HiddenPrev@GRAD, Weight@GRAD, Bias@GRAD",
)
def gru_unit_grad(
    x, h, weight, bias, gate, reset, dhidden, *, activation: int = 2, gate_activation: int = 1, origin_mode: bool = False,
    want,
):
    d = weight.shape[0]
    if not torch.is_grad_enabled() and _by_kernel(x, h, weight, bias):
        return _back(h, weight, bias, gate, reset, dhidden, (gate_activation, activation, bool(origin_mode)), want)
    w, wc = split_weight(weight)
    u, r, c = gate[:, :d], gate[:, d : 2 * d], gate[:, 2 * d :]
    keep = u if origin_mode else 1 - u
    du = dhidden * (h - c if origin_mode else c - h)
    dc = _slope(dhidden * (1 - u if origin_mode else u), c, activation)
    dreset = dc @ wc.t()
    dgates = _slope(torch.cat((du, dreset * h), 1), gate[:, : 2 * d], gate_activation)
    dx = torch.cat((dgates, dc), 1)
    dh = torch.addmm(dhidden * keep + dreset * r, dgates, w.t()) if want[1] else None
    dweight = None
    if want[2]:
        dweight = torch.cat(((h.t() @ dgates).reshape(-1), (reset.t() @ dc).reshape(-1))).view(weight.shape)
    dbias = dx.sum(0).reshape(bias.shape) if want[3] and bias is not None else None
    return dx, dh, dweight, dbias


def _lstm_spec(x, c, *, forget_bias):
    need(len(x.shape) == 2 and len(c.shape) == 2, "X must be [batch, 4D] and C_prev [batch, D]", x, c)
    if x.shape[0] >= 0 and c.shape[0] >= 0 and x.shape[0] != c.shape[0]:
        raise ShapeError(f"X and C_prev must have the same batch size, received {list(x.shape)} and {list(c.shape)}")
    need(fits(x.shape, -1, 4 * c.shape[1] if c.shape[1] >= 0 else -1), f"X must be [batch, {4 * c.shape[1]}]", x)
    return c, c


@op("lstm_unit", slots="X, C_prev -> C, H", infer=_lstm_spec, traceable=True, flops=_flops.lstm_cell)
def lstm_unit(x, c_prev, *, forget_bias: float = 0.0):
    """One LSTM step from the gates' pre-activations, in the order input, forget, output, candidate.

    C = sigmoid(f + forget_bias) * C_prev + sigmoid(i) * tanh(j); H = sigmoid(o) * tanh(C).
    X: [batch, 4D]; C_prev, C, H: [batch, D].
    """
    i, f, o, j = x.chunk(4, 1)
    c = torch.addcmul(torch.sigmoid(f + forget_bias) * c_prev, torch.sigmoid(i), torch.tanh(j))
    return c, torch.sigmoid(o) * torch.tanh(c)


@op("lstm_unit_grad", slots="X, C_prev, C, C@GRAD, H@GRAD -> X@GRAD, C_prev@GRAD")
def lstm_unit_grad(x, c_prev, c, dc, dh, *, forget_bias: float = 0.0):
    i, f, o, j = x.chunk(4, 1)
    i, f, o, j, t = torch.sigmoid(i), torch.sigmoid(f + forget_bias), torch.sigmoid(o), torch.tanh(j), torch.tanh(c)
    dc = dc + _slope(dh * o, t, 2)
    dx = torch.cat(
        (_slope(dc * j, i, 1), _slope(dc * c_prev, f, 1), _slope(dh * t, o, 1), _slope(dc * i, j, 2)), 1
    )
    return dx, dc * f
