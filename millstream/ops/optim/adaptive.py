"""Optimizers with a rate of each element's own: adagrad, decayed_adagrad, adadelta, rmsprop, ftrl."""

from __future__ import annotations

import torch

from millstream.ops._opdef import op
from millstream.ops._values import SelectedRows, rows_kernels
from millstream.ops.optim import _lists, captured
from millstream.ops.optim._lists import own
from millstream.ops.optim._sparse import moved_in_place, scalar, searched


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
        param, moment = own(aliased, ParamOut=param, MomentOut=moment)
        arrays = moved_in_place(grad, param, moment)
        if arrays is not None:
            rows_kernels().adagrad(*arrays, rate, epsilon)
            return param, moment
        grad = grad.merged()
        rows, g = grad.rows, grad.values
        m = torch.addcmul(moment.index_select(0, rows), g, g)
        p = torch.addcdiv(param.index_select(0, rows), g, m.sqrt().add_(epsilon), value=-rate)
        return param.index_copy_(0, rows, p), moment.index_copy_(0, rows, m)
    param, moment = own(aliased, ParamOut=param, MomentOut=moment)
    _lists.adagrad([param], [grad], [moment], rate, epsilon)
    return param, moment


@op(
    "decayed_adagrad", slots="Param, Grad, Moment, LearningRate -> ParamOut, MomentOut",
    infer="ParamOut=Param, MomentOut=Moment", grad=False,
)  # fmt: skip
def decayed_adagrad(param, grad, moment, lr, *, decay: float = 0.95, epsilon: float = 1e-6, aliased=frozenset()):
    """moment = decay * moment + (1 - decay) * grad^2; param - lr * grad / (sqrt(moment) + epsilon)."""
    param, moment = own(aliased, ParamOut=param, MomentOut=moment)
    _lists.decayed_adagrad([param], [grad], [moment], scalar(lr), decay, epsilon)
    return param, moment


@op(
    "adadelta",
    slots="Param, Grad, AvgSquaredGrad, AvgSquaredUpdate -> ParamOut, AvgSquaredGradOut, AvgSquaredUpdateOut",
    infer="ParamOut=Param, AvgSquaredGradOut=AvgSquaredGrad, AvgSquaredUpdateOut=AvgSquaredUpdate", grad=False,
    captured=captured.adadelta,
)  # fmt: skip
def adadelta(param, grad, squared_grad, squared_update, *, rho: float = 0.95, epsilon: float = 1e-6, aliased=frozenset()):
    """Zeiler, 2012 (arXiv:1212.5701); there is no learning rate.

    G = rho * G + (1 - rho) * grad^2; d = -sqrt((U + epsilon) / (G + epsilon)) * grad;
    U = rho * U + (1 - rho) * d^2; param + d.
    Where U is updated in place (as every optimizer does), Fluid takes the new U in the parameter's step.
    """
    new_updates = "AvgSquaredUpdateOut" in aliased
    param, squared_grad, squared_update = own(
        aliased, ParamOut=param, AvgSquaredGradOut=squared_grad, AvgSquaredUpdateOut=squared_update
    )
    _lists.adadelta([param], [grad], [squared_grad], [squared_update], rho, epsilon, new_updates)
    return param, squared_grad, squared_update


@op(
    "rmsprop",
    slots="Param, MeanSquare, MeanGrad?, LearningRate, Grad, Moment -> ParamOut, MomentOut, MeanSquareOut, MeanGradOut",
    infer="ParamOut=Param, MomentOut=Moment, MeanSquareOut=MeanSquare, MeanGradOut=MeanGrad", grad=False,
)  # fmt: skip
def rmsprop(
    param, mean_square, mean_grad, lr, grad, moment, *,
    epsilon: float = 1e-10, decay: float = 0.9, momentum: float = 0.0, centered: bool = False, aliased=frozenset(),
):  # fmt: skip
    """Tieleman and Hinton, 2012; centered: Graves, 2013 (arXiv:1308.0850).

    S = decay * S + (1 - decay) * grad^2; M = decay * M + (1 - decay) * grad (centered only);
    v = momentum * v + lr * grad / sqrt(S - M^2 + epsilon); param - v. Every row moves
    (see searched in _sparse.py).
    """
    if mean_grad is None:
        mean_grad = torch.zeros_like(param)
    param, moment, mean_square, mean_grad = own(
        aliased, ParamOut=param, MomentOut=moment, MeanSquareOut=mean_square, MeanGradOut=mean_grad
    )
    means = [mean_grad] if centered else None
    _lists.rmsprop([param], [searched(grad)], [mean_square], means, [moment], scalar(lr), epsilon, decay, momentum)
    return param, moment, mean_square, mean_grad


@op(
    "ftrl",
    slots="Param, SquaredAccumulator, LinearAccumulator, Grad, LearningRate -> ParamOut, SquaredAccumOut, LinearAccumOut",
    infer="ParamOut=Param, SquaredAccumOut=SquaredAccumulator, LinearAccumOut=LinearAccumulator", grad=False,
)  # fmt: skip
def ftrl(
    param, squared, linear, grad, lr, *, l1: float = 0.0, l2: float = 0.0, lr_power: float = -0.5, aliased=frozenset()
):
    """Follow the regularised leader (McMahan et al., 2013, "Ad click prediction").

    s = S + grad^2; L += grad - (s^-p - S^-p) / lr * param with p = lr_power; S = s;
    param = (l1 * sign(L) - L) / (s^-p / lr + 2 * l2) where |L| > l1, else 0.
    """
    param, squared, linear = own(aliased, ParamOut=param, SquaredAccumOut=squared, LinearAccumOut=linear)
    _lists.ftrl([param], [grad], [squared], [linear], scalar(lr), l1, l2, lr_power)
    return param, squared, linear
