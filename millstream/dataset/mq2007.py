"""MQ2007 learning to rank (LETOR 4.0): queries, each with documents of 46 features.

Relevance is 0, 1 or 2. ``train`` and ``test`` return iterators, so both ``mq2007.train()`` and
``paddle.batch(mq2007.train, n)`` work. Queries without any relevant document are left out.
Source: Qin and Liu, 2013. The archive is a RAR file: one of unrar, 7z, 7zz, unar or bsdtar must be
installed, or its contents unpacked by hand into ``DATA_HOME/MQ2007/MQ2007``.
"""

from __future__ import annotations

import functools
import os
import random
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from ..errors import FileFormatError, NotSupportedError
from . import common

__all__ = [
    "Query",
    "QueryList",
    "fetch",
    "gen_list",
    "gen_pair",
    "gen_plain_txt",
    "gen_point",
    "load_from_text",
    "query_filter",
    "test",
    "train",
]

URL = "http://www.bigdatalab.ac.cn/benchmark/upload/download_source/7b6dbbe2-842c-11e4-a536-bcaec51b9163_MQ2007.rar"
MD5 = "7be1640ae95c6408dab0ae7207bdc706"
_FEATURES = 46


class Query:
    """One document of a query: relevance, 46 features and a comment."""

    def __init__(
        self,
        query_id: int = -1,
        relevance_score: int = -1,
        feature_vector: list[float] | None = None,
        description: str = "",
    ) -> None:
        self.query_id = query_id
        self.relevance_score = relevance_score
        self.feature_vector = [] if feature_vector is None else feature_vector
        self.description = description

    def __str__(self) -> str:
        values = " ".join(str(value) for value in self.feature_vector)
        return f"{self.relevance_score} {self.query_id} {values}"


class QueryList:
    """The documents of one query."""

    def __init__(self, querylist: list[Query] | None = None) -> None:
        self.query_id = -1
        self.querylist: list[Query] = []
        for query in querylist or []:
            self._add(query)

    def _add(self, query: Query) -> None:
        if self.query_id == -1:
            self.query_id = query.query_id
        elif self.query_id != query.query_id:
            raise ValueError(f"QueryList of query {self.query_id} got one of {query.query_id}")
        self.querylist.append(query)

    def __iter__(self) -> Iterator[Query]:
        return iter(self.querylist)

    def __len__(self) -> int:
        return len(self.querylist)

    def __getitem__(self, i: int) -> Query:
        return self.querylist[i]


def _ranked(querylist: QueryList | Sequence[Query]) -> list[Query]:
    """Most relevant first; equal ones keep their order."""
    return sorted(querylist, key=lambda query: -query.relevance_score)


def _features(query: Query) -> np.ndarray:
    return np.array(query.feature_vector)


def gen_plain_txt(querylist: QueryList | Sequence[Query]) -> Iterator[tuple[int, int, np.ndarray]]:
    """(query id, relevance, features [46]) of each document, most relevant first."""
    for query in _ranked(querylist):
        yield query.query_id, query.relevance_score, _features(query)


def gen_point(querylist: QueryList | Sequence[Query]) -> Iterator[tuple[int, np.ndarray]]:
    """(relevance, features [46]) of each document, most relevant first."""
    for query in _ranked(querylist):
        yield query.relevance_score, _features(query)


