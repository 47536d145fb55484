"""A checked reader over a file or bytes: knows its size, so a length is judged before anything is allocated."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from millstream.errors import FileFormatError


class Source:
    """Sequential reads with a name for errors.

    `data` is bytes-like (a memory map too; not copied) or a seekable binary file, read from where it stands.
    """

    def __init__(self, data: Any, name: str | None = None) -> None:
        if isinstance(data, (str, os.PathLike)):
            raise TypeError(f"Source takes bytes or an open binary file, received the path {data!r}; use open_source")
        self.fh: Any = data if hasattr(data, "readinto") else _View(memoryview(data))
        self.name = name if name is not None else str(getattr(data, "name", "<bytes>"))
        self.pos = self.fh.tell()
        self.size = self.fh.seek(0, io.SEEK_END)
        self.fh.seek(self.pos)

    @property
    def left(self) -> int:
        return self.size - self.pos

    def fail(self, problem: str, offset: int | None = None) -> FileFormatError:
        return FileFormatError(f"{self.name}: at byte {self.pos if offset is None else offset}: {problem}")

    def need(self, count: int, what: str) -> None:
        """Raise FileFormatError unless `count` bytes are left."""
        if count > self.left:
            raise self.fail(f"truncated: expected {count} bytes of {what}, found {self.left}")

    def take(self, count: int, what: str) -> bytes:
        """The next `count` bytes."""
        self.need(count, what)
        data = self.fh.read(count)
        if len(data) != count:
            raise self.fail(f"truncated while it was read: expected {count} bytes of {what}, found {len(data)}")
        self.pos += count
        return data

    def integer(self, size: int, what: str, signed: bool = False) -> int:
        """The next `size` bytes as a little-endian integer."""
        return int.from_bytes(self.take(size, what), "little", signed=signed)

    def array(self, dtype: np.dtype[Any], shape: tuple[int, ...], what: str) -> np.ndarray[Any, Any]:
        """The next elements as a new C-order array; allocates only what is there, reads straight into it."""
        count = element_count(shape)
        self.need(count * dtype.itemsize, f"{what} ({dtype.name} {list(shape)[:16]})")
        try:
            made = np.empty(shape, dtype)
        except (ValueError, OverflowError) as error:  # [0, 2**62, 2**62]
            raise self.fail(f"no array can have the shape {list(shape)[:16]} ({error})") from None
        if count:
            flat = made.reshape(-1).view(np.uint8).data
            done = 0
            while done < len(flat):
                got = self.fh.readinto(flat[done:])
                if not got:
                    raise self.fail(f"truncated while it was read: expected {len(flat)} bytes of {what}, found {done}")
                done += got
            self.pos += done
        return made

    def skip(self, count: int, what: str) -> None:
        self.need(count, what)
        self.pos += count
        self.fh.seek(self.pos)

    def seek(self, pos: int) -> None:
        self.pos = pos
        self.fh.seek(pos)


def element_count(shape: tuple[int, ...]) -> int:
    """Product of the dimensions, exact however large."""
    count = 1
    for d in shape:
        count *= d
    return count


class _View:
    """A read-only file over a buffer that is not copied (io.BytesIO copies all but bytes)."""

    def __init__(self, view: memoryview) -> None:
        self.view = view.cast("B") if view.format != "B" or view.ndim != 1 else view
        self.pos = 0

    def tell(self) -> int:
        return self.pos

    def seek(self, pos: int, whence: int = io.SEEK_SET) -> int:
        self.pos = pos if whence == io.SEEK_SET else len(self.view) + pos
        return self.pos

    def read(self, count: int) -> bytes:
        data = bytes(self.view[self.pos : self.pos + count])
        self.pos += len(data)
        return data

    def readinto(self, target: memoryview) -> int:
        part = self.view[self.pos : self.pos + len(target)]
        target[: len(part)] = part
        self.pos += len(part)
        return len(part)


def as_source(data: Any, name: str | None = None) -> Source:
    """`data` itself when it is a Source, else one over it."""
    return data if isinstance(data, Source) else Source(data, name)


@contextmanager
def open_source(path: str | os.PathLike[str]) -> Iterator[Source]:
    """A Source over the file `path`; raises FileNotFoundError and other OSErrors as `open` does."""
    with open(path, "rb") as fh:
        yield Source(fh, os.fspath(path))
