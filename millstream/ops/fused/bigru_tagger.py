"""A tagger as one operator, from embedding to CRF. Passes make it (passes/recurrent/fuse_bigru_tagger.py)."""

from __future__ import annotations

from functools import cache, lru_cache
from types import ModuleType

import torch

from millstream.errors import EnforceNotMet, ShapeError
from millstream.ir.types import VarType
from millstream.kernels.threads import parts
from millstream.ops import _flops
from millstream.ops._opdef import op
from millstream.ops._values import Ragged, Spec
from millstream.ops.fused.bigru import RARELY, all_plain, alone, array_of, embedded_bigru, projected_bigru
from millstream.ops.fused.projected import TILED
from millstream.ops.loss.crf import crf_decoding
from millstream.ops.matmul import fc
from millstream.ops.recurrent._steps import ACTIVATIONS, code, fits, need, sequence_offsets


@cache
def _kernels() -> tuple[ModuleType, int]:
    from millstream.kernels import bigru_tagger, tiles

    return bigru_tagger, tiles.LANES


def _spec(
    ids, table, wh, bias, digits_h, wx, bias_x, digits_x, w, bias_w, transition, packed, *, is_reverse, activation,
    gate_activation, origin_mode, digits_of_scores,
):  # fmt: skip
    code(activation), code(gate_activation)
    layers = len(is_reverse)
    if not layers or (len(wh), len(bias)) != (2 * layers, 2 * layers) or (len(wx), len(bias_x)) != (2 * layers - 2,) * 2:
        raise ShapeError(f"{layers} layers need two WeightH and Bias each, and all but the first two WeightX and BiasX")
    d = wh[0].shape[0]
    need(fits(table.shape, -1, 6 * d), f"Table must be [ids, {6 * d}]", table)
    need(all(fits(one.shape, d, 3 * d) for one in wh), f"WeightH must be [{d}, {3 * d}]", *wh)
    need(all(fits(one.shape, 2 * d, 3 * d) for one in wx), f"WeightX must be [{2 * d}, {3 * d}]", *wx)
    need(fits(w.shape, 2 * d, -1), f"W must be [{2 * d}, tags]", w)
    need(fits(transition.shape, w.shape[1] + 2, w.shape[1]), "Transition must be [tags + 2, tags]", transition)
    return Spec((ids.shape[0], 1), VarType.INT64, ids.lod_level)


@op(
    "bigru_tagger",
    slots="Ids#, Table, WeightH*, Bias*, DigitsH*, WeightX*, BiasX*, DigitsX*, W, BiasW?, Transition, Packed "
    "-> ViterbiPath#",
    infer=_spec, grad=False, flops=_flops.tagged,
)  # fmt: skip
def bigru_tagger(
    ids, table, wh, bias, digits_h, wx, bias_x, digits_x, w, bias_w, transition, packed, *, is_reverse: list[int],
    activation: str = "tanh", gate_activation: str = "sigmoid", origin_mode: bool = False,
    digits_of_scores: bool = False,
):  # fmt: skip
    """embedded_bigru, projected_bigru for each further layer, fc, crf_decoding.

    Ids: int64 [rows, 1] or [rows] with LoD; weights two by two, in the layers' order; Packed: those that single sentences
    read, in one block (kernels/bigru_tagger.py); digits_of_scores: W stands there as integers. A number in `is_reverse`
    for each layer. ViterbiPath: int64 [rows, 1].
    """
    offsets = sequence_offsets(ids, "Ids")
    values, d, rows, tags = ids.values, wh[0].shape[0], int(offsets[-1]), w.shape[1]
    kernels, lanes = _kernels()
    here = values.dtype is torch.int64 and values.is_cpu and values.is_contiguous() and values.numel() == rows
    small = alone(offsets) and 6 * rows * d * d <= TILED and parts(9 * rows * d * d // RARELY, 2) == 1
    if not here or not rows or d % lanes or not small:
        acts = {"activation": activation, "gate_activation": gate_activation, "origin_mode": origin_mode}
        digits = digits_h or [None] * len(wh)
        first = (wh[0], bias[0], wh[1], bias[1], digits[0], digits[1])
        hidden = embedded_bigru(ids, table, *first, is_reverse=bool(is_reverse[0]), **acts)
        projected = digits_x or [None] * len(wx)
        for k in range(0, len(wx), 2):
            hidden = projected_bigru(
                hidden, wx[k], bias_x[k], wh[k + 2], bias[k + 2], wx[k + 1], bias_x[k + 1], wh[k + 3], bias[k + 3],
                projected[k], digits[k + 2], projected[k + 1], digits[k + 3], is_reverse=bool(is_reverse[k // 2 + 1]),
                **acts,
            )  # fmt: skip
        return crf_decoding(Ragged(fc(hidden.values, w, bias_w), ids.lod), transition, None, None)
    kind = (len(is_reverse), d, tags, bool(digits_h), digits_of_scores)
    parts_at = _parts(kernels.places_of, kind, packed.data_ptr(), packed.numel())
    if packed.dtype is not torch.int8 or not packed.is_contiguous() or not all_plain(table):
        raise EnforceNotMet("Table must be float32 and Packed int8, on the CPU and without gaps")
    scratch = torch.empty(kernels.room_for(rows, d, tags), dtype=torch.float32)
    path = torch.empty((rows, 1), dtype=torch.int64)
    known = table.shape[0]
    if not kernels.tag(
        values.data_ptr(), table.data_ptr(), known, parts_at, array_of(tuple(is_reverse)), d, tags, kernels.padded(tags),
        digits_of_scores, scratch.data_ptr(), offsets, path.numpy().reshape(-1), ACTIVATIONS[gate_activation],
        ACTIVATIONS[activation], origin_mode,
    ):  # fmt: skip
        raise EnforceNotMet(f"Ids must lie in [0, {known}), received {int(values.min())} to {int(values.max())}")
    return Ragged(path, ids.lod)


@lru_cache(maxsize=1024)
def _parts(places_of, kind, begin: int, size: int):
    """The addresses of the parts of a block of `size` bytes; it must be as long as one of this kind."""
    places, wanted = places_of(*kind)
    if size != wanted:
        raise EnforceNotMet(f"Packed must have {wanted} bytes, received {size}")
    return array_of(tuple([0 if place < 0 else begin + place for place in places]))
