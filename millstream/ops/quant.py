"""Simulated quantization (values stay float) and dequantization; quantization to integers as ONNX has it.

With r = 2^(bits - 1) - 1 and a scale s, a quantized value is round(r / s * (X cut to [-s, s])), halves away from zero.
None has a gradient: passes route gradients around them. Of the others (quantize_linear, …) x = (q - ZeroPoint) * Scale, with
one Scale or one for each index of `axis`.
"""

from __future__ import annotations

import torch

from millstream.errors import InvalidProgramError, ShapeError
from millstream.ir.types import VarType, to_var_type
from millstream.ops._opdef import DType, Long, op
from millstream.ops._values import Spec, torch_dtype
from millstream.ops.activation import round_


def _range(bits: int) -> int:
    return (1 << (bits - 1)) - 1


def _check_bits(bits: int) -> None:
    if not 1 <= bits <= 16:
        raise InvalidProgramError(f"bit_length must be in [1, 16], received {bits}")


def _quantize(x: torch.Tensor, s: torch.Tensor, bits: int) -> torch.Tensor:
    return round_(torch.clamp(x, -s, s) * (_range(bits) / s.clamp_min(1e-30)))


def _one_spec(x: Spec, *rest: Spec, **attrs: object) -> tuple[Spec, Spec]:
    _check_bits(attrs["bit_length"])  # type: ignore[arg-type]
    return x, Spec((1,), x.dtype)


@op("fake_quantize_abs_max", slots="X -> Out, OutScale", infer=_one_spec, lod="Out=X", grad=False)
def fake_quantize_abs_max(x, *, bit_length: int = 8):
    """Quantized by s = max |X|, which is OutScale [1]."""
    s = x.abs().max()
    return _quantize(x, s, bit_length), s.reshape(1)


def _channel_spec(x: Spec, *, bit_length: int) -> tuple[Spec, Spec]:
    _check_bits(bit_length)
    return x, Spec((x.shape[0],), x.dtype)


@op("fake_channel_wise_quantize_abs_max", slots="X -> Out, OutScale", infer=_channel_spec, lod="Out=X", grad=False)
def fake_channel_wise_quantize_abs_max(x, *, bit_length: int = 8):
    """Quantized by one s = max |X| for each index of dim 0; OutScale [C]."""
    s = x.abs().reshape(x.shape[0], -1).amax(1)
    return torch.stack([_quantize(part, of, bit_length) for part, of in zip(x, s)]), s


def _range_spec(x: Spec, scale: Spec, it: Spec | None, *, window_size: int, bit_length: int, is_test: bool):
    _check_bits(bit_length)
    if not is_test and it is None:
        raise InvalidProgramError("Iter is needed unless is_test")
    return x, Spec((1,), x.dtype), None if is_test else Spec((window_size,), x.dtype)


@op("fake_quantize_range_abs_max", slots="X, InScale, Iter? -> Out, OutScale, OutScales?!", infer=_range_spec, lod="Out=X",
    grad=False)
def fake_quantize_range_abs_max(
    x, scale, it, scales, *, window_size: int = 10000, bit_length: int = 8, is_test: bool = False
):
    """Quantized by the greatest max |X| of the last `window_size` steps (InScale in test).

    OutScales [window_size] keeps them, at position Iter mod window_size.
    """
    if is_test:
        s = scale.reshape(())
        return _quantize(x, s, bit_length), scale, scales
    step = int(it)
    at = step % window_size
    scales = x.new_zeros(window_size) if scales is None or scales.numel() != window_size else scales.clone()
    removed, now = float(scales[at]), x.abs().max()
    scales[at] = now
    s = scale.reshape(()).clone()
    if s < now:
        s = now
    elif abs(removed - float(s)) < 1e-6:
        size = min(step, window_size)
        s = scales[:size].abs().max() if size else now
    return _quantize(x, s, bit_length), s.reshape(1), scales


def _moving_spec(x, scale, accum, state, *, moving_rate, bit_length, is_test):
    _check_bits(bit_length)
    if not is_test and (accum is None or state is None):
        raise InvalidProgramError("InAccum and InState are needed unless is_test")
    one = Spec((1,), x.dtype)
    return x, one, None if state is None else one, None if accum is None else one


def _moved(x, accum, state, rate):
    state = state * rate + 1
    accum = accum * rate + x.abs().max()
    return accum / state, state, accum


_MOVING = "X, InScale, InAccum?, InState? -> Out, OutScale, OutState?, OutAccum?"


