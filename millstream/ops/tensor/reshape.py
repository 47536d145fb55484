"""Operators that give the same elements another shape: views wherever torch can make one."""

from __future__ import annotations

from functools import lru_cache

from millstream.errors import ShapeError
from millstream.ops._opdef import op
from millstream.ops._values import Spec
from millstream.ops.tensor import _channel_groups
from millstream.ops.tensor._dims import axis_of, ints, ints_of, keep_lod_if, known, product, xshape, xshape_spec


# ---- reshape -----------------------------------------------------------------------------------
def _target(shape, x_shape):
    """`shape` with zeros replaced by X's dims and -1 by what is left (kept as -1 where X is not wholly known)."""
    out = list(shape)
    hole = -1
    for i, d in enumerate(out):
        if d == 0:
            if i >= len(x_shape):
                raise ShapeError(f"0 at index {i} of shape {list(shape)} copies a dimension; X has rank {len(x_shape)}")
            out[i] = x_shape[i]
        elif d == -1:
            if hole >= 0:
                raise ShapeError(f"shape {list(shape)} may have only one -1")
            hole = i
        elif d < -1:
            raise ShapeError(f"shape {list(shape)} may not have {d} at index {i}")
    if not known(x_shape):
        return out
    total = product(x_shape)
    if hole >= 0:
        rest = product(d for i, d in enumerate(out) if i != hole)
        if rest == 0 or total % rest:
            raise ShapeError(f"X of shape {list(x_shape)} has {total} elements, which do not fit shape {list(shape)}")
        out[hole] = total // rest
    elif product(out) != total:
        raise ShapeError(
            f"X {list(x_shape)} has {total} elements, shape {list(shape)} means {list(out)}: {product(out)} elements"
        )
    return out


def _reshape_spec(x, shape_in, shape_tensors, *, shape):
    if shape_tensors:
        if len(shape_tensors) != len(shape):
            raise ShapeError(f"ShapeTensor has {len(shape_tensors)} variables, the attribute shape has {len(shape)} entries")
        out = [x.shape[i] if d == 0 and i < len(x.shape) else d for i, d in enumerate(shape)]
        return Spec(tuple(out), x.dtype)
    if shape_in is not None and not shape:
        return Spec((-1,) * abs(product(shape_in.shape)), x.dtype, x.lod_level)
    if not shape:
        raise ShapeError("reshape needs a shape: the attribute shape is empty and neither Shape nor ShapeTensor is given")
    out = _target(shape, x.shape)
    return Spec(tuple(out), x.dtype, x.lod_level if out[0] == x.shape[0] else 0)


def _reshape2_spec(x, shape_in, shape_tensors, *, shape):
    return _reshape_spec(x, shape_in, shape_tensors, shape=shape), xshape_spec(x)


def _wanted_shape(shape_in, shape_tensors, shape):
    if shape_tensors:
        return ints_of(shape_tensors)
    return ints(shape_in) if shape_in is not None else shape


def _reshape_stays(x_shape, attrs, ins):
    if ins.get("ShapeTensor"):
        return False
    if ins.get("Shape") is not None:
        return True  # Fluid does not compare the rows then
    shape = _wanted_shape(ins.get("Shape"), ins.get("ShapeTensor"), attrs["shape"])
    return bool(shape) and _target(shape, x_shape)[0] == x_shape[0]


def _reshaped(x, shape_in, shape_tensors, shape):
    shape = _wanted_shape(shape_in, shape_tensors, shape)
    if 0 in shape:
        shape = _target(shape, x.shape)
    return _channel_groups.reshape(x, shape)


@op(
    "reshape2",
    slots="X, Shape?, ShapeTensor* -> Out, XShape~", shares=True,
    infer=_reshape2_spec,
    lod=keep_lod_if(_reshape_stays), grad_lod="X",
    nodiff="Shape, ShapeTensor",
    traceable=True,
    amp="gray",
)
def reshape2(x, shape_in, shape_tensors, *, shape: list[int] = []):
    """X's elements in another shape: 0 copies X's dim, one -1 is inferred.

    ShapeTensor (one number each) goes before Shape, Shape before the attribute.
    """
    return _reshaped(x, shape_in, shape_tensors, shape), xshape(x)


def _reshape2_grad_spec(xs, dout):
    return xs.like(shape=xs.shape[1:])  # in place, the variable that X was has Out's shape now


@op("reshape2_grad", slots="XShape, Out@GRAD -> X@GRAD", infer=_reshape2_grad_spec, nodiff="XShape")
def reshape2_grad(xs, dout):
    return _channel_groups.reshape(dout, xs.shape[1:])


