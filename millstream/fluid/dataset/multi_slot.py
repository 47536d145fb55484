"""The MultiSlot text format: a line is a sample; for every slot the number of its values, then the values."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence
from functools import cache
from types import ModuleType
from typing import IO, Any, NamedTuple

import numpy as np

from millstream.errors import FileFormatError
from millstream.runtime.tensor import LoDTensor

Record = tuple[np.ndarray, ...]
_BLOCK = 1 << 20  # bytes parsed at once
_SMALLEST = 1e-6  # a float below it counts as zero


@cache
def _kernels() -> ModuleType:
    from millstream.kernels import multi_slot as module  # here: numba takes a second to import

    return module


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


class Samples:
    """Some lines as numbers: for each line and slot how many values there are and where they begin.

    Attributes:
        counts, starts: [lines, slots]; ints, floats: the values of integer and of float slots.
    """

    def __init__(self, counts: np.ndarray, starts: np.ndarray, ints: np.ndarray, floats: np.ndarray) -> None:
        self.counts = counts
        self.starts = starts
        self.ints = ints
        self.floats = floats

    def __len__(self) -> int:
        return len(self.counts)

    def rows(self, which: Any) -> Samples:
        """The lines of a slice or of an array of numbers, in this order; values are shared."""
        return Samples(self.counts[which], self.starts[which], self.ints, self.floats)


def joined(parts: Sequence[Samples], slots: Sequence[SlotSpec]) -> Samples:
    """The lines of all parts, one part after another."""
    if len(parts) == 1:
        return parts[0]
    at_int, at_float, starts = 0, 0, []
    is_float = _is_float(slots)
    for part in parts:
        starts.append(part.starts + np.where(is_float, at_float, at_int))
        at_int += len(part.ints)
        at_float += len(part.floats)
    if not parts:
        empty = np.zeros((0, len(slots)))
        return Samples(empty.astype(np.int32), empty.astype(np.int64), np.zeros(0, np.int64), np.zeros(0, np.float32))
    arrays = [np.concatenate([getattr(p, name) for p in parts]) for name in ("counts", "ints", "floats")]
    return Samples(arrays[0], np.concatenate(starts), arrays[1], arrays[2])


def _is_float(slots: Sequence[SlotSpec]) -> np.ndarray:
    return np.array([s.kind == "float" for s in slots])


def blocks_of(path: str, command: str) -> Iterator[bytes]:
    """What the shell command `command` prints with the file as its input, in blocks of whole lines.

    Raises RuntimeError: the command failed. FileNotFoundError: there is no such file.
    """
    with open(path, "rb") as source:
        if command.strip() == "cat":
            yield from _whole_lines(source)
            return
        process = subprocess.Popen(command, shell=True, stdin=source, stdout=subprocess.PIPE)
        assert process.stdout is not None
        finished = False
        try:
            yield from _whole_lines(process.stdout)
            finished = True
        finally:
            process.stdout.close()
            if not finished:
                process.terminate()
            code = process.wait()
        if code:
            raise RuntimeError(f"pipe_command {command!r} failed on {path} with exit code {code}")


def _whole_lines(source: IO[bytes]) -> Iterator[bytes]:
    rest = b""
    while block := source.read(_BLOCK):
        cut = block.rfind(b"\n") + 1
        if not cut:
            rest += block
            continue
        yield rest + block[:cut]
        rest = block[cut:]
    if rest:
        yield rest + b"\n"


def samples_of(path: str, command: str, slots: Sequence[SlotSpec], skip: int = 0) -> Iterator[Samples]:
    """The samples of a file, some thousands at a time."""
    before = 0
    for block in blocks_of(path, command):
        yield from _parse(block, path, before, slots, skip)
        before += block.count(b"\n")


def _parse(block: bytes, path: str, before: int, slots: Sequence[SlotSpec], skip: int) -> Iterator[Samples]:
    text = np.frombuffer(block, np.uint8)
    is_float = _is_float(slots)
    # A value takes two bytes at least, and so does a line of each slot.
    ints = np.empty(len(text) // 2 + 1, np.int64)
    floats = np.empty(len(text) // 2 + 1, np.float32)
    counts = np.empty((block.count(b"\n"), len(slots)), np.int32)
    at = 0
    while at < len(text):
        rows, n_ints, n_floats, at = _kernels().parse(text, at, is_float, skip, counts, ints, floats)
        if rows:
            yield _samples(counts[:rows].copy(), is_float, ints[:n_ints].copy(), floats[:n_floats].copy())
        if at < len(text):  # a line that is not plain: read it word by word, or say what is wrong
            end = block.index(b"\n", at)
            line = block[at:end].decode("utf-8", "replace")
            if line.strip():
                number = before + block.count(b"\n", 0, at) + 1
                yield _one(parse_line(line, slots, f"{path}, line {number}", skip), is_float)
            at = end + 1


def _samples(counts: np.ndarray, is_float: np.ndarray, ints: np.ndarray, floats: np.ndarray) -> Samples:
    starts = np.empty(counts.shape, np.int64)
    _kernels().starts_of(counts, is_float, starts)
    return Samples(counts, starts, ints, floats)


def _one(record: Record, is_float: np.ndarray) -> Samples:
    counts = np.array([[len(v) for v in record]], np.int32)
    pools = [[v for v, f in zip(record, is_float) if f == wanted] for wanted in (False, True)]
    ints, floats = (np.concatenate([np.zeros(0, t), *pool]) for pool, t in zip(pools, (np.int64, np.float32)))
    return _samples(counts, is_float, ints, floats)


def _by_slot(samples: Sequence[Samples], is_float: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
    """(counts [lines, slots], the values of each slot, line after line) of all samples; slots share two arrays."""
    counts = samples[0].counts if len(samples) == 1 else np.concatenate([s.counts for s in samples])
    totals = counts.sum(0, dtype=np.int64)
    ends = np.where(is_float, np.cumsum(totals * is_float), np.cumsum(totals * ~is_float))
    ints = np.empty(int(totals[~is_float].sum()), np.int64)
    floats = np.empty(int(totals[is_float].sum()), np.float32)
    places = ends - totals
    for s in samples:
        _kernels().gather(s.ints, s.floats, s.starts, s.counts, is_float, ints, floats, places)
    bounds = zip(is_float.tolist(), (ends - totals).tolist(), ends.tolist())
    return counts, [(floats if wanted else ints)[start:end] for wanted, start, end in bounds]


def without_zeros(samples: Samples, slots: Sequence[SlotSpec]) -> Samples:
    """The samples without zeros in slots that are sequences; of a line that has nothing else one zero stays.

    1.8.5 reads files into memory that way: 0 stands for a feature that is not there.
    """
    is_float = _is_float(slots)
    counts, by_slot = _by_slot([samples], is_float)
    left, starts = counts.copy(), np.empty(counts.shape, np.int64)
    pools: dict[bool, list[np.ndarray]] = {True: [np.zeros(0, np.float32)], False: [np.zeros(0, np.int64)]}
    filled = {True: 0, False: 0}
    for k, (slot, values) in enumerate(zip(slots, by_slot)):
        if not slot.dense:
            values, left[:, k] = _nonzero(values, counts[:, k])
        kind = bool(is_float[k])
        starts[:, k] = filled[kind] + np.cumsum(left[:, k]) - left[:, k]
        filled[kind] += len(values)
        pools[kind].append(values)
    return Samples(left, starts, np.concatenate(pools[False]), np.concatenate(pools[True]))


def _nonzero(values: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(values of a slot that are not zero, or the one zero of a line without others; how many of each line)."""
    kept = np.abs(values) >= _SMALLEST if values.dtype.kind == "f" else values != 0
    if kept.all():
        return values, counts
    left = np.bincount(np.repeat(np.arange(len(counts)), counts)[kept], minlength=len(counts))
    bare = (left == 0) & (counts > 0)
    first = (np.cumsum(counts) - counts)[bare]
    values = values.copy()
    values[first] = 0
    kept[first] = True
    return values[kept], left + bare


def as_feed(samples: Sequence[Samples], slots: Sequence[SlotSpec], columns: Sequence[int]) -> dict[str, LoDTensor]:
    """The feed of a batch: `columns` are the slots that are used."""
    counts, by_slot = _by_slot(samples, _is_float(slots))
    feed: dict[str, Any] = {}
    for k in columns:
        slot, values = slots[k], by_slot[k]
        tensor = LoDTensor()
        if slot.dense:
            try:
                values = values.reshape(len(counts), *slot.shape[1:])
            except ValueError:
                sizes = np.unique(counts[:, k]).tolist()
                raise FileFormatError(
                    f"slot {slot.name}: its variable has shape {list(slot.shape)}, the lines have {sizes} values"
                ) from None
            tensor.set(values, zero_copy=True)
        else:
            tensor.set(values.reshape(-1, 1), zero_copy=True)
            tensor._lod = (np.concatenate([[0], np.cumsum(counts[:, k], dtype=np.int64)]),)
        feed[slot.name] = tensor
    return feed
