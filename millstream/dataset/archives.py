"""Read tar archives: members by name, and extraction that cannot leave its folder."""

from __future__ import annotations

import io
import os
import re
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from ..errors import FileFormatError

__all__ = ["extract_tar", "iterate_members", "member_bytes", "member_lines"]


def iterate_members(archive: str | os.PathLike[str], pattern: re.Pattern[str]) -> Iterator[tuple[str, bytes]]:
    """(name, contents) of each regular file whose name matches, in archive order."""
    # Stream mode reads a compressed archive once, without seeking back.
    with tarfile.open(archive, "r|*") as tar:
        for member in tar:
            if member.isfile() and pattern.match(member.name):
                stream = tar.extractfile(member)
                assert stream is not None
                yield member.name, stream.read()


def member_bytes(archive: str | os.PathLike[str], name: str) -> bytes:
    """Contents of one member; a leading ``./`` on either side does not matter."""
    wanted = name.removeprefix("./")
    with tarfile.open(archive, "r|*") as tar:
        for member in tar:
            if member.isfile() and member.name.removeprefix("./") == wanted:
                stream = tar.extractfile(member)
                assert stream is not None
                return stream.read()
    raise FileFormatError(f"{os.fspath(archive)}: the archive has no member {name!r}")


def member_lines(archive: str | os.PathLike[str], name: str) -> Iterator[bytes]:
    """Lines of one member, each with its line end."""
    return iter(io.BytesIO(member_bytes(archive, name)))


def extract_tar(archive: str | os.PathLike[str], folder: str | os.PathLike[str]) -> None:
    """Extract regular files and folders below `folder`.

    Absolute names, ``..``, links and devices are refused before anything is written for them.
    """
    root = Path(folder).resolve()
    with tarfile.open(archive, "r:*") as tar:
        for member in tar:
            parts = PurePosixPath(member.name).parts
            target = root.joinpath(*parts) if parts else root
            unsafe = member.name.startswith(("/", "\\")) or ".." in parts or "\\" in member.name
            if unsafe or not target.resolve().is_relative_to(root):
                raise FileFormatError(f"{archive}: member {member.name!r} leaves the folder")
            if member.isdir():
                target.mkdir(parents=True, exist_ok=True)
            elif member.isfile():
                target.parent.mkdir(parents=True, exist_ok=True)
                stream = tar.extractfile(member)
                assert stream is not None
                with open(target, "wb") as output:
                    shutil.copyfileobj(stream, output)
            else:
                raise FileFormatError(f"{archive}: member {member.name!r} is a link or device")
