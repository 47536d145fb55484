"""Channels of a pixel, [groups, each], side by side as [each, groups]: what a shuffle of channels moves."""

from __future__ import annotations

import numpy as np

from millstream.kernels.compiled import njit
from millstream.kernels.threads import cuts, run_parts

_MOVED = 2  # numbers that are moved in the time of one multiplication of run_parts


@njit(cache=True, nogil=True, error_model="numpy")
def _turn(x, first, last, out):
    """Rows first .. last of out [rows, each, groups] from x [rows, groups, each]; LLVM makes vectors of pairs."""
    groups, each = x.shape[1], x.shape[2]
    for i in range(first, last):
        given, made = x[i], out[i]
        if groups == 2:
            for j in range(each):
                made[j, 0] = given[0, j]
                made[j, 1] = given[1, j]
        elif each == 2:
            for j in range(groups):
                made[0, j] = given[j, 0]
                made[1, j] = given[j, 1]
        else:
            for j in range(each):
                for k in range(groups):
                    made[j, k] = given[k, j]


def turn(x: np.ndarray, out: np.ndarray) -> None:
    """Fills out [rows, each, groups] from x [rows, groups, each]."""
    run_parts(_turn, [(x, *ends, out) for ends in cuts(_MOVED * x.size, x.shape[0])])
