"""Recurrent layers with their input projection in one operator (inference only, as in Fluid)."""

from __future__ import annotations

from millstream.errors import EnforceNotMet, ShapeError
from millstream.kernels.gemm import product
from millstream.ops import _flops
from millstream.ops._opdef import op
from millstream.ops._values import Ragged, Spec
from millstream.ops.recurrent import gru as _gru
from millstream.ops.recurrent import lstm as _lstm
from millstream.ops.recurrent._steps import code, codes, fits, need, sequence_offsets


def _check_lstm(weight: Spec, bias: Spec, h0: Spec | None, c0: Spec | None, peepholes: bool) -> int:
    d = weight.shape[0]
    need(fits(weight.shape, d, 4 * d), "WeightH must be [D, 4D]", weight)
    need(fits(bias.shape, 1, 7 * d if peepholes else 4 * d), f"Bias must be [1, {7 * d if peepholes else 4 * d}]", bias)
    need((h0 is None) == (c0 is None), "H0 and C0 must be given together", h0, c0)
    for state in (h0, c0):
        need(state is None or fits(state.shape, -1, d), f"H0 and C0 must be [sequences, {d}]", h0, c0)
    return d


# ---- fusion_gru --------------------------------------------------------------------------------------
def _gru_spec(x, h0, wx, wh, bias, *, activation, gate_activation, is_reverse, use_seq, origin_mode):
    code(activation), code(gate_activation)
    d = wh.shape[0]
    need(fits(wh.shape, d, 3 * d), "WeightH must be [D, 3D]", wh)
    need(len(x.shape) == 2 and fits(wx.shape, x.shape[1], 3 * d), f"X must be [rows, M] and WeightX [M, {3 * d}]", x, wx)
    need(bias is None or fits(bias.shape, 1, 3 * d), f"Bias must be [1, {3 * d}]", bias)
    need(h0 is None or fits(h0.shape, -1, d), f"H0 must be [sequences, {d}]", h0)
    return None, x.like(shape=(x.shape[0], 3 * d)), None, None, x.like(shape=(x.shape[0], d))


@op(
    "fusion_gru", slots="X#, H0?, WeightX, WeightH, Bias? -> ReorderedH0~, XX#~, BatchedInput~, BatchedOut~, Hidden#",
    infer=_gru_spec, grad=False, flops=_flops.projected_input,
)
def fusion_gru(
    x, h0, wx, wh, bias, *, activation: str = "tanh", gate_activation: str = "sigmoid", is_reverse: bool = False,
    use_seq: bool = True, origin_mode: bool = False,
):
    """gru of X WeightX + Bias, always h = (1 - u) h_prev + u c: like Fluid this operator does not look at `origin_mode`
    (use gru for that form). `use_seq` only chose Fluid's algorithm and changes nothing here.

    X: [rows, M] with LoD; WeightX: [M, 3D]; WeightH: [D, 3D] in gru's layout; XX: X WeightX + Bias; the Reordered and
    Batched outputs stay empty.
    """
    offsets = sequence_offsets(x, "X")
    projected = product(x.values, wx)
    if bias is not None:
        projected += bias.reshape(1, -1)
    found = _gru.run(
        projected, offsets, h0, wh, None,
        activation=activation, gate_activation=gate_activation, reverse=is_reverse, origin=False,
    )
    empty = projected.new_empty(0)
    return empty, Ragged(projected, x.lod), empty, empty, Ragged(found.hidden, x.lod)


# ---- fusion_lstm -------------------------------------------------------------------------------------
def _lstm_spec(
    x, wx, wh, bias, h0, c0, *, use_peepholes, is_reverse, use_seq, gate_activation, cell_activation, candidate_activation
):
    code(gate_activation), code(cell_activation), code(candidate_activation)
    d = _check_lstm(wh, bias, h0, c0, use_peepholes)
    need(len(x.shape) == 2 and fits(wx.shape, x.shape[1], 4 * d), f"X must be [rows, M] and WeightX [M, {4 * d}]", x, wx)
    out = x.like(shape=(x.shape[0], d))
    return out, out, x.like(shape=(x.shape[0], 4 * d)), None, None, None, None, None, None