@op("fake_quantize_moving_average_abs_max", slots=_MOVING, infer=_moving_spec, lod="Out=X", grad=False)
def fake_quantize_moving_average_abs_max(
    x, scale, accum, state, *, moving_rate: float = 0.9, bit_length: int = 8, is_test: bool = False
):
    """Quantized by s = accum / state, state <- rate * state + 1, accum <- rate * accum + max |X| (InScale in test)."""
    if not is_test:
        scale, state, accum = _moved(x, accum, state, moving_rate)
    return _quantize(x, scale.reshape(()), bit_length), scale, state, accum


@op("fake_quantize_dequantize_moving_average_abs_max", slots=_MOVING, infer=_moving_spec, lod="Out=X", grad=False)
def fake_quantize_dequantize_moving_average_abs_max(
    x, scale, accum, state, *, moving_rate: float = 0.9, bit_length: int = 8, is_test: bool = False
):
    """As fake_quantize_moving_average_abs_max, then times s / r: X as quantization leaves it."""
    if not is_test:
        scale, state, accum = _moved(x, accum, state, moving_rate)
    s = scale.reshape(())
    return _quantize(x, s, bit_length) * s / _range(bit_length), scale, state, accum


def _scale_spec(x, accum, state, *, moving_rate, is_test):
    if not is_test and (accum is None or state is None):
        raise InvalidProgramError("InAccum and InState are needed unless is_test")
    one = Spec((1,), x.dtype)
    return x, one, None if state is None else one, None if accum is None else one


@op("moving_average_abs_max_scale", slots="X, InAccum?, InState? -> Out, OutScale!, OutState?, OutAccum?", infer=_scale_spec,
    lod="Out=X", grad=False)
def moving_average_abs_max_scale(x, accum, state, scale, *, moving_rate: float = 0.9, is_test: bool = False):
    """Out = X; OutScale = accum / state as in fake_quantize_moving_average_abs_max (left alone in test)."""
    if is_test:
        return x, x.new_empty(0) if scale is None else scale, state, accum
    scale, state, accum = _moved(x, accum, state, moving_rate)
    return x, scale, state, accum


# ---- back to numbers ---------------------------------------------------------------------------------
@op("fake_dequantize_max_abs", slots="X, Scale -> Out", infer="X", lod="X", grad=False)
def fake_dequantize_max_abs(x, scale, *, max_range: float):
    """X * Scale / max_range."""
    return x * (scale.reshape(()) / max_range)


def _channel_dequant_spec(x, scales, *, quant_bits):
    if not 1 <= len(scales) <= 2:
        raise ShapeError(f"one or two Scales are expected, received {len(scales)}")
    if len(quant_bits) < len(scales):
        raise ShapeError(f"quant_bits must have a number for each of the {len(scales)} Scales, received {quant_bits}")
    axis = len(scales) - 1
    channels = x.shape[axis]
    if channels >= 0 and scales[0].shape[0] not in (-1, channels):
        raise ShapeError(f"the first of Scales must be [{channels}] (dim {axis} of X), received {list(scales[0].shape)}")
    return x


@op("fake_channel_wise_dequantize_max_abs", slots="X, Scales* -> Out", infer=_channel_dequant_spec, lod="X", grad=False)
def fake_channel_wise_dequantize_max_abs(x, scales, *, quant_bits: list[int] = [8]):
    """One scale: X * Scales[0] / r along dim 0. Two: along dim 1, then times Scales[1] / r of the second bits."""
    axis = len(scales) - 1
    shape = [-1 if i == axis else 1 for i in range(x.dim())]
    factor = scales[0].reshape(shape) / _range(quant_bits[0])
    if len(scales) == 2:
        factor = factor * (scales[1].reshape(()) / _range(quant_bits[1]))
    return x * factor


@op("dequantize_abs_max", slots="X, Scale -> Out", infer="X:float32", lod="X", grad=False)
def dequantize_abs_max(x, scale, *, max_range: float):
    """int8 X to float32: X * Scale / max_range."""
    return x.float() * scale.reshape(()) / max_range


@op("dequantize_log", slots="X, Dict -> Out", infer="X:float32", lod="X", grad=False)
def dequantize_log(x, table):
    """int8 X to float32: Dict[X], or -Dict[X + 128] below 0. Dict [128]."""
    code = x.long()
    negative = code < 0
    value = table.reshape(-1)[torch.where(negative, code + 128, code)]
    return torch.where(negative, -value, value)


# ---- integers ----------------------------------------------------------------------------------------
INTEGERS = {VarType.INT8: (-128, 127), VarType.UINT8: (0, 255), VarType.INT16: (-(1 << 15), (1 << 15) - 1)}
"""Types that values are quantized to, with their limits."""


