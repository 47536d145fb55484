"""``fluid.recordio_writer`` of Fluid 1.1: files of records, which are not written here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from millstream.errors import NotSupportedError

__all__ = ["convert_reader_to_recordio_file", "convert_reader_to_recordio_files"]


def _not_written(function: str) -> NoReturn:
    raise NotSupportedError(
        f"{function}: recordio files of Fluid 1.1 are not written (1.8.5 had dropped them too). Give the reader itself to "
        "fluid.io.DataLoader.from_generator, or write text for fluid.DatasetFactory with fluid.incubate.data_generator"
    )


def convert_reader_to_recordio_file(
    filename: str,
    reader_creator: Callable[[], Any],
    feeder: Any,
    compressor: Any = "Compressor.Snappy",
    max_num_records: int = 1000,
    feed_order: Sequence[str] | None = None,
) -> NoReturn:
    """Raises NotSupportedError, which says what to use."""
    _not_written("convert_reader_to_recordio_file")


def convert_reader_to_recordio_files(
    filename: str,
    batch_per_file: int,
    reader_creator: Callable[[], Any],
    feeder: Any,
    compressor: Any = "Compressor.Snappy",
    max_num_records: int = 1000,
    feed_order: Sequence[str] | None = None,
) -> NoReturn:
    """Raises NotSupportedError, which says what to use."""
    _not_written("convert_reader_to_recordio_files")
