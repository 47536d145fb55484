"""One step of beam search over ragged prefixes."""

from __future__ import annotations

import numpy as np

from millstream.kernels.compiled import njit


@njit(cache=True, nogil=True)
def _insert(scores, rows, columns, n, most, score, row, column):
    """Keeps the `most` best candidates: by score, then the later prefix, then the earlier column.

    One that only equals the last of a full list takes its place, as in Fluid.
    """
    k = n
    while k > 0 and (score > scores[k - 1] or (score == scores[k - 1] and row > rows[k - 1])):
        k -= 1
    if k >= most:
        if score < scores[n - 1] or row < rows[n - 1]:
            return n
        k = n - 1
    last = min(n, most - 1)
    for m in range(last, k, -1):
        scores[m], rows[m], columns[m] = scores[m - 1], rows[m - 1], columns[m - 1]
    scores[k], rows[k], columns[k] = score, row, column
    return last + 1


@njit(cache=True, nogil=True)
def select(pre_ids, pre_scores, ids, scores, sources, most, end_id, accumulated, out_ids, out_scores, parent, counts):
    """Best `most` continuations of each source's prefixes; returns their number.

    Args:
        ids, scores: [prefixes, candidates]; ids has 0 rows when the column is the id.
        sources: offsets of the prefixes by source.
        counts: number of continuations kept, by prefix; a source whose prefixes have all ended gets none.
    """
    best, rows, columns = np.empty(most, scores.dtype), np.empty(most, np.int64), np.empty(most, np.int64)
    width = scores.shape[1]
    total = 0
    for s in range(len(sources) - 1):
        n = 0
        for r in range(sources[s], sources[s + 1]):
            if pre_ids[r] == end_id:
                n = _insert(best, rows, columns, n, most, pre_scores[r], r, -1)
                continue
            for c in range(width):
                v = scores[r, c] if accumulated else pre_scores[r] + np.log(scores[r, c])
                if n < most or v >= best[n - 1]:
                    n = _insert(best, rows, columns, n, most, v, r, c)
        finished = True
        for k in range(n):
            if columns[k] >= 0:
                finished = False
                break
        if finished:
            continue
        for r in range(sources[s], sources[s + 1]):
            for k in range(n):
                if rows[k] == r:
                    c = columns[k]
                    out_ids[total] = end_id if c < 0 else (ids[r, c] if ids.shape[0] else c)
                    out_scores[total] = best[k]
                    parent[total] = r
                    counts[r] += 1
                    total += 1
    return total