def _check_linear(x: Spec, scale: Spec, zero: Spec | None, axis: int) -> None:
    rank = len(x.shape)
    for name, given in (("Scale", scale), ("ZeroPoint", zero)):
        if given is None or given.shape in ((1,), (), (-1,)):
            continue
        if len(given.shape) != 1 or not -rank <= axis < rank:
            raise ShapeError(f"{name} must be [1], or [n] along axis {axis} of {list(x.shape)}, received {given.shape}")
        if x.shape[axis] >= 0 and given.shape[0] != x.shape[axis]:
            raise ShapeError(f"{name} must be [{x.shape[axis]}] (dim {axis} of X), received {list(given.shape)}")


def _quantize_spec(x: Spec, scale: Spec, zero: Spec | None, *, axis: int, dtype: int) -> Spec:
    _check_linear(x, scale, zero, axis)
    if to_var_type(dtype) not in INTEGERS:
        raise InvalidProgramError(f"dtype must be int8, uint8 or int16, received {to_var_type(dtype).name}")
    return x.like(dtype=to_var_type(dtype))


def _dequantize_spec(x: Spec, scale: Spec, zero: Spec | None, *, axis: int) -> Spec:
    _check_linear(x, scale, zero, axis)
    return x.like(dtype=scale.dtype)


def _along(t: torch.Tensor, x: torch.Tensor, axis: int) -> torch.Tensor:
    return t.reshape(()) if t.numel() == 1 else t.reshape([-1 if i == axis % x.dim() else 1 for i in range(x.dim())])


@op("quantize_linear", slots="X, Scale, ZeroPoint? -> Y", infer=_quantize_spec, lod="X", grad=False)
def quantize_linear(x, scale, zero, *, axis: int = 1, dtype: DType = VarType.UINT8):
    """round(X / Scale) + ZeroPoint, halves to even numbers, cut to the limits of `dtype`."""
    low, high = INTEGERS[to_var_type(dtype)]
    whole = torch.round(x / _along(scale, x, axis))
    if zero is not None:
        whole = whole + _along(zero, x, axis).to(x.dtype)
    return whole.clamp_(low, high).to(torch_dtype(dtype))


@op("dequantize_linear", slots="X, Scale, ZeroPoint? -> Y", infer=_dequantize_spec, lod="X", grad=False)
def dequantize_linear(x, scale, zero, *, axis: int = 1):
    """(X - ZeroPoint) * Scale."""
    whole = x.to(scale.dtype)
    if zero is not None:
        whole = whole - _along(zero, x, axis).to(scale.dtype)
    return whole * _along(scale, x, axis)


def _pair_spec(x: Spec, scale: Spec, zero: Spec | None, *, dtype: int) -> Spec:
    return _dequantize_spec(_quantize_spec(x, scale, zero, axis=0, dtype=dtype), scale, zero, axis=0)


@op("quantize_dequantize_linear", slots="X, Scale, ZeroPoint? -> Y", infer=_pair_spec, lod="X", grad=False)
def quantize_dequantize_linear(x, scale, zero, *, dtype: DType = VarType.UINT8):
    """quantize_linear, then dequantize_linear with the same one Scale. A pass makes it."""
    low, high = INTEGERS[to_var_type(dtype)]
    shift, scale = 0 if zero is None else int(zero), scale.reshape(())
    return (x / scale).round_().clamp_(low - shift, high - shift).mul_(scale)


def _lookup_spec(w: Spec, ids: Spec, *, padding_idx: int) -> Spec:
    if len(w.shape) != 2 or 0 <= w.shape[1] < 3:
        raise ShapeError(f"W must be [rows, 2 + packed], received {list(w.shape)}")
    if ids.shape[-1] not in (1, -1):
        raise ShapeError(f"the last dim of Ids must be 1, received {list(ids.shape)}")
    return Spec((*ids.shape[:-1], (w.shape[1] - 2) * 4), VarType.FP32, ids.lod_level)


@op("lookup_table_dequant", slots="W, Ids -> Out", infer=_lookup_spec, lod="Ids", grad=False)
def lookup_table_dequant(w, ids, *, padding_idx: Long = -1):
    """Rows of an 8-bit table: W row = minimum, maximum, then 4 codes packed in each float; code * (max - min) / 256 + min.

    Ids [..., 1] to Out [..., 4 * packed]; rows of padding_idx are 0.
    """
    flat = ids.reshape(-1).long()
    rows = w[flat]
    low, high = rows[:, :1], rows[:, 1:2]
    codes = rows[:, 2:].contiguous().view(torch.uint8).to(w.dtype)
    out = codes * ((high - low) / 256) + low
    if padding_idx != -1:
        out = out.masked_fill((flat == padding_idx).unsqueeze(1), 0.0)
    return out.reshape(*ids.shape[:-1], -1)
