"""Loops over regions of interest: alignment, maximum and position-sensitive pooling, and their adjoints.

Images [N, C, H, W], regions [R, 4] (x1, y1, x2, y2), `image` [R] the image of each region; all C-contiguous.
Where a bin's edge decides which pixels count, it is computed in the regions' own precision (`number`), as in 1.8.5.
"""

from __future__ import annotations

import math

from millstream.kernels.compiled import njit


@njit(cache=True, nogil=True)
def _round(v):
    """Half away from zero, as C rounds."""
    return math.floor(v + 0.5) if v >= 0 else math.ceil(v - 0.5)


@njit(cache=True, nogil=True)
def _tap(y, x, height, width):
    """(inside, y0, x0, y1, x1, weights of the four corners) of a bilinear reading."""
    if y < -1.0 or y > height or x < -1.0 or x > width:
        return False, 0, 0, 0, 0, 0.0, 0.0, 0.0, 0.0
    y = max(y, 0.0)
    x = max(x, 0.0)
    y0 = int(y)
    x0 = int(x)
    if y0 >= height - 1:
        y0 = height - 1
        y1 = y0
        y = float(y0)
    else:
        y1 = y0 + 1
    if x0 >= width - 1:
        x0 = width - 1
        x1 = x0
        x = float(x0)
    else:
        x1 = x0 + 1
    ly = y - y0
    lx = x - x0
    return True, y0, x0, y1, x1, (1 - ly) * (1 - lx), (1 - ly) * lx, ly * (1 - lx), ly * lx


@njit(cache=True, nogil=True)
def align(x, rois, image, scale, ratio, out):
    """Mean of bilinear readings on a regular grid inside each bin; `ratio` <= 0: ceil(bin size) readings a side."""
    _, channels, height, width = x.shape
    ph_n, pw_n = out.shape[2:]
    for r in range(rois.shape[0]):
        n = image[r]
        x1, y1 = rois[r, 0] * scale, rois[r, 1] * scale
        rw = max(rois[r, 2] * scale - x1, 1.0)
        rh = max(rois[r, 3] * scale - y1, 1.0)
        bh, bw = rh / ph_n, rw / pw_n
        gh = ratio if ratio > 0 else math.ceil(rh / ph_n)
        gw = ratio if ratio > 0 else math.ceil(rw / pw_n)
        count = gh * gw
        for ph in range(ph_n):
            for pw in range(pw_n):
                for iy in range(gh):
                    sy = y1 + ph * bh + (iy + 0.5) * bh / gh
                    for ix in range(gw):
                        sx = x1 + pw * bw + (ix + 0.5) * bw / gw
                        ok, ya, xa, yb, xb, w1, w2, w3, w4 = _tap(sy, sx, height, width)
                        if ok:
                            for c in range(channels):
                                p = x[n, c]
                                v = w1 * p[ya, xa] + w2 * p[ya, xb] + w3 * p[yb, xa] + w4 * p[yb, xb]
                                out[r, c, ph, pw] += v / count


@njit(cache=True, nogil=True)
def align_grad(dout, rois, image, scale, ratio, dx):
    """Adjoint of `align`; adds to `dx`."""
    _, channels, height, width = dx.shape
    ph_n, pw_n = dout.shape[2:]
    for r in range(rois.shape[0]):
        n = image[r]
        x1, y1 = rois[r, 0] * scale, rois[r, 1] * scale
        rw = max(rois[r, 2] * scale - x1, 1.0)
        rh = max(rois[r, 3] * scale - y1, 1.0)
        bh, bw = rh / ph_n, rw / pw_n
        gh = ratio if ratio > 0 else math.ceil(rh / ph_n)
        gw = ratio if ratio > 0 else math.ceil(rw / pw_n)
        count = gh * gw
        for ph in range(ph_n):
            for pw in range(pw_n):
                for iy in range(gh):
                    sy = y1 + ph * bh + (iy + 0.5) * bh / gh
                    for ix in range(gw):
                        sx = x1 + pw * bw + (ix + 0.5) * bw / gw
                        ok, ya, xa, yb, xb, w1, w2, w3, w4 = _tap(sy, sx, height, width)
                        if ok:
                            for c in range(channels):
                                g = dout[r, c, ph, pw] / count
                                dx[n, c, ya, xa] += w1 * g
                                dx[n, c, ya, xb] += w2 * g
                                dx[n, c, yb, xa] += w3 * g
                                dx[n, c, yb, xb] += w4 * g


