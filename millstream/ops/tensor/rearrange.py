"""Rearrangements of images and matrices, and small maps over whole tensors."""

from __future__ import annotations

import math
from itertools import pairwise

import torch

from millstream.errors import ShapeError
from millstream.ops._opdef import Long, Longs, op
from millstream.ops._values import Spec
from millstream.ops.tensor._dims import axis_of, fit, unary_grad


# ---- reverse, flip, roll -----------------------------------------------------------------------------
def _check_axes(axes, rank, what):
    if not axes:
        raise ShapeError(f"{what} needs at least one axis")
    if len({axis_of(a, rank, f"an entry of {what}") for a in axes}) != len(axes):
        raise ShapeError(f"{what} {list(axes)} names an axis twice")


def _reverse_spec(x, *, axis):
    _check_axes(axis, len(x.shape), "axis")
    return x.like(lod_level=0)


@op(
    "reverse",
    slots="X -> Out",
    infer=_reverse_spec,
    grad=unary_grad("reverse", "X", "Out", lambda o: {"axis": o.attrs["axis"]}),
)
def reverse(x, *, axis: list[int]):
    """X in reversed order along each of `axis`."""
    return x.flip(axis)


def _flip_spec(x, *, dims):
    _check_axes(dims, len(x.shape), "dims")
    return x


@op(
    "flip",
    slots="X -> Out",
    infer=_flip_spec,
    lod="X",
    grad=unary_grad("flip", "X", "Out", lambda o: {"dims": o.attrs["dims"]}),
)
def flip(x, *, dims: list[int]):
    """X in reversed order along each of `dims`."""
    return x.flip(dims)


def _roll_spec(x, *, shifts, dims):
    if len(shifts) != len(dims):
        raise ShapeError(f"roll: shifts {list(shifts)} and dims {list(dims)} must have one length")
    if not shifts:
        raise ShapeError("roll needs shifts")
    for a in dims:
        axis_of(a, len(x.shape), "an entry of dims")
    return x


@op("roll", slots="X -> Out", infer=_roll_spec, lod="X")
def roll(x, *, shifts: Longs = [], dims: Longs = []):
    """X moved around by shifts[i] along dims[i]."""
    return x.roll(shifts, dims)


@op("roll_grad", slots="X, Out@GRAD -> X@GRAD")
def roll_grad(x, dout, *, shifts: Longs = [], dims: Longs = []):
    return dout.roll([-s for s in shifts], dims)


# ---- diagonals and triangles -----------------------------------------------------------------------
def _diag_embed_spec(x, *, offset, dim1, dim2):
    rank = len(x.shape) + 1
    a, b = axis_of(dim1, rank, "dim1"), axis_of(dim2, rank, "dim2")
    if a == b:
        raise ShapeError(f"dim1 and dim2 must differ, both are {a}")
    rest = iter(x.shape[:-1])
    n = x.shape[-1] + abs(offset)  # of an unknown dim too: Fluid adds to the -1
    return Spec(tuple(n if i in (a, b) else next(rest) for i in range(rank)), x.dtype)


@op("diag_embed", slots="Input -> Out", infer=_diag_embed_spec, grad=False)
def diag_embed(x, *, offset: int = 0, dim1: int = -2, dim2: int = -1):
    """Matrices over (dim1, dim2) with the last dim of Input on the diagonal `offset` above the main one."""
    return torch.diag_embed(x, offset, dim1, dim2)


def _trace_spec(x, *, offset, dim1, dim2):
    rank = len(x.shape)
    if rank < 2:
        raise ShapeError(f"trace: Input must have rank 2 or more, received shape {list(x.shape)}")
    a, b = axis_of(dim1, rank, "dim1"), axis_of(dim2, rank, "dim2")
    if a == b:
        raise ShapeError(f"dim1 and dim2 must differ, both are {a}")
    return Spec(tuple(d for i, d in enumerate(x.shape) if i not in (a, b)) or (1,), x.dtype)


@op("trace", slots="Input -> Out", infer=_trace_spec)
def trace(x, *, offset: int = 0, dim1: int = -2, dim2: int = -1):
    """Sum of the diagonal `offset` above the main one of the matrices over dim1 and dim2; their order does not matter."""
    rows, columns = sorted((dim1 % x.dim(), dim2 % x.dim()))
    out = torch.diagonal(x, offset, rows, columns).sum(-1)
    out = out.to(x.dtype)
    return out.reshape(1) if out.dim() == 0 else out


