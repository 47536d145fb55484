"""Gradient descent and its kin: sgd, momentum, lars_momentum, proximal_gd, proximal_adagrad, dpsgd."""

from __future__ import annotations

import torch

from millstream.ops._opdef import op
from millstream.ops._values import SelectedRows
from millstream.ops.optim import _lists, captured
from millstream.ops.optim._lists import own
from millstream.ops.optim._sparse import dense, scalar, searched


@op("sgd", slots="Param, LearningRate, Grad -> ParamOut", infer="Param", grad=False, captured=captured.sgd)
def sgd(param, lr, grad, *, aliased=frozenset()):
    """param - lr * grad. A SelectedRows gradient moves only its rows; repeats add up."""
    if isinstance(grad, SelectedRows):
        return grad.add_to(param if aliased else param.clone(), -scalar(lr))
    return param.add_(grad, alpha=-scalar(lr)) if aliased else torch.add(param, grad, alpha=-scalar(lr))


@op(
    "momentum", slots="Param, Grad, Velocity, LearningRate -> ParamOut, VelocityOut",
    infer="ParamOut=Param, VelocityOut=Velocity", grad=False, captured=captured.momentum,
)  # fmt: skip
def momentum(param, grad, velocity, lr, *, mu: float, use_nesterov: bool = False, aliased=frozenset()):
    """v = mu * v + grad; param - lr * v, or param - lr * (grad + mu * v) (Nesterov).

    Every row moves, also those that a SelectedRows gradient does not name (see searched in _sparse.py).
    """
    param, velocity = own(aliased, ParamOut=param, VelocityOut=velocity)
    _lists.momentum([param], [searched(grad)], [velocity], scalar(lr), mu, use_nesterov)
    return param, velocity


@op(
    "lars_momentum", slots="Param, Grad, Velocity, LearningRate -> ParamOut, VelocityOut",
    infer="ParamOut=Param, VelocityOut=Velocity", grad=False,
)  # fmt: skip
def lars_momentum(
    param, grad, velocity, lr, *, mu: float, lars_coeff: float = 0.001, lars_weight_decay: float = 0.0005,
    aliased=frozenset(),
):  # fmt: skip
    """Layer-wise rate (You, Gitman, Ginsburg, 2017, arXiv:1708.03888), wd = lars_weight_decay.

    rate = lr * lars_coeff * ||param|| / (||grad|| + wd * ||param||); v = mu * v + rate * (grad + wd * param); param - v.
    The rate is lr itself where a norm is 0.
    """
    param, velocity = own(aliased, ParamOut=param, VelocityOut=velocity)
    _lists.lars_momentum([param], [dense(grad)], [velocity], scalar(lr), mu, lars_coeff, lars_weight_decay)
    return param, velocity


def _shrink(prox: torch.Tensor, rate: float, l1: float, l2: float) -> torch.Tensor:
    """The proximal step of l1 |w| + l2/2 w^2 (Duchi and Singer, 2009)."""
    if l1 > 0:
        prox = torch.nn.functional.softshrink(prox, rate * l1)
    return prox / (1.0 + rate * l2)


@op("proximal_gd", slots="Param, Grad, LearningRate -> ParamOut", infer="Param", grad=False)
def proximal_gd(param, grad, lr, *, l1: float = 0.0, l2: float = 0.0):
    """prox = param - lr * grad; sign(prox) * max(|prox| - lr * l1, 0) / (1 + lr * l2)."""
    rate = scalar(lr)
    return _shrink(torch.add(param, dense(grad), alpha=-rate), rate, l1, l2)


@op(
    "proximal_adagrad", slots="Param, Moment, Grad, LearningRate -> ParamOut, MomentOut",
    infer="ParamOut=Param, MomentOut=Moment", grad=False,
)  # fmt: skip
def proximal_adagrad(param, moment, grad, lr, *, l1: float = 0.0, l2: float = 0.0):
    """moment += grad^2; then the proximal step of param - lr * grad / sqrt(moment) with rate lr."""
    grad = dense(grad)
    rate = scalar(lr)
    moment = torch.addcmul(moment, grad, grad)
    prox = torch.addcdiv(param, grad, moment.sqrt(), value=-rate)
    return _shrink(prox, rate, l1, l2), moment


@op("dpsgd", slots="Param, Grad, LearningRate -> ParamOut", infer="Param", grad=False)
def dpsgd(
    param, grad, lr, *, clip: float = 10.0, batch_size: float = 16.0, sigma: float = 1.0, seed: int = 0, rng
):
    """Differentially private descent (Abadi et al., 2016, arXiv:1607.00133).

    param - lr * (grad / max(||grad|| / clip, 1) + noise / batch_size); noise is one normal number of deviation sigma
    for the whole tensor, as in Fluid.
    """
    grad = dense(grad)
    norm = torch.linalg.vector_norm(grad).item()
    noise = sigma * torch.randn((), generator=rng).item() / batch_size
    scaled = grad / (norm / clip) if norm > clip else grad
    return torch.sub(param, scaled + noise, alpha=scalar(lr))
