"""``paddle.dataset.common``: where dataset files live and how they get there.

``DATA_HOME`` is the folder of all dataset files, one sub-folder per dataset; assign to it, or
set ``MILLSTREAM_DATA_HOME`` before the import. Files put there by hand are used without any
network access. See :mod:`millstream.dataset.settings` for mirrors.
"""

from __future__ import annotations

import glob
import importlib
import os
import pickle
import urllib.parse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from ..files.unpickle import read_pickle
from .obtain import Request, file_digest, obtain
from .settings import read_settings

__all__ = [
    "DATA_HOME",
    "cluster_files_reader",
    "download",
    "fetch_all",
    "md5file",
    "must_mkdirs",
    "split",
]

DATA_HOME: str = str(read_settings().data_home)

_FETCHABLE = (
    "cifar",
    "conll05",
    "flowers",
    "imdb",
    "imikolov",
    "mnist",
    "movielens",
    "mq2007",
    "sentiment",
    "uci_housing",
    "voc2012",
    "wmt14",
    "wmt16",
)


def must_mkdirs(path: str) -> None:
    """Create a folder and its parents; no error if it exists."""
    os.makedirs(path, exist_ok=True)


def md5file(fname: str) -> str:
    """Hexadecimal MD5 of a file."""
    return file_digest(fname)


def download(url: str, module_name: str, md5sum: str | None, save_name: str | None = None) -> str:
    """Path of the file of `url`, fetched into ``DATA_HOME/module_name`` if it is not there.

    `md5sum` may be None or empty: the checksum of the first copy is then recorded beside it.
    Raises DatasetError (a RuntimeError) naming the file, the folder and the addresses when
    neither the disk nor any address has it.
    """
    settings = read_settings()
    last = urllib.parse.urlsplit(url).path.rsplit("/", 1)[-1]
    plain = urllib.parse.unquote(last).rsplit("/", 1)[-1]
    names = (save_name,) if save_name else tuple(dict.fromkeys((plain, last)))
    if any(not n or n in (".", "..") or "/" in n or os.sep in n for n in (*names, module_name)):
        raise ValueError(f"download: no plain file name in {url!r}, {save_name!r}, {module_name!r}")
    mirrors = [f"{base}/{module_name}/{urllib.parse.quote(names[0])}" for base in settings.mirrors]
    request = Request(
        names=names,
        folder=Path(DATA_HOME) / module_name,
        urls=(*mirrors, url),
        md5=md5sum or None,
        timeout=settings.timeout,
        fallback_folders=tuple(home / module_name for home in settings.fallback_homes),
    )
    return str(obtain(request))


def fetch_all() -> None:
    """Download every dataset (several gigabytes)."""
    for name in _FETCHABLE:
        importlib.import_module(f"{__package__}.{name}").fetch()


def split(
    reader: Callable[[], Any],
    line_count: int,
    suffix: str = "%05d.pickle",
    dumper: Callable[[Any, IO[bytes]], Any] = pickle.dump,
) -> None:
    """Write the samples of `reader` as lists of `line_count` to files ``suffix % 0, 1, ...``."""
    if not callable(dumper):
        raise TypeError(f"split: dumper must be callable, got {type(dumper).__name__}")
    if line_count < 1:
        raise ValueError(f"split: line_count must be positive, got {line_count}")
    pending: list[Any] = []
    number = 0

    def write() -> None:
        with open(suffix % number, "wb") as stream:
            dumper(pending, stream)

    for sample in reader():
        pending.append(sample)
        if len(pending) == line_count:
            write()
            pending = []
            number += 1
    if pending:
        write()


def cluster_files_reader(
    files_pattern: str,
    trainer_count: int,
    trainer_id: int,
    loader: Callable[[IO[bytes]], Any] = read_pickle,
) -> Callable[[], Iterator[Any]]:
    """A reader of the samples in every `trainer_count`-th file of a sorted glob pattern.

    `loader` turns an open binary file into the list that ``split`` wrote. The default reads
    pickles that hold only plain values and arrays, and refuses everything else.
    """
    if not callable(loader):
        raise TypeError(f"cluster_files_reader: loader must be callable, got {loader!r}")
    if not 0 <= trainer_id < trainer_count:
        raise ValueError(f"cluster_files_reader: trainer_id must be in [0, {trainer_count}), got {trainer_id}")

    def reader() -> Iterator[Any]:
        for path in sorted(glob.glob(files_pattern))[trainer_id::trainer_count]:
            with open(path, "rb") as stream:
                samples = loader(stream)
            yield from samples

    return reader
