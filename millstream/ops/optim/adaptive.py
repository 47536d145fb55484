"""Optimizers with a rate of each element's own: adagrad, decayed_adagrad, adadelta, rmsprop, ftrl."""

from __future__ import annotations

import torch

from millstream.ops._opdef import op
from millstream.ops._values import SelectedRows
from millstream.ops.optim._sparse import dense, put_rows, scalar, searched

_BOTH = frozenset({"ParamOut", "MomentOut"})


@op(
    "adagrad", slots="Param, Grad, Moment, LearningRate -> ParamOut, MomentOut",
    infer="ParamOut=Param, MomentOut=Moment", grad=False,
)  # fmt: skip
def adagrad(param, grad, moment, lr, *, epsilon: float = 1e-6, aliased=frozenset()):
    """moment += grad^2; param - lr * grad / (sqrt(moment) + epsilon) (Duchi, Hazan, Singer, 2011).

    A SelectedRows gradient moves only its rows (merged first).
    """
    rate = scalar(lr)
    if isinstance(grad, SelectedRows):
        grad = grad.merged()
        rows, g = grad.rows, grad.values
        m = torch.addcmul(moment.index_select(0, rows), g, g)
        p = torch.addcdiv(param.index_select(0, rows), g, m.sqrt().add_(epsilon), value=-rate)
        if aliased >= _BOTH:
            return param.index_copy_(0, rows, p), moment.index_copy_(0, rows, m)
        return put_rows(param, rows, p), put_rows(moment, rows, m)
    if aliased >= _BOTH:
        moment.addcmul_(grad, grad)
        return param.addcdiv_(grad, moment.sqrt().add_(epsilon), value=-rate), moment
    moment = torch.addcmul(moment, grad, grad)
    return torch.addcdiv(param, grad, moment.sqrt().add_(epsilon), value=-rate), moment


@op(
    "decayed_adagrad", slots="Param, Grad, Moment, LearningRate -> ParamOut, MomentOut",
    infer="ParamOut=Param, MomentOut=Moment", grad=False,
)  # fmt: skip
def decayed_adagrad(param, grad, moment, lr, *, decay: float = 0.95, epsilon: float = 1e-6):
    """moment = decay * moment + (1 - decay) * grad^2; param - lr * grad / (sqrt(moment) + epsilon)."""
    grad = dense(grad)
    moment = torch.mul(moment, decay).addcmul_(grad, grad, value=1.0 - decay)
    return torch.addcdiv(param, grad, moment.sqrt().add_(epsilon), value=-scalar(lr)), moment


@op(
    "adadelta",
    slots="Param, Grad, AvgSquaredGrad, AvgSquaredUpdate -> ParamOut, AvgSquaredGradOut, AvgSquaredUpdateOut",
    infer="ParamOut=Param, AvgSquaredGradOut=AvgSquaredGrad, AvgSquaredUpdateOut=AvgSquaredUpdate", grad=False,
)  # fmt: skip
def adadelta(param, grad, squared_grad, squared_update, *, rho: float = 0.95, epsilon: float = 1e-6, aliased=frozenset()):
    """Zeiler, 2012 (arXiv:1212.5701); there is no learning rate.

    G = rho * G + (1 - rho) * grad^2; d = -sqrt((U + epsilon) / (G + epsilon)) * grad;
    U = rho * U + (1 - rho) * d^2; param + d.
    Where U is updated in place (as every optimizer does), Fluid takes the new U in the parameter's step.
    """
    grad = dense(grad)
    squared_grad = torch.mul(squared_grad, rho).addcmul_(grad, grad, value=1.0 - rho)
    divisor = squared_grad + epsilon
    update = (squared_update + epsilon).div_(divisor).sqrt_().mul_(grad)
    squared_update = torch.mul(squared_update, rho).addcmul_(update, update, value=1.0 - rho)
    if "AvgSquaredUpdateOut" in aliased:
        update = (squared_update + epsilon).div_(divisor).sqrt_().mul_(grad)
    return param - update, squared_grad, squared_update


@op(
    "rmsprop",
    slots="Param, MeanSquare, MeanGrad?, LearningRate, Grad, Moment -> ParamOut, MomentOut, MeanSquareOut, MeanGradOut",
    infer="ParamOut=Param, MomentOut=Moment, MeanSquareOut=MeanSquare, MeanGradOut=MeanGrad", grad=False,
)  # fmt: skip
def rmsprop(
    param, mean_square, mean_grad, lr, grad, moment, *,
    epsilon: float = 1e-10, decay: float = 0.9, momentum: float = 0.0, centered: bool = False,
):  # fmt: skip
    """Tieleman and Hinton, 2012; centered: Graves, 2013 (arXiv:1308.0850).

    S = decay * S + (1 - decay) * grad^2; M = decay * M + (1 - decay) * grad (centered only);
    v = momentum * v + lr * grad / sqrt(S - M^2 + epsilon); param - v. Every row moves
    (see searched in _sparse.py).
    """
    grad = searched(grad)
    mean_square = torch.mul(mean_square, decay).addcmul_(grad, grad, value=1.0 - decay)
    if centered:
        mean_grad = torch.mul(mean_grad, decay).add_(grad, alpha=1.0 - decay)
        spread = torch.addcmul(mean_square, mean_grad, mean_grad, value=-1.0).add_(epsilon).sqrt_()
    else:
        spread = (mean_square + epsilon).sqrt_()
        if mean_grad is None:
            mean_grad = torch.zeros_like(param)
    moment = torch.mul(moment, momentum).addcdiv_(grad, spread, value=scalar(lr))
    return param - moment, moment, mean_square, mean_grad


@op(
    "ftrl",
    slots="Param, SquaredAccumulator, LinearAccumulator, Grad, LearningRate -> ParamOut, SquaredAccumOut, LinearAccumOut",
    infer="ParamOut=Param, SquaredAccumOut=SquaredAccumulator, LinearAccumOut=LinearAccumulator", grad=False,
)  # fmt: skip
def ftrl(param, squared, linear, grad, lr, *, l1: float = 0.0, l2: float = 0.0, lr_power: float = -0.5):
    """Follow the regularised leader (McMahan et al., 2013, "Ad click prediction").

    s = S + grad^2; L += grad - (s^-p - S^-p) / lr * param with p = lr_power; S = s;
    param = (l1 * sign(L) - L) / (s^-p / lr + 2 * l2) where |L| > l1, else 0.
    """
    grad = dense(grad)
    rate = scalar(lr)
    total = torch.addcmul(squared, grad, grad)
    if lr_power == -0.5:
        old, new = squared.sqrt(), total.sqrt()
    else:
        old, new = squared.pow(-lr_power), total.pow(-lr_power)
    linear = (linear + grad).addcmul_(new - old, param, value=-1.0 / rate)
    shrunk = torch.nn.functional.softshrink(linear, l1) if l1 > 0 else linear
    # a zero divisor belongs to an element that never had a gradient: 0 / 0 would be NaN
    divisor = (new / rate).add_(2.0 * l2)
    param = torch.where(linear.abs() > l1, -shrunk / divisor, torch.zeros_like(param))
    return param, total, linear