@njit(cache=True, nogil=True)
def maximum(x, rois, image, scale, out, argmax):
    """Maximum of each bin and its flat position in the plane; an empty bin gives 0 and -1."""
    _, channels, height, width = x.shape
    ph_n, pw_n = out.shape[2:]
    number = rois.dtype.type
    for r in range(rois.shape[0]):
        n = image[r]
        x1, y1 = _round(rois[r, 0] * scale), _round(rois[r, 1] * scale)
        x2, y2 = _round(rois[r, 2] * scale), _round(rois[r, 3] * scale)
        bh = number(max(y2 - y1 + 1, 1)) / number(ph_n)
        bw = number(max(x2 - x1 + 1, 1)) / number(pw_n)
        for ph in range(ph_n):
            ha = int(min(max(math.floor(number(ph) * bh) + y1, 0), height))
            hb = int(min(max(math.ceil(number(ph + 1) * bh) + y1, 0), height))
            for pw in range(pw_n):
                wa = int(min(max(math.floor(number(pw) * bw) + x1, 0), width))
                wb = int(min(max(math.ceil(number(pw + 1) * bw) + x1, 0), width))
                for c in range(channels):
                    if hb <= ha or wb <= wa:
                        out[r, c, ph, pw] = 0
                        argmax[r, c, ph, pw] = -1
                        continue
                    best = x[n, c, ha, wa]
                    at = ha * width + wa
                    for h in range(ha, hb):
                        for w in range(wa, wb):
                            if x[n, c, h, w] > best:
                                best = x[n, c, h, w]
                                at = h * width + w
                    out[r, c, ph, pw] = best
                    argmax[r, c, ph, pw] = at


@njit(cache=True, nogil=True)
def position_bins(roi, scale, ph_n, pw_n, ph, pw, height, width):
    """(first row, end row, first column, end column) of one bin of position-sensitive pooling."""
    number = roi.dtype.type
    x1, y1 = number(_round(roi[0])) * scale, number(_round(roi[1])) * scale
    x2, y2 = number(_round(roi[2]) + 1.0) * scale, number(_round(roi[3]) + 1.0) * scale
    bh = max(y2 - y1, number(0.1)) / number(ph_n)
    bw = max(x2 - x1, number(0.1)) / number(pw_n)
    ha = int(min(max(math.floor(number(ph) * bh + y1), 0), height))
    hb = int(min(max(math.ceil(number(ph + 1) * bh + y1), 0), height))
    wa = int(min(max(math.floor(number(pw) * bw + x1), 0), width))
    wb = int(min(max(math.ceil(number(pw + 1) * bw + x1), 0), width))
    return ha, hb, wa, wb


@njit(cache=True, nogil=True)
def position(x, rois, image, scale, out):
    """Mean of each bin, each bin from its own channel (c * PH + ph) * PW + pw."""
    height, width = x.shape[2:]
    _, channels, ph_n, pw_n = out.shape
    for r in range(rois.shape[0]):
        for ph in range(ph_n):
            for pw in range(pw_n):
                ha, hb, wa, wb = position_bins(rois[r], scale, ph_n, pw_n, ph, pw, height, width)
                if hb <= ha or wb <= wa:
                    continue
                area = (hb - ha) * (wb - wa)
                for c in range(channels):
                    plane = x[image[r], (c * ph_n + ph) * pw_n + pw]
                    total = 0.0
                    for h in range(ha, hb):
                        for w in range(wa, wb):
                            total += plane[h, w]
                    out[r, c, ph, pw] = total / area


@njit(cache=True, nogil=True)
def position_grad(dout, rois, image, scale, dx):
    """Adjoint of `position`; adds to `dx`."""
    height, width = dx.shape[2:]
    _, channels, ph_n, pw_n = dout.shape
    for r in range(rois.shape[0]):
        for ph in range(ph_n):
            for pw in range(pw_n):
                ha, hb, wa, wb = position_bins(rois[r], scale, ph_n, pw_n, ph, pw, height, width)
                if hb <= ha or wb <= wa:
                    continue
                area = (hb - ha) * (wb - wa)
                for c in range(channels):
                    plane = dx[image[r], (c * ph_n + ph) * pw_n + pw]
                    g = dout[r, c, ph, pw] / area
                    for h in range(ha, hb):
                        for w in range(wa, wb):
                            plane[h, w] += g
