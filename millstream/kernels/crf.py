"""Linear-chain CRF: forward algorithm, its gradient, and Viterbi decoding, one sequence after another.

A transition matrix w [tags + 2, tags] has the start weights in row 0, the stop weights in row 1, and in row 2 + i
the weights from tag i. Sequences are intervals start[q] .. start[q] + size[q] of the rows. Sums over tags are done in
float64 on exponentials relative to the largest term; where all of those vanish, term by term.
"""

from __future__ import annotations

import math

import numpy as np

from millstream.kernels.compiled import njit
from millstream.kernels.gates import FAST, exp64

BIG = 600.0  # exponents beyond it would overflow float64 together with the factors next to them


@njit(cache=True, nogil=True, fastmath=FAST, error_model="numpy")
def _top(row):
    top = row[0]
    for j in range(len(row)):
        top = row[j] if row[j] > top else top
    return top


@njit(cache=True, nogil=True, fastmath=FAST, error_model="numpy")
def _exps(row, shift, out):
    """out = exp(row + shift)."""
    for j in range(len(row)):
        out[j] = exp64(row[j] + shift)


@njit(cache=True, nogil=True, fastmath=FAST, error_model="numpy")
def _log_sum(row):
    top = _top(row)
    if top == -np.inf:
        return top
    total = 0.0
    for j in range(len(row)):
        total += exp64(row[j] - top)
    return top + math.log(total)


@njit(cache=True, nogil=True, fastmath=FAST, error_model="numpy")
def _advance(before, w, shift, transposed, expw, scaled, out):
    """out[j] = log sum_i exp(before[i] + w(i, j)); w(i, j) = w[2+i, j], or w[2+j, i] when transposed."""
    n = len(before)
    top = _top(before)
    _exps(before, -top, scaled)
    if transposed:
        for j in range(n):
            total, line = 0.0, expw[j]
            for i in range(n):
                total += scaled[i] * line[i]
            out[j] = total
    else:
        for j in range(n):
            out[j] = 0.0
        for i in range(n):
            p, line = scaled[i], expw[i]
            for j in range(n):
                out[j] += p * line[j]
    for j in range(n):
        if out[j] > 1e-280:
            out[j] = math.log(out[j]) + (top + shift)
        else:
            for i in range(n):
                scaled[i] = before[i] + (w[2 + j, i] if transposed else w[2 + i, j])
            out[j] = _log_sum(scaled)


@njit(cache=True, nogil=True)
def _relative(w, expw):
    """expw = exp(weights between tags - the largest of them), which is returned."""
    n = w.shape[1]
    shift = float(w[2, 0])
    for i in range(n):
        for j in range(n):
            shift = max(shift, float(w[2 + i, j]))
    for i in range(n):
        for j in range(n):
            expw[i, j] = math.exp(w[2 + i, j] - shift)
    return shift


@njit(cache=True, nogil=True, error_model="numpy")
def _alphas(e, w, first, size, shift, expw, scaled, alpha):
    """Fills alpha[k] = log of the summed scores of all paths that end in each tag; returns log Z."""
    n = w.shape[1]
    for j in range(n):
        alpha[0, j] = w[0, j] + e[first, j]
    for k in range(1, size):
        now, line = alpha[k], e[first + k]
        _advance(alpha[k - 1], w, shift, False, expw, scaled, now)
        for j in range(n):
            now[j] += line[j]
    for j in range(n):
        scaled[j] = alpha[size - 1, j] + w[1, j]
    return _log_sum(scaled)


@njit(cache=True, nogil=True, error_model="numpy")
def cost(e, w, label, start, size, alpha_out, out):
    """out[q] = log Z - score of the labels; alpha_out: forward variables, each row summing to 1."""
    n = w.shape[1]
    expw, scaled = np.empty((n, n)), np.empty(n)
    shift = _relative(w, expw)
    longest = 1
    for q in range(len(size)):
        longest = max(longest, size[q])
    alpha = np.empty((longest, n))
    for q in range(len(size)):
        first, m = start[q], size[q]
        if m == 0:
            out[q] = 0
            continue
        total = _alphas(e, w, first, m, shift, expw, scaled, alpha)
        for k in range(m):
            norm = _log_sum(alpha[k])
            _exps(alpha[k], -norm, alpha_out[first + k])
        y = label[first]
        score = float(w[0, y]) + e[first, y]
        for k in range(1, m):
            z = label[first + k]
            score += float(w[2 + y, z]) + e[first + k, z]
            y = z
        out[q] = total - (score + w[1, y])


