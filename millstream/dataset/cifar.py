"""CIFAR-10 and CIFAR-100: 50,000 training and 10,000 test images of 3 x 32 x 32 pixels.

Samples are (float32 [3072] in [0, 1], channels first, int label). Source: Krizhevsky, 2009.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ..errors import FileFormatError
from ..files.unpickle import read_pickle
from . import common
from .archives import iterate_members

__all__ = ["fetch", "reader_creator", "test10", "test100", "train10", "train100"]

URL_PREFIX = "https://dataset.bj.bcebos.com/cifar/"
CIFAR10_URL = URL_PREFIX + "cifar-10-python.tar.gz"
CIFAR10_MD5 = "c58f30108f718f92721af3b95e74349a"
CIFAR100_URL = URL_PREFIX + "cifar-100-python.tar.gz"
CIFAR100_MD5 = "eb9058c3a382ffc7106e4002c42a8d85"

Sample = tuple[np.ndarray, int]


def _text_keys(batch: Any) -> dict[str, Any]:
    """The published files have text keys, copies written by Python 3 often byte strings."""
    if not isinstance(batch, dict):
        return {}
    return {key.decode() if isinstance(key, bytes) else key: batch[key] for key in batch}


def reader_creator(filename: str, sub_name: str, cycle: bool = False) -> Callable[[], Iterator[Sample]]:
    """A reader of the archive members whose name contains `sub_name`; `cycle`: without end."""
    pattern = re.compile(f".*{re.escape(sub_name)}")

    def once() -> Iterator[Sample]:
        found = False
        for name, contents in iterate_members(filename, pattern):
            found = True
            batch = _text_keys(read_pickle(contents, f"{filename}: {name}"))
            try:
                data = batch["data"]
                labels = batch["labels"] if "labels" in batch else batch["fine_labels"]
            except KeyError:
                raise FileFormatError(f"{filename}: {name} is not a CIFAR batch") from None
            if len(data) != len(labels):
                raise FileFormatError(f"{filename}: {name} has {len(data)} images and {len(labels)} labels")
            for pixels, label in zip(data, labels, strict=True):
                yield (pixels / 255.0).astype(np.float32), int(label)
        if not found:
            raise FileFormatError(f"{filename}: no member whose name contains {sub_name!r}")

    def reader() -> Iterator[Sample]:
        yield from once()
        while cycle:
            yield from once()

    return reader


def train100() -> Callable[[], Iterator[Sample]]:
    """CIFAR-100 training reader; labels are the 100 fine classes."""
    return reader_creator(common.download(CIFAR100_URL, "cifar", CIFAR100_MD5), "train")


def test100() -> Callable[[], Iterator[Sample]]:
    """CIFAR-100 test reader."""
    return reader_creator(common.download(CIFAR100_URL, "cifar", CIFAR100_MD5), "test")


def train10(cycle: bool = False) -> Callable[[], Iterator[Sample]]:
    """CIFAR-10 training reader; `cycle` repeats it without end."""
    path = common.download(CIFAR10_URL, "cifar", CIFAR10_MD5)
    return reader_creator(path, "data_batch", cycle=cycle)


def test10(cycle: bool = False) -> Callable[[], Iterator[Sample]]:
    """CIFAR-10 test reader; `cycle` repeats it without end."""
    path = common.download(CIFAR10_URL, "cifar", CIFAR10_MD5)
    return reader_creator(path, "test_batch", cycle=cycle)


def fetch() -> None:
    """Download both archives."""
    common.download(CIFAR10_URL, "cifar", CIFAR10_MD5)
    common.download(CIFAR100_URL, "cifar", CIFAR100_MD5)
