"""Activations: one tensor in, one of the same shape, dtype and LoD out. Piecewise ones are in activation_pieces.py.

Gradients read Out where Fluid's do, so that X can be freed.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

from millstream.kernels.arrays import array
from millstream.kernels.threads import cuts, numba_is_loaded, run_parts
from millstream.ops._opdef import op

_aten = torch.ops.aten
_SLOTS = "X -> Out"
_BY_X = "X, Out@GRAD -> X@GRAD"
_BY_OUT = "Out, Out@GRAD -> X@GRAD"
_BY_DOUT = "Out@GRAD -> X@GRAD"
_MANY = 32768  # numbers


@op("relu", slots=_SLOTS, infer="X", lod="X", traceable=True, amp="gray", onnx="Relu")
def relu(x):
    """max(X, 0)."""
    return torch.relu(x)


@op("relu_grad", slots=_BY_OUT)
def relu_grad(out, dout):
    """dOut where Out > 0, dOut * 0 elsewhere, NaN among it."""
    return _aten.leaky_relu_backward(dout, out, 0.0, True)  # threshold_backward would hand dOut on where Out is NaN


@op("tanh", slots=_SLOTS, infer="X", lod="X", traceable=True, amp="gray", onnx="Tanh")
def tanh(x):
    """Hyperbolic tangent."""
    return tanh_(x.clone()) if _in_our_loop(x) else torch.tanh(x)


def _in_our_loop(x: torch.Tensor) -> bool:
    """Whether the loop of the recurrent kernels, 2.6 -> 0.7 ns a number, takes the tanh of `x`."""
    large = type(x) is torch.Tensor and x.numel() >= _MANY and numba_is_loaded()
    return large and x.dtype is torch.float32 and x.is_cpu and x.is_contiguous() and not x.requires_grad


def tanh_(x: torch.Tensor) -> torch.Tensor:
    """Hyperbolic tangent in place."""
    if not _in_our_loop(x):
        return torch.tanh_(x)
    from millstream.kernels.gates import TANH, activate

    numbers = array(x).reshape(-1)
    run_parts(activate, [(numbers[first:last], TANH) for first, last in cuts(len(numbers) * 10, len(numbers))])
    return x


@op("tanh_grad", slots=_BY_OUT)
def tanh_grad(out, dout):
    """dOut * (1 - Out^2)."""
    return _aten.tanh_backward(dout, out)


@op("sigmoid", slots=_SLOTS, infer="X", lod="X", traceable=True, amp="gray", onnx="Sigmoid")
def sigmoid(x):
    """1 / (1 + exp(-X))."""
    return torch.sigmoid(x)


@op("sigmoid_grad", slots=_BY_OUT)
def sigmoid_grad(out, dout):
    """dOut * Out * (1 - Out)."""
    return _aten.sigmoid_backward(dout, out)


def _nan_at_inf(x: torch.Tensor) -> torch.Tensor:
    """X, but NaN where it is inf: there Fluid, which takes max(X, 0) out of its exponents, subtracts inf from inf."""
    most = x.clamp_min(0)
    return (x - most) + most


@op("logsigmoid", slots=_SLOTS, infer="X", lod="X", traceable=True)
def logsigmoid(x):
    """log(sigmoid(X)); NaN at -inf, as in Fluid."""
    return F.logsigmoid(-_nan_at_inf(-x))


@op("logsigmoid_grad", slots=_BY_X)
def logsigmoid_grad(x, dout):
    """dOut * sigmoid(-X)."""
    return dout * torch.sigmoid(_nan_at_inf(-x))


@op("exp", slots=_SLOTS, infer="X", lod="X", traceable=True, amp="black")
def exp(x):
    """e ** X; integers go through float64 and are cut."""
    return torch.exp(x) if x.is_floating_point() else torch.exp(x.double()).to(x.dtype)


@op("exp_grad", slots=_BY_OUT)
def exp_grad(out, dout):
    """dOut * Out."""
    return dout * out


@op("log", slots=_SLOTS, infer="X", lod="X", traceable=True, amp="black", onnx="Log")
def log(x):
    """Natural logarithm."""
    return torch.log(x)


@op("log_grad", slots=_BY_X)
def log_grad(x, dout):
    """dOut / X."""
    return dout / x


@op("log1p", slots=_SLOTS, infer="X", lod="X", traceable=True)
def log1p(x):
    """log(1 + X)."""
    return torch.log1p(x)


@op("log1p_grad", slots=_BY_X)
def log1p_grad(x, dout):
    """dOut / (1 + X)."""
    return dout / (x + 1)


@op("sqrt", slots=_SLOTS, infer="X", lod="X", traceable=True, onnx="Sqrt")
def sqrt(x):
    """Square root."""
    return torch.sqrt(x)


@op("sqrt_grad", slots=_BY_OUT)
def sqrt_grad(out, dout):
    """dOut / (2 * Out)."""
    return dout * 0.5 / out


@op("rsqrt", slots=_SLOTS, infer="X", lod="X", traceable=True)
def rsqrt(x):
    """1 / sqrt(X)."""
    return torch.rsqrt(x)


@op("rsqrt_grad", slots=_BY_OUT)
def rsqrt_grad(out, dout):
    """-dOut * Out^3 / 2."""
    return dout * -0.5 * (out * out * out)


@op("square", slots=_SLOTS, infer="X", lod="X", traceable=True, amp="black")
def square(x):
    """X^2."""
    return x * x


@op("square_grad", slots=_BY_X)
def square_grad(x, dout):
    """2 * dOut * X."""
    d = dout * x
    return d + d  # what 2 * d is, sooner


@op("reciprocal", slots=_SLOTS, infer="X", lod="X", traceable=True, onnx="Reciprocal")
def reciprocal(x):
    """1 / X."""
    return torch.reciprocal(x)


@op("reciprocal_grad", slots=_BY_OUT)
def reciprocal_grad(out, dout):
    """-dOut * Out^2."""
    return -dout * (out * out)


@op("pow", slots="X, FactorTensor? -> Out", infer="X", lod="X", nodiff="FactorTensor", traceable=True)
def pow_(x, factor_tensor, *, factor: float = 1.0):
    """X ** factor; FactorTensor ([1]) wins over the attribute; for integers the factor is cut to one."""
    if factor_tensor is not None:
        factor = factor_tensor.item()
    if x.is_floating_point():
        return _power(x, factor)
    return torch.pow(x.double(), int(factor)).to(x.dtype)


@op("pow_grad", slots="X, FactorTensor?, Out@GRAD -> X@GRAD")
def pow_grad(x, factor_tensor, dout, *, factor: float = 1.0):
    """dOut * factor * X ** (factor - 1)."""
    if factor_tensor is not None:
        factor = factor_tensor.item()
    return dout * factor * _power(x, factor - 1)


def _power(x: torch.Tensor, factor: float) -> torch.Tensor:
    """X ** factor by C's rules: torch takes roots for the numbers 0.5 and -0.5, which differ at -0.0 and -inf."""
    return torch.pow(x, torch.full_like(x, factor) if factor in (0.5, -0.5) else factor)


