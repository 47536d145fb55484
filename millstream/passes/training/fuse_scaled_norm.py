"""Squeeze-and-excitation of a batch_norm's output: the normalised map is not made, and its gradient is not summed up.

fuse_conv_batch_norm has left the normalisation as batch_norm_apply behind a 1x1 convolution. Where a mean over pixels and a
scale by channel alone read the map, both take the map before the normalisation, and the convolution takes the gradient as a
line of its own for each picture (ops/fused/scaled_norm.py). Maps are read and written 4 times instead of 7, on the way back
before the convolution 4 times instead of 12.
"""

from __future__ import annotations

from dataclasses import dataclass

from millstream.ir.names import EMPTY_VAR
from millstream.ir.operator import Operator
from millstream.ir.types import VarType
from millstream.passes._pass import program_pass
from millstream.passes._rewrite import operator_like
from millstream.passes._uses import Uses
from millstream.passes._work import Work
from millstream.passes.training._places import fuse_places, why_needed
from millstream.passes.training.fuse_scaled_sum import is_by_channel

_NAME = "fuse_scaled_norm"
_NORM = ("X", "Scale", "Bias", "SavedMean", "SavedVariance")
_FACTOR = {"scaled_sum_relu": "Scale", "elementwise_mul": "Y"}  # operators that scale a map, with the scale's slot


@dataclass
class _Place:
    """Positions of the operators; `conv_grad` is the gradient of the convolution that makes the map."""

    norm: int
    pool: int
    scale: int
    scale_grad: int
    pool_grad: int
    sum: int
    norm_grad: int
    conv_grad: int

    def forward(self) -> list[int]:
        return [self.norm, self.pool, self.scale]

    def backward(self) -> list[int]:
        return [self.scale_grad, self.pool_grad, self.sum, self.norm_grad, self.conv_grad]


@program_pass(_NAME)
def fuse_scaled_norm(work: Work) -> int:
    """Returns how many normalisations were left to what reads them."""
    return fuse_places(work, _NAME, _find, _build)


def _find(work: Work, uses: Uses, at: int) -> _Place | str | None:
    """The place whose normalisation stands at `at`."""
    ops, op = uses.ops, uses.ops[at]
    if op.type != "batch_norm_apply" or op.attr("slope") != 1.0 or op.input("Residual"):
        return None
    x, y = work.block._find_var_recursive(op.input("X")[0]), op.output("Y")[0]
    if x is None or x.dtype is VarType.BF16:
        return None  # its kernels take float32 alone
    pool, pool_grad = (uses.reader(y, kind, "X") for kind in ("pool2d", "pool2d_grad"))
    scale = next((p for p in uses.readers[y] if ops[p].type in _FACTOR and ops[p].input("X") == [y]), None)
    if pool is None or pool_grad is None or scale is None or not _is_mean(ops[pool]):
        return None
    scale_grad = uses.reader(y, ops[scale].type + "_grad", "X")
    if scale_grad is None or (ops[scale].type == "elementwise_mul" and not is_by_channel(work, ops[scale])):
        return "it is not scaled by channel, or the scale has no gradient"
    parts = [n for p in (scale_grad, pool_grad) for n in ops[p].output("X@GRAD")]
    sum_ = next((p for p in uses.readers[parts[0]] if ops[p].type == "sum"), None) if len(parts) == 2 else None
    if sum_ is None or sorted(ops[sum_].input("X")) != sorted(parts):
        return "the map has other gradients"
    gradient = ops[sum_].output("Out")[0]
    norm_grad = uses.reader(gradient, "batch_norm_line_grad", "Y@GRAD")
    conv_grad = uses.reader(gradient, "normed_conv2d_grad", "Output@GRAD")
    if norm_grad is None or conv_grad is None or ops[conv_grad].input("Line") != ops[norm_grad].output("Line"):
        return "no convolution takes the gradient"
    place = _Place(at, pool, scale, scale_grad, pool_grad, sum_, norm_grad, conv_grad)
    return _why_not(work, uses, place) or place


def _is_mean(pool: Operator) -> bool:
    whole = pool.attr("global_pooling") or (pool.attr("adaptive") and list(pool.attr("ksize")) == [1, 1])
    return bool(whole) and pool.attr("pooling_type") == "avg" and pool.attr("data_format") in (None, "NCHW", "AnyLayout")


