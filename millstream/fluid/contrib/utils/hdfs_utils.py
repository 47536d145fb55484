"""Files in Hadoop's file system, through its own command ``hadoop fs``."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import time
import zipfile
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

__all__ = ["HDFSClient", "multi_download", "multi_upload"]

_log = logging.getLogger(__name__)


class HDFSClient:
    """Runs ``<hadoop_home>/bin/hadoop fs``.

    Args:
        hadoop_home: where Hadoop is installed.
        configs: options of the command, such as {"fs.default.name": "hdfs://host:port", "hadoop.job.ugi": "user,password"}.

    Every method raises FileNotFoundError when the command is not there. What the command itself refuses is logged, and the
    method returns False or an empty list.
    """

    def __init__(self, hadoop_home: str, configs: Mapping[str, Any] | None) -> None:
        self.pre_commands = [os.path.join(hadoop_home, "bin", "hadoop"), "fs"]
        self.pre_commands += [f"-D{name}={value}" for name, value in (configs or {}).items()]

    def _run(self, *command: str, tries: int = 1) -> tuple[bool, str]:
        """(whether it succeeded, what it printed); tried again after a pause, `tries` times in all."""
        for left in reversed(range(tries)):
            try:
                done = subprocess.run([*self.pre_commands, *command], capture_output=True, text=True)
            except FileNotFoundError:
                raise FileNotFoundError(
                    f"HDFSClient: there is no command {self.pre_commands[0]}; is hadoop_home right and Hadoop installed?"
                ) from None
            if done.returncode == 0:
                return True, done.stdout
            _log.info("hadoop fs %s: exit code %s, %s", " ".join(command), done.returncode, done.stderr.strip())
            if left:
                time.sleep(0.1)
        return False, done.stderr

    # ---- asking ----------------------------------------------------------------------------------
    def is_exist(self, hdfs_path: str | None = None) -> bool:
        """Whether there is such a file or folder."""
        return self._run("-test", "-e", str(hdfs_path))[0]

    def is_dir(self, hdfs_path: str | None = None) -> bool:
        """Whether it is a folder; False when there is nothing."""
        return self._run("-test", "-d", str(hdfs_path))[0]

    def ls(self, hdfs_path: str) -> list[str]:
        """Paths of the files and folders in a folder; [] when there is none."""
        return [path for path, _, _ in self._listed("-ls", hdfs_path)]

    def lsr(self, hdfs_path: str, only_file: bool = True, sort: bool = True) -> list[str]:
        """Paths of all files below a folder.

        Args:
            only_file: leave folders out; sort: the oldest first.
        """
        found = [row for row in self._listed("-lsr", hdfs_path) if not (only_file and row[2])]
        if sort:
            found.sort(key=lambda row: row[1])
        return [path for path, _, _ in found]

    def _listed(self, command: str, hdfs_path: str) -> list[tuple[str, str, bool]]:
        """(path, time, whether a folder) of each line that the command prints."""
        if not self.is_exist(hdfs_path):
            return []
        rows = []
        for line in self._run(command, hdfs_path)[1].splitlines():
            words = line.split(None, 7)
            if len(words) == 8:
                rows.append((words[7], f"{words[5]} {words[6]}", words[0].startswith("d")))
        return rows

    # ---- changing --------------------------------------------------------------------------------
    def delete(self, hdfs_path: str) -> bool:
        """Remove a file, or a folder with all that is in it. True also when there is none."""
        if not self.is_exist(hdfs_path):
            return True
        return self._run("-rmr" if self.is_dir(hdfs_path) else "-rm", hdfs_path)[0]

    def rename(self, hdfs_src_path: str, hdfs_dst_path: str, overwrite: bool = False) -> bool:
        """Move a file or folder. False when the target exists, unless `overwrite`: then it is removed first."""
        if not self.is_exist(hdfs_src_path):
            _log.info("rename: there is no %s", hdfs_src_path)
            return False
        if self.is_exist(hdfs_dst_path):
            if not overwrite:
                _log.error("rename: %s exists and overwrite=False", hdfs_dst_path)
                return False
            if not self.delete(hdfs_dst_path):
                return False
        return self._run("-mv", hdfs_src_path, hdfs_dst_path)[0]

    def makedirs(self, hdfs_path: str) -> bool:
        """Make a folder and those above it; True when it stands there already."""
        return self.is_dir(hdfs_path) or self._run("-mkdir", "-p", hdfs_path)[0]

    @staticmethod
    def make_local_dirs(local_path: str) -> None:
        """Make a folder here and those above it."""
        os.makedirs(local_path, exist_ok=True)

    def upload(self, hdfs_path: str, local_path: str, overwrite: bool = False, retry_times: int = 5) -> bool:
        """Copy a file or folder of this machine to `hdfs_path`, which is made when it is not there.

        Args:
            overwrite: remove what has the file's name in `hdfs_path` first.
            retry_times: how often a failing copy is tried.

        Raises FileNotFoundError: there is no `local_path`.
        """
        if not os.path.exists(local_path):
            raise FileNotFoundError(f"HDFSClient.upload: there is no {local_path}")
        if not self.makedirs(hdfs_path):
            return False
        target = f"{hdfs_path.rstrip('/')}/{os.path.basename(local_path.rstrip('/'))}"
        if overwrite and self.is_exist(target) and not self.delete(target):
            return False
        return self._run("-put", local_path, hdfs_path, tries=retry_times)[0]

    def download(self, hdfs_path: str, local_path: str, overwrite: bool = False, unzip: bool = False) -> bool:
        """Copy a file or folder to this machine.

        Args:
            overwrite: remove `local_path` first when it is a file or folder of its own.
            unzip: take a downloaded .zip file apart, beside it.
        """
        if not self.is_exist(hdfs_path):
            _log.error("download: there is no %s", hdfs_path)
            return False
        target = local_path
        if os.path.isdir(local_path):
            target = os.path.join(local_path, os.path.basename(hdfs_path.rstrip("/")))
        if os.path.exists(target):
            if not overwrite:
                _log.error("download: %s exists and overwrite=False", target)
                return False
            if os.path.isdir(target):
                shutil.rmtree(target)
            else:
                os.remove(target)
        if not self._run("-get", hdfs_path, local_path, tries=5)[0]:
            return False
        if unzip and zipfile.is_zipfile(target):
            with zipfile.ZipFile(target) as archive:
                archive.extractall(os.path.dirname(target))
        return True


def _in_parallel(work: Callable[[Any], None], items: Iterable[Any], workers: int) -> None:
    with ThreadPoolExecutor(max(1, workers)) as pool:  # each only waits for a process of its own
        list(pool.map(work, items))


def multi_download(
    client: HDFSClient, hdfs_path: str, local_path: str, trainer_id: int, trainers: int, multi_processes: int = 5
) -> list[str]:
    """Download this trainer's share of the files below `hdfs_path`: every `trainers`-th, beginning with `trainer_id`.

    Args:
        multi_processes: how many downloads run at once.

    Returns the paths here, folders below `hdfs_path` kept. Raises RuntimeError: a download failed.
    """
    if not 0 <= trainer_id < trainers:
        raise ValueError(f"multi_download: trainer_id {trainer_id} must be in [0, {trainers})")
    client.make_local_dirs(local_path)
    mine = client.lsr(hdfs_path, sort=True)[trainer_id::trainers]
    places = [os.path.join(local_path, os.path.relpath(path, hdfs_path)) for path in mine]

    def fetch(pair: tuple[str, str]) -> None:
        path, place = pair
        client.make_local_dirs(os.path.dirname(place))
        if not client.download(path, place, overwrite=True):
            raise RuntimeError(f"multi_download: {path} could not be downloaded to {place}")

    _in_parallel(fetch, zip(mine, places), multi_processes)
    return places


def getfilelist(path: str) -> list[str]:
    """Paths of all files below a folder of this machine."""
    return sorted(os.path.join(folder, name) for folder, _, names in os.walk(path) for name in names)


def multi_upload(
    client: HDFSClient,
    hdfs_path: str,
    local_path: str,
    multi_processes: int = 5,
    overwrite: bool = False,
    sync: bool = True,
) -> None:
    """Upload all files below `local_path`, folders kept.

    Args:
        multi_processes: how many uploads run at once.
        overwrite: replace files that are there.
        sync: without effect: the uploads are done when this returns.

    Raises RuntimeError: an upload failed.
    """

    def send(path: str) -> None:
        folder = os.path.relpath(os.path.dirname(path), local_path)
        target = hdfs_path if folder == "." else f"{hdfs_path.rstrip('/')}/{folder}"
        if not client.upload(target, path, overwrite, retry_times=5):
            raise RuntimeError(f"multi_upload: {path} could not be uploaded to {target}")

    _in_parallel(send, getfilelist(local_path), multi_processes)
