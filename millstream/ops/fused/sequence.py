"""Sequence operators fused with what surrounds them: pooling and concatenation, convolution and relu, embedding sums."""

from __future__ import annotations

import numpy as np
import torch

from millstream.errors import AttributeTypeError, EnforceNotMet, NotSupportedError, ShapeError
from millstream.ir.types import VarType
from millstream.ops import _flops
from millstream.ops._opdef import Long, op
from millstream.ops._values import Ragged, SelectedRows, Spec
from millstream.ops.misc import cvm as _shows_and_clicks
from millstream.ops.sequence._lod import index, one_level
from millstream.ops.sequence.conv import _columns, _conv_spec
from millstream.ops.sequence.pool import sequence_pool
from millstream.ops.tensor._dims import fit


# ---- fusion_seqpool_concat ---------------------------------------------------------------------------
def _pooled_width(xs: list[Spec], pooltype: str, axis: int) -> int:
    if pooltype not in ("SUM", "AVERAGE", "SQRT"):
        raise AttributeTypeError(f"pooltype must be SUM, AVERAGE or SQRT, received {pooltype!r}")
    if axis != 1:
        raise NotSupportedError(f"axis must be 1, received {axis}")
    if any(len(x.shape) != 2 for x in xs):
        raise ShapeError(f"each X must be [rows, width], received {[list(x.shape) for x in xs]}")
    widths = [x.shape[1] for x in xs]
    return widths[0] * len(widths) if min(widths) < 0 else sum(widths)  # Fluid counts the first for all


def _seqpool_spec(xs, *, pooltype, axis):
    return Spec((-1, _pooled_width(xs, pooltype, axis)), xs[0].dtype, 1)


def _pooled(xs: list[Ragged], pooltype: str) -> list[torch.Tensor]:
    counts = [len(one_level(x, "X")) - 1 for x in xs]
    if len(set(counts)) != 1:
        raise EnforceNotMet(f"all inputs must have as many sequences, received {counts}")
    return [sequence_pool(x, pooltype=pooltype)[0].values for x in xs]


def _row_each(values: torch.Tensor) -> Ragged:
    return Ragged(values, (np.arange(values.shape[0] + 1, dtype=np.int64),))


@op("fusion_seqpool_concat", slots="X*# -> Out#", infer=_seqpool_spec, grad=False)
def fusion_seqpool_concat(xs, *, pooltype: str = "SUM", axis: int = 1):
    """sequence_pool of each input, side by side. Each X: [rows, D_k] with LoD; Out: [sequences, sum D_k]."""
    return _row_each(torch.cat(_pooled(xs, pooltype), 1))


def _joined_spec(xs, *, pooltype, pad_value, shows):
    if shows not in ("", "keep", "drop"):
        raise AttributeTypeError(f"shows must be '', 'keep' or 'drop', received {shows!r}")
    width = _pooled_width(xs, pooltype, 1)
    return Spec((-1, width - 2 * len(xs) if shows == "drop" and width >= 0 else width), xs[0].dtype)


@op("fused_seqpool_concat", slots="X*# -> Out", infer=_joined_spec, grad=False)
def fused_seqpool_concat(xs, *, pooltype: str = "SUM", pad_value: float = 0.0, shows: str = ""):
    """fusion_seqpool_concat whose result has no LoD, like the concat that it stands for; an empty sequence gives
    `pad_value`. Each X: [rows, D_k] with LoD; Out: [sequences, sum D_k]. Passes make it.

    shows: what the operator cvm does to each pool, whose first two columns are shows and clicks: "keep" with use_cvm,
    "drop" without."""
    pools = [sequence_pool(x, pooltype=pooltype, pad_value=pad_value)[0].values for x in xs]
    if shows:
        pools = [_shows_and_clicks(pool, None, use_cvm=shows == "keep") for pool in pools]
    return torch.cat(pools, 1)


def _cvm_spec(xs, cvm, *, pooltype, use_cvm, axis):
    if not use_cvm:
        raise NotSupportedError("use_cvm must be true")
    return Spec((-1, _pooled_width(xs, pooltype, axis)), xs[0].dtype)


@op("fusion_seqpool_cvm_concat", slots="X*#, CVM -> Out#", infer=_cvm_spec, grad=False)
def fusion_seqpool_cvm_concat(xs, cvm, *, pooltype: str = "SUM", use_cvm: bool = True, axis: int = 1):
    """sequence_pool of each input; columns 0, 1 (shows, clicks) become log(s + 1), log(c + 1) - log(s + 1); concat."""
    return _row_each(torch.cat([_shows_and_clicks(pool, cvm) for pool in _pooled(xs, pooltype)], 1))


# ---- fusion_seqconv_eltadd_relu ----------------------------------------------------------------------
def _seqconv_spec(x, weight, bias, *, contextLength, contextStart, contextStride):
    out = _conv_spec(
        x, None, weight, paddingTrainable=False, contextLength=contextLength, contextStart=contextStart,
        contextStride=contextStride,
    )
    if len(bias.shape) not in (1, 2) or not all(map(fit, bias.shape, (1, weight.shape[1])[-len(bias.shape) :])):
        raise ShapeError(f"Bias must be [1, {weight.shape[1]}], received {list(bias.shape)}")
    return out, Spec((x.shape[0], weight.shape[0]), x.dtype)


