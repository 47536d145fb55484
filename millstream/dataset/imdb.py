"""IMDB film reviews: 25,000 for training, 25,000 for testing, half of each positive.

Samples are (list of word ids, label), label 0 for a positive and 1 for a negative review.
Source: Maas et al., 2011. Words are byte strings, lower case, punctuation removed.
"""

from __future__ import annotations

import collections
import re
import string
from collections.abc import Callable, Iterator
from typing import Any

from . import common
from .archives import iterate_members
from .vocabulary import WordDict, by_frequency

__all__ = ["build_dict", "fetch", "reader_creator", "test", "tokenize", "train", "word_dict"]

URL = "https://dataset.bj.bcebos.com/imdb%2FaclImdb_v1.tar.gz"
MD5 = "7c2ac02c03563afcf9b574c7e56c153a"

Sample = tuple[list[int], int]
_PUNCTUATION = string.punctuation.encode("ascii")
_LABELLED = re.compile(r"aclImdb/((train)|(test))/((pos)|(neg))/.*\.txt$")
_CUTOFF = 150


def tokenize(pattern: re.Pattern[str]) -> Iterator[list[bytes]]:
    """The words of each review whose path in the archive matches, in archive order."""
    for _, text in iterate_members(common.download(URL, "imdb", MD5), pattern):
        yield text.rstrip(b"\n\r").translate(None, _PUNCTUATION).lower().split()


def build_dict(pattern: re.Pattern[str], cutoff: int) -> WordDict:
    """word -> id over the matching reviews, for words that occur more than `cutoff` times.

    Ids follow frequency; the last one is ``'<unk>'``.
    """
    counts: collections.Counter[bytes] = collections.Counter()
    for words in tokenize(pattern):
        counts.update(words)
    result = WordDict((word, i) for i, word in enumerate(by_frequency(counts, cutoff)))
    result["<unk>"] = len(result)
    return result


def reader_creator(
    pos_pattern: re.Pattern[str], neg_pattern: re.Pattern[str], word_idx: Any
) -> Callable[[], Iterator[Sample]]:
    """A reader of positive, then negative reviews, both held in memory as ids."""
    lookup = word_idx if isinstance(word_idx, WordDict) else WordDict(word_idx)
    unknown = lookup["<unk>"]
    samples: list[Sample] = []
    for pattern, label in ((pos_pattern, 0), (neg_pattern, 1)):
        for words in tokenize(pattern):
            samples.append(([lookup.get(word, unknown) for word in words], label))
    return lambda: iter(samples)


def train(word_idx: Any) -> Callable[[], Iterator[Sample]]:
    """The training reviews by the dictionary `word_idx` (from :func:`word_dict`)."""
    return reader_creator(
        re.compile(r"aclImdb/train/pos/.*\.txt$"),
        re.compile(r"aclImdb/train/neg/.*\.txt$"),
        word_idx,
    )


def test(word_idx: Any) -> Callable[[], Iterator[Sample]]:
    """The test reviews by the dictionary `word_idx`."""
    return reader_creator(
        re.compile(r"aclImdb/test/pos/.*\.txt$"),
        re.compile(r"aclImdb/test/neg/.*\.txt$"),
        word_idx,
    )


def word_dict() -> WordDict:
    """Dictionary of the words that occur more than 150 times in all labelled reviews."""
    return build_dict(_LABELLED, _CUTOFF)


def fetch() -> None:
    """Download the archive."""
    common.download(URL, "imdb", MD5)
