"""The MultiSlot text format: a line is a sample; for every slot the number of its values, then the values."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from millstream.errors import FileFormatError
from millstream.runtime.tensor import LoDTensor, lod_from_lengths

Record = tuple[np.ndarray, ...]


class SlotSpec(NamedTuple):
    """One slot of a line.

    Attributes:
        kind: "float" or "uint64" (bits of an int64 variable).
        dense: has a fixed shape, so the batch is stacked; else the values are a sequence.
        shape: of a batch, the first dimension unknown.
        used: whether a variable is fed from it.
    """

    name: str
    kind: str
    dense: bool
    shape: tuple[int, ...]
    used: bool = True


def parse_line(line: str, slots: Sequence[SlotSpec], where: str, skip: int = 0) -> Record:
    """The values of one line, an array for each slot.

    Args:
        where: file and line, for errors.
        skip: leading groups (instance id, content) that are no slots.

    Raises FileFormatError: a count or value is missing, malformed, or too many.
    """
    words = line.split()
    at = 0
    found = []
    for k in range(-skip, len(slots)):
        name = slots[k].name if k >= 0 else "the instance id"
        try:
            count = int(words[at])
        except (IndexError, ValueError):
            got = repr(words[at]) if at < len(words) else "the end of the line"
            raise FileFormatError(f"{where}: slot {name}: expected the number of its values, found {got}") from None
        if count <= 0:
            raise FileFormatError(
                f"{where}: slot {name}: the number of its values can not be {count}; write a padding value for an empty slot"
            )
        values = words[at + 1 : at + 1 + count]
        at += 1 + count
        if len(values) != count:
            raise FileFormatError(f"{where}: slot {name}: expected {count} values, found {len(values)}")
        if k >= 0:
            found.append(_numbers(values, slots[k], where))
    if at != len(words):
        raise FileFormatError(f"{where}: {len(words) - at} words follow the last of {len(slots)} slots")
    return tuple(found)


def _numbers(values: list[str], slot: SlotSpec, where: str) -> np.ndarray:
    try:
        if slot.kind == "float":
            return np.array(values, dtype=np.float32)
        numbers = [int(v) for v in values]
        if max(numbers) >= 1 << 63:
            return np.array(numbers, dtype=np.uint64).view(np.int64)
        return np.array(numbers, dtype=np.int64)
    except (ValueError, OverflowError):
        raise FileFormatError(
            f"{where}: slot {slot.name}: expected {slot.kind} values, found {' '.join(values)[:60]!r}"
        ) from None


def lines_of(path: str, command: str) -> Iterator[str]:
    """Lines that the shell command `command` prints, with the file as its input.

    Raises RuntimeError: the command failed. FileNotFoundError: there is no such file.
    """
    with open(path, "rb") as source:
        if command.strip() == "cat":
            for raw in source:
                yield raw.decode("utf-8", "replace")
            return
        process = subprocess.Popen(command, shell=True, stdin=source, stdout=subprocess.PIPE)
        assert process.stdout is not None
        finished = False
        try:
            for raw in process.stdout:
                yield raw.decode("utf-8", "replace")
            finished = True
        finally:
            process.stdout.close()
            if not finished:
                process.terminate()
            code = process.wait()
        if code:
            raise RuntimeError(f"pipe_command {command!r} failed on {path} with exit code {code}")


def records_of(path: str, command: str, slots: Sequence[SlotSpec], skip: int = 0) -> Iterator[Record]:
    """The samples of a file."""
    for number, line in enumerate(lines_of(path, command), 1):
        if line.strip():
            yield parse_line(line, slots, f"{path}, line {number}", skip)


def as_feed(records: Sequence[Record], slots: Sequence[SlotSpec], columns: Sequence[int]) -> dict[str, LoDTensor]:
    """The feed of a batch: `columns` are the slots that are used."""
    feed: dict[str, Any] = {}
    for k in columns:
        slot = slots[k]
        parts = [r[k] for r in records]
        values = np.concatenate(parts)
        tensor = LoDTensor()
        if slot.dense:
            inner = list(slot.shape[1:])
            try:
                values = values.reshape([len(records), *inner])
            except ValueError:
                sizes = sorted({p.size for p in parts})
                raise FileFormatError(
                    f"slot {slot.name}: its variable has shape {list(slot.shape)}, the lines have {sizes} values"
                ) from None
            tensor.set(values, zero_copy=True)
        else:
            tensor.set(values.reshape(-1, 1), zero_copy=True)
            tensor._lod = lod_from_lengths([[p.size for p in parts]])
        feed[slot.name] = tensor
    return feed
