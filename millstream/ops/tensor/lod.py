"""The LoD of a tensor, replaced."""

from __future__ import annotations

import numpy as np

from millstream.errors import ShapeError
from millstream.ops._opdef import op
from millstream.ops._values import Ragged
from millstream.ops.tensor._dims import ints


def _reset_spec(x, y, *, target_lod, append):
    if y is None and not target_lod:
        raise ShapeError("lod_reset needs Y or target_lod")
    level = max(y.lod_level, 1) if y is not None else (x.lod_level + 1 if append else 1)
    return x.like(lod_level=level)


def _offsets(numbers, rows, what):
    level = np.asarray(numbers, dtype=np.int64)
    if level.size < 2 or level[0] != 0 or (np.diff(level) < 0).any():
        raise ShapeError(f"lod_reset: {what} must be offsets that start at 0 and never decrease, received {list(numbers)}")
    if level[-1] != rows:
        raise ShapeError(f"lod_reset: {what} ends at {int(level[-1])}, X has {rows} rows")
    return level


@op("lod_reset", slots="X#, Y?# -> Out#", shares=True, infer=_reset_spec, nodiff="Y")
def lod_reset(x, y, *, target_lod: list[int] = [], append: bool = False):
    """X with another LoD: Y's if it has one, else Y's numbers, else `target_lod` (offsets).

    `append` puts the new level below X's levels.
    """
    rows = x.values.shape[0]
    if y is not None and y.lod:
        if int(y.lod[-1][-1]) != rows:
            raise ShapeError(f"lod_reset: Y's LoD covers {int(y.lod[-1][-1])} rows, X has {rows}")
        return Ragged(x.values, y.lod)
    level = _offsets(ints(y.values) if y is not None else target_lod, rows, "Y" if y is not None else "target_lod")
    return Ragged(x.values, (*x.lod, level) if append else (level,))


@op("lod_reset_grad", slots="X, Out@GRAD -> X@GRAD", lod="X@GRAD=X")
def lod_reset_grad(x, dout):
    return dout
