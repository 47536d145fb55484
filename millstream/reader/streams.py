"""``PipeReader`` and ``Fake`` of Fluid 1.0 (dropped by 1.8, still in programs of 2018)."""

from __future__ import annotations

import codecs
import shlex
import subprocess
import zlib
from collections.abc import Callable, Iterator
from typing import Any

__all__ = ["Fake", "PipeReader"]


class PipeReader:
    """Lines (or chunks) of what a command writes to its standard output.

    `command` is split like a shell would, without running a shell. `file_type` is "plain" or
    "gzip". A command that fails raises RuntimeError with its exit code once its output ends.
    """

    def __init__(self, command: str, bufsize: int = 8192, file_type: str = "plain") -> None:
        if not isinstance(command, str):
            raise TypeError(f"PipeReader: command must be a string, got {type(command).__name__}")
        if file_type not in ("plain", "gzip"):
            raise TypeError(f"PipeReader: file_type must be 'plain' or 'gzip', got {file_type!r}")
        if bufsize < 1:
            raise ValueError(f"PipeReader: bufsize must be positive, got {bufsize}")
        self.command = command
        self.file_type = file_type
        self.bufsize = bufsize
        self.process = subprocess.Popen(shlex.split(command), stdout=subprocess.PIPE)

    def _chunks(self) -> Iterator[bytes]:
        # 32 + MAX_WBITS: accept a gzip or a zlib header.
        unzip = zlib.decompressobj(32 + zlib.MAX_WBITS) if self.file_type == "gzip" else None
        assert self.process.stdout is not None
        while chunk := self.process.stdout.read(self.bufsize):
            yield unzip.decompress(chunk) if unzip else chunk
        if unzip:
            yield unzip.flush()

    def get_line(self, cut_lines: bool = True, line_break: str = "\n") -> Iterator[str]:
        """Yield text lines without `line_break`, or raw decoded chunks if not `cut_lines`."""
        decoder = codecs.getincrementaldecoder("utf-8")()
        rest = ""
        try:
            for chunk in self._chunks():
                text = decoder.decode(chunk)
                if not cut_lines:
                    if text:
                        yield text
                    continue
                *lines, rest = (rest + text).split(line_break)
                yield from lines
            if rest:
                yield rest
            code = self.process.wait()
            if code:
                raise RuntimeError(f"PipeReader: {self.command!r} ended with exit code {code}")
        finally:
            if self.process.stdout is not None:
                self.process.stdout.close()
            if self.process.poll() is None:
                self.process.terminate()
            self.process.wait()


class Fake:
    """Repeat a reader's first sample, to time a model without its input pipeline.

    ``Fake()(reader, data_num)`` is a reader of `data_num` times the first sample, which is
    read once.
    """

    def __call__(self, reader: Callable[[], Any], data_num: int) -> Callable[[], Iterator[Any]]:
        kept: list[Any] = []

        def repeat() -> Iterator[Any]:
            if not kept:
                kept.append(next(iter(reader())))
            for _ in range(data_num):
                yield kept[0]

        return repeat