@op(
    "reshape",
    slots="X, Shape?, ShapeTensor* -> Out", shares=True,
    infer=_reshape_spec,
    lod=keep_lod_if(_reshape_stays),
    nodiff="Shape, ShapeTensor",
    traceable=True,
)
def reshape(x, shape_in, shape_tensors, *, shape: list[int] = []):
    """Like reshape2, without XShape."""
    return _reshaped(x, shape_in, shape_tensors, shape)


@op("reshape_grad", slots="X, Out@GRAD -> X@GRAD")
def reshape_grad(x, dout):
    return _channel_groups.reshape(dout, x.shape)


# ---- squeeze, unsqueeze --------------------------------------------------------------------------
def _squeezed(x_shape, axes):
    if not axes:
        return tuple(d for d in x_shape if d != 1)
    gone = set()
    for a in axes:
        i = axis_of(a, len(x_shape), "an entry of axes")
        if x_shape[i] not in (1, -1):
            raise ShapeError(f"axes {list(axes)}: dimension {i} of X must be 1 to go, X has shape {list(x_shape)}")
        gone.add(i)
    return tuple(d for i, d in enumerate(x_shape) if i not in gone)


def _rows_stay(x, out):
    return x.lod_level if out and x.shape and out[0] == x.shape[0] else 0


def _squeeze_spec(x, *, axes):
    out = _squeezed(x.shape, axes)
    return Spec(out, x.dtype, _rows_stay(x, out))


def _squeeze2_spec(x, *, axes):
    return _squeeze_spec(x, axes=axes), xshape_spec(x)


def _squeeze_stays(x_shape, attrs, ins):
    out = _squeezed(x_shape, attrs["axes"])
    return bool(out) and out[0] == x_shape[0]


@op(
    "squeeze2", slots="X -> Out, XShape~", shares=True, infer=_squeeze2_spec, lod=keep_lod_if(_squeeze_stays), grad_lod="X",
    traceable=True,
)  # fmt: skip
def squeeze2(x, *, axes: list[int] = []):
    """X without the dims of `axes`, which must be 1 (without every dim of 1 when `axes` is empty)."""
    return x.reshape(_squeezed(x.shape, axes)), xshape(x)


@op("squeeze2_grad", slots="XShape, Out@GRAD -> X@GRAD", nodiff="XShape")
def squeeze2_grad(xs, dout):
    return dout.reshape(xs.shape[1:])


@op(
    "squeeze", slots="X -> Out", shares=True, infer=_squeeze_spec, lod=keep_lod_if(_squeeze_stays), grad_lod="X",
    traceable=True,
)  # fmt: skip
def squeeze(x, *, axes: list[int] = []):
    """Like squeeze2, without XShape."""
    return x.reshape(_squeezed(x.shape, axes))


@op("squeeze_grad", slots="X, Out@GRAD -> X@GRAD")
def squeeze_grad(x, dout):
    return dout.reshape(x.shape)


def _unsqueezed(x_shape, axes):
    """Axes apply one after another: each counts the dims that those before it inserted."""
    out = list(x_shape)
    for a in axes:
        i = a + len(out) + 1 if a < 0 else a
        if not 0 <= i <= len(out):
            raise ShapeError(f"axes {list(axes)}: {a} is out of range for a tensor of rank {len(out)}")
        out.insert(i, 1)
    return tuple(out)


def _unsqueeze_spec(x, axes_tensor, axes_tensors, *, axes):
    if axes:
        out = _unsqueezed(x.shape, axes)
        return Spec(out, x.dtype, _rows_stay(x, out))
    more = len(axes_tensors) if axes_tensors else (abs(product(axes_tensor.shape)) if axes_tensor is not None else 0)
    return Spec((-1,) * (len(x.shape) + more), x.dtype) if more else Spec(x.shape, x.dtype, x.lod_level)


def _unsqueeze2_spec(x, axes_tensor, axes_tensors, *, axes):
    return _unsqueeze_spec(x, axes_tensor, axes_tensors, axes=axes), xshape_spec(x)


def _axes(axes_tensor, axes_tensors, axes):
    if axes:  # Fluid looks at the tensors only when the attribute is empty
        return axes
    if axes_tensors:
        return ints_of(axes_tensors)
    return ints(axes_tensor) if axes_tensor is not None else axes