@op("sin", slots=_SLOTS, infer="X", lod="X", onnx="Sin")
def sin(x):
    """Sine."""
    return torch.sin(x)


@op("sin_grad", slots=_BY_X)
def sin_grad(x, dout):
    """dOut * cos(X)."""
    return dout * torch.cos(x)


@op("cos", slots=_SLOTS, infer="X", lod="X", onnx="Cos")
def cos(x):
    """Cosine."""
    return torch.cos(x)


@op("cos_grad", slots=_BY_X)
def cos_grad(x, dout):
    """-dOut * sin(X)."""
    return -dout * torch.sin(x)


@op("asin", slots=_SLOTS, infer="X", lod="X", onnx="Asin")
def asin(x):
    """Arc sine."""
    return torch.asin(x)


@op("asin_grad", slots=_BY_X)
def asin_grad(x, dout):
    """dOut / sqrt(1 - X^2)."""
    return dout / torch.sqrt(1 - x * x)


@op("acos", slots=_SLOTS, infer="X", lod="X", onnx="Acos")
def acos(x):
    """Arc cosine."""
    return torch.acos(x)


@op("acos_grad", slots=_BY_X)
def acos_grad(x, dout):
    """-dOut / sqrt(1 - X^2)."""
    return -dout / torch.sqrt(1 - x * x)


