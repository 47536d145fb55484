"""swish and hard_swish behind a normalisation, and the slopes of all activations there, for loops that LLVM vectorises.

Kernels are told of an activation by a number, its slope below 0; these have none and are numbers below 0 instead.
"""

from __future__ import annotations

import numpy as np
from numba.extending import register_jitable

from millstream.kernels.gates import sigmoid

SWISH, HARD_SWISH = np.float32(-1), np.float32(-2)
_ZERO, _ONE, _THREE, _SIX = (np.float32(n) for n in (0, 1, 3, 6))


@register_jitable(error_model="numpy")
def curved(z, kind):
    """z * sigmoid(z), or z * min(max(z + 3, 0), 6) / 6; NaN stays."""
    if kind == SWISH:
        return z * sigmoid(z)
    gate = z + _THREE
    gate = _ZERO if gate < _ZERO else gate
    gate = _SIX if gate > _SIX else gate
    return z * gate / _SIX


@register_jitable(error_model="numpy")
def curve_slope(z, kind):
    """The derivative of :func:`curved`."""
    if kind == SWISH:
        gate = sigmoid(z)
        return gate + z * (gate - gate * gate)
    inner = (z + z + _THREE) / _SIX
    inner = inner if z > -_THREE else _ZERO
    return inner if z < _THREE else _ONE


@register_jitable(error_model="numpy")
def bent_slope(d, z, slope, most):
    """The gradient `d` behind an activation, before it: at z, of the numbers `bend` of batch_norm.py."""
    if slope < 0:
        return d * curve_slope(z, slope)
    low = d * slope if slope != 0 else _ZERO
    g = low if z <= 0 else d
    return _ZERO if z >= most else g
