"""1,797 handwritten digits of 8 x 8 pixels that come with scikit-learn: no download.

A stand-in for MNIST where there is no network. Samples are (float32 [64] in [-1, 1], int
label), as MNIST's. A fifth of each class is for testing, always the same. Source: Alpaydin and
Kaynak, UCI, 1998. Needs scikit-learn.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache

import numpy as np

from ..errors import NotSupportedError

__all__ = ["fetch", "test", "train"]

Sample = tuple[np.ndarray, int]


@lru_cache(maxsize=1)
def _split() -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise NotSupportedError(
            "paddle.dataset.digits reads a table of scikit-learn, which is not installed. Hint: pip install scikit-learn"
        ) from error
    pixels, labels = load_digits(return_X_y=True)
    images = (pixels / 8.0 - 1.0).astype(np.float32)
    images.flags.writeable = False  # samples are views of this cached table
    is_test = np.zeros(len(labels), bool)
    for digit in range(10):
        is_test[np.flatnonzero(labels == digit)[4::5]] = True
    # The table comes in the writers' order; mix it once so that batches see all of them.
    order = np.random.RandomState(0).permutation(len(labels))
    train_rows, test_rows = order[~is_test[order]], order[is_test[order]]
    return (images[train_rows], labels[train_rows]), (images[test_rows], labels[test_rows])


def _reader(part: int) -> Callable[[], Iterator[Sample]]:
    images, labels = _split()[part]
    return lambda: ((image, int(label)) for image, label in zip(images, labels, strict=True))


def train() -> Callable[[], Iterator[Sample]]:
    """A reader of the training digits."""
    return _reader(0)


def test() -> Callable[[], Iterator[Sample]]:
    """A reader of the test digits."""
    return _reader(1)


def fetch() -> None:
    """Load the table."""
    _split()