def _triangle_spec(x, *, diagonal, lower):
    if len(x.shape) < 2:
        raise ShapeError(f"tril_triu: X must have rank 2 or more, received shape {list(x.shape)}")
    return x


@op("tril_triu", slots="X -> Out", infer=_triangle_spec, lod="X")
def tril_triu(x, *, diagonal: int = 0, lower: bool):
    """The matrices of the last two dims with zeros above (lower) or below (upper) the diagonal `diagonal`."""
    return torch.tril(x, diagonal) if lower else torch.triu(x, diagonal)


@op("tril_triu_grad", slots="Out@GRAD -> X@GRAD")
def tril_triu_grad(dout, *, diagonal: int = 0, lower: bool):
    return torch.tril(dout, diagonal) if lower else torch.triu(dout, diagonal)


# ---- images ------------------------------------------------------------------------------------------
def _check_image(x, what):
    if len(x.shape) != 4:
        raise ShapeError(f"{what}: X must have rank 4, received shape {list(x.shape)}")


def _pixel_spec(x, *, upscale_factor):
    _check_image(x, "pixel_shuffle")
    n, c, h, w = x.shape
    r = upscale_factor
    if c % (r * r):
        raise ShapeError(f"pixel_shuffle: {c} channels do not divide by upscale_factor² = {r * r}")
    return Spec((n, c // (r * r), h if h < 0 else h * r, w if w < 0 else w * r), x.dtype)


@op("pixel_shuffle", slots="X -> Out", shares=True, infer=_pixel_spec)
def pixel_shuffle(x, *, upscale_factor: int = 1):
    """[n, c r², h, w] to [n, c, h r, w r] (Shi et al. 2016)."""
    return torch.pixel_shuffle(x, upscale_factor)


@op("pixel_shuffle_grad", slots="Out@GRAD -> X@GRAD", infer=None)
def pixel_shuffle_grad(dout, *, upscale_factor: int = 1):
    return torch.pixel_unshuffle(dout, upscale_factor)


def _depth_spec(x, *, blocksize):
    _check_image(x, "space_to_depth")
    if blocksize <= 1:
        raise ShapeError(f"space_to_depth: blocksize must be larger than 1, received {blocksize}")
    n, c, h, w = x.shape
    if c >= 0 and c % (blocksize * blocksize):
        raise ShapeError(f"space_to_depth: {c} channels do not divide by blocksize² = {blocksize * blocksize}")
    if (h >= 0 and h % blocksize) or (w >= 0 and w % blocksize):
        raise ShapeError(f"space_to_depth: height and width {[h, w]} must divide by blocksize {blocksize}")
    cut = [d if d < 0 else d // blocksize for d in (h, w)]
    return Spec((n, c if c < 0 else c * blocksize * blocksize, *cut), x.dtype)


@op("space_to_depth", slots="X -> Out", shares=True, infer=_depth_spec, lod="X")
def space_to_depth(x, *, blocksize: Long = 2):
    """Darknet's reorg as Fluid does it: X read as [n, b, b, c/b², h, w], its b x b entries become pixels.

    That gives [n, c/b², h b, w b], whose memory is declared as [n, c b², h/b, w/b].
    """
    n, c, h, w = x.shape
    b = blocksize
    blocks = x.reshape(n, b, b, c // (b * b), h, w).permute(0, 3, 4, 1, 5, 2)
    return blocks.reshape(n, c * b * b, h // b, w // b)


def _channel_spec(x, *, group):
    _check_image(x, "shuffle_channel")
    if group < 1 or (x.shape[1] >= 0 and x.shape[1] % group):
        raise ShapeError(f"shuffle_channel: {x.shape[1]} channels do not divide into {group} groups")
    return x.like(lod_level=0)


def _shuffled(x, group):
    n, c, h, w = x.shape
    return x.reshape(n, group, c // group, h, w).transpose(1, 2).reshape(x.shape)


@op("shuffle_channel", slots="X -> Out", shares=True, infer=_channel_spec)
def shuffle_channel(x, *, group: int = 1):
    """Channels dealt out: [group, c/group] transposed (Zhang et al., ShuffleNet, 2018)."""
    return _shuffled(x, group)


@op("shuffle_channel_grad", slots="Out@GRAD -> X@GRAD")
def shuffle_channel_grad(dout, *, group: int = 1):
    """Shuffled with the same group, as in Fluid: the derivative only when group² is the number of channels."""
    return _shuffled(dout, group)


def _shift_spec(x, *, seg_num, shift_ratio):
    _check_image(x, "temporal_shift")
    if seg_num < 1 or not 0 < shift_ratio < 0.5:
        raise ShapeError(f"temporal_shift: seg_num must be positive and shift_ratio in (0, 0.5); {seg_num}, {shift_ratio}")
    if x.shape[0] >= 0 and x.shape[0] % seg_num:
        raise ShapeError(f"temporal_shift: the batch {x.shape[0]} must divide by seg_num {seg_num}")
    return x


def _shifted(x, seg_num, shift_ratio, step):
    frames = x.reshape(-1, seg_num, *x.shape[1:])
    c = x.shape[1]
    c1, c2 = int(c * shift_ratio), int(c * 2 * shift_ratio)
    out = torch.zeros_like(frames)
    for lo, hi, by in ((0, c1, step), (c1, c2, -step)):
        if by > 0:
            out[:, 1:, lo:hi] = frames[:, :-1, lo:hi]
        else:
            out[:, :-1, lo:hi] = frames[:, 1:, lo:hi]
    out[:, :, c2:] = frames[:, :, c2:]
    return out.reshape(x.shape)


@op("temporal_shift", slots="X -> Out", infer=_shift_spec, lod="X")
def temporal_shift(x, *, seg_num: int, shift_ratio: float = 0.25):
    """The first c*ratio channels from one frame before, as many from one after (Lin et al., TSM, 2019); [n t, c, h, w]."""
    return _shifted(x, seg_num, shift_ratio, 1)


@op("temporal_shift_grad", slots="Out@GRAD -> X@GRAD")
def temporal_shift_grad(dout, *, seg_num: int, shift_ratio: float = 0.25):
    return _shifted(dout, seg_num, shift_ratio, -1)


# ---- positions and labels ----------------------------------------------------------------------------
def _positions(count, width, like):
    """sin in the first half of the columns, cos in the second; [count, width]."""
    half = width // 2
    place = torch.arange(count, dtype=torch.float64, device=like.device).unsqueeze(1)
    k = torch.arange(half, dtype=torch.float64, device=like.device)
    wave = place / torch.exp(math.log(10000.0) * k / (half - 1)) if half > 1 else place / 10000.0
    return torch.cat([wave.sin(), wave.cos()], 1).to(like.dtype)


def _position_spec(x, *, alpha, beta):
    width = x.shape[-1]
    if len(x.shape) not in (2, 3) or (width >= 0 and width % 2):
        raise ShapeError(f"add_position_encoding: X must be [n, length, even width] or [rows, even width]; {list(x.shape)}")
    return x


@op("add_position_encoding", slots="X# -> Out", infer=_position_spec, lod="X", grad_lod="")
def add_position_encoding(x, *, alpha: float = 1.0, beta: float = 1.0):
    """alpha * X + beta * sinusoids of the position in the sequence (Vaswani et al. 2017)."""
    values = x.values
    if values.dim() == 3:
        return alpha * values + beta * _positions(values.shape[1], values.shape[2], values)
    offsets = x.offsets.tolist()
    longest = max((b - a for a, b in pairwise(offsets)), default=0)
    table = _positions(longest, values.shape[1], values)
    parts = [table[: b - a] for a, b in pairwise(offsets)]
    return alpha * values + beta * torch.cat(parts) if parts else alpha * values


@op("add_position_encoding_grad", slots="Out@GRAD -> X@GRAD")
def add_position_encoding_grad(dout, *, alpha: float = 1.0):
    return dout * alpha


def _smooth_spec(x, prior, *, epsilon):
    if prior is not None and not fit(prior.shape[-1], x.shape[-1]):
        raise ShapeError(f"label_smooth: PriorDist {list(prior.shape)} must have the classes of X {list(x.shape)}")
    return x


@op("label_smooth", slots="X, PriorDist? -> Out", infer=_smooth_spec, lod="X", nodiff="PriorDist")
def label_smooth(x, prior, *, epsilon: float = 0.0):
    """(1 - epsilon) * X + epsilon * prior; uniform over the last dim without PriorDist (Szegedy et al. 2016)."""
    if prior is not None:
        return (1 - epsilon) * x + epsilon * prior.reshape(-1)
    return (1 - epsilon) * x + epsilon / x.shape[-1]


@op("label_smooth_grad", slots="Out@GRAD -> X@GRAD")
def label_smooth_grad(dout, *, epsilon: float = 0.0):
    return dout * (1 - epsilon)
