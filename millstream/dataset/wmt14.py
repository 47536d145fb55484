"""WMT-14 English to French, the small extract with ready dictionaries of 30,000 words.

Samples are (source ids with ``<s>`` and ``<e>``, target ids after ``<s>``, target ids before
``<e>``). Pairs longer than 80 words on either side are left out.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

from ..errors import FileFormatError
from . import common
from .archives import iterate_members

__all__ = ["fetch", "gen", "get_dict", "reader_creator", "test", "train"]

URL_DEV_TEST = "http://www-lium.univ-lemans.fr/~schwenk/cslm_joint_paper/data/dev+test.tgz"
MD5_DEV_TEST = "7d7897317ddd8ba0ae5c5fa7248d3ff5"
URL_TRAIN = "http://paddlemodels.bj.bcebos.com/wmt/wmt14.tgz"
MD5_TRAIN = "0791583d57d5beb693b9414c5b36798c"
URL_MODEL = "http://paddlemodels.bj.bcebos.com/wmt%2Fwmt14.tgz"
MD5_MODEL = "0cb4a5366189b6acba876491c8724fa3"

START, END, UNK, UNK_IDX = "<s>", "<e>", "<unk>", 2
_LONGEST = 80

Sample = tuple[list[int], list[int], list[int]]


def _dictionaries(path: str, dict_size: int) -> tuple[dict[str, int], dict[str, int]]:
    found: dict[str, dict[str, int]] = {}
    for name, contents in iterate_members(path, re.compile(r".*(src|trg)\.dict$")):
        side = name[-8:-5]
        if side in found:
            raise FileFormatError(f"{path}: more than one {side}.dict")
        words = islice(contents.decode("utf-8").splitlines(), dict_size)
        found[side] = {word.strip(): i for i, word in enumerate(words)}
        if len(found) == 2:
            break
    if len(found) != 2:
        raise FileFormatError(f"{path}: src.dict or trg.dict is missing")
    return found["src"], found["trg"]


def reader_creator(tar_file: str, file_name: str, dict_size: int) -> Callable[[], Iterator[Sample]]:
    """A reader of the members that end in `file_name`, by the first `dict_size` words."""

    def reader() -> Iterator[Sample]:
        source, target = _dictionaries(tar_file, dict_size)
        for _, contents in iterate_members(tar_file, re.compile(f".*{re.escape(file_name)}$")):
            for line in contents.decode("utf-8").split("\n"):
                sides = line.strip().split("\t")
                if len(sides) != 2:
                    continue
                words = [START, *sides[0].split(), END]
                source_ids = [source.get(word, UNK_IDX) for word in words]
                target_ids = [target.get(word, UNK_IDX) for word in sides[1].split()]
                if len(source_ids) > _LONGEST or len(target_ids) > _LONGEST:
                    continue
                yield source_ids, [target[START], *target_ids], [*target_ids, target[END]]

    return reader


def _path() -> str:
    return common.download(URL_TRAIN, "wmt14", MD5_TRAIN)


def train(dict_size: int) -> Callable[[], Iterator[Sample]]:
    """A reader of the training pairs."""
    return reader_creator(_path(), "train/train", dict_size)


def test(dict_size: int) -> Callable[[], Iterator[Sample]]:
    """A reader of the test pairs."""
    return reader_creator(_path(), "test/test", dict_size)


def gen(dict_size: int) -> Callable[[], Iterator[Sample]]:
    """A reader of the pairs meant for generation."""
    return reader_creator(_path(), "gen/gen", dict_size)


def get_dict(dict_size: int, reverse: bool = True) -> tuple[dict[Any, Any], dict[Any, Any]]:
    """Source and target dictionaries: id -> word, or word -> id with `reverse=False`."""
    source, target = _dictionaries(_path(), dict_size)
    if not reverse:
        return source, target
    return {i: w for w, i in source.items()}, {i: w for w, i in target.items()}


def fetch() -> None:
    """Download the extract (the trained model of Fluid's tutorial is not needed)."""
    _path()