@op("atan", slots=_SLOTS, infer="X", lod="X", onnx="Atan")
def atan(x):
    """Arc tangent."""
    return torch.atan(x)


@op("atan_grad", slots=_BY_X)
def atan_grad(x, dout):
    """dOut / (1 + X^2)."""
    return dout / (1 + x * x)


@op("erf", slots=_SLOTS, infer="X", lod="X", grad_lod="X", onnx="Erf")
def erf(x):
    """Gauss error function."""
    return torch.erf(x)


@op("erf_grad", slots=_BY_X)
def erf_grad(x, dout):
    """dOut * 2 / sqrt(pi) * exp(-X^2)."""
    return dout * (torch.exp(-(x * x)) * (2 / math.sqrt(math.pi)))


@op("gelu", amp_bfloat16="gray", slots=_SLOTS, infer="X", lod="X", grad_lod="X", traceable=True)
def gelu(x, *, approximate: bool = False):
    """X * Phi(X) (Hendrycks and Gimpel 2016); by the tanh formula when `approximate`."""
    if approximate:
        return F.gelu(x, approximate="tanh")
    out = F.gelu(x)
    # torch's float32 kernel has NaN for Phi(inf); the greatest value tells, soonest, whether there is any NaN
    if type(out) is not torch.Tensor or out.is_meta or out.numel() == 0 or not out.detach().amax().isnan():
        return out
    return x * ((torch.erf(x * math.sqrt(0.5)) + 1) * 0.5)


@op("gelu_grad", slots=_BY_X)
def gelu_grad(x, dout, *, approximate: bool = False):
    """Derivative of the form that was used."""
    return _aten.gelu_backward(dout, x, approximate="tanh" if approximate else "none")


@op("softplus", slots=_SLOTS, infer="X", lod="X", traceable=True, onnx="Softplus")
def softplus(x):
    """log(1 + exp(X)), without overflow; NaN at inf, as in Fluid."""
    return torch.logaddexp(_nan_at_inf(x), torch.zeros((), dtype=x.dtype, device=x.device))


@op("softplus_grad", slots=_BY_X)
def softplus_grad(x, dout):
    """dOut * sigmoid(X)."""
    return dout * torch.sigmoid(_nan_at_inf(x))


@op("softsign", slots=_SLOTS, infer="X", lod="X", traceable=True, onnx="Softsign")
def softsign(x):
    """X / (1 + |X|)."""
    return x / (x.abs() + 1)


@op("softsign_grad", slots=_BY_X)
def softsign_grad(x, dout):
    """dOut / (1 + |X|)^2."""
    return dout / torch.square(x.abs() + 1)


@op("stanh", slots=_SLOTS, infer="X", lod="X", traceable=True)
def stanh(x, *, scale_a: float = 0.67, scale_b: float = 1.7159):
    """scale_b * tanh(scale_a * X)."""
    return torch.tanh(x * scale_a) * scale_b


@op("stanh_grad", slots=_BY_X)
def stanh_grad(x, dout, *, scale_a: float = 0.67, scale_b: float = 1.7159):
    """dOut * scale_a * scale_b * (1 - tanh^2(scale_a * X))."""
    return _aten.tanh_backward(dout * (scale_a * scale_b), torch.tanh(x * scale_a))


