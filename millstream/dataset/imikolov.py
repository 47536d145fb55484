"""Penn Treebank sentences as prepared by Mikolov: n-grams or sequences of word ids.

Source: the "simple-examples" archive of the RNNLM toolkit, 2010. The corpus itself writes rare
words as ``<unk>``; here that is the one unknown word, the last id of the dictionary (Fluid under
Python 3 counted it a second time as an ordinary word).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from . import common
from .archives import member_lines
from .vocabulary import WordDict, by_frequency

__all__ = ["DataType", "build_dict", "fetch", "reader_creator", "test", "train", "word_count"]

URL = "https://dataset.bj.bcebos.com/imikolov%2Fsimple-examples.tgz"
MD5 = "30177ea32e27c525793142b6bf2c8e2d"

_TRAIN = "./simple-examples/data/ptb.train.txt"
_VALID = "./simple-examples/data/ptb.valid.txt"


class DataType:
    """NGRAM: tuples of n ids. SEQ: (source ids, target ids), the target one word ahead."""

    NGRAM = 1
    SEQ = 2


def word_count(f: Iterable[Any], word_freq: dict[Any, int] | None = None) -> dict[Any, int]:
    """Count the words of lines, and ``<s>`` and ``<e>`` once a line, into `word_freq`."""
    counts = {} if word_freq is None else word_freq
    for line in f:
        for word in (*line.strip().split(), "<s>", "<e>"):
            counts[word] = counts.get(word, 0) + 1
    return counts


def build_dict(min_word_freq: int = 50) -> WordDict:
    """word -> id by frequency over training and validation text; ``<unk>`` is last.

    Keeps words that occur more than `min_word_freq` times.
    """
    path = common.download(URL, "imikolov", MD5)
    counts = word_count(member_lines(path, _VALID), word_count(member_lines(path, _TRAIN)))
    counts.pop(b"<unk>", None)
    result = WordDict((word, i) for i, word in enumerate(by_frequency(counts, min_word_freq)))
    result["<unk>"] = len(result)
    return result


def reader_creator(filename: str, word_idx: Any, n: int, data_type: int) -> Callable[[], Iterator[tuple[Any, ...]]]:
    """A reader of one member of the archive.

    NGRAM needs n >= 1; sentences shorter than n with their marks are left out. SEQ leaves out
    sentences longer than n words with the start mark, unless n is not positive.
    """
    if data_type not in (DataType.NGRAM, DataType.SEQ):
        raise AssertionError(f"imikolov: unknown data type {data_type}, expected a DataType")
    if data_type == DataType.NGRAM and n < 1:
        raise AssertionError(f"imikolov: invalid gram length {n}, expected at least 1")
    lookup = word_idx if isinstance(word_idx, WordDict) else WordDict(word_idx)

    def reader() -> Iterator[tuple[Any, ...]]:
        path = common.download(URL, "imikolov", MD5)
        unknown, start, end = lookup["<unk>"], lookup["<s>"], lookup["<e>"]
        for line in member_lines(path, filename):
            ids = [lookup.get(word, unknown) for word in line.split()]
            if data_type == DataType.NGRAM:
                marked = [start, *ids, end]
                for stop in range(n, len(marked) + 1):
                    yield tuple(marked[stop - n : stop])
            elif n <= 0 or len(ids) + 1 <= n:
                yield [start, *ids], [*ids, end]

    return reader


def train(word_idx: Any, n: int, data_type: int = DataType.NGRAM) -> Callable[[], Iterator[tuple[Any, ...]]]:
    """A reader of the training text."""
    return reader_creator(_TRAIN, word_idx, n, data_type)


def test(word_idx: Any, n: int, data_type: int = DataType.NGRAM) -> Callable[[], Iterator[tuple[Any, ...]]]:
    """A reader of the validation text (Fluid's choice: not ``ptb.test.txt``)."""
    return reader_creator(_VALID, word_idx, n, data_type)


def fetch() -> None:
    """Download the archive."""
    common.download(URL, "imikolov", MD5)
