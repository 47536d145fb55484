"""How convolutions and pools state their padding."""

from __future__ import annotations

from typing import Any

from millstream.fluid.layers._build import int_list
from millstream.fluid.layers._check import check_choice, refuse

FORMATS = {2: ("NCHW", "NHWC"), 3: ("NCDHW", "NDHWC")}


def channel_axis(data_format: str, n: int, layer: str, argument: str = "data_format") -> int:
    """The channel dimension of an n-D image in this layout."""
    check_choice(data_format, argument, FORMATS[n], layer)
    return 1 if data_format.startswith("NC") else n + 1


def parse(padding: Any, n: int, data_format: str, layer: str, argument: str = "padding") -> tuple[list[int], str]:
    """(paddings, padding_algorithm) from any of the accepted forms.

    "SAME" or "VALID"; one int; n ints; 2n ints (before and after each dimension); or n + 2 pairs in the layout of the
    data, those of batch and channel being [0, 0]. Equal pairs are shortened to n ints.
    """
    if isinstance(padding, str):
        algorithm = padding.upper()
        check_choice(algorithm, argument, ("SAME", "VALID"), layer)
        return [0] * n, algorithm
    if isinstance(padding, (list, tuple)) and padding and isinstance(padding[0], (list, tuple)):
        if len(padding) != n + 2 or any(len(p) != 2 for p in padding):
            refuse(layer, f"'{argument}' must have {n + 2} pairs, received {padding!r}")
        first_channel = data_format.startswith("NC")
        outer = [padding[0], padding[1] if first_channel else padding[-1]]
        if any(tuple(p) != (0, 0) for p in outer):
            refuse(layer, f"'{argument}' can't pad the batch or the channels, received {padding!r}")
        inner = padding[2:] if first_channel else padding[1:-1]
        padding = [v for pair in inner for v in pair]
    if isinstance(padding, (list, tuple)) and len(padding) == 2 * n:
        values = int_list(padding, 2 * n, argument, layer)
        before, after = values[0::2], values[1::2]
        return (before if before == after else values), "EXPLICIT"
    return int_list(padding, n, argument, layer), "EXPLICIT"