@op("tanh_shrink", slots=_SLOTS, infer="X", lod="X", traceable=True)
def tanh_shrink(x):
    """X - tanh(X)."""
    return x - torch.tanh(x)


@op("tanh_shrink_grad", slots=_BY_X)
def tanh_shrink_grad(x, dout):
    """dOut * tanh^2(X)."""
    return dout * torch.square(torch.tanh(x))


@op("swish", amp_bfloat16="gray", slots=_SLOTS, infer="X", lod="X", traceable=True)
def swish(x, *, beta: float = 1.0):
    """X * sigmoid(beta * X) (Ramachandran et al. 2017)."""
    return F.silu(x) if beta == 1.0 else x * torch.sigmoid(x * beta)


@op("swish_grad", slots=_BY_X)
def swish_grad(x, dout, *, beta: float = 1.0):
    """dOut * (s + beta * X * s * (1 - s)), s = sigmoid(beta * X)."""
    if beta == 1.0 and not torch.is_grad_enabled():  # torch's own kernel has no derivative
        return _aten.silu_backward(dout, x)
    s = torch.sigmoid(x * beta)
    out = beta * (x * s)
    return dout * (out + s * (1 - out))


@op("mish", slots=_SLOTS, infer="X", lod="X", grad_lod="")
def mish(x, *, threshold: float = 20.0):
    """X * tanh(softplus(X)) (Misra 2019); softplus is X above `threshold`, exp(X) below -`threshold`."""
    return x * torch.tanh(_capped_softplus(x, threshold))


@op("mish_grad", slots=_BY_X)
def mish_grad(x, dout, *, threshold: float = 20.0):
    """dOut * (tanh(s) + X * (1 - tanh^2(s)) * (1 - exp(-s))), s the softplus."""
    s = _capped_softplus(x, threshold)
    t = torch.tanh(s)
    return dout * (t + x * (1 - t * t) * -torch.expm1(-s))


def _capped_softplus(x: torch.Tensor, threshold: float) -> torch.Tensor:
    if threshold == 0.0:  # no caps, as in Fluid
        return torch.nn.functional.softplus(x)
    e = torch.exp(x)
    return torch.where(x > threshold, x, torch.where(x < -threshold, e, torch.log1p(e)))


@op("abs", slots=_SLOTS, infer="X", lod="X", traceable=True, onnx="Abs")
def abs_(x):
    """|X|."""
    return torch.abs(x)


@op("abs_grad", slots=_BY_X)
def abs_grad(x, dout):
    """dOut * sign(X)."""
    return dout * torch.sign(x)


@op("sign", slots=_SLOTS, infer="X", lod="X", amp="gray", onnx="Sign")
def sign(x):
    """-1, 0 or 1."""
    return torch.sign(x)


@op("ceil", slots=_SLOTS, infer="X", lod="X", onnx="Ceil")
def ceil(x):
    """Least integer not below X."""
    return torch.ceil(x)


@op("floor", slots=_SLOTS, infer="X", lod="X", onnx="Floor")
def floor(x):
    """Greatest integer not above X."""
    return torch.floor(x)


@op("round", slots=_SLOTS, infer="X", lod="X")
def round_(x):
    """Nearest integer. As in 1.8.5 halves go to the even one in vectors of 32 bytes, away from zero in what remains."""
    out = torch.round(x).contiguous()
    full = x.numel() - x.numel() % (32 // x.element_size())
    rest = x.reshape(-1)[full:]
    whole = torch.trunc(rest)
    part = rest - whole
    out.view(-1)[full:] = torch.where(part.abs() >= 0.5, whole + torch.sign(part), whole)
    return out


def _zero_grad(dout):
    """Zero: the function is constant between its jumps."""
    return torch.zeros_like(dout)


for _name in ("sign", "ceil", "floor", "round"):
    op(f"{_name}_grad", slots=_BY_DOUT)(_zero_grad)
