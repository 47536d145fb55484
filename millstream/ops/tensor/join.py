"""Several tensors into one and one into several."""

from __future__ import annotations

import numpy as np
import torch

from millstream.errors import ShapeError
from millstream.ops._opdef import op
from millstream.ops._values import Spec
from millstream.ops.tensor._dims import axis_of, ints, ints_of, same_rank_and_dims, unary_grad


# ---- concat ------------------------------------------------------------------------------------
def _concat_spec(xs, axis_tensor, *, axis):
    if not xs:
        raise ShapeError("concat needs at least one input")
    first = xs[0]
    if axis_tensor is not None:
        return first.like(shape=(-1,) * len(first.shape))
    k = axis_of(axis, len(first.shape))
    same_rank_and_dims(xs, "concat", skip=k)
    out = list(first.shape)
    for i in range(len(out)):
        dims = [x.shape[i] for x in xs]
        if i == k:
            out[i] = -1 if min(dims) < 0 else sum(dims)
        else:
            out[i] = max(dims) if out[i] < 0 else out[i]
    return first.like(shape=tuple(out))


def _concat_axis(axis_tensor, axis, rank):
    return axis_of(int(axis_tensor.reshape(-1)[0]) if axis_tensor is not None else axis, rank)


def join_lods(lods):
    """The LoD of tensors laid one after another on axis 0; the first one's where some have none (as Fluid does)."""
    if not all(lods):
        return lods[0]
    if any(len(lod) != len(lods[0]) for lod in lods):
        raise ShapeError(f"concat: the inputs' LoDs must have as many levels; received {[len(lod) for lod in lods]}")
    return tuple(
        np.cumsum(np.concatenate([[0], *(np.diff(lod[k]) for lod in lods)])).astype(np.int64) for k in range(len(lods[0]))
    )


def _concat_lod(lods, attrs, ins):
    found = lods["X"]
    axis = _concat_axis(ins.get("AxisTensor"), attrs["axis"], ins["X"][0].dim())
    return {"Out": found[0] if axis else join_lods(found)}


@op(
    "concat", slots="X*, AxisTensor? -> Out", shares=True, infer=_concat_spec, lod=_concat_lod, grad_lod="X",
    nodiff="AxisTensor", traceable=True,
)  # fmt: skip
def concat(xs, axis_tensor, *, axis: int = 0):
    """Tensors laid one after another on `axis` (AxisTensor goes before the attribute); on axis 0 their LoDs join."""
    if axis_tensor is not None:
        axis = int(axis_tensor.reshape(-1)[0])
    return torch.cat(xs, axis) if len(xs) > 1 else xs[0]


@op("concat_grad", slots="X*, AxisTensor?, Out@GRAD -> X@GRAD*")
def concat_grad(xs, axis_tensor, dout, *, axis: int = 0):
    if len(xs) == 1:
        return [dout]
    if axis_tensor is not None:
        axis = int(axis_tensor.reshape(-1)[0])
    return list(torch.split(dout, [x.shape[axis] for x in xs], axis))


