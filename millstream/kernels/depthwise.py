"""Depthwise convolutions over maps [N, H, W, C], one filter [kh, kw, C] a channel, and their gradients.

`shape` is (stride, padding, dilation), each (vertical, horizontal). A call works on channels first .. last of its arrays, so
that threads share nothing.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from millstream.kernels.compiled import njit
from millstream.kernels.threads import parts, run_parts

_LANES = 16


@njit(cache=True, nogil=True, error_model="numpy")
def _forward(x, w, shape, first, last, y):
    (sv, sh), (pv, ph), (dv, dh) = shape
    for n in range(y.shape[0]):
        for i in range(y.shape[1]):
            for j in range(y.shape[2]):
                out = y[n, i, j, first:last]
                out[:] = 0
                for k in range(w.shape[0]):
                    a = i * sv + k * dv - pv
                    if a < 0 or a >= x.shape[1]:
                        continue
                    for m in range(w.shape[1]):
                        b = j * sh + m * dh - ph
                        if b < 0 or b >= x.shape[2]:
                            continue
                        given, factor = x[n, a, b, first:last], w[k, m, first:last]
                        for c in range(last - first):
                            out[c] += given[c] * factor[c]


@njit(cache=True, nogil=True, error_model="numpy")
def _back_input(dy, w, shape, first, last, dx):
    (sv, sh), (pv, ph), (dv, dh) = shape
    dx[..., first:last] = 0
    for n in range(dy.shape[0]):
        for i in range(dy.shape[1]):
            for j in range(dy.shape[2]):
                given = dy[n, i, j, first:last]
                for k in range(w.shape[0]):
                    a = i * sv + k * dv - pv
                    if a < 0 or a >= dx.shape[1]:
                        continue
                    for m in range(w.shape[1]):
                        b = j * sh + m * dh - ph
                        if b < 0 or b >= dx.shape[2]:
                            continue
                        out, factor = dx[n, a, b, first:last], w[k, m, first:last]
                        for c in range(last - first):
                            out[c] += given[c] * factor[c]


def _cuts(y: np.ndarray, w: np.ndarray) -> list[tuple[int, int]]:
    channels = y.shape[3]
    count = parts(y.size * w.shape[0] * w.shape[1], channels // _LANES)
    edges = [channels * k // count // _LANES * _LANES for k in range(count)] + [channels]
    return list(pairwise(edges))


Shape = tuple[tuple[int, int], tuple[int, int], tuple[int, int]]


def forward(x: np.ndarray, w: np.ndarray, shape: Shape, y: np.ndarray) -> None:
    """Fills y [N, H', W', C]."""
    run_parts(_forward, [(x, w, shape, *ends, y) for ends in _cuts(y, w)])


def backward_input(dy: np.ndarray, w: np.ndarray, shape: Shape, dx: np.ndarray) -> None:
    """Fills dx [N, H, W, C]."""
    run_parts(_back_input, [(dy, w, shape, *ends, dx) for ends in _cuts(dy, w)])


def backward_filter(x: np.ndarray, dy: np.ndarray, shape: Shape, kernel: tuple[int, int]) -> np.ndarray:
    """The gradient of the filters [kh, kw, C], in float64; dy is not empty."""
    from millstream.kernels.depthwise_filter import back_filter, runs_of
    from millstream.kernels.tiles import LANES

    channels = x.shape[3]
    if channels < LANES:
        x, dy = (np.pad(a, ((0, 0), (0, 0), (0, 0), (0, LANES - channels))) for a in (x, dy))
    dw = np.empty((*kernel, x.shape[3]))
    runs = runs_of(x.shape[2], dy.shape[2], kernel[1], *(both[1] for both in shape))
    run_parts(back_filter, [(x, dy, shape, runs, *ends, dw) for ends in _cuts(dy, dw)])
    return dw[..., :channels]
