"""Downloads against a server on this machine: resume, checksums, mirrors, offline use."""

import hashlib
import http.server
import io
import os
import tarfile
import threading

import pytest

from millstream.dataset import archives, common
from millstream.dataset.settings import read_settings
from millstream.errors import DatasetError, FileFormatError

BODY = bytes(range(256)) * 4000
MD5 = hashlib.md5(BODY).hexdigest()


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves BODY; the server object says how it misbehaves."""

    def do_GET(self):
        server = self.server
        server.seen.append((self.path, self.headers.get("Range"), self.headers.get("If-Range")))
        if self.path not in server.files:
            self.send_error(404)
            return
        body = server.files[self.path]
        start = 0
        wanted = self.headers.get("Range")
        condition = self.headers.get("If-Range")
        if wanted and server.ranges and condition in (None, server.tag):
            start = int(wanted[len("bytes=") : -1])
            if start >= len(body):
                self.send_error(416)
                return
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(body) - start))
        self.send_header("ETag", server.tag)
        self.end_headers()
        part = body[start:]
        if server.cuts > 0:
            server.cuts -= 1
            part = part[: len(part) // 2]
        self.wfile.write(part)

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    instance = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    instance.seen, instance.files, instance.cuts = [], {"/a.bin": BODY}, 0
    instance.ranges, instance.tag = True, '"one"'
    thread = threading.Thread(target=instance.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    instance.url = f"http://127.0.0.1:{instance.server_address[1]}"
    yield instance
    instance.shutdown()
    thread.join()
    instance.server_close()


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setattr(common, "DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("HOME", str(tmp_path / "nobody"))
    monkeypatch.delenv("MILLSTREAM_DATASET_MIRROR", raising=False)
    return tmp_path / "data"


def read(path):
    with open(path, "rb") as stream:
        return stream.read()


def test_downloads_once_and_leaves_only_the_file(server, home):
    path = common.download(server.url + "/a.bin", "m", MD5)
    assert path == str(home / "m" / "a.bin") and read(path) == BODY
    assert os.listdir(home / "m") == ["a.bin"]
    assert common.download(server.url + "/a.bin", "m", MD5) == path
    assert len(server.seen) == 1


def test_resumes_after_a_cut_connection(server):
    server.cuts = 2
    assert read(common.download(server.url + "/a.bin", "m", MD5)) == BODY
    half = len(BODY) // 2
    assert [r for _, r, _ in server.seen] == [
        None,
        f"bytes={half}-",
        f"bytes={half + half // 2}-",
    ]


def test_resumes_a_part_of_an_earlier_run(server, home):
    (home / "m").mkdir(parents=True)
    (home / "m" / "a.bin.part").write_bytes(BODY[:1000])
    assert read(common.download(server.url + "/a.bin", "m", MD5)) == BODY
    assert server.seen == [("/a.bin", "bytes=1000-", None)]


@pytest.mark.parametrize("left", [b"wrong beginning", BODY + b"surplus"])
def test_a_wrong_part_is_thrown_away(server, home, left):
    (home / "m").mkdir(parents=True)
    (home / "m" / "a.bin.part").write_bytes(left)
    assert read(common.download(server.url + "/a.bin", "m", MD5)) == BODY
    assert server.seen[-1][1] is None


def test_a_complete_part_needs_no_transfer(server, home):
    (home / "m").mkdir(parents=True)
    (home / "m" / "a.bin.part").write_bytes(BODY)
    assert read(common.download(server.url + "/a.bin", "m", MD5)) == BODY


def test_server_without_ranges(server):
    server.ranges, server.cuts = False, 1
    assert read(common.download(server.url + "/a.bin", "m", MD5)) == BODY


def test_without_checksum_only_the_same_file_is_continued(server, home):
    server.cuts = 1
    path = common.download(server.url + "/a.bin", "m", None)
    assert read(path) == BODY
    assert server.seen[1][2] == '"one"'
    assert read(path + ".md5").split()[0].decode() == MD5
    with open(path, "ab") as stream:
        stream.write(b"tampered")
    assert read(common.download(server.url + "/a.bin", "m", None)) == BODY


def test_bad_checksum_names_everything(server, home):
    with pytest.raises(DatasetError) as caught:
        common.download(server.url + "/a.bin", "m", "0" * 32)
    text = str(caught.value)
    for part in ("a.bin", str(home / "m"), server.url, MD5, "0" * 32, "MILLSTREAM_DATA_HOME"):
        assert part in text
    assert not (home / "m" / "a.bin").exists()
    assert isinstance(caught.value, RuntimeError)


def test_wrong_file_on_disk_survives_a_failed_download(server, home):
    (home / "m").mkdir(parents=True)
    (home / "m" / "a.bin").write_bytes(b"mine")
    with pytest.raises(DatasetError, match="its MD5 is"):
        common.download(server.url + "/none", "m", MD5, "a.bin")
    assert (home / "m" / "a.bin").read_bytes() == b"mine"
    assert read(common.download(server.url + "/a.bin", "m", MD5)) == BODY


def test_mirror_is_tried_first(server, monkeypatch):
    server.files["/mirror/m/a.bin"] = BODY
    monkeypatch.setenv("MILLSTREAM_DATASET_MIRROR", f"{server.url}/empty, {server.url}/mirror/")
    common.download("http://127.0.0.1:1/x%2Fa.bin", "m", MD5)
    assert [p for p, _, _ in server.seen] == ["/empty/m/a.bin", "/mirror/m/a.bin"]


def test_file_mirror_and_unsupported_scheme(tmp_path, monkeypatch):
    (tmp_path / "share" / "m").mkdir(parents=True)
    (tmp_path / "share" / "m" / "a.bin").write_bytes(BODY)
    monkeypatch.setenv("MILLSTREAM_DATASET_MIRROR", (tmp_path / "share").as_uri())
    assert read(common.download("ftp://127.0.0.1/a.bin", "m", MD5)) == BODY
    monkeypatch.delenv("MILLSTREAM_DATASET_MIRROR")
    with pytest.raises(DatasetError, match="only http"):
        common.download("ftp://127.0.0.1/b.bin", "m", MD5)


def test_offline_file_under_either_name(home):
    (home / "m").mkdir(parents=True)
    (home / "m" / "x%2Fa.bin").write_bytes(BODY)
    path = common.download("http://127.0.0.1:1/x%2Fa.bin", "m", MD5)
    assert os.path.basename(path) == "x%2Fa.bin"


def test_foreign_folder_needs_a_checksum(tmp_path):
    folder = tmp_path / "nobody" / ".cache" / "paddle" / "dataset" / "m"
    folder.mkdir(parents=True)
    (folder / "a.bin").write_bytes(BODY)
    assert common.download("http://127.0.0.1:1/a.bin", "m", MD5) == str(folder / "a.bin")
    with pytest.raises(DatasetError):
        common.download("http://127.0.0.1:1/a.bin", "m", None)


def test_two_downloads_at_once_share_one_transfer(server):
    paths = []

    def work():
        paths.append(common.download(server.url + "/a.bin", "m", MD5))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(paths)) == 1 and len(paths) == 4 and len(server.seen) == 1


@pytest.mark.parametrize("name", ["../a", "a/b", ".."])
def test_names_cannot_leave_the_folder(name):
    with pytest.raises(ValueError):
        common.download("http://127.0.0.1:1/a", "m", MD5, name)


def test_settings():
    values = read_settings({"DATA_HOME": "/d", "MILLSTREAM_DATASET_MIRROR": "http://a/ http://b"})
    assert str(values.data_home) == "/d" and values.mirrors == ("http://a", "http://b")
    with pytest.raises(ValueError):
        read_settings({"MILLSTREAM_DATASET_TIMEOUT": "soon"})


@pytest.mark.parametrize("name", ["../evil", "/evil", "a/../../evil", "link"])
def test_extraction_stays_inside(tmp_path, name):
    path = tmp_path / "t.tar"
    with tarfile.open(path, "w") as tar:
        info = tarfile.TarInfo(name)
        if name == "link":
            info.type, info.linkname = tarfile.SYMTYPE, "/etc"
        tar.addfile(info, io.BytesIO())
    with pytest.raises(FileFormatError):
        archives.extract_tar(path, tmp_path / "out")
    assert not (tmp_path / "evil").exists()
