# ruff: noqa: UP031 (file contents in the printf formats their producers used)
"""Small synthetic files in the real formats of the datasets, written under a data home.

Each function writes the files of one dataset below `home/<module>/` under the names the
loaders look for and returns nothing; every value is derived from a fixed seed.
"""

import gzip
import io
import os
import pickle
import struct
import tarfile
import zipfile
import zlib

import numpy as np


def _folder(home, module):
    path = os.path.join(str(home), module)
    os.makedirs(path, exist_ok=True)
    return path


def _write_tar(path, members, mode="w:gz"):
    with tarfile.open(path, mode) as tar:
        for name, payload in members:
            info = tarfile.TarInfo(name)
            info.size = len(payload)
            tar.addfile(info, io.BytesIO(payload))


def _gzip_text(text):
    return gzip.compress(text.encode())


def mnist(home, rows=200, test_rows=100):
    """The four IDX files."""
    folder = _folder(home, "mnist")
    rng = np.random.RandomState(0)
    for prefix, count in (("train", rows), ("t10k", test_rows)):
        images = rng.randint(0, 256, size=(count, 28, 28)).astype("uint8")
        labels = rng.randint(0, 10, size=count).astype("uint8")
        with gzip.open(os.path.join(folder, prefix + "-images-idx3-ubyte.gz"), "wb") as f:
            f.write(struct.pack(">IIII", 2051, count, 28, 28) + images.tobytes())
        with gzip.open(os.path.join(folder, prefix + "-labels-idx1-ubyte.gz"), "wb") as f:
            f.write(struct.pack(">II", 2049, count) + labels.tobytes())


def cifar(home):
    """Both CIFAR archives as Python 2 style pickles (bytes keys, protocol 2)."""
    folder = _folder(home, "cifar")
    rng = np.random.RandomState(1)

    def batch(count, label_key):
        data = rng.randint(0, 256, size=(count, 3072)).astype("uint8")
        labels = [int(v) for v in rng.randint(0, 10, size=count)]
        return pickle.dumps({b"data": data, label_key: labels, b"batch_label": b"x"}, protocol=2)

    ten = [("cifar-10-batches-py/data_batch_%d" % i, batch(2, b"labels")) for i in (1, 2)]
    ten.append(("cifar-10-batches-py/test_batch", batch(3, b"labels")))
    ten.append(("cifar-10-batches-py/readme.html", b"text"))
    _write_tar(os.path.join(folder, "cifar-10-python.tar.gz"), ten)
    hundred = [
        ("cifar-100-python/train", batch(4, b"fine_labels")),
        ("cifar-100-python/test", batch(2, b"fine_labels")),
    ]
    _write_tar(os.path.join(folder, "cifar-100-python.tar.gz"), hundred)


def imdb(home):
    folder = _folder(home, "imdb")
    texts = {
        "aclImdb/train/pos/0_9.txt": "A great, great film!\n",
        "aclImdb/train/pos/1_8.txt": "Great fun; it's the best.",
        "aclImdb/train/neg/0_1.txt": "A bad bad film (the worst)...",
        "aclImdb/train/unsup/0_0.txt": "never counted here",
        "aclImdb/test/pos/0_10.txt": "the film was great",
        "aclImdb/test/neg/0_2.txt": "The rest was bad<br />",
    }
    _write_tar(os.path.join(folder, "aclImdb_v1.tar.gz"), [(k, v.encode()) for k, v in texts.items()])


def imikolov(home):
    folder = _folder(home, "imikolov")
    train = " the cat sat on the mat \n the dog <unk> sat the \n a cat \n"
    valid = " the dog sat on a cat \n the mat <unk> \n"
    members = [
        ("./simple-examples/data/ptb.train.txt", train.encode()),
        ("./simple-examples/data/ptb.valid.txt", valid.encode()),
        ("./simple-examples/data/ptb.test.txt", b" a dog \n"),
    ]
    _write_tar(os.path.join(folder, "simple-examples.tgz"), members)


