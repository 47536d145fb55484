"""Optimizers with first and second moments: adam, adamax, lamb."""

from __future__ import annotations

import math

import torch

from millstream.ops._opdef import Long, op
from millstream.ops._values import SelectedRows, rows_kernels
from millstream.ops.optim import _lists, captured
from millstream.ops.optim._lists import own
from millstream.ops.optim._sparse import dense, moved_in_place, scalar


def _moments(m1, m2, grad, beta1, beta2):
    m1 = torch.mul(m1, beta1).add_(grad, alpha=1.0 - beta1)
    m2 = torch.mul(m2, beta2).addcmul_(grad, grad, value=1.0 - beta2)
    return m1, m2


def adam_rate(lr: float, beta1_pow: float, beta2_pow: float) -> float:
    """The learning rate with both moments' corrections."""
    return lr * math.sqrt(1.0 - beta2_pow) / (1.0 - beta1_pow)


@op(
    "adam",
    slots="Param, Grad, LearningRate, Moment1, Moment2, Beta1Pow, Beta2Pow, Beta1Tensor?, Beta2Tensor? "
    "-> ParamOut, Moment1Out, Moment2Out, Beta1PowOut, Beta2PowOut",
    infer="ParamOut=Param, Moment1Out=Moment1, Moment2Out=Moment2, Beta1PowOut=Beta1Pow, Beta2PowOut=Beta2Pow",
    grad=False, captured=captured.adam,
)  # fmt: skip
def adam(
    param, grad, lr, moment1, moment2, beta1_pow, beta2_pow, beta1_tensor, beta2_tensor, *,
    beta1: float = 0.9, beta2: float = 0.999, epsilon: float = 1e-8, lazy_mode: bool = False,
    min_row_size_to_use_multithread: Long = 1000, aliased=frozenset(),
):  # fmt: skip
    """Kingma and Ba, 2014 (arXiv:1412.6980); epsilon is added to the uncorrected root.

    m = b1 * m + (1 - b1) * grad; v = b2 * v + (1 - b2) * grad^2;
    param - lr * sqrt(1 - b2^t) / (1 - b1^t) * m / (sqrt(v) + epsilon).
    A SelectedRows gradient moves every row (the moments decay), with lazy_mode only its own rows; t is then one more.
    min_row_size_to_use_multithread has no meaning here.
    """
    if beta1_tensor is not None:
        beta1 = scalar(beta1_tensor)
    if beta2_tensor is not None:
        beta2 = scalar(beta2_tensor)
    pows = beta1_pow * beta1, beta2_pow * beta2
    at = pows if isinstance(grad, SelectedRows) else (beta1_pow, beta2_pow)  # Fluid's sparse path has them advanced
    rate = adam_rate(scalar(lr), scalar(at[0]), scalar(at[1]))
    param, m1, m2 = own(aliased, ParamOut=param, Moment1Out=moment1, Moment2Out=moment2)
    if lazy_mode and isinstance(grad, SelectedRows):
        _adam_of_rows(param, grad, m1, m2, rate, (beta1, beta2), epsilon)
    else:
        _lists.adam([param], [grad], [m1], [m2], rate, beta1, beta2, epsilon)
    return param, m1, m2, *pows


def _adam_of_rows(param, grad, m1, m2, rate, betas, epsilon):
    arrays = moved_in_place(grad, param, m1, m2)
    if arrays is not None:
        rows_kernels().adam(arrays[0], arrays[1:3], *arrays[3:], rate, betas, epsilon)
        return
    grad = grad.merged()
    rows = grad.rows
    first, second = _moments(m1[rows], m2[rows], grad.values, *betas)
    m1.index_copy_(0, rows, first)
    m2.index_copy_(0, rows, second)
    param.index_copy_(0, rows, torch.addcdiv(param[rows], first, second.sqrt().add_(epsilon), value=-rate))


@op(
    "adamax",
    slots="Param, Grad, LearningRate, Moment, InfNorm, Beta1Pow -> ParamOut, MomentOut, InfNormOut",
    infer="ParamOut=Param, MomentOut=Moment, InfNormOut=InfNorm", grad=False,
)  # fmt: skip
def adamax(
    param, grad, lr, moment, inf_norm, beta1_pow, *,
    beta1: float = 0.9, beta2: float = 0.999, epsilon: float = 1e-8, aliased=frozenset(),
):  # fmt: skip
    """Kingma and Ba, 2014, section 7.1.

    m = b1 * m + (1 - b1) * grad; u = max(|grad|, b2 * u + epsilon); param - lr / (1 - b1^t) * m / u.
    The power of beta1 is advanced by another operator.
    """
    rate = scalar(lr) / (1.0 - scalar(beta1_pow))
    param, moment, inf_norm = own(aliased, ParamOut=param, MomentOut=moment, InfNormOut=inf_norm)
    _lists.adamax([param], [grad], [moment], [inf_norm], [rate], beta1, beta2, epsilon)
    return param, moment, inf_norm


@op(
    "lamb",
    slots="Param, Grad, LearningRate, Moment1, Moment2, Beta1Pow, Beta2Pow -> ParamOut, Moment1Out, Moment2Out",
    infer="ParamOut=Param, Moment1Out=Moment1, Moment2Out=Moment2", grad=False,
)  # fmt: skip
def lamb(
    param, grad, lr, moment1, moment2, beta1_pow, beta2_pow, *,
    weight_decay: float, beta1: float = 0.9, beta2: float = 0.999, epsilon: float = 1e-6, aliased=frozenset(),
):  # fmt: skip
    """You et al., 2019 (arXiv:1904.00962).

    r = m / (sqrt(v) + epsilon) + weight_decay * param; param - lr * ||param|| / ||r|| * r (the ratio is 1 where a norm
    is 0). Every row moves. As in Fluid 1.8.5 the moments are not corrected: the powers of beta are neither used nor
    advanced.
    """
    param, m1, m2 = own(aliased, ParamOut=param, Moment1Out=moment1, Moment2Out=moment2)
    _lists.lamb([param], [dense(grad)], [m1], [m2], scalar(lr), weight_decay, beta1, beta2, epsilon)
    return param, m1, m2
