"""Writing files so that a crash leaves either the old file or the new one, never a half."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import BinaryIO

from millstream.errors import FileFormatError


@contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """A binary file to write; it takes the place of `path` when the ``with`` block ends well.

    Missing directories are made. The bytes go to a new file in the same directory, are forced to disk, and are then
    renamed over `path`; on any exception the new file is removed and the old one stays as it was. A symbolic link is
    followed; the permissions of an existing file are kept. Files written one after the other are each whole, as a
    group they are not atomic.
    """
    target = os.path.realpath(path)
    folder, name = os.path.split(target)
    os.makedirs(folder, exist_ok=True)
    if os.path.isdir(target):
        raise IsADirectoryError(f"can't write the file {os.fspath(path)!r}: a directory of that name exists")
    temporary = os.path.join(folder, f".{name[:80]}.{secrets.token_hex(6)}.tmp")
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
    try:
        with os.fdopen(handle, "wb") as fh:
            yield fh
            fh.flush()
            with suppress(FileNotFoundError):
                os.chmod(temporary, os.stat(target).st_mode & 0o7777)
            os.fsync(fh.fileno())
        os.replace(temporary, target)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise
    _sync_directory(folder)


def write_bytes(path: str | os.PathLike[str], data: bytes) -> None:
    """Write `data` to `path` atomically."""
    with atomic_write(path) as fh:
        fh.write(data)


def _sync_directory(folder: str) -> None:
    """Force the rename itself to disk where the system allows it."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def variable_path(dirname: str | os.PathLike[str], name: str) -> str:
    """The file of variable `name` under `dirname`; ``/`` in the name makes sub-directories.

    Raises FileFormatError: the name (perhaps out of a model file somebody sent) leads outside `dirname`.
    """
    parts = name.split("/")
    outside = name.startswith("/") or os.path.isabs(name) or ".." in parts
    if outside or "\0" in name or parts[-1] in ("", "."):
        raise FileFormatError(
            f"variable {name!r} can't be a file under {os.fspath(dirname)!r}: "
            f"{'the name leads outside it' if outside else 'the name is no file name'}"
        )
    return os.path.join(os.fspath(dirname), name)
