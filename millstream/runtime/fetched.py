"""The numpy array that fetches return."""

from __future__ import annotations

from typing import Any

import numpy as np


class FetchedArray(np.ndarray):
    """A numpy array of which one element converts to a number whatever its shape.

    Fluid's scalars have shape [1], and its programs write ``float(loss)`` and ``"%f" % loss``. numpy 2.4 refuses that
    for arrays with dimensions; these still convert. In all else (text, pickles, arithmetic) they are plain arrays.
    """

    def __float__(self) -> float:
        return float(self.item())

    def __int__(self) -> int:
        return int(self.item())

    def __complex__(self) -> complex:
        return complex(self.item())

    def __reduce_ex__(self, protocol: Any) -> Any:
        return np.asarray(self).__reduce_ex__(protocol)

    def __reduce__(self) -> Any:
        return np.asarray(self).__reduce__()


FetchedArray.__name__ = "array"  # what numpy prints


def fetched(value: np.ndarray) -> np.ndarray:
    """`value` as a :class:`FetchedArray` over the same memory."""
    return value.view(FetchedArray)
