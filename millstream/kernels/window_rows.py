"""Gradients of a convolution's filters as products with the windows that filters see, some rows of pixels at a time.

All windows of a map are as many times larger than it as filters have taps, and would go through memory. Here those of a few
pixels are gathered in the cache, and multiplied in register tiles (tiles.py).
"""

from __future__ import annotations

from millstream.kernels.compiled import njit
from millstream.kernels.tiles import turned_at
from millstream.kernels.vectors import copy

_ROOM = 98_304  # numbers of the windows that are in the cache at a time
_LEAST, _MOST = 48, 240  # pixels of those


def room_of(depth: int) -> tuple[int, int]:
    """(rows, numbers between them) of the room that a thread needs for windows of `depth` numbers.

    Rows a power of two apart would share few sets of a cache.
    """
    return max(_LEAST, min(_MOST, _ROOM // depth)), depth + 16 if depth % 256 == 0 else depth


@njit(cache=True, nogil=True, error_model="numpy")
def _gather(px, shape, sizes, kernel, strides, pads, dilations, first, last, lanes, room, step, zeros):
    """Windows of the output's pixels first .. last, [pixels, taps * channels] with `step` numbers between rows."""
    height, width, c = shape
    for r in range(first, last):
        rest, j = divmod(r, sizes[1])
        n, i = divmod(rest, sizes[0])
        to = room + (r - first) * step * 4
        for a in range(kernel[0]):
            y = i * strides[0] - pads[0] + a * dilations[0]
            for b in range(kernel[1]):
                x = j * strides[1] - pads[1] + b * dilations[1]
                inside = 0 <= y < height and 0 <= x < width
                at = px + ((n * height + y) * width + x) * c * 4 if inside else zeros
                for k in range(0, c * 4, lanes * 4):
                    copy(at + k, to + k)
                to += c * 4


@njit(cache=True, nogil=True, error_model="numpy")
def filter_gradient(
    px, shape, pd, sizes, kernel, strides, pads, dilations, share, filters, lanes, zeros, room, rows, step, out
):  # fmt: skip
    """out [filters' share, taps * channels] = the output's gradient, transposed, times windows; over pixels of `share`.

    Addresses of float32, C-contiguous. px, shape: the input, its (height, width, channels), a multiple of LANES; pd, sizes:
    the output's gradient, its (height, width, channels). share: (first, last) pixel of all pictures; filters: (first, last).
    zeros: as many as taps * channels; room, rows, step: see :func:`room_of`.
    """
    depth = kernel[0] * kernel[1] * shape[2]
    k, count = sizes[2], filters[1] - filters[0]
    for i in range(share[0], share[1], rows):
        end = min(i + rows, share[1])
        _gather(px, shape, sizes, kernel, strides, pads, dilations, i, end, lanes, room, step, zeros)
        at = pd + (i * k + filters[0]) * 4
        if i == share[0]:
            turned_at(at, k, room, step, zeros, 0, out, end - i, count, depth)
        else:
            turned_at(at, k, room, step, out, depth, out, end - i, count, depth)
