"""Random tensors. The values come from the run's generator, or from one started at the attribute `seed`."""

from __future__ import annotations

import torch

from millstream.errors import ShapeError
from millstream.ir.types import VarType, to_var_type
from millstream.ops._opdef import DType, Longs, op
from millstream.ops._values import Spec, torch_dtype
from millstream.ops.tensor._dims import fit
from millstream.ops.tensor.fill import given_shape, like_spec, shape_spec

# ---- dropout -------------------------------------------------------------------------------------
_MODES = ("downgrade_in_infer", "upscale_in_train")


def _dropout_spec(x, seed_in, *, dropout_prob, is_test, fix_seed, seed, dropout_implementation):
    if not 0 <= dropout_prob <= 1:
        raise ShapeError(f"dropout_prob must be in [0, 1], received {dropout_prob}")
    if dropout_implementation not in _MODES:
        raise ShapeError(f"dropout_implementation must be one of {', '.join(_MODES)}; received {dropout_implementation!r}")
    return x, None if is_test else Spec(x.shape, VarType.UINT8)


def _keep_mask(x, p, rng):
    """uint8 of X's shape, 1 with probability 1 - p.

    Compares 32 random bits with p: bernoulli_ makes one double an element and takes five times as long.
    """
    if p <= 0 or p >= 1:
        return torch.full(x.shape, int(p <= 0), dtype=torch.uint8, device=x.device)
    n = x.numel()
    bits = torch.empty((n + 1) // 2, dtype=torch.int64, device=x.device).random_(-(2**63), None, generator=rng)
    limit = round(p * 2**32) - 2**31
    return (bits.view(torch.int32)[:n] >= limit).view(torch.uint8).reshape(x.shape)


@op(
    "dropout", slots="X, Seed? -> Out, Mask~", shares=True, infer=_dropout_spec, lod="X", grad_lod="X=Out@GRAD",
    nodiff="Seed",
    amp="gray", draws=True,
)  # fmt: skip
def dropout(
    x,
    seed_in,
    *,
    dropout_prob: float = 0.5,
    is_test: bool = False,
    fix_seed: bool = False,
    seed: int = 0,
    dropout_implementation: str = "downgrade_in_infer",
    ctx,
):
    """Each element becomes 0 with probability p (Srivastava et al. 2014); Mask is 1 where it stayed.

    upscale_in_train: kept elements are divided by 1-p, nothing happens in tests. downgrade_in_infer: kept elements
    stay as they are, tests multiply by 1-p. The seed is Seed's number, or `seed` if `fix_seed`, else random.
    """
    upscale = dropout_implementation == "upscale_in_train"
    keep = 1.0 - dropout_prob
    if is_test:
        return (x if upscale or dropout_prob == 0 else x * keep), None
    if seed_in is not None:
        rng = ctx.seeded(int(seed_in.reshape(-1)[0]))
    else:
        rng = ctx.seeded(seed) if fix_seed else ctx.rng
    mask = _keep_mask(x, dropout_prob, rng)
    out = x * mask
    if upscale and 0 < keep < 1:
        out.mul_(1.0 / keep)
    return out, mask


@op("dropout_grad", slots="Mask?, Out@GRAD -> X@GRAD", nodiff="Mask")
def dropout_grad(
    mask, dout, *, dropout_prob: float = 0.5, is_test: bool = False, dropout_implementation: str = "downgrade_in_infer"
):
    upscale = dropout_implementation == "upscale_in_train"
    keep = 1.0 - dropout_prob
    if is_test or mask is None:
        return dout if upscale else dout * keep
    out = dout * mask
    return out.mul_(1.0 / keep) if upscale and 0 < keep < 1 else out


# ---- distributions -------------------------------------------------------------------------------
def _check_shape(shape):
    if any(d < 0 for d in shape):
        raise ShapeError(f"a random tensor needs a known shape, received {list(shape)}")


_SHAPED = "ShapeTensor?, ShapeTensorList* -> Out"


def _gaussian_spec(shape_tensor, shape_list, *, shape, mean, std, seed, dtype):
    return shape_spec(shape, shape_tensor, shape_list, dtype)


def _normal(shape, mean, std, dtype, rng, device):
    _check_shape(shape)
    return torch.empty(shape, dtype=torch_dtype(dtype), device=device).normal_(0, 1, generator=rng).mul_(std).add_(mean)


@op("gaussian_random", slots=_SHAPED, infer=_gaussian_spec, grad=False, amp="gray")
def gaussian_random(
    shape_tensor,
    shape_list,
    *,
    shape: Longs = [],
    mean: float = 0.0,
    std: float = 1.0,
    seed: int = 0,
    dtype: DType = 5,
    rng,
    device,
):
    """Normal numbers with `mean` and standard deviation `std`."""
    return _normal(given_shape(shape, shape_tensor, shape_list), mean, std, dtype, rng, device)


def _gaussian_like_spec(x, *, shape, input_dim_idx, output_dim_idx, mean, std, seed, dtype):
    return like_spec(x, shape, input_dim_idx, output_dim_idx, dtype)


def _like_shape(x, shape, input_dim_idx, output_dim_idx):
    shape = list(shape)
    shape[output_dim_idx] = x.shape[input_dim_idx]
    return shape


@op("gaussian_random_batch_size_like", slots="Input -> Out", infer=_gaussian_like_spec, grad=False, amp="gray")
def gaussian_random_batch_size_like(
    x,
    *,
    shape: list[int],
    input_dim_idx: int = 0,
    output_dim_idx: int = 0,
    mean: float = 0.0,
    std: float = 1.0,
    seed: int = 0,
    dtype: DType = 5,
    rng,
    device,
):
    """Normal numbers; dim `output_dim_idx` is Input's dim `input_dim_idx` (rows, with LoD too)."""
    return _normal(_like_shape(x, shape, input_dim_idx, output_dim_idx), mean, std, dtype, rng, device)


def _truncated_spec(*, shape, mean, std, seed, dtype):
    return Spec(tuple(shape), to_var_type(dtype))


@op("truncated_gaussian_random", slots="-> Out", infer=_truncated_spec, grad=False)
def truncated_gaussian_random(
    *, shape: list[int], mean: float = 0.0, std: float = 1.0, seed: int = 0, dtype: DType = 5, rng, device
):
    """Normal numbers limited to mean ± 2 std, by the inverse distribution function of a uniform number."""
    _check_shape(shape)
    low, high = 0.022750131948179195, 0.9772498680518208  # the normal distribution function at -2 and 2
    u = torch.empty(shape, dtype=torch.float64, device=device).uniform_(low, high, generator=rng)
    return torch.special.ndtri(u).clamp_(-2, 2).mul_(std).add_(mean).to(torch_dtype(dtype))


def _uniform_spec(shape_tensor, shape_list, *, shape, min, max, seed, diag_num, diag_step, diag_val, dtype):
    _check_diagonal(shape, diag_num, diag_step)
    return shape_spec(shape, shape_tensor, shape_list, dtype)


def _check_diagonal(shape, diag_num, diag_step):
    size = 1
    for d in shape:
        size *= d
    if diag_num > 0 and size >= 0 and (diag_num - 1) * (diag_step + 1) >= size:
        raise ShapeError(
            f"diag_num {diag_num} with diag_step {diag_step} reaches beyond the {size} elements of {list(shape)}"
        )


def _uniform(shape, low, high, diag, dtype, rng, device):
    _check_shape(shape)
    if low > high:
        raise ShapeError(f"uniform_random: min {low} must not be larger than max {high}")
    out = torch.rand(shape, dtype=torch_dtype(dtype), device=device, generator=rng).mul_(high - low).add_(low)
    count, step, value = diag
    if count > 0:
        _check_diagonal(shape, count, step)
        out.reshape(-1)[: (count - 1) * (step + 1) + 1 : step + 1] = value
    return out


@op("uniform_random", slots=_SHAPED, infer=_uniform_spec, grad=False)
def uniform_random(
    shape_tensor,
    shape_list,
    *,
    shape: Longs = [],
    min: float = -1.0,
    max: float = 1.0,
    seed: int = 0,
    diag_num: int = 0,
    diag_step: int = 0,
    diag_val: float = 1.0,
    dtype: DType = 5,
    rng,
    device,
):
    """Numbers uniform in [min, max); the elements i * (diag_step + 1), i < diag_num, become `diag_val`."""
    diag = (diag_num, diag_step, diag_val)
    return _uniform(given_shape(shape, shape_tensor, shape_list), min, max, diag, dtype, rng, device)


def _uniform_like_spec(x, *, shape, input_dim_idx, output_dim_idx, min, max, seed, diag_num, diag_step, diag_val, dtype):
    return like_spec(x, shape, input_dim_idx, output_dim_idx, dtype)


@op("uniform_random_batch_size_like", slots="Input -> Out", infer=_uniform_like_spec, grad=False, amp="gray")
def uniform_random_batch_size_like(
    x,
    *,
    shape: list[int],
    input_dim_idx: int = 0,
    output_dim_idx: int = 0,
    min: float = -1.0,
    max: float = 1.0,
    seed: int = 0,
    diag_num: int = 0,
    diag_step: int = 0,
    diag_val: float = 1.0,
    dtype: DType = 5,
    rng,
    device,
):
    """uniform_random; dim `output_dim_idx` is Input's dim `input_dim_idx` (rows, with LoD too)."""
    diag = (diag_num, diag_step, diag_val)
    return _uniform(_like_shape(x, shape, input_dim_idx, output_dim_idx), min, max, diag, dtype, rng, device)


def _randint_spec(shape_tensor, shape_list, *, shape, low, high, seed, dtype):
    if low >= high:
        raise ShapeError(f"randint: low must be less than high, received {low} and {high}")
    return shape_spec(shape, shape_tensor, shape_list, dtype)


@op("randint", slots=_SHAPED, infer=_randint_spec, grad=False)
def randint(
    shape_tensor, shape_list, *, shape: Longs = [], low: int, high: int, seed: int = 0, dtype: DType = 3, rng, device
):
    """Integers uniform in [low, high)."""
    shape = given_shape(shape, shape_tensor, shape_list)
    _check_shape(shape)
    return torch.randint(low, high, shape, dtype=torch_dtype(dtype), device=device, generator=rng)


def _randperm_spec(*, n, seed, dtype):
    if n < 1:
        raise ShapeError(f"randperm: n must be at least 1, received {n}")
    return Spec((n,), to_var_type(dtype))


@op("randperm", slots="-> Out", infer=_randperm_spec, grad=False)
def randperm(*, n: int, seed: int = 0, dtype: DType = 3, rng, device):
    """The numbers 0 … n-1 in random order."""
    return torch.randperm(n, generator=rng, device=device).to(torch_dtype(dtype))


def _seed_spec(*, seed):
    return Spec((1,), VarType.INT32)


@op("seed", slots="-> Out", infer=_seed_spec, grad=False)
def seed_(*, seed: int = 0, ctx, device):
    """A seed, int32 [1]: the attribute, or a random one when that is 0."""
    value = seed or int(torch.randint(1, 2**31 - 1, (1,), generator=ctx.rng, device=ctx.rng.device))
    return torch.tensor([value], dtype=torch.int32, device=device)


# ---- random choices of data ----------------------------------------------------------------------
def _crop_spec(x, seed_in, *, shape, startup_seed):
    if len(shape) > len(x.shape):
        raise ShapeError(f"random_crop: shape {list(shape)} has more dimensions than X {list(x.shape)}")
    for want, have in zip(shape, x.shape[len(x.shape) - len(shape) :]):
        if have >= 0 and want > have:
            raise ShapeError(f"random_crop: shape {list(shape)} is larger than X {list(x.shape)}")
    return Spec((*x.shape[: len(x.shape) - len(shape)], *shape), x.dtype), None


def _state(seed_in, startup_seed):
    """A generator for (Seed or startup_seed), which must be given back by `_next_seed`."""
    value = int(seed_in.reshape(-1)[0]) if seed_in is not None and seed_in.numel() else startup_seed
    return torch.Generator().manual_seed(value)


def _next_seed(rng, device):
    return torch.randint(0, 2**62, (1,), generator=rng).to(device)


@op("random_crop", slots="X, Seed? -> Out, SeedOut~", infer=_crop_spec, grad=False)
def random_crop(x, seed_in, *, shape: list[int], startup_seed: int = 0):
    """A block of `shape` at a random place of the last dims of every instance of X; SeedOut is the next Seed."""
    rng = _state(seed_in, startup_seed)
    k = x.dim() - len(shape)
    flat = x.reshape(-1, *x.shape[k:])
    parts = []
    for item in flat:
        for i, want in enumerate(shape):
            at = int(torch.randint(0, item.shape[i] - want + 1, (1,), generator=rng))
            item = item.narrow(i, at, want)
        parts.append(item)
    out = torch.stack(parts) if parts else flat.new_empty((0, *shape))
    return out.reshape(*x.shape[:k], *shape), _next_seed(rng, x.device)


def _sampling_spec(x, *, min, max, seed):
    if len(x.shape) != 2:
        raise ShapeError(f"sampling_id: X must be [rows, classes], received shape {list(x.shape)}")
    return Spec((x.shape[0],), VarType.INT64)


@op("sampling_id", slots="X -> Out", infer=_sampling_spec, lod="X", grad=False)
def sampling_id(x, *, min: float = 0.0, max: float = 1.0, seed: int = 0, rng):
    """A class drawn from each row of probabilities: the first whose cumulative sum exceeds a number of [min, max)."""
    u = torch.rand((x.shape[0], 1), dtype=x.dtype, device=x.device, generator=rng) * (max - min) + min
    picked = (x.cumsum(1) <= u).sum(1)
    return picked.clamp_(max=x.shape[1] - 1)


def _shuffle_spec(x, seed_in, *, startup_seed):
    return x, Spec((-1,), VarType.INT64), Spec((1,), VarType.INT64)


@op("shuffle_batch", slots="X, Seed? -> Out, ShuffleIdx, SeedOut", infer=_shuffle_spec, lod="Out=X", nodiff="Seed")
def shuffle_batch(x, seed_in, *, startup_seed: int = 0):
    """Rows (all dims but the last) in random order; Out[i] = X[ShuffleIdx[i]]; SeedOut is the next Seed."""
    rng = _state(seed_in, startup_seed)
    rows = x.reshape(-1, x.shape[-1])
    index = torch.randperm(rows.shape[0], generator=rng).to(x.device)
    return rows.index_select(0, index).reshape(x.shape), index, _next_seed(rng, x.device)


@op("shuffle_batch_grad", slots="ShuffleIdx, Out@GRAD -> X@GRAD", nodiff="ShuffleIdx")
def shuffle_batch_grad(index, dout):
    rows = dout.reshape(-1, dout.shape[-1])
    return torch.empty_like(rows).index_copy_(0, index, rows).reshape(dout.shape)


def _tdm_spec(x, travel, layer, *, output_positive, neg_samples_num_list, layer_offset_lod, seed, dtype):
    if len(layer_offset_lod) != len(neg_samples_num_list) + 1:
        raise ShapeError(
            f"tdm_sampler: {len(neg_samples_num_list)} layers need {len(neg_samples_num_list) + 1} offsets, "
            f"received {list(layer_offset_lod)}"
        )
    if len(travel.shape) == 2 and not fit(travel.shape[1], len(neg_samples_num_list)):
        raise ShapeError(f"tdm_sampler: Travel must be [items, {len(neg_samples_num_list)}], received {list(travel.shape)}")
    for k, n in enumerate(neg_samples_num_list):
        size = layer_offset_lod[k + 1] - layer_offset_lod[k]
        if n >= size:
            raise ShapeError(f"tdm_sampler: layer {k} has {size} nodes, {n} negatives besides the positive can't be drawn")
    spec = Spec((-1, sum(neg_samples_num_list) + len(neg_samples_num_list) * bool(output_positive)), to_var_type(dtype))
    return spec, spec, spec


@op("tdm_sampler", slots="X, Travel, Layer -> Out, Labels, Mask", infer=_tdm_spec, grad=False)
def tdm_sampler(
    x,
    travel,
    layer,
    *,
    output_positive: bool = True,
    neg_samples_num_list: list[int] = [],
    layer_offset_lod: list[int] = [],
    seed: int = 0,
    dtype: DType = 2,
    rng,
):
    """Training samples of a tree (Zhu et al., TDM, 2018): per item and layer, its ancestor and random other nodes.

    Travel [items, layers]: path from the first layer to the item (0: padding); Layer [nodes, 1]: nodes by layer.
    Out, Labels (1: positive), Mask (0: padding), each [rows of X, sum(negatives) + layers if output_positive].
    """
    kind = torch_dtype(dtype)
    nodes = layer.reshape(-1)
    rows = []
    for item in x.reshape(-1).tolist():
        row = []
        for k, negatives in enumerate(neg_samples_num_list):
            positive = int(travel[item, k])
            start, end = layer_offset_lod[k], layer_offset_lod[k + 1]
            if positive == 0:
                row += [(0, 0, 0)] * (negatives + bool(output_positive))
                continue
            if output_positive:
                row.append((positive, 1, 1))
            drawn = (nodes[start + int(i)].item() for i in torch.randperm(end - start, generator=rng))
            others = [n for n in drawn if n != positive][:negatives]
            row += [(int(n), 0, 1) for n in others]
        rows.append(row)
    width = sum(neg_samples_num_list) + len(neg_samples_num_list) * bool(output_positive)
    found = torch.tensor(rows, dtype=kind, device=x.device).reshape(len(rows), width, 3)
    return found[..., 0], found[..., 1], found[..., 2]
