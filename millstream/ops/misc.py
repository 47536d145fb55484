"""Operators of search and advertising models: hashes, tags, click features, ids spread over servers, trees."""

from __future__ import annotations

from functools import cache
from itertools import pairwise

import numpy as np
import torch

from millstream.errors import NotSupportedError, ShapeError
from millstream.ir.types import VarType, to_var_type
from millstream.ops._opdef import DType, Long, OpSpec, op
from millstream.ops._values import Ragged, SelectedRows, Spec, torch_dtype
from millstream.ops.tensor._dims import fit


@cache
def _kernels():
    from millstream.kernels import xxhash  # numba is imported when the first hash runs

    return xxhash


def _bytes_of_rows(t):
    rows = np.ascontiguousarray(t.numpy().reshape(t.numel() // max(t.shape[-1], 1), t.shape[-1]))
    return rows.view(np.uint8).reshape(rows.shape[0], rows.shape[1] * rows.itemsize)


# ---- hash ----------------------------------------------------------------------------------------
def _hash_spec(x, *, num_hash, mod_by):
    if len(x.shape) < 2:
        raise ShapeError(f"hash: X must have rank 2 or more, received shape {list(x.shape)}")
    if num_hash < 1 or mod_by < 1:
        raise ShapeError(f"hash: num_hash and mod_by must be positive, received {num_hash} and {mod_by}")
    return Spec((*x.shape[:-1], num_hash, 1), x.dtype, x.lod_level)


@op("hash", slots="X -> Out", infer=_hash_spec, lod="X", grad=False)
def hash_(x, *, num_hash: int = 1, mod_by: Long = 100000):
    """XXH64 of the bytes of each row (last dim) with seeds 0 … num_hash-1, modulo `mod_by`; [..., num_hash, 1]."""
    out = np.empty((x.numel() // max(x.shape[-1], 1), num_hash), dtype=np.int64)
    _kernels().hash_rows(_bytes_of_rows(x.cpu()), num_hash, np.uint64(mod_by), out)
    return torch.from_numpy(out).to(x.dtype).reshape(*x.shape[:-1], num_hash, 1)


# ---- pyramid_hash --------------------------------------------------------------------------------
def _pyramid_spec(
    x,
    w,
    white,
    black,
    *,
    num_emb,
    space_len,
    pyramid_layer,
    rand_len,
    drop_out_percent,
    is_training,
    use_filter,
    white_list_len,
    black_list_len,
    seed,
    lr,
):
    if rand_len < 1 or num_emb % rand_len:
        raise ShapeError(f"pyramid_hash: num_emb {num_emb} must be a multiple of rand_len {rand_len}")
    if pyramid_layer < 2:
        raise ShapeError(f"pyramid_hash: pyramid_layer must be 2 or more, received {pyramid_layer}")
    if not fit(w.shape[0], space_len + rand_len):
        raise ShapeError(f"pyramid_hash: W must have space_len + rand_len = {space_len + rand_len} rows, has {w.shape[0]}")
    return Spec((-1, num_emb), w.dtype, x.lod_level), Spec((), VarType.INT32), Spec((-1, 1), VarType.INT32)


def _grams(offsets, pyramid_layer):
    """(sequence, first row, length) of all n-grams of 2 … pyramid_layer ids: by sequence, length, place."""
    return [
        (s, a + at, n)
        for s, (a, b) in enumerate(pairwise(offsets))
        for n in range(2, min(pyramid_layer, b - a) + 1)
        for at in range(b - a - n + 1)
    ]


def _gram_places(x, grams, num_emb, rand_len, space_len):
    """Positions in the flat table of every number of every n-gram's embedding, [grams, num_emb]."""
    starts = np.array([g[1] for g in grams], dtype=np.int64)
    sizes = np.array([g[2] for g in grams], dtype=np.int64)
    out = np.empty((len(grams), num_emb // rand_len), dtype=np.int64)
    ids = _bytes_of_rows(x.reshape(-1, 1).to(torch.float32))  # Fluid hashes the ids as floats
    _kernels().gram_rows(ids, starts, sizes, num_emb, rand_len, space_len, out)
    return torch.from_numpy((out[:, :, None] + np.arange(rand_len)).reshape(len(grams), num_emb))


def _pyramid_grad(o, out_grads, wanted):
    g = out_grads.get(o.output("Out")[0])
    if g is None or float(o.attrs.get("lr", 0.0)) == 0.0:
        return []
    inputs = {"X": o.input("X"), "W": o.input("W"), "DropPos": o.output("DropPos"), "Out@GRAD": [g]}
    attrs = {k: v for k, v in o.attrs.items() if not k.startswith("op_")}
    return [OpSpec("pyramid_hash_grad", inputs, {}, attrs)]


@op(
    "pyramid_hash",
    slots="X#, W, WhiteList?, BlackList? -> Out#, DropPos#, X_Temp_Out~",
    infer=_pyramid_spec,
    grad=_pyramid_grad,
)
def pyramid_hash(
    x,
    w,
    white,
    black,
    *,
    num_emb: int = 0,
    space_len: int = 0,
    pyramid_layer: int = 2,
    rand_len: int = 0,
    drop_out_percent: float = 0.0,
    is_training: int = 0,
    use_filter: bool = True,
    white_list_len: int = 0,
    black_list_len: int = 0,
    seed: int = 0,
    lr: float = 0.0,
    rng,
):
    """Embeddings of all n-grams of 2 … pyramid_layer ids of each sequence by hashing (no table of n-grams).

    An embedding is num_emb / rand_len pieces of W [space_len + rand_len, 1]; piece j starts at XXH32(ids as float32,
    seed j * rand_len) mod space_len. Sequences without an n-gram give one row of zeros. In training an n-gram is left
    out with probability `drop_out_percent`; otherwise everything is multiplied by `drop_out_percent`, as in Fluid.
    DropPos: 1 for each n-gram that was kept.
    """
    if use_filter and (white_list_len or black_list_len):
        raise NotSupportedError("pyramid_hash: white and black lists (Bloom filters) can't be read; use use_filter=False")
    offsets = x.offsets.tolist()
    grams = _grams(offsets, pyramid_layer)
    kept = [True] * len(grams)
    if is_training and drop_out_percent > 0:
        kept = (torch.rand(len(grams), generator=rng) >= drop_out_percent).tolist()
    chosen = [g for g, k in zip(grams, kept) if k]
    rows = w.reshape(-1)[_gram_places(x.values, chosen, num_emb, rand_len, space_len)]
    if not is_training:
        rows = rows * drop_out_percent
    count = np.bincount([g[0] for g in chosen], minlength=len(offsets) - 1)
    sizes = np.maximum(count, 1)
    out = rows.new_zeros((int(sizes.sum()), num_emb))
    out[torch.from_numpy(np.repeat(count > 0, sizes))] = rows
    drop = torch.zeros((len(x.values) * pyramid_layer, 1), dtype=torch.int32)
    drop[: len(grams), 0] = torch.tensor(kept, dtype=torch.int32)
    drop_lod = np.cumsum([0, *np.bincount([g[0] for g in grams], minlength=len(offsets) - 1)]).astype(np.int64)
    out_lod = (np.cumsum([0, *sizes]).astype(np.int64),)
    return Ragged(out, out_lod), Ragged(drop, (drop_lod,)), x.values.to(torch.float32)


@op("pyramid_hash_grad", slots="X#, W, DropPos, Out@GRAD -> X@GRAD", infer=False, side_effect=True)
def pyramid_hash_grad(
    x, w, drop, dout, *, num_emb: int = 0, space_len: int = 0, pyramid_layer: int = 2, rand_len: int = 0, lr: float = 0.0
):
    """Not a gradient: W itself is updated by -lr * gradient, in place, as Fluid's operator does."""
    grams = _grams(x.offsets.tolist(), pyramid_layer)
    chosen = [g for g, k in zip(grams, drop.reshape(-1).tolist()) if k]
    count = np.bincount([g[0] for g in chosen], minlength=len(x.offsets) - 1)
    rows = dout[torch.from_numpy(np.repeat(count > 0, np.maximum(count, 1)))]
    places = _gram_places(x.values, chosen, num_emb, rand_len, space_len)
    w.reshape(-1).index_add_(0, places.reshape(-1), rows.reshape(-1), alpha=-lr)


# ---- cvm -----------------------------------------------------------------------------------------
def _cvm_spec(x, cvm, *, use_cvm):
    if len(x.shape) != 2 or len(cvm.shape) != 2:
        raise ShapeError(f"cvm: X and CVM must be matrices, received shapes {list(x.shape)} and {list(cvm.shape)}")
    return x if use_cvm else x.like(shape=(x.shape[0], x.shape[1] - 2))


@op("cvm", slots="X, CVM -> Y", shares=True, infer=_cvm_spec, lod="X", grad_lod="X", nodiff="CVM")
def cvm(x, cvm, *, use_cvm: bool = True):
    """Rows [show, click, …] with log(show + 1) and log(click + 1) - log(show + 1) first, or without those two."""
    if not use_cvm:
        return x[:, 2:]
    show = torch.log(x[:, :1] + 1)
    return torch.cat([show, torch.log(x[:, 1:2] + 1) - show, x[:, 2:]], 1)


@op("cvm_grad", slots="X#, CVM, Y@GRAD -> X@GRAD", infer="X@GRAD=X")
def cvm_grad(x, cvm, dout, *, use_cvm: bool = True):
    """The first two columns are those of CVM (of the row's sequence), not a derivative."""
    lengths = torch.from_numpy(np.diff(x.lod[-1])) if x.lod else None
    head = cvm if lengths is None else cvm.repeat_interleave(lengths, 0)
    return torch.cat([head[:, :2].to(dout.dtype), dout[:, 2:] if use_cvm else dout], 1)


# ---- filter_by_instag ----------------------------------------------------------------------------
def _instag_spec(ins, tags, wanted, *, is_lod, out_val_if_empty):
    shape = (-1, *ins.shape[1:])
    return Spec(shape, ins.dtype), Spec((-1, 1), VarType.FP32), Spec((-1, 2), VarType.INT64)


@op("filter_by_instag", slots="Ins#, Ins_tag#, Filter_tag -> Out#, LossWeight#, IndexMap#", infer=_instag_spec)
def filter_by_instag(ins, tags, wanted, *, is_lod: bool, out_val_if_empty: Long = 0):
    """The instances (sequences, or rows if not is_lod) with one of the tags of Filter_tag.

    LossWeight: 1 for each; IndexMap: [first row of Out, first row of Ins, rows]. When none is left, Out is one row of
    `out_val_if_empty` with weight 0.
    """
    keep = set(wanted.reshape(-1).tolist())
    numbers = tags.values.reshape(-1).tolist()
    tag_at = tags.offsets.tolist() if tags.lod else list(range(len(numbers) + 1))
    rows_at = ins.offsets.tolist() if is_lod and ins.lod else list(range(ins.values.shape[0] + 1))
    count = min(len(tag_at), len(rows_at)) - 1
    chosen = [i for i in range(count) if keep.intersection(numbers[tag_at[i] : tag_at[i + 1]])]
    if not chosen:
        one = (np.array([0, 1], dtype=np.int64),)
        out = torch.full_like(ins.values[:1], out_val_if_empty)
        return Ragged(out, one), Ragged(torch.zeros(1, 1), one), Ragged(torch.tensor([[0, 1, 1]]), one)
    sizes = [rows_at[i + 1] - rows_at[i] for i in chosen]
    starts = np.cumsum([0, *sizes]).astype(np.int64)
    out = torch.cat([ins.values[rows_at[i] : rows_at[i + 1]] for i in chosen])
    index = torch.tensor([[int(s), rows_at[i], n] for s, i, n in zip(starts, chosen, sizes)])
    each = (np.arange(len(chosen) + 1, dtype=np.int64),)
    return Ragged(out, (starts,)), Ragged(torch.ones(len(chosen), 1), each), Ragged(index, each)


@op(
    "filter_by_instag_grad", slots="Ins, LossWeight, IndexMap, Out@GRAD -> Ins@GRAD", infer="Ins@GRAD=Ins",
    nodiff="LossWeight",
)  # fmt: skip
def filter_by_instag_grad(ins, weight, index, dout):
    out = torch.zeros_like(ins)
    if float(weight.reshape(-1)[0]) != 0:
        for source, target, rows in index.tolist():
            out[target : target + rows] = dout[source : source + rows]
    return out


# ---- memory in one block -------------------------------------------------------------------------
_ALIGN = 4096  # bytes; every part of a fused buffer starts on a multiple


@op("coalesce_tensor", slots="Input* -> Output*, FusedOutput", infer=False, grad=False)
def coalesce_tensor(
    xs,
    *,
    dtype: DType,
    copy_data: bool = False,
    set_constant: bool = False,
    constant: float = 0.0,
    check_name: bool = False,
    names,
):
    """Outputs of the inputs' shapes that lie in one buffer, FusedOutput, each on a multiple of 4096 bytes.

    They hold the inputs (copy_data), `constant` (set_constant), or zeros.
    """
    kind = torch_dtype(dtype)
    for x, name in zip(xs, names["Input"]):
        if x.dtype is not kind:
            raise ShapeError(f"coalesce_tensor: {name} must be {kind}, received {x.dtype}")
    if check_name and list(names["Input"]) != list(names["Output"]):
        raise ShapeError("coalesce_tensor: with check_name the outputs must be the inputs")
    unit = max(_ALIGN // kind.itemsize, 1)
    sizes = [-(-x.numel() // unit) * unit for x in xs]
    fused = torch.full((sum(sizes),), constant if set_constant else 0, dtype=kind)
    outs, at = [], 0
    for x, size in zip(xs, sizes):
        part = fused[at : at + x.numel()].reshape(x.shape)
        if copy_data:
            part.copy_(x)
        outs.append(part)
        at += size
    return outs, fused


# ---- ids over servers ----------------------------------------------------------------------------
@op("split_ids", slots="Ids* -> Out*", infer=False, grad=False)
def split_ids(ids, *, counts):
    """Ids by their remainder modulo the number of outputs; without repeats, sorted, [n, 1].

    SelectedRows: rows by the remainder of their row number, in their order.
    """
    shards = counts[0]
    if isinstance(ids[0], SelectedRows):
        x = ids[0]
        where = [(x.rows % shards) == k for k in range(shards)]
        return [SelectedRows(x.rows[w], x.values[w], x.height) for w in where]
    found = torch.unique(torch.cat([i.reshape(-1) for i in ids]))
    return [found[found % shards == k].reshape(-1, 1) for k in range(shards)]


def _ids_lods(lods, attrs, ins):
    return {"Out": lods["Ids"]}


@op("merge_ids", slots="Ids*, Rows*, X* -> Out*", infer=False, lod=_ids_lods, grad=False)
def merge_ids(ids, rows, xs):
    """For each list of ids the rows of the X whose Rows name them: what split_ids spread comes together."""
    keys = torch.cat([r.reshape(-1) for r in rows])
    values = torch.cat(xs)
    order = torch.argsort(keys)
    keys = keys[order]
    outs = []
    for i in ids:
        flat = i.reshape(-1)
        at = torch.searchsorted(keys, flat).clamp_(max=len(keys) - 1)
        if bool((keys[at] != flat).any()):
            raise IndexError(f"merge_ids: id {int(flat[keys[at] != flat][0])} is in none of the Rows")
        outs.append(values[order[at]])
    return outs


@op("ref_by_trainer_id", slots="X*, TrainerId -> Out", shares=True, infer=False, grad=False)
def ref_by_trainer_id(xs, trainer):
    """The X of this trainer."""
    which = int(trainer.reshape(-1)[0])
    if not 0 <= which < len(xs):
        raise IndexError(f"ref_by_trainer_id: TrainerId must be in [0, {len(xs)}), received {which}")
    return xs[which]


# ---- trees ---------------------------------------------------------------------------------------
def _child_spec(x, tree, *, child_nums, dtype):
    if len(tree.shape) != 2 or not fit(tree.shape[1], 3 + child_nums):
        raise ShapeError(f"tdm_child: TreeInfo must be [nodes, {3 + child_nums}], received shape {list(tree.shape)}")
    spec = Spec((*x.shape, child_nums), to_var_type(dtype))
    return spec, spec


@op("tdm_child", slots="X, TreeInfo -> Child, LeafMask", infer=_child_spec, lod="X", grad=False)
def tdm_child(x, tree, *, child_nums: int, dtype: DType = 2):
    """Children of tree nodes (Zhu et al., TDM, 2018), [*X.shape, child_nums], and 1 where a child is an item.

    TreeInfo [nodes, 3 + child_nums]: item, layer, parent, children (0: none) of each node.
    """
    node = x.long()
    if node.numel() and not 0 <= int(node.min()) <= int(node.max()) < tree.shape[0]:
        low, high = int(node.min()), int(node.max())
        raise IndexError(f"tdm_child: nodes must be in [0, {tree.shape[0]}), received {low} to {high}")
    child = tree[node][..., 3 : 3 + child_nums].long()
    has = ((node != 0) & (child[..., 0] != 0)).unsqueeze(-1)
    child = torch.where(has, child, 0)
    leaf = has & (tree[child][..., 0] != 0)
    kind = torch_dtype(dtype)
    return child.to(kind), leaf.to(kind)
