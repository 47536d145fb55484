"""Deep gradient compression (Lin et al., 2017, arXiv:1712.01887): dgc, dgc_momentum, dgc_clip_by_norm."""

from __future__ import annotations

import torch

from millstream.ops._opdef import op
from millstream.ops._values import SelectedRows
from millstream.ops.optim._sparse import dense, scalar


@op(
    "dgc_momentum",
    slots="current_step, nranks, Param, Grad, Velocity, LearningRate -> Grad_out, ParamOut, VelocityOut",
    infer="Grad_out=Grad, ParamOut=Param, VelocityOut=Velocity", grad=False,
)  # fmt: skip
def dgc_momentum(
    step, nranks, param, grad, velocity, lr, *, rampup_begin_step: float = -1.0, mu: float, use_nesterov: bool = False
):
    """momentum before step `rampup_begin_step`, sgd from there on (the momentum is then in the compression).

    Both move by Grad_out = grad / nranks. With a negative `rampup_begin_step` nothing moves.
    """
    if int(rampup_begin_step) < 0:
        return grad, param, velocity
    rate = scalar(lr)
    shared = _divided(grad, scalar(nranks))
    full = dense(shared)
    if int(scalar(step)) >= int(rampup_begin_step):
        return shared, torch.add(param, full, alpha=-rate), velocity
    velocity = torch.add(full, velocity, alpha=mu)
    move = torch.add(full, velocity, alpha=mu) if use_nesterov else velocity
    return shared, torch.add(param, move, alpha=-rate), velocity


def _divided(grad, n):
    if isinstance(grad, SelectedRows):
        return SelectedRows(grad.rows, grad.values / n, grad.height)
    return grad / n


@op("dgc_clip_by_norm", slots="current_step, X -> Out", shares=True, infer="Out=X", lod="X", grad=False)
def dgc_clip_by_norm(step, x, *, rampup_begin_step: float = -1.0, max_norm: float):
    """X * max_norm / max(||X||, max_norm) from step `rampup_begin_step` on; X before it."""
    if int(scalar(step)) < int(rampup_begin_step) or rampup_begin_step < 0:
        return x
    norm = torch.linalg.vector_norm(x).item()
    return x * (max_norm / norm) if norm > max_norm else x


def _sparsity_at(step: float, sparsity: list[float], begin: float, ramp: float) -> float:
    """The share of elements held back: `sparsity` stretched over `ramp` steps, its last value afterwards."""
    index = int((step - begin) * len(sparsity) / max(ramp, 1.0))
    return sparsity[min(index, len(sparsity) - 1)]


@op(
    "dgc", slots="U, V, Grad, Param?, current_step, nranks -> U_out, V_out, EncodeGrad, Grad_out, k, GatherBuff",
    infer=lambda u, v, grad, param, step, nranks, **_: (u, v, grad, grad, step, grad), grad=False,
)  # fmt: skip
def dgc(
    u, v, grad, param, step, nranks, *,
    m: float = 0.9, use_nesterov: bool = True, sparsity: list[float], rampup_begin_step: float = 0.0,
    rampup_step: float = 0.0, regular_coeff: float = 0.0, regular_type: int = 0,
):  # fmt: skip
    """Momentum correction and local accumulation; only the largest elements of V leave (k of them), the rest wait.

    u = m * u + g, v = v + u (Nesterov: u = m * (u + g), v = v + u + g), g = grad with L1 (regular_type 1) or
    L2 (2) decay added; Grad_out holds the k largest |v|, which are then 0 in u and v. Before `rampup_begin_step`
    everything passes unchanged.
    """
    now = scalar(step)
    if now < rampup_begin_step:
        return u, v, grad, grad, torch.zeros_like(step), torch.zeros_like(grad)
    if regular_type and regular_coeff and param is not None:
        grad = torch.add(grad, param.sign() if regular_type == 1 else param, alpha=regular_coeff)
    u = (u + grad).mul_(m) if use_nesterov else torch.mul(u, m).add_(grad)
    v = v + u
    if use_nesterov:
        v = v.add_(grad)
    keep = max(1, int(v.numel() * (1.0 - _sparsity_at(now, sparsity, rampup_begin_step, rampup_step))))
    flat = v.reshape(-1)
    chosen = flat.abs().topk(keep).indices
    out = torch.zeros_like(flat).index_copy_(0, chosen, flat[chosen]).reshape(v.shape)
    u = u.reshape(-1).index_fill(0, chosen, 0.0).reshape(v.shape)
    v = flat.index_fill(0, chosen, 0.0).reshape(out.shape)
    return u, v, out, out, torch.full_like(step, keep), torch.zeros_like(out)
