"""Film review polarity, 1,000 negative and 1,000 positive reviews (NLTK's movie_reviews).

Samples are (list of word ids, label), 0 negative and 1 positive, alternating; the first 1,600
are for training. Source: Pang and Lee, 2004. ``train`` and ``test`` are readers themselves, so
write ``paddle.batch(sentiment.train, 32)``.
"""

from __future__ import annotations

import collections
import re
import zipfile
from collections.abc import Iterable, Iterator
from functools import lru_cache

from ..errors import FileFormatError
from . import common

__all__ = [
    "download_data_if_not_yet",
    "fetch",
    "get_word_dict",
    "load_sentiment_data",
    "reader_creator",
    "sort_files",
    "test",
    "train",
]

URL = "https://corpora.bj.bcebos.com/movie_reviews%2Fmovie_reviews.zip"
MD5 = "155de2b77c6834dd8eea7cbe88e93acb"
NUM_TRAINING_INSTANCES = 1600
NUM_TOTAL_INSTANCES = 2000

Sample = tuple[list[int], int]
_TOKEN = re.compile(r"\w+|[^\w\s]+")
_MEMBER = re.compile(r"movie_reviews/((neg|pos)/[^/]+\.txt)$")


def download_data_if_not_yet() -> str:
    """Path of the archive."""
    return common.download(URL, "corpora", MD5)


@lru_cache(maxsize=2)
def _texts(path: str) -> dict[str, list[str]]:
    """file name ("neg/cv000_29416.txt") -> its words."""
    with zipfile.ZipFile(path) as archive:
        texts = {
            match.group(1): _TOKEN.findall(archive.read(name).decode("latin1").lower())
            for name in sorted(archive.namelist())
            if (match := _MEMBER.match(name))
        }
    if not texts:
        raise FileFormatError(f"{path}: no movie_reviews/neg or movie_reviews/pos texts")
    return texts


def get_word_dict() -> list[tuple[str, int]]:
    """(word, id) pairs, the most frequent word first."""
    counts: collections.Counter[str] = collections.Counter()
    for words in _texts(download_data_if_not_yet()).values():
        counts.update(words)
    ranked = sorted(counts.items(), key=lambda entry: -entry[1])
    return [(word, i) for i, (word, _) in enumerate(ranked)]


def sort_files() -> list[str]:
    """File names, a negative and a positive review in turn."""
    names = list(_texts(download_data_if_not_yet()))
    negative = [name for name in names if name.startswith("neg/")]
    positive = [name for name in names if name.startswith("pos/")]
    return [name for pair in zip(negative, positive, strict=False) for name in pair]


def load_sentiment_data() -> list[Sample]:
    """All samples, in the order of :func:`sort_files`."""
    texts = _texts(download_data_if_not_yet())
    ids = dict(get_word_dict())
    return [([ids[word] for word in texts[name]], 0 if name.startswith("neg/") else 1) for name in sort_files()]


def reader_creator(data: Iterable[Sample]) -> Iterator[Sample]:
    """An iterator over `data` (Fluid's name; it is not a creator)."""
    yield from data


def train() -> Iterator[Sample]:
    """The first 1,600 samples."""
    return reader_creator(load_sentiment_data()[:NUM_TRAINING_INSTANCES])


def test() -> Iterator[Sample]:
    """The other samples."""
    return reader_creator(load_sentiment_data()[NUM_TRAINING_INSTANCES:])


def fetch() -> None:
    """Download the archive."""
    download_data_if_not_yet()
