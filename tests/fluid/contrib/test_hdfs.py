"""HDFSClient against a script in the place of Hadoop's command: a folder here is the file system there."""

import os
import stat

import pytest

from millstream.fluid.contrib import HDFSClient, multi_download, multi_upload

HADOOP = r"""#!/bin/sh
root=$(dirname "$0")/../remote
shift
while case "$1" in -D*) true;; *) false;; esac; do echo "$1" >> "$root/../options"; shift; done
command=$1; shift
case $command in
-test) test $1 "$root$2";;
-ls|-lsr)
    if [ $command = -ls ]; then depth="-maxdepth 1"; fi
    find "$root$1" -mindepth 1 $depth -printf '%M - user group %s %TY-%Tm-%Td %TH:%TM /%P\n' | sed "s#/\([^/]\)#$1/\1#";;
-rm) rm "$root$1";;
-rmr) rm -r "$root$1";;
-mv) mv "$root$1" "$root$2";;
-mkdir) mkdir -p "$root$2";;
-put) cp -r "$1" "$root$2";;
-get) cp -r "$root$1" "$2";;
*) echo "what is $command?" >&2; exit 1;;
esac
"""


@pytest.fixture
def client(tmp_path):
    (tmp_path / "bin").mkdir()
    (tmp_path / "remote").mkdir()
    script = tmp_path / "bin" / "hadoop"
    script.write_text(HADOOP)
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    return HDFSClient(str(tmp_path), {"fs.default.name": "hdfs://host:1", "hadoop.job.ugi": "user,secret"})


def remote(tmp_path, name, text, when):
    path = tmp_path / "remote" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    os.utime(path, (when * 86400.0, when * 86400.0))


def test_asking(client, tmp_path):
    remote(tmp_path, "d/new", "1", 20)
    remote(tmp_path, "d/old", "2", 10)
    remote(tmp_path, "d/sub/oldest", "3", 5)
    assert client.is_exist("/d") and client.is_dir("/d") and not client.is_dir("/d/new")
    assert not client.is_exist("/nothing") and not client.is_dir("/nothing") and client.ls("/nothing") == []
    assert sorted(client.ls("/d")) == ["/d/new", "/d/old", "/d/sub"]
    assert client.lsr("/d") == ["/d/sub/oldest", "/d/old", "/d/new"]
    assert sorted(client.lsr("/d", only_file=False)) == ["/d/new", "/d/old", "/d/sub", "/d/sub/oldest"]
    options = (tmp_path / "options").read_text().split()
    assert options[:2] == ["-Dfs.default.name=hdfs://host:1", "-Dhadoop.job.ugi=user,secret"]


def test_changing(client, tmp_path):
    mine = tmp_path / "mine.txt"
    mine.write_text("first")
    assert client.makedirs("/a/b") and client.upload("/a/b", str(mine))
    mine.write_text("second")
    assert client.upload("/a/b", str(mine), overwrite=True)
    assert (tmp_path / "remote/a/b/mine.txt").read_text() == "second"
    assert client.rename("/a/b/mine.txt", "/a/b/yours.txt") and not client.rename("/none", "/a/c")
    assert client.upload("/a/b", str(mine)) and not client.rename("/a/b/mine.txt", "/a/b/yours.txt")
    assert client.rename("/a/b/mine.txt", "/a/b/yours.txt", overwrite=True) and client.ls("/a/b") == ["/a/b/yours.txt"]
    there = tmp_path / "there.txt"
    assert client.download("/a/b/yours.txt", str(there)) and there.read_text() == "second"
    assert not client.download("/a/b/yours.txt", str(there)) and not client.download("/none", str(there))
    assert client.download("/a/b/yours.txt", str(there), overwrite=True)
    assert client.delete("/a") and client.delete("/a") and not client.is_exist("/a")
    with pytest.raises(FileNotFoundError, match=r"missing\.txt"):
        client.upload("/a", str(tmp_path / "missing.txt"))


def test_many(client, tmp_path):
    for i in range(5):
        remote(tmp_path, f"data/{'sub/' if i % 2 else ''}part-{i}", str(i), i + 1)
    first = multi_download(client, "/data", str(tmp_path / "got"), 0, 2)
    second = multi_download(client, "/data", str(tmp_path / "got"), 1, 2, multi_processes=2)
    assert [os.path.relpath(p, tmp_path / "got") for p in first] == ["part-0", "part-2", "part-4"]
    assert [(tmp_path / "got" / p).read_text() for p in second] == ["1", "3"]
    multi_upload(client, "/copy", str(tmp_path / "got"))
    assert sorted(client.lsr("/copy")) == sorted(p.replace("/data", "/copy") for p in client.lsr("/data"))
    with pytest.raises(ValueError, match="trainer_id 2"):
        multi_download(client, "/data", str(tmp_path), 2, 2)


def test_no_hadoop(tmp_path):
    with pytest.raises(FileNotFoundError, match="hadoop_home"):
        HDFSClient(str(tmp_path / "nowhere"), {}).is_exist("/")
