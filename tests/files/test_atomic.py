"""Atomic writing: the old file or the new one, nothing else."""

import os
import stat

import pytest

from millstream.errors import FileFormatError
from millstream.files.atomic import atomic_write, variable_path, write_bytes


def test_makes_directories_and_replaces(tmp_path):
    path = tmp_path / "a" / "b" / "c"
    write_bytes(path, b"one")
    write_bytes(path, b"two")
    assert path.read_bytes() == b"two"
    assert os.listdir(path.parent) == ["c"]


def test_failure_leaves_the_old_file(tmp_path):
    path = tmp_path / "w"
    write_bytes(path, b"old")
    with pytest.raises(RuntimeError, match="stop"), atomic_write(path) as fh:
        fh.write(b"half")
        raise RuntimeError("stop")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["w"]


def test_failure_of_the_rename(tmp_path, monkeypatch):
    path = tmp_path / "w"
    write_bytes(path, b"old")

    def refuse(*_):
        raise OSError("no")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(OSError, match="no"):
        write_bytes(path, b"new")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["w"]


def test_keeps_permissions_and_links(tmp_path):
    path, link = tmp_path / "w", tmp_path / "link"
    write_bytes(path, b"old")
    os.chmod(path, 0o640)
    link.symlink_to(path)
    write_bytes(link, b"new")
    assert link.is_symlink()
    assert path.read_bytes() == b"new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_a_directory_is_in_the_way(tmp_path):
    with pytest.raises(IsADirectoryError, match="a directory of that name exists"):
        write_bytes(tmp_path, b"")


def test_variable_path(tmp_path):
    assert variable_path("d", "scope/fc_0.w_0") == os.path.join("d", "scope/fc_0.w_0")
    for name in ("../x", "a/../../x", "/etc/x", "", "a/", "a\0b", "..", "."):
        with pytest.raises(FileFormatError, match="can't be a file under 'd'"):
            variable_path("d", name)