# ---- split -------------------------------------------------------------------------------------
def _sizes(dim, sections, num):
    """Sizes of the parts along a dim of `dim` (-1: unknown)."""
    if num > 0:
        if dim >= 0 and dim % num:
            raise ShapeError(f"split: a dimension of {dim} does not divide into {num} equal parts")
        return [dim // num if dim >= 0 else -1] * num
    if not sections:
        raise ShapeError("split needs num or sections")
    if sections.count(-1) > 1:
        raise ShapeError(f"split: sections {list(sections)} may have only one -1")
    sizes = list(sections)
    if dim < 0:
        return sizes
    given = sum(s for s in sizes if s != -1)
    if -1 in sizes:
        sizes[sizes.index(-1)] = dim - given
    if given > dim or sum(sizes) != dim:
        raise ShapeError(f"split: sections {list(sections)} do not add up to the dimension of {dim}")
    return sizes


def _split_spec(x, axis_tensor, section_tensors, *, sections, num, axis):
    if axis_tensor is not None:
        return [x.like(shape=(-1,) * len(x.shape), lod_level=0)] * (num or len(sections))
    k = axis_of(axis, len(x.shape))
    if section_tensors:
        sizes = sections or [-1] * len(section_tensors)
    else:
        sizes = _sizes(x.shape[k], sections, num)
    level = x.lod_level if k else 0
    return [x.like(shape=(*x.shape[:k], s, *x.shape[k + 1 :]), lod_level=level) for s in sizes]


class _Everywhere:
    """The same LoD for every part."""

    def __init__(self, lod):
        self.lod = lod

    def __getitem__(self, index):
        return self.lod


def _split_lod(lods, attrs, ins):
    lod = lods.get("X", ())
    axis = _concat_axis(ins.get("AxisTensor"), attrs["axis"], ins["X"].dim())
    return {"Out": _Everywhere(lod)} if lod and axis else {}


def _concat_attrs(op):
    """All of split's attributes, as in Fluid's Programs; concat needs the axis only."""
    return {"axis": 0, "num": 0, "sections": []} | {k: op.attrs[k] for k in ("axis", "num", "sections") if k in op.attrs}


@op(
    "split",
    slots="X, AxisTensor?, SectionsTensorList* -> Out*", shares=True,
    infer=_split_spec,
    lod=_split_lod,
    nodiff="AxisTensor, SectionsTensorList",
    grad=unary_grad("concat", "X", "Out", _concat_attrs, ("AxisTensor",)),
)
def split(x, axis_tensor, section_tensors, *, sections: list[int] = [], num: int = 0, axis: int = 0):
    """X cut along `axis` into `num` equal parts or parts of `sections` (one may be -1: the rest)."""
    if axis_tensor is not None:
        axis = int(axis_tensor.reshape(-1)[0])
    if section_tensors:
        sections, num = ints_of(section_tensors), 0
    return list(torch.split(x, _sizes(x.shape[axis], sections, num), axis))


@op(
    "split_byref",
    slots="X -> Out*", shares=True,
    infer=lambda x, *, sections, num: _split_spec(x, None, [], sections=sections, num=num, axis=0),
    grad=unary_grad("concat", "X", "Out", lambda o: {"axis": 0}),
)
def split_byref(x, *, sections: list[int] = [], num: int = 0):
    """X cut along axis 0, the parts being views of X."""
    return list(torch.split(x, _sizes(x.shape[0], sections, num)))


# ---- stack ---------------------------------------------------------------------------------------
def _stack_spec(xs, *, axis):
    if not xs:
        raise ShapeError("stack needs at least one input")
    same_rank_and_dims(xs, "stack")
    k = axis_of(axis, len(xs[0].shape) + 1)
    shape = list(xs[0].shape)
    shape.insert(k, len(xs))
    return Spec(tuple(shape), xs[0].dtype, xs[0].lod_level)


@op("stack", slots="X* -> Y", infer=_stack_spec, lod="X", traceable=True, amp="gray")
def stack(xs, *, axis: int = 0):
    """Tensors of one shape along a new axis."""
    return torch.stack(xs, axis)


@op("stack_grad", slots="Y@GRAD -> X@GRAD*")
def stack_grad(dout, *, axis: int = 0):
    return list(dout.unbind(axis))


def _without(x, axis):
    k = axis_of(axis, len(x.shape))
    return x.shape[k], x.like(shape=(*x.shape[:k], *x.shape[k + 1 :]), lod_level=0)


def _unstack_spec(x, *, axis, num):
    count, part = _without(x, axis)
    if count >= 0 and count != num:
        raise ShapeError(f"unstack: num is {num}, but X of shape {list(x.shape)} has {count} at axis {axis}")
    return [part] * num


@op("unstack", slots="X -> Y*", shares=True, infer=_unstack_spec, traceable=True, amp="gray")
def unstack(x, *, axis: int = 0, num: int):
    """X taken apart along `axis`."""
    return list(x.unbind(axis))


@op("unstack_grad", slots="Y@GRAD* -> X@GRAD", infer=None)
def unstack_grad(douts, *, axis: int = 0):
    return torch.stack(douts, axis)


def _unbind_spec(x, *, axis):
    return (_without(x, axis)[1],)


@op(
    "unbind",
    slots="X -> Out*", shares=True,
    infer=_unbind_spec,
    lod="X",
    grad=unary_grad("stack", "X", "Out", lambda o: {"axis": o.attrs.get("axis", 0)}),
)
def unbind(x, *, axis: int = 0):
    """X taken apart along `axis`."""
    return list(x.unbind(axis))


# ---- parts of matrices -----------------------------------------------------------------------------
def _columns(width, start_index, length):
    start = start_index + width if start_index < 0 else start_index
    if not 0 <= start < width:
        raise ShapeError(f"start_index must be in [{-width}, {width}) for inputs of width {width}, received {start_index}")
    stop = width if length < 0 else start + length
    if stop > width:
        raise ShapeError(f"start_index {start_index} and length {length} reach beyond the width {width}")
    return start, stop


def _partial_width(xs, start_index, length):
    for x in xs:
        if len(x.shape) != 2:
            raise ShapeError(f"every input must be a matrix, received shape {list(x.shape)}")
    same_rank_and_dims(xs, "partial columns")
    start, stop = _columns(xs[0].shape[1], start_index, length)
    return stop - start


def _partial_concat_spec(xs, *, start_index, length):
    return Spec((xs[0].shape[0], _partial_width(xs, start_index, length) * len(xs)), xs[0].dtype)


@op("partial_concat", slots="X* -> Out", infer=_partial_concat_spec, lod="X", grad_lod="X")
def partial_concat(xs, *, start_index: int = 0, length: int = -1):
    """Columns [start_index, start_index + length) of every matrix side by side (to the end when length is -1)."""
    start, stop = _columns(xs[0].shape[1], start_index, length)
    return torch.cat([x[:, start:stop] for x in xs], 1)


def _partial_sum_spec(xs, *, start_index, length):
    return Spec((xs[0].shape[0], _partial_width(xs, start_index, length)), xs[0].dtype)


@op("partial_sum", slots="X* -> Out", infer=_partial_sum_spec, lod="X", grad_lod="X")
def partial_sum(xs, *, start_index: int = 0, length: int = -1):
    """Sum of columns [start_index, start_index + length) of every matrix."""
    start, stop = _columns(xs[0].shape[1], start_index, length)
    return torch.stack([x[:, start:stop] for x in xs]).sum(0, dtype=xs[0].dtype)


def _meshgrid_spec(xs):
    for x in xs:
        if len(x.shape) != 1:
            raise ShapeError(f"meshgrid: every input must be a vector, received shape {list(x.shape)}")
    return [Spec(tuple(x.shape[0] for x in xs), xs[0].dtype)] * len(xs)


@op("meshgrid", slots="X* -> Out*", shares=True, infer=_meshgrid_spec)
def meshgrid(xs):
    """Vectors of n_1 … n_k numbers as k grids of shape [n_1, …, n_k]; grid i varies along axis i."""
    return [g.contiguous() for g in torch.meshgrid(*xs, indexing="ij")]


# ---- multiplex ---------------------------------------------------------------------------------------
def _multiplex_spec(index, xs):
    if len(index.shape) != 2 or index.shape[1] not in (1, -1):
        raise ShapeError(f"multiplex: Ids must have shape [rows, 1], received {list(index.shape)}")
    if len(xs) < 2:
        raise ShapeError(f"multiplex needs at least two candidates X, received {len(xs)}")
    same_rank_and_dims(xs, "multiplex")
    return xs[0].like(lod_level=0)


@op("multiplex", slots="Ids, X* -> Out", infer=_multiplex_spec)
def multiplex(index, xs):
    """Row i of Out is row i of the candidate X[Ids[i]]."""
    which = index.reshape(-1).long()
    if which.numel() and not 0 <= int(which.min()) <= int(which.max()) < len(xs):
        raise IndexError(f"multiplex: Ids must be in [0, {len(xs)}), received {ints(which)}")
    return torch.stack(xs)[which, torch.arange(len(which), device=which.device)]


@op("multiplex_grad", slots="Ids, X*, Out@GRAD -> X@GRAD*")
def multiplex_grad(index, xs, dout):
    which = index.reshape(-1, *([1] * (dout.dim() - 1)))
    return [torch.where(which == k, dout, 0) for k in range(len(xs))]
