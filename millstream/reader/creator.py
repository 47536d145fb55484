"""Readers over an array or text files (``paddle.reader.creator`` of Fluid 1.0)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

__all__ = ["np_array", "text_file"]


def np_array(x: Any) -> Callable[[], Iterator[Any]]:
    """A reader of the elements of `x` along its first axis; a scalar yields itself once."""
    array = np.asarray(x)
    rows = array.reshape(1) if array.ndim < 1 else array
    return lambda: iter(rows)


def text_file(path: str) -> Callable[[], Iterator[str]]:
    """A reader of the lines of a UTF-8 text file, each without its line end."""

    def lines() -> Iterator[str]:
        with open(path, encoding="utf-8") as stream:
            for line in stream:
                yield line.rstrip("\n")

    return lines
