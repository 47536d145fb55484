"""Oxford 102 flowers: 8,189 photographs of 102 kinds.

Samples are (float32 [3 * 224 * 224] BGR less the mean, int label 0..101). As in Fluid, ``train``
reads the larger part (``tstid``, 6,149) and ``test`` the smaller (``trnid``, 1,020). Source:
Nilsback and Zisserman, 2008. Decoding needs Pillow or OpenCV.
"""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ..errors import FileFormatError
from ..reader import map_readers, xmap_readers
from . import common
from .archives import iterate_members
from .image import load_image_bytes, simple_transform
from .mat5 import load_mat

__all__ = ["default_mapper", "fetch", "reader_creator", "test", "train", "valid"]

DATA_URL = "http://paddlemodels.bj.bcebos.com/flowers/102flowers.tgz"
DATA_MD5 = "52808999861908f626f3c1f4e79d11fa"
LABEL_URL = "http://paddlemodels.bj.bcebos.com/flowers/imagelabels.mat"
LABEL_MD5 = "e0620be6f572b9609742df49c70aed4d"
SETID_URL = "http://paddlemodels.bj.bcebos.com/flowers/setid.mat"
SETID_MD5 = "a5357ecc9cb78c4bef273ce3793fc85c"
TRAIN_FLAG = "tstid"
TEST_FLAG = "trnid"
VALID_FLAG = "valid"

Mapper = Callable[[Any], Any]
_IMAGE = re.compile(r"jpg/image_(\d+)\.jpg$")


def default_mapper(is_train: bool, sample: tuple[bytes, int]) -> tuple[np.ndarray, int]:
    """(encoded picture, label) -> (float32 vector of a 224 x 224 crop, label)."""
    data, label = sample
    mean = [103.94, 116.78, 123.68]
    im = simple_transform(load_image_bytes(data), 256, 224, is_train, mean=mean)
    return im.flatten().astype("float32"), label


train_mapper = functools.partial(default_mapper, True)
test_mapper = functools.partial(default_mapper, False)


def reader_creator(
    data_file: str,
    label_file: str,
    setid_file: str,
    dataset_name: str,
    mapper: Mapper,
    buffered_size: int = 1024,
    use_xmap: bool = True,
    cycle: bool = False,
) -> Callable[[], Any]:
    """A reader of the pictures of one split, in the archive's order, through `mapper`.

    `use_xmap` maps in up to four threads (the order then varies); `cycle` repeats without end.
    """
    labels = load_mat(label_file)["labels"].ravel()
    splits = load_mat(setid_file)
    if dataset_name not in splits:
        raise FileFormatError(f"{setid_file}: no split {dataset_name!r}, only {sorted(splits)}")
    wanted = {int(i): int(labels[int(i) - 1]) - 1 for i in splits[dataset_name].ravel()}

    def once() -> Iterator[tuple[bytes, int]]:
        for name, contents in iterate_members(data_file, _IMAGE):
            match = _IMAGE.match(name)
            assert match is not None
            index = int(match.group(1))
            if index in wanted:
                yield contents, wanted[index]

    def reader() -> Iterator[tuple[bytes, int]]:
        yield from once()
        while cycle:
            yield from once()

    if use_xmap:
        return xmap_readers(mapper, reader, min(4, os.cpu_count() or 1), buffered_size)
    return map_readers(mapper, reader)


def _split(flag: str, mapper: Mapper, buffered_size: int, use_xmap: bool, cycle: bool) -> Any:
    return reader_creator(
        common.download(DATA_URL, "flowers", DATA_MD5),
        common.download(LABEL_URL, "flowers", LABEL_MD5),
        common.download(SETID_URL, "flowers", SETID_MD5),
        flag,
        mapper,
        buffered_size,
        use_xmap,
        cycle,
    )


def train(
    mapper: Mapper = train_mapper,
    buffered_size: int = 1024,
    use_xmap: bool = True,
    cycle: bool = False,
) -> Callable[[], Any]:
    """A reader of 6,149 pictures, randomly cropped and mirrored by the default mapper."""
    return _split(TRAIN_FLAG, mapper, buffered_size, use_xmap, cycle)


def test(
    mapper: Mapper = test_mapper,
    buffered_size: int = 1024,
    use_xmap: bool = True,
    cycle: bool = False,
) -> Callable[[], Any]:
    """A reader of 1,020 pictures."""
    return _split(TEST_FLAG, mapper, buffered_size, use_xmap, cycle)


def valid(mapper: Mapper = test_mapper, buffered_size: int = 1024, use_xmap: bool = True) -> Callable[[], Any]:
    """A reader of 1,020 other pictures."""
    return _split(VALID_FLAG, mapper, buffered_size, use_xmap, False)


def fetch() -> None:
    """Download the three files."""
    common.download(DATA_URL, "flowers", DATA_MD5)
    common.download(LABEL_URL, "flowers", LABEL_MD5)
    common.download(SETID_URL, "flowers", SETID_MD5)
