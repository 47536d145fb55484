"""Tags of few words in one call: looked-up projections, GRU layers of both directions, a product, the best path of a CRF.

Everything but the table lies in one block of bytes, in the order in which it is read (:func:`places_of`).
"""

from __future__ import annotations

import numpy as np
from numba import carray

from millstream.kernels.bigru import from_ids, from_rows, outside, split_rows
from millstream.kernels.compiled import njit
from millstream.kernels.crf import decode, padded
from millstream.kernels.digits import rows_at, size_of
from millstream.kernels.gates import FAST
from millstream.kernels.gru import pointer
from millstream.kernels.tiles import strip_at

SLOTS = 6
"""Places of a direction of a layer, as from_rows has them: weight_x, its bias, weight, bias, digits of both weights."""


def places_of(layers: int, d: int, tags: int, digits: bool, scores_of_digits: bool) -> tuple[list[int], int]:
    """Where the parts of a block begin, and its size. -1: a part that is not there.

    SLOTS of each direction of each layer; the last product's weight [2D, columns] (or its digits) and bias [columns]; the
    rows of the CRF's transitions, [2 + tags, columns]; columns: padded(tags). Parts begin at multiples of 64 bytes.
    """
    places, end = [], 0

    def place(size: int) -> None:
        nonlocal end
        places.append(end if size else -1)
        end += -(-size // 64) * 64

    states = size_of(d, 2 * d) + size_of(d, d) if digits else 0
    for layer in range(layers):
        depth = 2 * d if layer else 0
        for _ in range(2):
            place(0 if digits else depth * 3 * d * 4)
            place(3 * d * 4 if layer else 0)
            place(0 if digits else d * 3 * d * 4)
            place(0 if layer else 3 * d * 4)
            place(size_of(depth, 3 * d) if digits and layer else 0)
            place(states)
    columns = padded(tags)
    place(size_of(2 * d, columns) if scores_of_digits else 2 * d * columns * 4)
    place(columns * 4)
    place((2 + tags) * columns * 4)
    return places, end


def room_for(rows: int, d: int, tags: int) -> int:
    """How many numbers of float32 :func:`tag` needs."""
    return rows * (4 * d + max(4 * d, padded(tags))) + 3 * d


@njit(cache=True, nogil=True, fastmath=FAST, error_model="numpy")
def tag(
    ids, table, known, at, reverse, d, tags, columns, of_digits, scratch, offsets, path, code_gate, code, origin
):  # fmt: skip
    """Write the tags of the rows into `path` [rows]; False, and nothing is written, where an id is not below `known`.

    ids: address of int64 [rows]; table [known, 6D]; at: addresses of the parts (0: not there) in :func:`places_of`' order,
    for each layer of `reverse` (whether its first direction runs backwards); of_digits: whether the last product's weight
    is of digits; scratch: room for :func:`room_for` numbers; offsets: of the sequences, run row by row.
    """
    total = offsets[len(offsets) - 1]
    if outside(ids, total, known):
        return False
    size = total * 2 * d * 4
    hidden, other, rest = scratch, scratch + size, scratch + 2 * size
    rooms = (rest, rest)
    first = np.empty(6, np.int64)
    for k in range(2):
        first[3 * k], first[3 * k + 1], first[3 * k + 2] = at[6 * k + 2], at[6 * k + 3], at[6 * k + 5]
    from_ids(0, 2, ids, table, first, hidden, rooms, offsets, d, reverse[0], code_gate, code, origin)
    for layer in range(1, len(reverse)):
        weights = at[12 * layer : 12 * layer + 12]
        from_rows(0, 2, hidden, weights, other, rooms, offsets, 2 * d, d, reverse[layer], code_gate, code, origin)
        hidden, other = other, hidden
    end = 12 * len(reverse)
    if of_digits:
        split_rows(hidden, 2 * d, other, total)
        rows_at(other, 4 * d, at[end], at[end + 1], 0, rest, columns, total, 2 * d, columns)
    else:
        strip_at(hidden, 2 * d, at[end], columns, at[end + 1], 0, rest, columns, total, 2 * d, columns)
    scores = carray(pointer(rest), (total, columns))
    moves = carray(pointer(at[end + 2]), (2 + tags, columns))
    decode(scores, moves, moves[2:], offsets[:-1], offsets[1:] - offsets[:-1], path)
    return True