def uci_housing(home, rows=20):
    folder = _folder(home, "uci_housing")
    table = np.random.RandomState(2).uniform(0, 100, size=(rows, 14))
    with open(os.path.join(folder, "housing.data"), "w") as f:
        for row in table:
            f.write(" " + "  ".join(f"{v:.4f}" for v in row) + "\n")


def movielens(home):
    folder = _folder(home, "movielens")
    movies = (
        "1::Toy Story (1995)::Animation|Children's|Comedy\n"
        "2::Am\xe9lie (2001)::Comedy|Romance\n"
        "7::GoldenEye (1995)::Action\n"
    )
    users = "1::F::1::10::48067\n2::M::56::16::70072\n5::M::25::20::55455\n"
    rng = np.random.RandomState(3)
    ratings = "".join(
        "%d::%d::%d::97830%04d\n" % (rng.choice([1, 2, 5]), rng.choice([1, 2, 7]), rng.randint(1, 6), i) for i in range(60)
    )
    with zipfile.ZipFile(os.path.join(folder, "ml-1m.zip"), "w") as z:
        z.writestr("ml-1m/movies.dat", movies.encode("latin1"))
        z.writestr("ml-1m/users.dat", users.encode("latin1"))
        z.writestr("ml-1m/ratings.dat", ratings.encode("latin1"))


def conll05(home):
    folder = _folder(home, "conll05st")
    words = "The\ncat\nchased\nthe\ndog\nand\nslept\n.\n\nDogs\nbark\n\nSilence\n.\n\n"
    props = (
        "-\t(A0*\t(A0*\n-\t*)\t*)\nchase\t(V*)\t*\n-\t(A1*\t*\n-\t*)\t*\n-\t*\t*\n"
        "sleep\t*\t(V*)\n-\t*\t*\n\n-\t(A0*)\nbark\t(V*)\n\n-\n-\n\n"
    )
    members = [
        ("conll05st-release/test.wsj/words/test.wsj.words.gz", _gzip_text(words)),
        ("conll05st-release/test.wsj/props/test.wsj.props.gz", _gzip_text(props)),
    ]
    _write_tar(os.path.join(folder, "conll05st-tests.tar.gz"), members)
    for name, lines in (
        ("wordDict.txt", ["<unk>", "bos", "eos", "The", "cat", "the", "dog", ".", "bark", "Dogs"]),
        ("verbDict.txt", ["chase", "sleep", "bark"]),
        ("targetDict.txt", ["B-A0", "I-A0", "B-A1", "I-A1", "B-V", "I-V", "O"]),
    ):
        with open(os.path.join(folder, name), "w") as f:
            f.write("\n".join(lines) + "\n")
    with open(os.path.join(folder, "emb"), "wb") as f:
        f.write(b"\0" * 16 + np.arange(20, dtype="float32").tobytes())


def sentiment(home):
    """movie_reviews.zip as NLTK ships it: pre-tokenised text by category."""
    folder = _folder(home, "corpora")
    with zipfile.ZipFile(os.path.join(folder, "movie_reviews.zip"), "w") as z:
        z.writestr("movie_reviews/README", "readme")
        for i in range(4):
            good = "a good film , it's number %d . \n very good !!" % i
            bad = "a bad film ( %d ) \n bad film" % i
            z.writestr("movie_reviews/pos/cv%03d_1.txt" % i, good)
            z.writestr("movie_reviews/neg/cv%03d_2.txt" % i, bad)


def wmt14(home):
    folder = _folder(home, "wmt14")
    marks = ["<s>", "<e>", "<unk>"]
    long_line = " ".join(["le"] * 90) + "\t" + " ".join(["the"] * 90) + "\n"
    pairs = "le chat dort\tthe cat sleeps\nun chien\ta dog\nbroken line\n" + long_line
    members = [
        ("train/src.dict", "\n".join(marks + ["le", "chat", "chien", "un"]).encode() + b"\n"),
        ("train/trg.dict", "\n".join(marks + ["the", "cat", "dog", "a"]).encode() + b"\n"),
        ("train/train", pairs.encode()),
        ("test/test", b"le chien\tthe dog\n"),
        ("gen/gen", b"un chat\ta cat\n"),
    ]
    _write_tar(os.path.join(folder, "wmt14.tgz"), members)