def _why_not(work: Work, uses: Uses, place: _Place) -> str | None:
    ops = uses.ops
    filters = work.block._find_var_recursive(ops[place.conv_grad].input("Filter")[0])
    if filters is None or not filters.has_shape or tuple(filters.shape[2:]) != (1, 1):
        return "the convolution is not 1x1"
    slot = _FACTOR[ops[place.scale].type]
    factor = ops[place.scale].input(slot)
    if ops[place.scale_grad].input(slot) != factor or ops[place.pool_grad].input("Out") != ops[place.pool].output("Out"):
        return "the gradient is another operator's"
    inside = [ops[place.norm].output("Y")[0], ops[place.sum].output("Out")[0], *ops[place.sum].input("X")]
    inside += ops[place.norm_grad].output("Line")
    given = [*ops[place.scale_grad].input("Out@GRAD"), *_residual_gradient(ops[place.scale_grad])]
    changed = (
        uses.written_between(factor, place.scale, place.norm_grad)
        or uses.written_between(ops[place.pool_grad].input("Out@GRAD"), place.pool_grad, place.norm_grad)
        or uses.written_between(given, place.scale_grad, place.conv_grad)
    )
    return why_needed(uses, place, inside) or (None if changed is None else f"{changed!r} is overwritten in between")


def _residual_gradient(grad: Operator) -> list[str]:
    """The gradient of what is added to the scaled map, where somebody takes it."""
    return [n for n in grad.output("Residual@GRAD") if n != EMPTY_VAR]


def _build(work: Work, uses: Uses, place: _Place) -> dict[int, Operator]:
    ops = uses.ops
    norm, pool, scale = (ops[p] for p in (place.norm, place.pool, place.scale))
    read = {s: norm.input(s) for s in _NORM}
    offset = work.declare(work.block, norm.input("X")[0], shape=(-1, -1), stop_gradient=True)
    average = {"Out": pool.output("Out"), "Offset": [offset]}
    scaled = {**read, "Factor": scale.input(_FACTOR[scale.type])}
    if scale.input("Residual"):
        scaled["Residual"] = scale.input("Residual")
    return {
        place.pool: operator_like(work, pool, "batch_norm_average", read, average),
        place.scale: operator_like(work, scale, "scaled_batch_norm", scaled, {"Out": scale.output("Out")}),
        **_build_back(work, uses, place, offset),
    }


def _build_back(work: Work, uses: Uses, place: _Place, offset: str) -> dict[int, Operator]:
    ops, (x,) = uses.ops, uses.ops[place.norm].input("X")
    norm, scale, grad, norm_grad, conv_grad = (
        ops[p] for p in (place.norm, place.scale, place.scale_grad, place.norm_grad, place.conv_grad)
    )
    slot = _FACTOR[scale.type]
    sums, line = (work.declare(work.block, x, shape=(rows, -1, -1), stop_gradient=True) for rows in (2, 3))
    dz, read = grad.input("Out@GRAD"), {s: norm.input(s) for s in _NORM}
    read["Factor"] = scale.input(slot)
    given, made = {**read, "Out@GRAD": dz}, {"Sums": [sums]}
    if grad.output(slot + "@GRAD"):
        made["Factor@GRAD"] = grad.output(slot + "@GRAD")
    if scale.type == "scaled_sum_relu":
        given["Out"] = scale.output("Out")
        dz = made["dZ"] = _residual_gradient(grad) or [work.declare(work.block, x, stop_gradient=True)]
    del read["Bias"]
    read.update({"Offset": [offset], "Sums": [sums], "Average@GRAD": ops[place.pool_grad].input("Out@GRAD")})
    lines = {s: norm_grad.output(s) for s in ("Scale@GRAD", "Bias@GRAD") if norm_grad.output(s)}
    taking = {**{s: conv_grad.input(s) for s in conv_grad.input_names}, "Output@GRAD": dz, "Line": [line]}
    outputs = {s: conv_grad.output(s) for s in conv_grad.output_names}
    back = operator_like(work, conv_grad, conv_grad.type, taking, outputs, conv_grad.attrs)
    back.forward = conv_grad.forward
    return {
        place.scale_grad: operator_like(work, grad, "scaled_batch_norm_sums", given, made),
        place.norm_grad: operator_like(work, norm_grad, "scaled_batch_norm_line_grad", read, {**lines, "Line": [line]}),
        place.conv_grad: back,
    }