def gen_pair(
    querylist: QueryList | Sequence[Query], partial_order: str = "full"
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """(array [1], features of the more, features of the less relevant document).

    "full": every such pair; "neighbour": only pairs next to each other in the ranking.
    """
    if partial_order not in ("full", "neighbour"):
        raise ValueError(f"mq2007.gen_pair: partial_order must be 'full' or 'neighbour', got {partial_order!r}")
    ranked = _ranked(querylist)
    for i, better in enumerate(ranked):
        end = len(ranked) if partial_order == "full" else i + 2
        for worse in ranked[i + 1 : end]:
            if better.relevance_score > worse.relevance_score:
                yield np.array([1]), _features(better), _features(worse)


def gen_list(querylist: QueryList | Sequence[Query]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """One (relevances [n, 1], features [n, 46]), most relevant first."""
    ranked = _ranked(querylist)
    scores = np.array([[query.relevance_score] for query in ranked])
    yield scores, np.array([query.feature_vector for query in ranked])


def query_filter(querylists: Sequence[QueryList]) -> list[QueryList]:
    """The lists that have at least one relevant document."""
    return [documents for documents in querylists if any(query.relevance_score > 0 for query in documents)]


def _parse(line: str, fill_missing: float, where: str) -> Query:
    """``2 qid:10 1:0.5 2:0.1 ... #docid = ...``."""
    body, _, comment = line.partition("#")
    fields = body.split()
    try:
        if len(fields) < 2 or not fields[1].startswith("qid:"):
            raise ValueError("expected 'relevance qid:number feature:value ...'")
        values: list[float] = [fill_missing] * _FEATURES
        for field in fields[2:]:
            number, _, value = field.partition(":")
            if not 1 <= int(number) <= _FEATURES:
                raise ValueError(f"feature {number} is not in 1..{_FEATURES}")
            values[int(number) - 1] = float(value)
        return Query(int(fields[1][4:]), int(fields[0]), values, comment.strip())
    except ValueError as error:
        raise FileFormatError(f"{where}: {error}") from error


def load_from_text(filepath: str, shuffle: bool = False, fill_missing: float = -1) -> list[QueryList]:
    """Documents grouped by query, from a LETOR text file.

    `filepath` is relative to ``DATA_HOME/MQ2007`` unless absolute; `fill_missing` stands for
    features a line leaves out; `shuffle` changes the order of the queries.
    """
    path = os.path.join(common.DATA_HOME, "MQ2007", filepath)
    if not os.path.exists(path):
        fetch()
    lists: dict[int, QueryList] = {}
    with open(path, encoding="latin1") as stream:
        for number, line in enumerate(stream, 1):
            if line.strip():
                query = _parse(line, fill_missing, f"{path} line {number}")
                lists.setdefault(query.query_id, QueryList())._add(query)
    result = list(lists.values())
    if shuffle:
        random.shuffle(result)
    return result


_FORMATS = {
    "plain_txt": gen_plain_txt,
    "pointwise": gen_point,
    "pairwise": gen_pair,
    "listwise": gen_list,
}


def _samples(filepath: str, format: str = "pairwise", shuffle: bool = False, fill_missing: float = -1) -> Iterator[Any]:
    """Samples of a file in one of the forms plain_txt, pointwise, pairwise, listwise."""
    if format not in _FORMATS:
        raise ValueError(f"mq2007: format must be one of {sorted(_FORMATS)}, got {format!r}")
    for documents in query_filter(load_from_text(filepath, shuffle, fill_missing)):
        yield from _FORMATS[format](documents)


train = functools.partial(_samples, filepath="MQ2007/MQ2007/Fold1/train.txt")
test = functools.partial(_samples, filepath="MQ2007/MQ2007/Fold1/test.txt")


def _unpack_command(archive: str, folder: str) -> list[str]:
    for tool, arguments in (
        ("unrar", ["x", "-o+", "-idq", archive, folder + os.sep]),
        ("7z", ["x", "-y", f"-o{folder}", archive]),
        ("7zz", ["x", "-y", f"-o{folder}", archive]),
        ("unar", ["-quiet", "-no-directory", "-output-directory", folder, archive]),
        ("bsdtar", ["-x", "-f", archive, "-C", folder]),
    ):
        path = shutil.which(tool)
        if path:
            return [path, *arguments]
    raise NotSupportedError(
        f"unpacking {archive} needs unrar, 7z, 7zz, unar or bsdtar; none is installed. Hint: "
        f"unpack it by hand so that {os.path.dirname(archive)}/MQ2007/MQ2007/Fold1/train.txt exists"
    )


def fetch() -> None:
    """Download and unpack the archive, unless that was done before."""
    home = os.path.join(common.DATA_HOME, "MQ2007")
    target = os.path.join(home, "MQ2007")
    if os.path.exists(os.path.join(target, "MQ2007", "Fold1", "train.txt")):
        return
    archive = common.download(URL, "MQ2007", MD5)
    os.makedirs(home, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=home) as folder:
        command = _unpack_command(archive, folder)
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise FileFormatError(f"{archive}: {command[0]} failed with code {done.returncode}: {done.stderr[-500:]}")
        shutil.copytree(folder, target, dirs_exist_ok=True)