def wmt16(home):
    folder = _folder(home, "wmt16")
    train = "a dog runs\tein hund l\xe4uft\na cat runs\teine katze l\xe4uft\na dog\tein hund\nbad line without tab\n"
    members = [
        ("wmt16/train", train.encode("utf-8")),
        ("wmt16/test", b"a cat\teine katze\n"),
        ("wmt16/val", "a horse runs\tein pferd l\xe4uft\n".encode()),
    ]
    _write_tar(os.path.join(folder, "wmt16.tar.gz"), members)


def mq2007(home):
    folder = os.path.join(_folder(home, "MQ2007"), "MQ2007", "MQ2007", "Fold1")
    os.makedirs(folder, exist_ok=True)
    rng = np.random.RandomState(4)
    for name, relevances in (
        ("train.txt", {10: (2, 0, 1), 18: (0, 0), 30: (1, 2)}),
        ("test.txt", {44: (1, 0)}),
    ):
        with open(os.path.join(folder, name), "w") as f:
            for qid, scores in relevances.items():
                for doc, score in enumerate(scores):
                    parts = " ".join("%d:%.6f" % (i, rng.uniform()) for i in range(1, 47))
                    line = "%d qid:%d %s #docid = GX%03d-%d inc = 1 prob = 0.5\n"
                    f.write(line % (score, qid, parts, qid, doc))


def _mat5_matrix(name, values):
    """A MAT-5 file (compressed element) with one 1 x n uint8 (double class) matrix."""

    def element(kind, payload):
        return struct.pack("<II", kind, len(payload)) + payload + b"\0" * (-len(payload) % 8)

    flags = element(6, struct.pack("<II", 6, 0))
    dims = element(5, struct.pack("<ii", 1, len(values)))
    label = element(1, name.encode())
    data = element(4, np.asarray(values, dtype="<u2").tobytes())
    body = struct.pack("<II", 14, len(flags + dims + label + data)) + flags + dims + label + data
    packed = zlib.compress(body)
    return struct.pack("<II", 15, len(packed)) + packed


def _mat5_file(path, arrays):
    header = b"MATLAB 5.0 MAT-file".ljust(116) + b"\0" * 8 + struct.pack("<H", 0x0100) + b"IM"
    with open(path, "wb") as f:
        f.write(header + b"".join(_mat5_matrix(k, v) for k, v in arrays.items()))


def flowers(home, jpeg):
    """`jpeg(seed)` returns the bytes of an image file; six images are written."""
    folder = _folder(home, "flowers")
    members = [("jpg/image_%05d.jpg" % i, jpeg(i)) for i in range(1, 7)]
    _write_tar(os.path.join(folder, "102flowers.tgz"), members)
    _mat5_file(os.path.join(folder, "imagelabels.mat"), {"labels": [5, 3, 102, 3, 1, 9]})
    splits = {"trnid": [1, 2], "valid": [3], "tstid": [4, 5, 6]}
    _mat5_file(os.path.join(folder, "setid.mat"), splits)


def voc2012(home, jpeg, png):
    folder = _folder(home, "voc2012")
    root = "VOCdevkit/VOC2012/"
    lists = {"train": "2007_a\n", "val": "2007_b\n", "trainval": "2007_a\n2007_b\n"}
    members = [(root + f"ImageSets/Segmentation/{k}.txt", v.encode()) for k, v in lists.items()]
    for seed, name in enumerate(("2007_a", "2007_b")):
        members.append((root + f"JPEGImages/{name}.jpg", jpeg(seed)))
        members.append((root + f"SegmentationClass/{name}.png", png(seed)))
    _write_tar(os.path.join(folder, "VOCtrainval_11-May-2012.tar"), members, "w")