def _unsqueeze_stays(x_shape, attrs, ins):
    axes = attrs["axes"]  # Fluid drops the LoD where tensors give the axes
    return bool(axes) and _unsqueezed(x_shape, axes)[0] == x_shape[0]


_UNSQUEEZE = "X, AxesTensor?, AxesTensorList* -> Out"


@op(
    "unsqueeze2",
    slots=_UNSQUEEZE + ", XShape~",
    shares=True,
    infer=_unsqueeze2_spec,
    lod=keep_lod_if(_unsqueeze_stays), grad_lod="X",
    nodiff="AxesTensor, AxesTensorList",
    traceable=True,
)
def unsqueeze2(x, axes_tensor, axes_tensors, *, axes: list[int] = []):
    """X with dims of 1 inserted at `axes`, one after another."""
    return x.reshape(_unsqueezed(x.shape, _axes(axes_tensor, axes_tensors, axes))), xshape(x)


@op("unsqueeze2_grad", slots="XShape, Out@GRAD -> X@GRAD", nodiff="XShape")
def unsqueeze2_grad(xs, dout):
    return dout.reshape(xs.shape[1:])


@op(
    "unsqueeze",
    slots=_UNSQUEEZE,
    shares=True,
    infer=_unsqueeze_spec,
    lod=keep_lod_if(_unsqueeze_stays), grad_lod="X",
    nodiff="AxesTensor, AxesTensorList",
    traceable=True,
)
def unsqueeze(x, axes_tensor, axes_tensors, *, axes: list[int] = []):
    """Like unsqueeze2, without XShape."""
    return x.reshape(_unsqueezed(x.shape, _axes(axes_tensor, axes_tensors, axes)))


@op("unsqueeze_grad", slots="X, Out@GRAD -> X@GRAD")
def unsqueeze_grad(x, dout):
    return dout.reshape(x.shape)


# ---- flatten -------------------------------------------------------------------------------------
def _flat(x_shape, axis):
    if not 0 <= axis <= len(x_shape):
        raise ShapeError(f"axis must be in [0, {len(x_shape)}] for X of shape {list(x_shape)}, received {axis}")
    return product(x_shape[:axis]), product(x_shape[axis:])


def _flatten_spec(x, *, axis):
    out = _flat(x.shape, axis)
    return Spec(out, x.dtype, _rows_stay(x, out))


def _flatten2_spec(x, *, axis):
    return _flatten_spec(x, axis=axis), xshape_spec(x)


def _flatten_stays(x_shape, attrs, ins):
    return _flat(x_shape, attrs["axis"])[0] == x_shape[0]


@op(
    "flatten2", slots="X -> Out, XShape~", shares=True, infer=_flatten2_spec, lod=keep_lod_if(_flatten_stays), grad_lod="X",
    traceable=True, amp="gray",
)  # fmt: skip
def flatten2(x, *, axis: int = 1):
    """X as a matrix [product of dims before `axis`, product of the rest]."""
    return x.reshape(_flat(x.shape, axis)), xshape(x)


@op("flatten2_grad", slots="XShape, Out@GRAD -> X@GRAD", nodiff="XShape")
def flatten2_grad(xs, dout):
    return dout.reshape(xs.shape[1:])


@op(
    "flatten", slots="X -> Out", shares=True, infer=_flatten_spec, lod=keep_lod_if(_flatten_stays), grad_lod="X",
    traceable=True,
)  # fmt: skip
def flatten(x, *, axis: int = 1):
    """Like flatten2, without XShape."""
    return x.reshape(_flat(x.shape, axis))


@op("flatten_grad", slots="X, Out@GRAD -> X@GRAD")
def flatten_grad(x, dout):
    return dout.reshape(x.shape)


# ---- transpose -----------------------------------------------------------------------------------
def _transpose_spec(x, *, axis):
    rank = len(x.shape)
    if sorted(axis) != list(range(rank)):
        raise ShapeError(f"axis must be a permutation of 0..{rank - 1} for X {list(x.shape)}, received {list(axis)}")
    return Spec(tuple(x.shape[a] for a in axis), x.dtype)


def _transpose2_spec(x, *, axis):
    return _transpose_spec(x, axis=axis), xshape_spec(x)


@lru_cache(maxsize=256)
def _inverse(axis):
    inverse = [0] * len(axis)
    for i, a in enumerate(axis):
        inverse[a] = i
    return tuple(inverse)


@op("transpose2", slots="X -> Out, XShape~", shares=True, infer=_transpose2_spec, grad_lod="X", traceable=True, amp="gray")
def transpose2(x, *, axis: list[int]):
    """Out's dim i is X's dim axis[i]."""
    return x.permute(axis), xshape(x)


