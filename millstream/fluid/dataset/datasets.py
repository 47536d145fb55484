"""Datasets over files in the MultiSlot format."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from millstream.errors import InvalidProgramError, NotSupportedError
from millstream.fluid.dataset.desc import desc_text
from millstream.fluid.dataset.multi_slot import Samples, SlotSpec, as_feed, joined, samples_of, without_zeros
from millstream.ir.types import dtype_name
from millstream.reader._channel import Channel, ChannelClosed
from millstream.runtime.tensor import LoDTensor

__all__ = ["DatasetBase", "DatasetFactory", "FileInstantDataset", "InMemoryDataset", "QueueDataset"]

_WAITING_BATCHES = 8  # for each reading thread: what bounds the memory of a QueueDataset


class DatasetFactory:
    """Makes datasets by the name of their class."""

    def __init__(self) -> None:
        pass

    def create_dataset(self, datafeed_class: str = "QueueDataset") -> DatasetBase:
        """A new "QueueDataset" or "InMemoryDataset"."""
        kinds: dict[str, type[DatasetBase]] = {
            "QueueDataset": QueueDataset,
            "InMemoryDataset": InMemoryDataset,
            "FileInstantDataset": FileInstantDataset,
        }
        if datafeed_class not in kinds:
            raise ValueError(f"datafeed class {datafeed_class} does not exist; expected one of {', '.join(kinds)}")
        return kinds[datafeed_class]()


class DatasetBase:
    """What all datasets share: files, the command that reads them, the variables they feed."""

    _feed_name = "MultiSlotDataFeed"

    def __init__(self) -> None:
        self.filelist: list[str] = []
        self.batch_size = 32
        self.thread_num = 1
        self.pipe_command = "cat"
        self._slots: list[SlotSpec] = []
        self._skip = 0

    def set_pipe_command(self, pipe_command: str) -> None:
        """The shell command that turns a file (its input) into lines of the MultiSlot format (its output)."""
        self.pipe_command = pipe_command

    def set_batch_size(self, batch_size: int) -> None:
        """Samples in a batch."""
        if batch_size < 1:
            raise ValueError(f"set_batch_size: expected a positive number, received {batch_size}")
        self.batch_size = int(batch_size)

    def set_thread(self, thread_num: int) -> None:
        """Threads that read; each reads files of its own."""
        if thread_num < 1:
            raise ValueError(f"set_thread: expected a positive number, received {thread_num}")
        self.thread_num = int(thread_num)

    def set_filelist(self, filelist: Sequence[str]) -> None:
        """The files."""
        self.filelist = [str(f) for f in filelist]

    def set_use_var(self, var_list: Sequence[Any]) -> None:
        """The Variables that the slots of a line feed, in order: float32 or int64; without LoD, lines have a fixed shape."""
        slots = []
        for var in var_list:
            kind = {"float32": "float", "int64": "uint64"}.get(dtype_name(var.dtype))
            if kind is None:
                raise ValueError(
                    f"Currently, fluid.dataset only supports dtype=float32 and dtype=int64, received {var.describe()}"
                )
            slots.append(SlotSpec(var.name, kind, var.lod_level == 0, tuple(var.shape)))
        self._slots = slots

    def set_hdfs_config(self, fs_name: str, fs_ugi: str) -> None:
        """Refused: files come from local paths (a pipe command can fetch others)."""
        raise NotSupportedError("set_hdfs_config: no HDFS client is here; let the pipe command fetch the data, or mount it")

    def set_download_cmd(self, download_cmd: str) -> None:
        """Refused: use the pipe command."""
        raise NotSupportedError("set_download_cmd: files are read from local paths; let the pipe command fetch the data")

    def desc(self) -> str:
        """The layout in text form."""
        slots = [
            {
                "name": s.name,
                "type": s.kind,
                "is_dense": s.dense or None,
                "is_used": s.used,
                "shape": s.shape if s.dense else (),
            }
            for s in self._slots
        ]
        return desc_text(self._feed_name, self.batch_size, slots, self.pipe_command)

    # ---- reading -----------------------------------------------------------------------------
    def _check(self) -> None:
        if not self._slots:
            raise InvalidProgramError(f"{type(self).__name__}: call set_use_var before reading")
        if not self.filelist:
            raise InvalidProgramError(f"{type(self).__name__}: call set_filelist before reading")

    def _samples(self, files: Sequence[str]) -> Iterator[Samples]:
        for path in files:
            yield from samples_of(path, self.pipe_command, self._slots, self._skip)

    def _cut(self, parts: Iterator[Samples], drop_last: bool) -> Iterator[dict[str, LoDTensor]]:
        """Batches of samples that come in parts of any size."""
        columns = [k for k, s in enumerate(self._slots) if s.used]
        held: list[Samples] = []
        wanted = self.batch_size
        for part in parts:
            at = 0
            while at < len(part):
                held.append(part.rows(slice(at, at + wanted)))
                at += len(held[-1])
                wanted -= len(held[-1])
                if not wanted:
                    yield as_feed(held, self._slots, columns)
                    held, wanted = [], self.batch_size
        if held and not drop_last:
            yield as_feed(held, self._slots, columns)

    def _batches(self, drop_last: bool = False) -> Iterator[dict[str, LoDTensor]]:
        """Feeds, name -> LoDTensor."""
        raise NotImplementedError


def _parallel(sources: Sequence[Iterator[Any]], capacity: int) -> Iterator[Any]:
    """Items of all iterators, each read in its own thread; the first error is raised here."""
    channel: Channel[tuple[Any, BaseException | None]] = Channel(capacity)
    left = len(sources)
    lock = threading.Lock()

    def read(source: Iterator[Any]) -> None:
        nonlocal left
        try:
            for item in source:
                channel.put((item, None))
        except ChannelClosed:
            pass
        except BaseException as error:
            with contextlib.suppress(ChannelClosed):
                channel.put((None, error))
        finally:
            source.close()  # type: ignore[attr-defined]
            with lock:
                left -= 1
                last = not left
            if last:
                channel.finish()

    for k, source in enumerate(sources):
        threading.Thread(target=read, args=(source,), daemon=True, name=f"millstream-dataset-{k}").start()
    try:
        while True:
            try:
                item, error = channel.get()
            except ChannelClosed:
                return
            if error is not None:
                raise error
            yield item
    finally:
        channel.cancel()


class QueueDataset(DatasetBase):
    """Reads its files anew at every pass; holds a few batches at a time."""

    def local_shuffle(self) -> None:
        """Refused: use InMemoryDataset."""
        raise NotImplementedError(
            "QueueDataset does not support local shuffle, please use InMemoryDataset for local_shuffle"
        )

    def global_shuffle(self, fleet: Any = None) -> None:
        """Refused: use InMemoryDataset."""
        raise NotImplementedError(
            "QueueDataset does not support global shuffle, please use InMemoryDataset for global_shuffle"
        )

    def _batches(self, drop_last: bool = False) -> Iterator[dict[str, LoDTensor]]:
        self._check()
        threads = min(self.thread_num, len(self.filelist))
        shares = [self._cut(self._samples(self.filelist[k::threads]), drop_last) for k in range(threads)]
        return _parallel(shares, _WAITING_BATCHES * threads)


class FileInstantDataset(QueueDataset):
    """A QueueDataset by another name: its files are read anew, and samples are used as they come."""

    def local_shuffle(self) -> None:
        """Refused: use InMemoryDataset."""
        raise NotImplementedError("FileInstantDataset does not support local shuffle, please use InMemoryDataset")

    def global_shuffle(self, fleet: Any = None) -> None:
        """Refused: use InMemoryDataset."""
        raise NotImplementedError("FileInstantDataset does not support global shuffle, please use InMemoryDataset")


class InMemoryDataset(DatasetBase):
    """Reads its files once, into memory, where samples can be shuffled.

    As in 1.8.5, zeros in slots of sequences (lod_level above 0) are left out while reading: 0 stands for a feature that is
    not there. A line that has nothing else keeps one. A QueueDataset keeps them all.
    """

    _feed_name = "MultiSlotInMemoryDataFeed"

    def __init__(self) -> None:
        super().__init__()
        self._memory: Samples | None = None
        self._preload: threading.Thread | None = None
        self._preload_error: BaseException | None = None
        self._fea_eval = False
        self._shuffled = 0

    def load_into_memory(self) -> None:
        """Read all files."""
        self._memory = self._read(self.thread_num)

    def _read(self, threads: int) -> Samples:
        self._check()
        threads = min(threads, len(self.filelist))
        if threads == 1:
            parts = self._samples(self.filelist)
        else:
            parts = _parallel([self._samples(self.filelist[k::threads]) for k in range(threads)], 0)
        return joined([without_zeros(part, self._slots) for part in parts], self._slots)

    def preload_into_memory(self, thread_num: int | None = None) -> None:
        """Begin to read all files in the background; :meth:`wait_preload_done` waits for the end."""
        self._check()
        threads = self.thread_num if thread_num is None else thread_num

        def read() -> None:
            try:
                self._memory = self._read(threads)
            except BaseException as error:
                self._preload_error = error

        self._preload_error = None
        self._preload = threading.Thread(target=read, daemon=True, name="millstream-preload")
        self._preload.start()

    def wait_preload_done(self) -> None:
        """Wait for the files; raises what went wrong with them."""
        if self._preload is None:
            raise InvalidProgramError("wait_preload_done: call preload_into_memory first")
        self._preload.join()
        self._preload = None
        if self._preload_error is not None:
            raise self._preload_error

    def _loaded(self) -> Samples:
        if self._memory is None:
            raise InvalidProgramError("InMemoryDataset: call load_into_memory before using the data")
        return self._memory

    def local_shuffle(self) -> None:
        """Put the samples into a random order (numpy's global generator)."""
        memory = self._loaded()
        self._memory = memory.rows(np.random.permutation(len(memory)))
        self._shuffled = len(memory)

    def global_shuffle(self, fleet: Any = None, thread_num: int = 12) -> None:
        """Shuffle among all workers; one worker alone shuffles its own samples.

        Args:
            thread_num: without effect: nothing is sent.
        """
        if fleet is not None and fleet.worker_num() > 1:
            raise NotSupportedError(
                "global_shuffle among several workers: give each worker its own files and use local_shuffle"
            )
        self.local_shuffle()

    def release_memory(self) -> None:
        """Drop the samples."""
        self._memory = None

    def get_memory_data_size(self, fleet: Any = None) -> int:
        """Number of samples."""
        return 0 if self._memory is None else len(self._memory)

    def get_shuffle_data_size(self, fleet: Any = None) -> int:
        """Number of samples of the last shuffle."""
        return self._shuffled

    def set_parse_ins_id(self, parse_ins_id: bool) -> None:
        """Whether lines begin with an instance id (``1 <id>``), which is left out."""
        self._skip = int(parse_ins_id)

    def set_queue_num(self, queue_num: int) -> None:
        """Accepted, without effect: samples are not spread over queues."""

    def set_fea_eval(self, record_candidate_size: int, fea_eval: bool = True) -> None:
        """Allow :meth:`slots_shuffle`."""
        self._fea_eval = fea_eval

    def slots_shuffle(self, slots: Sequence[str]) -> None:
        """Give each sample the values that some other sample has in these slots: how much does a feature matter?

        Raises InvalidProgramError: set_fea_eval was not called, or a slot is unknown.
        """
        if not self._fea_eval:
            raise InvalidProgramError("slots_shuffle: call set_fea_eval first")
        known = {s.name: k for k, s in enumerate(self._slots)}
        memory = self._loaded()
        for name in slots:
            if name not in known:
                raise InvalidProgramError(f"slots_shuffle: there is no slot {name!r}; the slots are {', '.join(known)}")
            slot, order = known[name], np.random.permutation(len(memory))
            counts, starts = memory.counts.copy(), memory.starts.copy()
            counts[:, slot], starts[:, slot] = counts[order, slot], starts[order, slot]
            memory = Samples(counts, starts, memory.ints, memory.floats)
        self._memory = memory

    def _batches(self, drop_last: bool = False) -> Iterator[dict[str, LoDTensor]]:
        return self._cut(iter([self._loaded()]), drop_last)
