"""A dense layer: a product whose results are activated while they are in the cache."""

from __future__ import annotations

from millstream.kernels.compiled import njit
from millstream.kernels.gates import RELU, SIGMOID, TANH, activate
from millstream.kernels.tiles import many_rows_at

CODES = {"": 0, "sigmoid": SIGMOID, "tanh": TANH, "relu": RELU}  # 0: none
_STRIP = 120  # rows whose results stay in the second-level cache until they are activated


@njit(cache=True, nogil=True, error_model="numpy")
def layer_at(pa, sa, pb, sb, pf, out, first, last, depth, n, code):
    """out[first * n : last * n] = activation(a @ b + bias); as tiles.many_rows_at but for `out`, all rows in one line."""
    i = first
    while i < last:
        rows = min(_STRIP, last - i)
        many_rows_at(pa + i * sa * 4, sa, pb, sb, pf, out.ctypes.data + i * n * 4, rows, depth, n)
        activate(out[i * n : (i + rows) * n], code)
        i += rows