@op("transpose2_grad", slots="XShape, Out@GRAD -> X@GRAD", nodiff="XShape")
def transpose2_grad(xs, dout, *, axis: list[int]):
    return dout.permute(_inverse(tuple(axis)))


@op("transpose", slots="X -> Out", shares=True, infer=_transpose_spec, traceable=True)
def transpose(x, *, axis: list[int]):
    """Like transpose2, without XShape."""
    return x.permute(axis)


@op("transpose_grad", slots="X, Out@GRAD -> X@GRAD")
def transpose_grad(x, dout, *, axis: list[int]):
    return dout.permute(_inverse(tuple(axis)))


# ---- expand --------------------------------------------------------------------------------------
def _times(times_tensor, times_tensors, times):
    if times_tensors:
        return ints_of(times_tensors)
    return ints(times_tensor) if times_tensor is not None else times


def _expand_spec(x, times_tensor, times_tensors, *, expand_times):
    times = expand_times or [-1] * len(x.shape)
    if len(times) != len(x.shape):
        raise ShapeError(f"expand_times needs one number a dimension of X {list(x.shape)}, received {list(times)}")
    out = tuple(-1 if d < 0 or t < 0 else d * t for d, t in zip(x.shape, times))
    return Spec(out, x.dtype, _rows_stay(x, out))


def _expand_stays(x_shape, attrs, ins):
    return attrs["expand_times"][:1] == [1]  # Fluid looks at the attribute only


def tile(x, times):
    """X repeated `times[i]` times along dim i; a view when only dims of 1 repeat."""
    if len(times) != x.dim():
        raise ShapeError(f"expand_times needs one number a dimension of X {list(x.shape)}, received {list(times)}")
    if all(t == 1 or d == 1 for t, d in zip(times, x.shape)):
        return x.expand([d * t for t, d in zip(times, x.shape)])
    return x.repeat(times)


def untile(dout, x_shape, times):
    """Sum of the `times` copies of a tensor of shape `x_shape` in `dout`."""
    split, where = [], []
    for t, d in zip(times, x_shape):
        if t != 1:
            where.append(len(split))
            split.append(t)
        split.append(d)
    return dout.reshape(split).sum(where) if where else dout


_EXPAND = "X, ExpandTimes?, expand_times_tensor*"


@op(
    "expand",
    slots=_EXPAND + " -> Out",
    shares=True,
    infer=_expand_spec,
    lod=keep_lod_if(_expand_stays),
    nodiff="ExpandTimes, expand_times_tensor",
    traceable=True,
)
def expand(x, times_tensor, times_tensors, *, expand_times: list[int] = []):
    """X repeated expand_times[i] times along dim i; the tensors go before the attribute."""
    return tile(x, _times(times_tensor, times_tensors, expand_times))


@op("expand_grad", slots=_EXPAND + ", Out@GRAD -> X@GRAD", infer="X@GRAD=X")
def expand_grad(x, times_tensor, times_tensors, dout, *, expand_times: list[int] = []):
    return untile(dout, x.shape, _times(times_tensor, times_tensors, expand_times))


def _as_times(x_shape, target_shape):
    for d, t in zip(x_shape, target_shape):
        if d > 0 and t >= 0 and t % d:
            raise ShapeError(f"X of shape {list(x_shape)} does not repeat into target_tensor of shape {list(target_shape)}")
    return [1 if d == 0 else t // d for d, t in zip(x_shape, target_shape)]


def _expand_as_spec(x, target):
    if len(x.shape) != len(target.shape):
        raise ShapeError(f"X {list(x.shape)} and target_tensor {list(target.shape)} must have the same rank")
    if known(x.shape) and known(target.shape):
        _as_times(x.shape, target.shape)
    return Spec((0,) * len(x.shape), x.dtype)  # as Fluid's: the sizes are only known when it runs


@op("expand_as", slots="X, target_tensor -> Out", shares=True, infer=_expand_as_spec, nodiff="target_tensor")
def expand_as(x, target):
    """X repeated until it has the shape of target_tensor, whose dims are multiples of X's."""
    return tile(x, _as_times(x.shape, target.shape))


@op("expand_as_grad", slots="X, target_tensor, Out@GRAD -> X@GRAD", infer="X@GRAD=X")
def expand_as_grad(x, target, dout):
    return untile(dout, x.shape, _as_times(x.shape, target.shape))
