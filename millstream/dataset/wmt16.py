"""WMT-16 multimodal task: 29,000 English-German descriptions of images (Multi30K).

Samples are (source ids with ``<s>`` and ``<e>``, target ids after ``<s>``, target ids before
``<e>``). Dictionaries are made from the training text: ``<s>``, ``<e>``, ``<unk>``, then the most
frequent words. Source: Elliott et al., 2016.
"""

from __future__ import annotations

import collections
import contextlib
import os
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any

from . import common
from .archives import member_bytes

__all__ = ["fetch", "get_dict", "reader_creator", "test", "train", "validation"]

DATA_URL = "http://paddlemodels.bj.bcebos.com/wmt/wmt16.tar.gz"
DATA_MD5 = "0c38be43600334966403524a40dcd81e"

TOTAL_EN_WORDS = 11250
TOTAL_DE_WORDS = 19220
START_MARK, END_MARK, UNK_MARK = "<s>", "<e>", "<unk>"

Sample = tuple[list[int], list[int], list[int]]


def _check(lang: str) -> int:
    """Column of a language in the files."""
    if lang not in ("en", "de"):
        raise ValueError(f"wmt16: language must be 'en' or 'de', got {lang!r}")
    return 0 if lang == "en" else 1


def _size(lang: str, wanted: int) -> int:
    if wanted < 3:
        raise ValueError(f"wmt16: a dictionary has at least its 3 marks, got size {wanted}")
    return min(wanted, TOTAL_EN_WORDS if lang == "en" else TOTAL_DE_WORDS)


def _pairs(tar_file: str, member: str) -> Iterator[list[str]]:
    for line in member_bytes(tar_file, member).decode("utf-8").split("\n"):
        sides = line.strip().split("\t")
        if len(sides) == 2:
            yield sides


@lru_cache(maxsize=8)
def _words(tar_file: str, lang: str, size: int) -> tuple[str, ...]:
    counts: collections.Counter[str] = collections.Counter()
    column = _check(lang)
    for sides in _pairs(tar_file, "wmt16/train"):
        counts.update(sides[column].split())
    ranked = (word for word, _ in counts.most_common(size - 3))
    words = (START_MARK, END_MARK, UNK_MARK, *ranked)
    path = os.path.join(common.DATA_HOME, "wmt16", f"{lang}_{size}.dict")
    with contextlib.suppress(OSError):  # for people to read; a read-only folder is fine
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w", encoding="utf-8") as stream:
            stream.writelines(word + "\n" for word in words)
    return words


def _load_dict(tar_file: str, lang: str, size: int) -> dict[str, int]:
    return {word: i for i, word in enumerate(_words(tar_file, lang, size))}


def reader_creator(
    tar_file: str, file_name: str, src_dict_size: int, trg_dict_size: int, src_lang: str
) -> Callable[[], Iterator[Sample]]:
    """A reader of one member of the archive, from `src_lang` to the other language."""
    column = _check(src_lang)
    trg_lang = "de" if src_lang == "en" else "en"
    src_size, trg_size = _size(src_lang, src_dict_size), _size(trg_lang, trg_dict_size)

    def reader() -> Iterator[Sample]:
        source = _load_dict(tar_file, src_lang, src_size)
        target = _load_dict(tar_file, trg_lang, trg_size)
        start, end, unknown = source[START_MARK], source[END_MARK], source[UNK_MARK]
        for sides in _pairs(tar_file, file_name):
            src = [source.get(word, unknown) for word in sides[column].split()]
            trg = [target.get(word, unknown) for word in sides[1 - column].split()]
            yield [start, *src, end], [start, *trg], [*trg, end]

    return reader


def _path() -> str:
    return common.download(DATA_URL, "wmt16", DATA_MD5, "wmt16.tar.gz")


def train(src_dict_size: int, trg_dict_size: int, src_lang: str = "en") -> Callable[[], Iterator[Sample]]:
    """A reader of the training pairs; sizes above what the corpus has are cut to it."""
    return reader_creator(_path(), "wmt16/train", src_dict_size, trg_dict_size, src_lang)


def test(src_dict_size: int, trg_dict_size: int, src_lang: str = "en") -> Callable[[], Iterator[Sample]]:
    """A reader of the test pairs."""
    return reader_creator(_path(), "wmt16/test", src_dict_size, trg_dict_size, src_lang)


def validation(src_dict_size: int, trg_dict_size: int, src_lang: str = "en") -> Callable[[], Iterator[Sample]]:
    """A reader of the validation pairs."""
    return reader_creator(_path(), "wmt16/val", src_dict_size, trg_dict_size, src_lang)


def get_dict(lang: str, dict_size: int, reverse: bool = False) -> dict[Any, Any]:
    """word -> id of a language, or id -> word with `reverse`."""
    _check(lang)
    words = _load_dict(_path(), lang, _size(lang, dict_size))
    return {i: word for word, i in words.items()} if reverse else words


def fetch() -> None:
    """Download the archive."""
    _path()