@op(
    "fusion_lstm",
    slots="X#, WeightX, WeightH, Bias, H0?, C0? -> Hidden#, Cell#, XX#~, BatchedInput~, BatchedHidden~, BatchedCell~,"
    " ReorderedH0~, ReorderedC0~, CheckedCell~",
    infer=_lstm_spec, grad=False, flops=_flops.projected_input,
)
def fusion_lstm(
    x, wx, wh, bias, h0, c0, *, use_peepholes: bool = True, is_reverse: bool = False, use_seq: bool = True,
    gate_activation: str = "sigmoid", cell_activation: str = "tanh", candidate_activation: str = "tanh",
):
    """lstm of X WeightX + Bias; `use_seq` only chose Fluid's algorithm and changes nothing here.

    X: [rows, M] with LoD; WeightX: [M, 4D]; WeightH, Bias, H0, C0, outputs as in lstm; XX: X WeightX; the Batched,
    Reordered and Checked outputs stay empty.
    """
    offsets = sequence_offsets(x, "X")
    acts = codes(gate_activation, cell_activation, candidate_activation)
    projected = product(x.values, wx)
    found = _lstm.run(projected, offsets, h0, c0, wh, bias, peepholes=use_peepholes, reverse=is_reverse, acts=acts)
    empty = (projected.new_empty(0),) * 6
    return Ragged(found.hidden, x.lod), Ragged(found.cell, x.lod), Ragged(projected, x.lod), *empty


# ---- fused_embedding_fc_lstm -------------------------------------------------------------------------
def _embedding_spec(
    ids, table, wh, bias, h0, c0, *, use_peepholes, is_reverse, use_seq, gate_activation, cell_activation,
    candidate_activation,
):
    code(gate_activation), code(cell_activation), code(candidate_activation)
    d = _check_lstm(wh, bias, h0, c0, use_peepholes)
    need(fits(table.shape, -1, 4 * d), f"Embeddings must be [vocabulary, {4 * d}]", table)
    if len(ids.shape) != 2 or ids.shape[1] not in (1, -1):
        raise ShapeError(f"Ids must be [rows, 1], received {list(ids.shape)}")
    out = Spec((ids.shape[0], d), table.dtype, ids.lod_level)
    return out, out, out.like(shape=(ids.shape[0], 4 * d)), None, None, None, None, None


@op(
    "fused_embedding_fc_lstm",
    slots="Ids#, Embeddings, WeightH, Bias, H0?, C0? -> Hidden#, Cell#, XX#~, BatchedInput~, BatchedHidden~,"
    " BatchedCell~, ReorderedH0~, ReorderedC0~",
    infer=_embedding_spec, grad=False, flops=_flops.embedded_recurrence,
)
def fused_embedding_fc_lstm(
    ids, table, wh, bias, h0, c0, *, use_peepholes: bool = True, is_reverse: bool = False, use_seq: bool = True,
    gate_activation: str = "sigmoid", cell_activation: str = "tanh", candidate_activation: str = "tanh",
):
    """lstm of the rows of Embeddings, which hold embedding, projection and gate bias multiplied out.

    Of Bias only the peephole weights count. Ids: int64 [rows, 1] with LoD; Embeddings: [vocabulary, 4D]; else as lstm.
    """
    offsets = sequence_offsets(ids, "Ids")
    d = wh.shape[0]
    flat = ids.values.reshape(-1)
    if flat.numel() and (int(flat.min()) < 0 or int(flat.max()) >= table.shape[0]):
        raise EnforceNotMet(f"Ids must lie in [0, {table.shape[0]}), received {int(flat.min())} to {int(flat.max())}")
    projected = table[flat.long()]
    peepholes = bias.reshape(-1).clone()
    peepholes[: 4 * d] = 0
    acts = codes(gate_activation, cell_activation, candidate_activation)
    found = _lstm.run(projected, offsets, h0, c0, wh, peepholes, peepholes=use_peepholes, reverse=is_reverse, acts=acts)
    empty = (projected.new_empty(0),) * 5
    return Ragged(found.hidden, ids.lod), Ragged(found.cell, ids.lod), Ragged(projected, ids.lod), *empty
