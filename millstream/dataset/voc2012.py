"""Pascal VOC 2012 semantic segmentation: 1,464 training and 1,449 validation pictures.

Samples are (uint8 [h, w, 3] RGB, uint8 [h, w] class of each pixel, 255 undefined). As in Fluid,
``train`` reads both lists, ``test`` the training and ``val`` the validation list. Needs Pillow.
"""

from __future__ import annotations

import tarfile
from collections.abc import Callable, Iterator

import numpy as np

from ..errors import FileFormatError
from . import common
from .image import decode

__all__ = ["fetch", "reader_creator", "test", "train", "val"]

VOC_URL = "http://host.robots.ox.ac.uk/pascal/VOC/voc2012/VOCtrainval_11-May-2012.tar"
VOC_MD5 = "6cd6e144f989b92b3379bac3b3de84fd"
SET_FILE = "VOCdevkit/VOC2012/ImageSets/Segmentation/{}.txt"
DATA_FILE = "VOCdevkit/VOC2012/JPEGImages/{}.jpg"
LABEL_FILE = "VOCdevkit/VOC2012/SegmentationClass/{}.png"
CACHE_DIR = "voc2012"

Sample = tuple[np.ndarray, np.ndarray]


def reader_creator(filename: str, sub_name: str) -> Callable[[], Iterator[Sample]]:
    """A reader of the pictures named in one list ("train", "val", "trainval")."""

    def reader() -> Iterator[Sample]:
        with tarfile.open(filename) as archive:

            def read(member: str) -> bytes:
                try:
                    stream = archive.extractfile(member)
                except KeyError:
                    stream = None
                if stream is None:
                    raise FileFormatError(f"{filename}: no file {member!r} in the archive")
                return stream.read()

            for name in read(SET_FILE.format(sub_name)).decode().split():
                yield decode(read(DATA_FILE.format(name))), decode(read(LABEL_FILE.format(name)))

    return reader


def _path() -> str:
    return common.download(VOC_URL, CACHE_DIR, VOC_MD5)


def train() -> Callable[[], Iterator[Sample]]:
    """A reader of the training and validation lists together."""
    return reader_creator(_path(), "trainval")


def test() -> Callable[[], Iterator[Sample]]:
    """A reader of the training list."""
    return reader_creator(_path(), "train")


def val() -> Callable[[], Iterator[Sample]]:
    """A reader of the validation list."""
    return reader_creator(_path(), "val")


def fetch() -> None:
    """Download the archive."""
    _path()
