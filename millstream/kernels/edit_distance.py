"""Levenshtein distance, chunk counting, and CTC alignment over integer sequences."""

from __future__ import annotations

import numpy as np

from millstream.kernels.compiled import njit


@njit(cache=True, nogil=True)
def distances(hyps, hyp_start, hyp_size, refs, ref_start, ref_size, out):
    """out[q] = least number of insertions, deletions and substitutions that turn hypothesis q into reference q."""
    for q in range(len(out)):
        m, n = hyp_size[q], ref_size[q]
        a, b = hyp_start[q], ref_start[q]
        row = np.arange(n + 1)
        for i in range(1, m + 1):
            corner = row[0]
            row[0] = i
            for j in range(1, n + 1):
                above = row[j]
                best = corner + (0 if hyps[a + i - 1] == refs[b + j - 1] else 1)
                best = min(best, above + 1)
                row[j] = min(best, row[j - 1] + 1)
                corner = above
        out[q] = row[n]


@njit(cache=True, nogil=True)
def align(ids, start, size, blank, merge, out, out_size):
    """Drops blanks (and, with `merge`, repeats) of each interval; writes what is left end to end into `out`."""
    k = 0
    for q in range(len(size)):
        first = k
        before = -1
        for r in range(start[q], start[q] + size[q]):
            v = ids[r]
            if v != blank and not (merge and r > start[q] and v == before):
                out[k] = v
                k += 1
            before = v
        out_size[q] = k - first
    return k


@njit(cache=True, nogil=True)
def chunks(tags, first, last, tag_types, other, begin, inside, end, single, found):
    """Chunks of tags[first:last] as rows (begin, end inclusive, type) of `found`; returns their number.

    tag = type * tag_types + position code; begin, inside, end, single: the scheme's codes (-1: it has none).
    """
    n = 0
    open_at = -1
    before, before_type = -1, other
    for i in range(first, last):
        code, kind = tags[i] % tag_types, tags[i] // tag_types
        if open_at >= 0:
            ends = kind == other or kind != before_type or before in (end, single)
            ends = ends or (before >= 0 and before in (begin, inside) and code in (begin, single))
            if ends:
                found[n, 0], found[n, 1], found[n, 2] = open_at, i - 1, before_type
                n += 1
                open_at = -1
        if kind != other:
            starts = before_type == other or kind != before_type or code in (begin, single)
            starts = starts or (code >= 0 and code in (inside, end) and before in (end, single))
            if starts:
                open_at = i
        before, before_type = code, kind
    if open_at >= 0:
        found[n, 0], found[n, 1], found[n, 2] = open_at, last - 1, before_type
        n += 1
    return n


@njit(cache=True, nogil=True)
def count_chunks(inferred, label, start, size, tag_types, kinds, scheme, excluded, counts):
    """counts = chunks in `inferred`, in `label`, and in both, over all intervals; excluded[type] are left out."""
    longest = 1
    for q in range(len(size)):
        longest = max(longest, size[q])
    a, b = np.empty((longest + 1, 3), np.int64), np.empty((longest + 1, 3), np.int64)
    for q in range(len(size)):
        first, last = start[q], start[q] + size[q]
        n = chunks(inferred, first, last, tag_types, kinds, scheme[0], scheme[1], scheme[2], scheme[3], a)
        m = chunks(label, first, last, tag_types, kinds, scheme[0], scheme[1], scheme[2], scheme[3], b)
        for i in range(n):
            if not excluded[a[i, 2]]:
                counts[0] += 1
        for j in range(m):
            if not excluded[b[j, 2]]:
                counts[1] += 1
        i = j = 0
        while i < n and j < m:
            if a[i, 0] == b[j, 0] and a[i, 1] == b[j, 1] and a[i, 2] == b[j, 2] and not excluded[a[i, 2]]:
                counts[2] += 1
            if a[i, 1] < b[j, 1]:
                i += 1
            elif a[i, 1] > b[j, 1]:
                j += 1
            else:
                i += 1
                j += 1
