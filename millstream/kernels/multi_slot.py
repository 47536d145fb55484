"""Lines of the MultiSlot text format: bytes to numbers, and numbers of one slot to a batch.

Both run without the interpreter's lock, so that several files are parsed at once.
"""

from __future__ import annotations

import numpy as np

from millstream.kernels.compiled import njit

_POWERS = 10.0 ** np.arange(23)  # exact in float64
_EXACT = 1 << 53


@njit(cache=True, nogil=True)
def _blank(c):
    return c == 32 or (9 <= c <= 13)


@njit(cache=True, nogil=True)
def _number(text, at, end):
    """(whether it is a plain number, mantissa, exponent of ten, negative, has a point or exponent, where it ends)."""
    negative = text[at] == 45
    if negative:
        at += 1
    mantissa, digits, exponent, fraction = 0, 0, 0, False
    while at < end and not _blank(text[at]):
        c = text[at]
        if 48 <= c <= 57:
            mantissa = mantissa * 10 + (c - 48)
            digits += 1
            if fraction:
                exponent -= 1
        elif c == 46 and not fraction:
            fraction = True
        elif (c == 69 or c == 101) and digits:
            power, sign, some = 0, 1, False
            at += 1
            if at < end and (text[at] == 45 or text[at] == 43):
                sign = -1 if text[at] == 45 else 1
                at += 1
            while at < end and 48 <= text[at] <= 57 and power < 1000:
                power = power * 10 + (text[at] - 48)
                some = True
                at += 1
            fraction = True
            exponent += sign * power
            return some and digits <= 18 and (at == end or _blank(text[at])), mantissa, exponent, negative, fraction, at
        else:
            return False, 0, 0, False, False, at
        at += 1
    return 0 < digits <= 18, mantissa, exponent, negative, fraction, at


@njit(cache=True, nogil=True)
def parse(text, start, is_float, skip, counts, ints, floats):
    """Parse whole lines of `text` from byte `start` on.

    A line that is not plain (also a number of more than 18 digits) is left to the caller.

    Args:
        text: uint8, ends with a newline. is_float: bool for each slot. skip: leading groups that are no slots.
        counts: int32 [lines, slots], filled with the numbers of values; ints, floats: filled with the values, in order.

    Returns (lines parsed, int64 values, float32 values, where it stopped): at the end, or at a line that is not plain.
    """
    slots = len(is_float)
    rows, n_ints, n_floats, at = 0, 0, 0, start
    while at < len(text) and rows < len(counts):
        line, end = at, at
        while text[end] != 10:
            end += 1
        while at < end and _blank(text[at]):
            at += 1
        if at == end:
            at = end + 1
            continue
        line_ints, line_floats, plain = n_ints, n_floats, True
        for slot in range(-skip, slots):
            while at < end and _blank(text[at]):
                at += 1
            plain = at < end
            if not plain:
                break
            good, count, _, negative, fraction, at = _number(text, at, end)
            plain = good and not negative and not fraction and 0 < count < 1 << 30
            if not plain:
                break
            for _ in range(count):
                while at < end and _blank(text[at]):
                    at += 1
                if at == end:
                    plain = False
                    break
                if slot < 0:
                    while at < end and not _blank(text[at]):
                        at += 1
                    continue
                good, mantissa, exponent, negative, fraction, at = _number(text, at, end)
                if not good:
                    plain = False
                    break
                if is_float[slot]:
                    if mantissa >= _EXACT or not -22 <= exponent <= 22:
                        plain = False
                        break
                    value = float(mantissa)
                    value = value / _POWERS[-exponent] if exponent < 0 else value * _POWERS[exponent]
                    floats[n_floats] = -value if negative else value
                    n_floats += 1
                else:
                    if fraction:
                        plain = False
                        break
                    ints[n_ints] = -mantissa if negative else mantissa
                    n_ints += 1
            if not plain:
                break
            if slot >= 0:
                counts[rows, slot] = count
        while plain and at < end and _blank(text[at]):
            at += 1
        if not plain or at < end:
            return rows, line_ints, line_floats, line
        rows += 1
        at = end + 1
    return rows, n_ints, n_floats, at


@njit(cache=True, nogil=True)
def starts_of(counts, is_float, starts):
    """starts[row, slot]: where its values begin in the array of ints or of floats."""
    n_ints, n_floats = 0, 0
    for row in range(counts.shape[0]):
        for slot in range(counts.shape[1]):
            if is_float[slot]:
                starts[row, slot] = n_floats
                n_floats += counts[row, slot]
            else:
                starts[row, slot] = n_ints
                n_ints += counts[row, slot]


@njit(cache=True, nogil=True)
def gather(ints, floats, starts, counts, is_float, out_ints, out_floats, places):
    """Lay the values of some rows out slot by slot: those of slot k from places[k] on, which moves behind them."""
    for row in range(counts.shape[0]):
        for slot in range(counts.shape[1]):
            at, start = places[slot], starts[row, slot]
            if is_float[slot]:
                for k in range(counts[row, slot]):
                    out_floats[at + k] = floats[start + k]
            else:
                for k in range(counts[row, slot]):
                    out_ints[at + k] = ints[start + k]
            places[slot] = at + counts[row, slot]