@op("fusion_seqconv_eltadd_relu", slots="X#, Filter, Bias -> Out#, ColMat~", infer=_seqconv_spec, grad=False,
    flops=_flops.context_product)  # fmt: skip
def fusion_seqconv_eltadd_relu(x, weight, bias, *, contextLength: int, contextStart: int = 0, contextStride: int = 1):
    """relu(sequence_conv(X) + Bias); ColMat: the rows' contexts side by side."""
    columns = _columns(x, None, contextStart, contextLength)
    return Ragged(torch.addmm(bias.reshape(1, -1), columns, weight).relu_(), x.lod), columns


# ---- fusion_seqexpand_concat_fc ----------------------------------------------------------------------
FC_ACTIVATIONS = {"identity": lambda t: t, "relu": torch.relu, "sigmoid": torch.sigmoid, "tanh": torch.tanh}


def _expand_fc_spec(xs, weight, bias, *, fc_activation):
    if fc_activation not in FC_ACTIVATIONS:
        raise AttributeTypeError(f"fc_activation must be one of {', '.join(FC_ACTIVATIONS)}, received {fc_activation!r}")
    widths = [x.shape[-1] for x in xs]
    if min(widths) >= 0 and not fit(weight.shape[0], sum(widths)):
        raise ShapeError(f"FCWeight must have {sum(widths)} rows like the inputs columns, received {list(weight.shape)}")
    return xs[0].like(shape=(xs[0].shape[0], weight.shape[1])), None


@op("fusion_seqexpand_concat_fc", slots="X*#, FCWeight, FCBias? -> Out#, FCOut~", infer=_expand_fc_spec, grad=False,
    flops=_flops.expanded_layer)  # fmt: skip
def fusion_seqexpand_concat_fc(xs, weight, bias, *, fc_activation: str = "identity"):
    """activation([X_0, X_1 expanded, …] FCWeight + FCBias).

    X_0: [rows, D_0] with LoD; every other X has one row for each sequence of X_0, repeated over its rows;
    FCOut: those rows' share of the product, without bias, [sequences, M].
    """
    first = xs[0]
    offsets = one_level(first, "X")
    n, width = len(offsets) - 1, first.values.shape[1]
    if any(x.values.shape[0] != n for x in xs[1:]):
        raise EnforceNotMet(f"every X after the first must have {n} rows, received {[x.values.shape[0] for x in xs[1:]]}")
    out = first.values @ weight[:width]
    share = torch.cat([x.values for x in xs[1:]], 1) @ weight[width:] if len(xs) > 1 else out.new_zeros((n, weight.shape[1]))
    added = share if bias is None else share + bias.reshape(1, -1)
    out = out + torch.repeat_interleave(added, index(np.diff(offsets), share), 0, output_size=out.shape[0])
    return Ragged(FC_ACTIVATIONS[fc_activation](out), first.lod), share


# ---- fused_embedding_seq_pool ------------------------------------------------------------------------
def _embedding_spec(w, ids, *, combiner, padding_idx, is_sparse):
    if combiner != "sum":
        raise NotSupportedError(f"combiner must be 'sum', received {combiner!r}")
    if len(w.shape) != 2:
        raise ShapeError(f"W must be [vocabulary, width], received {list(w.shape)}")
    if len(ids.shape) != 2 or ids.shape[1] not in (1, -1):
        raise ShapeError(f"Ids must be [rows, 1], received {list(ids.shape)}")
    return Spec((-1, w.shape[1]), w.dtype)


@op("fused_embedding_seq_pool", slots="W, Ids# -> Out", infer=_embedding_spec, nodiff="Ids")
def fused_embedding_seq_pool(w, ids, *, combiner: str = "sum", padding_idx: Long = -1, is_sparse: bool = False):
    """Sum of the rows of W by each sequence of Ids; `padding_idx` (-1: none) counts as zeros.

    W: [vocabulary, D]; Ids: int64 [rows, 1] with LoD; Out: [sequences, D].
    """
    offsets = one_level(ids, "Ids")
    flat = ids.values.reshape(-1).long()
    weights = (flat != padding_idx).to(w.dtype) if padding_idx != -1 else None
    return torch.nn.functional.embedding_bag(
        flat, w, index(offsets[:-1], flat), mode="sum", per_sample_weights=weights
    ) if len(offsets) > 1 else w.new_zeros((0, w.shape[1]))


def _embedding_grad_spec(w, ids, dout, *, is_sparse, **attrs):
    return Spec(w.shape, w.dtype, 0, VarType.SELECTED_ROWS if is_sparse else VarType.LOD_TENSOR)


@op("fused_embedding_seq_pool_grad", slots="W, Ids#, Out@GRAD -> W@GRAD", infer=_embedding_grad_spec)
def fused_embedding_seq_pool_grad(w, ids, dout, *, is_sparse: bool = False, padding_idx: Long = -1):
    flat = ids.values.reshape(-1).long()
    rows = torch.repeat_interleave(dout, index(np.diff(ids.lod[-1]), dout), 0, output_size=flat.numel())
    if padding_idx != -1 and not is_sparse:
        rows = rows.masked_fill((flat == padding_idx).unsqueeze(1), 0)
    if is_sparse:
        return SelectedRows(flat, rows, w.shape[0])
    return torch.zeros_like(w, memory_format=torch.contiguous_format).index_add_(0, flat, rows)
