"""Get one dataset file onto the disk, complete and verified.

Order: the file in its folder; the same file in a read-only fallback folder; each mirror; the
original address. A transfer goes to ``<file>.part`` (resumed with an HTTP range request when it
is found half done), is verified there and moved into place in one step, so ``<file>`` is either
absent or whole. Where no checksum is known beforehand, that of the first download is recorded
in ``<file>.md5`` and demanded from then on.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import os
import socket
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import DatasetError

try:
    import fcntl
except ImportError:  # not a POSIX system: concurrent downloads are then not serialised
    fcntl = None  # type: ignore[assignment]

__all__ = ["Request", "file_digest", "obtain"]

_BLOCK = 1 << 18
_STALLED_ATTEMPTS = 3
_TRANSIENT = (408, 425, 429, 500, 502, 503, 504)
_verified: dict[tuple[str, int, int], str] = {}


@dataclass(frozen=True)
class Request:
    """One wanted file. `md5` None means "as recorded beside the file, if it is"."""

    names: tuple[str, ...]  # acceptable file names; the first is the one written
    folder: Path
    urls: tuple[str, ...]
    md5: str | None = None
    timeout: float = 30.0
    fallback_folders: tuple[Path, ...] = ()

    @property
    def target(self) -> Path:
        return self.folder / self.names[0]


def file_digest(path: str | os.PathLike[str]) -> str:
    """Hexadecimal MD5 of a file; remembered while its size and time stay the same."""
    info = os.stat(path)
    key = (os.path.abspath(path), info.st_size, info.st_mtime_ns)
    if key not in _verified:
        digest = hashlib.md5(usedforsecurity=False)
        with open(path, "rb") as stream:
            while block := stream.read(_BLOCK):
                digest.update(block)
        _verified[key] = digest.hexdigest()
    return _verified[key]


def obtain(request: Request) -> Path:
    """Return the path of the verified file; DatasetError if no source has it intact."""
    reasons: list[str] = []
    found = _on_disk(request, reasons)
    if found is not None:
        return found
    try:
        request.folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _failure(request, [*reasons, f"cannot create {request.folder}: {error}"]) from error
    if not os.access(request.folder, os.W_OK):
        raise _failure(request, [*reasons, f"cannot write into {request.folder}"])
    with _lock(request.target):
        found = _on_disk(request, [])  # another process may have finished it meanwhile
        if found is not None:
            return found
        for url in request.urls:
            try:
                _download(request, url)
            except (_Refused, OSError) as error:
                reasons.append(f"{url}: {error}")
            else:
                return request.target
    raise _failure(request, reasons)


def _failure(request: Request, reasons: Sequence[str]) -> DatasetError:
    checksum = f"MD5 {request.md5}" if request.md5 else "no checksum known: any copy is taken"
    listed = "\n".join(f"  - {reason}" for reason in reasons)
    urls = "\n".join(f"  {url}" for url in request.urls)
    return DatasetError(
        f"dataset file {request.names[0]!r} ({checksum}) is not available.\n{listed}\n"
        f"To work offline, put the file into the folder\n  {request.folder}\n"
        f"(set by MILLSTREAM_DATA_HOME), from one of\n{urls}\n"
        "or name a mirror in MILLSTREAM_DATASET_MIRROR."
    )


def _recorded(path: Path) -> str | None:
    try:
        words = path.with_name(path.name + ".md5").read_text().split()
    except OSError:
        return None
    return words[0].lower() if words else None


def _record(path: Path, digest: str) -> None:
    with contextlib.suppress(OSError):  # a read-only data folder is fine
        path.with_name(path.name + ".md5").write_text(f"{digest}  {path.name}\n")


def _on_disk(request: Request, reasons: list[str]) -> Path | None:
    for folder in (request.folder, *request.fallback_folders):
        for name in request.names:
            path = folder / name
            if not path.is_file():
                continue
            own = folder == request.folder
            expected = request.md5 or _recorded(path)
            if expected is None and not own:
                continue  # nothing vouches for a foreign file
            actual = file_digest(path)
            if expected is None:
                _record(path, actual)
                return path
            if actual == expected.lower():
                return path
            reasons.append(f"{path}: its MD5 is {actual}, expected {expected}")
    if not reasons:
        reasons.append(f"{request.target}: no such file")
    return None


@contextlib.contextmanager
def _lock(target: Path) -> Iterator[None]:
    """One downloading process per file."""
    if fcntl is None:
        yield
        return
    path = target.with_name(target.name + ".lock")
    while True:
        stream = open(path, "w")  # noqa: SIM115 (held until the end of the with block)
        fcntl.flock(stream, fcntl.LOCK_EX)
        # The previous holder removes the file: a lock on a removed file excludes nobody.
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.stat(path), os.fstat(stream.fileno())):
                break
        stream.close()
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            path.unlink()
        stream.close()


class _Refused(Exception):
    """This address does not have the file, or not the right one: try the next."""


class _Part:
    """The unfinished file, and where it came from (an address and its validator)."""

    def __init__(self, target: Path) -> None:
        self.path = target.with_name(target.name + ".part")
        self._origin = target.with_name(target.name + ".part.json")

    def size(self) -> int:
        try:
            return self.path.stat().st_size
        except OSError:
            return 0

    def origin(self) -> dict[str, str]:
        try:
            data = json.loads(self._origin.read_text())
        except (OSError, ValueError):
            return {}
        return data if isinstance(data, dict) else {}

    def set_origin(self, url: str, validator: str | None) -> None:
        self._origin.write_text(json.dumps({"url": url, "validator": validator or ""}))

    def discard(self) -> None:
        for path in (self.path, self._origin):
            with contextlib.suppress(FileNotFoundError):
                path.unlink()

    def move_to(self, target: Path) -> None:
        os.replace(self.path, target)
        self.discard()


def _download(request: Request, url: str) -> None:
    if urllib.parse.urlsplit(url).scheme not in ("http", "https", "file"):
        raise _Refused("only http, https and file addresses are supported")
    part = _Part(request.target)
    resumed = part.size() > 0
    stalled = 0
    while True:
        before = part.size()
        try:
            _transfer(request, url, part)
        except urllib.error.HTTPError as error:
            if error.code == 416 and before:  # nothing after what we have: complete or stale
                if request.md5 and file_digest(part.path) == request.md5:
                    break
                part.discard()
                if resumed:
                    resumed = False
                    continue
            if error.code not in _TRANSIENT:
                raise _Refused(f"HTTP {error.code} {error.reason}") from error
            cause: Exception = error
        except (OSError, http.client.HTTPException) as error:
            cause = error
        else:
            expected = request.md5
            actual = file_digest(part.path)
            if expected is None or actual == expected.lower():
                break
            part.discard()
            if not resumed:
                raise _Refused(f"the file served has MD5 {actual}, expected {expected}")
            resumed = False  # the old beginning may have been the bad half: once from zero
            continue
        stalled = 0 if part.size() > before else stalled + 1
        if stalled >= _STALLED_ATTEMPTS or _is_final(cause):
            raise _Refused(str(cause) or type(cause).__name__) from cause
        resumed = part.size() > 0
        time.sleep(min(0.2 * 2**stalled, 5.0))
    digest = file_digest(part.path)
    part.move_to(request.target)
    if request.md5 is None:
        _record(request.target, digest)


def _is_final(error: Exception) -> bool:
    """Errors that a second attempt at the same address does not cure."""
    reason = getattr(error, "reason", error)
    return isinstance(reason, (ConnectionRefusedError, FileNotFoundError, PermissionError, socket.gaierror))


def _transfer(request: Request, url: str, part: _Part) -> None:
    """Append to `part` until the server says the file ends."""
    headers = {"User-Agent": "millstream-dataset", "Accept-Encoding": "identity"}
    have = part.size()
    origin = part.origin()
    same = origin.get("url") == url and bool(origin.get("validator"))
    if have and not same and request.md5 is None:
        part.discard()  # without a checksum, only the very same file may be continued
        have = 0
    if have:
        headers["Range"] = f"bytes={have}-"
        if same:
            headers["If-Range"] = origin["validator"]
    query = urllib.request.Request(url, headers=headers)
    with urllib.request.urlopen(query, timeout=request.timeout) as answer:
        status = getattr(answer, "status", 200)
        length = answer.headers.get("Content-Length")
        start = _range_start(answer.headers.get("Content-Range")) if status == 206 else 0
        if start not in (0, have):
            raise OSError(f"asked for bytes from {have}, the server sent from {start}")
        part.set_origin(url, _strong_validator(answer.headers))
        total = start + int(length) if length is not None else None
        done = start
        with open(part.path, "r+b" if start and have else "wb") as stream:
            stream.seek(start)
            with _Progress(request.names[0], total) as progress:
                while block := answer.read(_BLOCK):
                    stream.write(block)
                    done += len(block)
                    progress.show(done)
            stream.truncate()
    if total is not None and done < total:
        raise OSError(f"connection ended after {done} of {total} bytes")


def _strong_validator(headers: Any) -> str | None:
    tag = headers.get("ETag")
    return tag if tag and not tag.startswith("W/") else headers.get("Last-Modified")


def _range_start(text: str | None) -> int:
    """Start of ``bytes 100-199/200``."""
    try:
        unit, _, rest = (text or "").partition(" ")
        if unit != "bytes":
            raise ValueError
        return int(rest.partition("-")[0])
    except ValueError:
        raise OSError(f"unusable Content-Range header {text!r}") from None


class _Progress:
    """A bar on stderr when it is a terminal, one line at the end when it is not."""

    def __init__(self, name: str, total: int | None) -> None:
        self._name = name
        self._total = total
        self._done = 0
        self._live = sys.stderr.isatty()
        self._next = 0.0

    def __enter__(self) -> _Progress:
        return self

    def show(self, done: int) -> None:
        self._done = done
        now = time.monotonic()
        if self._live and now >= self._next:
            self._next = now + 0.1
            sys.stderr.write("\r" + self._line())
            sys.stderr.flush()

    def _line(self) -> str:
        size = f"{self._done / 1e6:.1f}"
        if not self._total:
            return f"{self._name}: {size} MB"
        share = self._done / self._total
        bar = "#" * int(30 * share)
        return f"{self._name}: [{bar:<30}] {100 * share:3.0f}% {size}/{self._total / 1e6:.1f} MB"

    def __exit__(self, *_: object) -> None:
        sys.stderr.write(("\r" if self._live else "") + self._line() + "\n")
        sys.stderr.flush()