@njit(cache=True, nogil=True, fastmath=FAST, error_model="numpy")
def _pairs(e, w, dw, scale, total, before, after, row, shift, expw, ends):
    """Adds scale * P(tag i at k-1, tag j at k) to dw[2 + i, j]; `after` is beta[k]."""
    n = w.shape[1]
    line = e[row]
    top_a, top_b = _top(before), line[0] + after[0]
    for j in range(n):
        v = line[j] + after[j]
        top_b = v if v > top_b else top_b
    power = top_a + top_b + shift - total
    if power < BIG:
        factor = math.exp(power) * scale
        for j in range(n):
            ends[j] = exp64(line[j] + after[j] - top_b) * factor
        for i in range(n):
            p, out, weights = exp64(before[i] - top_a), dw[2 + i], expw[i]
            for j in range(n):
                out[j] += p * weights[j] * ends[j]
    else:
        for i in range(n):
            for j in range(n):
                dw[2 + i, j] += scale * math.exp(before[i] + w[2 + i, j] + e[row, j] + after[j] - total)


@njit(cache=True, nogil=True, error_model="numpy")
def cost_back(e, w, label, start, size, dout, de, dw):
    """Gradients of `cost`: expected minus actual counts, times dout. de, dw: zeros on entry; dw is float64."""
    n = w.shape[1]
    expw, scaled = np.empty((n, n)), np.empty(n)
    shift = _relative(w, expw)
    longest = 1
    for q in range(len(size)):
        longest = max(longest, size[q])
    alpha, beta, ahead = np.empty((longest, n)), np.empty(n), np.empty(n)
    for q in range(len(size)):
        first, m = start[q], size[q]
        if m == 0:
            continue
        scale = float(dout[q])
        total = _alphas(e, w, first, m, shift, expw, scaled, alpha)
        for j in range(n):
            beta[j] = w[1, j]
            dw[1, j] += scale * math.exp(alpha[m - 1, j] + beta[j] - total)
        for k in range(m - 1, -1, -1):
            line, now = de[first + k], alpha[k]
            for j in range(n):
                line[j] = scale * exp64(now[j] + beta[j] - total)
            if k == 0:
                break
            _pairs(e, w, dw, scale, total, alpha[k - 1], beta, first + k, shift, expw, scaled)
            for j in range(n):
                ahead[j] = e[first + k, j] + beta[j]
            _advance(ahead, w, shift, True, expw, scaled, beta)
        for j in range(n):
            dw[0, j] += de[first, j]
        y = label[first]
        dw[0, y] -= scale
        de[first, y] -= scale
        for k in range(1, m):
            z = label[first + k]
            dw[2 + y, z] -= scale
            de[first + k, z] -= scale
            y = z
        dw[1, y] -= scale


@njit(cache=True, nogil=True)
def viterbi(e, w, start, size, path):
    """path[row] = tag of the best path; on ties the lowest tag."""
    n = w.shape[1]
    # rows a whole number of vectors long: what lies beyond the last tag is computed and never looked at
    wide = (n + 15) // 16 * 16
    move = np.zeros((n, wide), w.dtype)
    for i in range(n):
        for j in range(n):
            move[i, j] = w[2 + i, j]
    longest = 1
    for q in range(len(size)):
        longest = max(longest, size[q])
    came = np.empty((longest, wide), np.int32)
    best, ahead = np.zeros(wide, e.dtype), np.zeros(wide, e.dtype)
    for q in range(len(size)):
        first, m = start[q], size[q]
        if m == 0:
            continue
        for j in range(n):
            best[j] = w[0, j] + e[first, j]
        for k in range(1, m):
            from_tag = came[k]
            row = move[0]
            for j in range(wide):
                ahead[j] = best[0] + row[j]
                from_tag[j] = 0
            for i in range(1, n):
                b = best[i]
                row = move[i]
                for j in range(wide):
                    v = b + row[j]
                    better = v > ahead[j]
                    ahead[j] = v if better else ahead[j]
                    from_tag[j] = i if better else from_tag[j]
            for j in range(n):
                best[j] = ahead[j] + e[first + k, j]
        y = 0
        top = best[0] + w[1, 0]
        for j in range(1, n):
            v = best[j] + w[1, j]
            if v > top:
                top = v
                y = j
        for k in range(m - 1, -1, -1):
            path[first + k] = y
            if k:
                y = came[k, y]
