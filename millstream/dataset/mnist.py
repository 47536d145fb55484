"""MNIST handwritten digits: 60,000 training and 10,000 test images of 28 x 28 pixels.

Samples are (float32 [784] in [-1, 1], int label). Source: LeCun et al., 1998; IDX files.
"""

from __future__ import annotations

import gzip
import struct
from collections.abc import Callable, Iterator
from typing import Protocol

import numpy as np

from ..errors import FileFormatError
from . import common

__all__ = ["fetch", "reader_creator", "test", "train"]

URL_PREFIX = "https://dataset.bj.bcebos.com/mnist/"
TEST_IMAGE_URL = URL_PREFIX + "t10k-images-idx3-ubyte.gz"
TEST_IMAGE_MD5 = "9fb629c4189551a2d022fa330f9573f3"
TEST_LABEL_URL = URL_PREFIX + "t10k-labels-idx1-ubyte.gz"
TEST_LABEL_MD5 = "ec29112dd5afa0611ce80d1b7f02629c"
TRAIN_IMAGE_URL = URL_PREFIX + "train-images-idx3-ubyte.gz"
TRAIN_IMAGE_MD5 = "f68b3c2dcbeaaa9fbdd348bbdeb94873"
TRAIN_LABEL_URL = URL_PREFIX + "train-labels-idx1-ubyte.gz"
TRAIN_LABEL_MD5 = "d53e105ee54ea40749a09fcbcd1e9432"

Sample = tuple[np.ndarray, int]


class _Stream(Protocol):
    def read(self, size: int, /) -> bytes: ...


def _read(stream: _Stream, size: int, name: str) -> bytes:
    data = stream.read(size)
    if len(data) != size:
        raise FileFormatError(f"{name}: ends after {len(data)} of {size} bytes expected here")
    return data


def _header(stream: _Stream, magic: int, dims: int, name: str) -> tuple[int, ...]:
    found, *shape = struct.unpack(f">{1 + dims}I", _read(stream, 4 * (1 + dims), name))
    if found != magic:
        raise FileFormatError(f"{name}: not an IDX file of {dims} dimensions (magic {found})")
    return tuple(shape)


def reader_creator(image_filename: str, label_filename: str, buffer_size: int) -> Callable[[], Iterator[Sample]]:
    """A reader of two gzip-compressed IDX files, decoding `buffer_size` images at a time."""
    if buffer_size < 1:
        raise ValueError(f"mnist.reader_creator: buffer_size must be positive, got {buffer_size}")

    def reader() -> Iterator[Sample]:
        with gzip.open(image_filename) as images, gzip.open(label_filename) as labels:
            count, height, width = _header(images, 2051, 3, image_filename)
            (label_count,) = _header(labels, 2049, 1, label_filename)
            if count != label_count:
                raise FileFormatError(f"{image_filename} has {count} images, {label_filename} {label_count} labels")
            for start in range(0, count, buffer_size):
                rows = min(buffer_size, count - start)
                pixels = _read(images, rows * height * width, image_filename)
                classes = _read(labels, rows, label_filename)
                block = np.frombuffer(pixels, "uint8").reshape(rows, -1).astype("float32")
                block = block / np.float32(255.0) * np.float32(2.0) - np.float32(1.0)
                yield from zip(block, classes, strict=True)

    return reader


def train() -> Callable[[], Iterator[Sample]]:
    """A reader of the training images."""
    return reader_creator(
        common.download(TRAIN_IMAGE_URL, "mnist", TRAIN_IMAGE_MD5),
        common.download(TRAIN_LABEL_URL, "mnist", TRAIN_LABEL_MD5),
        100,
    )


def test() -> Callable[[], Iterator[Sample]]:
    """A reader of the test images."""
    return reader_creator(
        common.download(TEST_IMAGE_URL, "mnist", TEST_IMAGE_MD5),
        common.download(TEST_LABEL_URL, "mnist", TEST_LABEL_MD5),
        100,
    )


def fetch() -> None:
    """Download the four files."""
    common.download(TRAIN_IMAGE_URL, "mnist", TRAIN_IMAGE_MD5)
    common.download(TRAIN_LABEL_URL, "mnist", TRAIN_LABEL_MD5)
    common.download(TEST_IMAGE_URL, "mnist", TEST_IMAGE_MD5)
    common.download(TEST_LABEL_URL, "mnist", TEST_LABEL_MD5)
