"""Each loader on small files in its real format; figures recorded from Fluid 1.8.5 on them."""

import itertools
import os
import re
import struct

import numpy as np
import pytest
import tiny_files

from millstream.batch import batch
from millstream.dataset import (
    cifar,
    common,
    conll05,
    digits,
    flowers,
    image,
    imdb,
    imikolov,
    mat5,
    mnist,
    movielens,
    mq2007,
    sentiment,
    uci_housing,
    voc2012,
    wmt14,
    wmt16,
)
from millstream.errors import DatasetError, FileFormatError


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A data home whose synthetic files pass for the real ones (their checksums are not)."""
    real = common.download
    monkeypatch.setattr(common, "DATA_HOME", str(tmp_path))

    def unchecked(url, module_name, md5sum, save_name=None):
        assert re.fullmatch("[0-9a-f]{32}", md5sum)
        return real("http://127.0.0.1:1/" + url.split("/")[-1], module_name, None, save_name)

    monkeypatch.setattr(common, "download", unchecked)
    return tmp_path


def take(reader):
    return list(reader())


def test_mnist(home):
    tiny_files.mnist(home, rows=130, test_rows=3)
    train, test = take(mnist.train()), take(mnist.test())
    assert len(train) == 130 and len(test) == 3
    pixels, label = train[0]
    assert pixels.dtype == np.float32 and pixels.shape == (784,) and type(label) is int
    assert all(x.min() >= -1 and x.max() <= 1 for x, _ in train)
    # Fluid's first pixels for the seed of tiny_files.
    first = [0.3490196, -0.6313726, -0.0823529, 0.5058824, -0.4745098, 0.9686275]
    np.testing.assert_allclose(take(mnist.train())[0][0][:6], first, atol=1e-6)


def test_mnist_damaged(home):
    tiny_files.mnist(home, rows=4, test_rows=3)
    images = str(home / "mnist" / "train-images-idx3-ubyte.gz")
    labels = str(home / "mnist" / "t10k-labels-idx1-ubyte.gz")
    with pytest.raises(FileFormatError, match="4 images"):
        take(mnist.reader_creator(images, labels, 2))
    with pytest.raises(FileFormatError, match=r"IDX|ends after"):
        take(mnist.reader_creator(labels, images, 2))


def test_cifar(home):
    tiny_files.cifar(home)
    ten = take(cifar.train10())
    assert [label for _, label in ten] == [3, 4, 5, 7]
    assert ten[0][0].dtype == np.float32 and ten[0][0].shape == (3072,)
    assert round(float(ten[0][0].sum()), 3) == 1542.584
    assert [label for _, label in take(cifar.test10())] == [8, 6, 7]
    assert [label for _, label in take(cifar.train100())] == [1, 1, 3, 4]
    assert [label for _, label in take(cifar.test100())] == [0, 2]
    assert len(list(itertools.islice(cifar.test10(cycle=True)(), 8))) == 8


def test_imdb(home):
    tiny_files.imdb(home)
    pattern = re.compile(r"aclImdb/((train)|(test))/((pos)|(neg))/.*\.txt$")
    words = imdb.build_dict(pattern, 0)
    order = b"great the film a bad was badbr best fun its rest worst".split()
    assert list(words) == [*order, "<unk>"]
    assert list(words.values()) == list(range(13))
    assert words["film"] == words[b"film"] == 2 and "film" in words and words.get("no") is None
    assert take(imdb.train(words)) == [
        ([3, 0, 0, 2], 0),
        ([0, 8, 9, 1, 7], 0),
        ([3, 4, 4, 2, 1, 11], 1),
    ]
    assert take(imdb.test(words)) == [([1, 2, 5, 0], 0), ([1, 10, 5, 6], 1)]
    assert imdb.word_dict() == {"<unk>": 0}
    # A plain dictionary with text keys works as well.
    plain = {"great": 0, "<unk>": 1}
    assert take(imdb.train(plain))[0] == ([1, 0, 0, 1], 0)


def test_imikolov(home):
    tiny_files.imikolov(home)
    words = imikolov.build_dict(0)
    assert list(words) == [
        b"the",
        "<e>",
        "<s>",
        b"cat",
        b"sat",
        b"a",
        b"dog",
        b"mat",
        b"on",
        "<unk>",
    ]
    assert len(imikolov.build_dict(2)) == 6
    grams = take(imikolov.train(words, 3))
    assert grams[:3] == [(2, 0, 3), (0, 3, 4), (3, 4, 8)] and len(grams) == 13
    assert take(imikolov.test(words, 5))[-1] == (2, 0, 7, 9, 1)
    assert take(imikolov.train(words, 5, imikolov.DataType.SEQ)) == [([2, 5, 3], [5, 3, 1])]
    assert len(take(imikolov.train(words, -1, imikolov.DataType.SEQ))) == 3
    with pytest.raises(AssertionError):
        imikolov.train(words, -1)
    with pytest.raises(AssertionError):
        imikolov.train(words, 2, 9)
    assert imikolov.word_count(["a b", "a"], {"a": 3}) == {"a": 5, "b": 1, "<s>": 2, "<e>": 2}


def test_uci_housing(home, monkeypatch):
    monkeypatch.setattr(uci_housing, "UCI_TRAIN_DATA", None)
    monkeypatch.setattr(uci_housing, "UCI_TEST_DATA", None)
    tiny_files.uci_housing(home)
    train, test = take(uci_housing.train()), take(uci_housing.test())
    assert len(train) == 16 and len(test) == 4
    x, y = train[0]
    assert x.shape == (13,) and y.shape == (1,) and x.dtype == np.float64
    assert abs(x[0] + 0.0200028) < 1e-7 and y[0] == 51.3578
    (features,) = uci_housing.predict_reader()
    assert abs(features[0] + 0.4420464) < 1e-7
    table = np.array([x for x, _ in train + test])
    np.testing.assert_allclose(np.ptp(table, axis=0), 1)
    np.testing.assert_allclose(table.mean(axis=0), 0, atol=1e-12)


def test_movielens(home):
    tiny_files.movielens(home)
    assert movielens.get_movie_title_dict() == {"amélie": 0, "goldeneye": 1, "story": 2, "toy": 3}
    assert movielens.movie_categories()["Comedy"] == 3
    limits = (movielens.max_movie_id(), movielens.max_user_id(), movielens.max_job_id())
    assert limits == (7, 5, 20)
    assert movielens.user_info()[2].value() == [2, 0, 6, 16]
    assert movielens.movie_info()[1].value() == [1, [1, 2, 3], [3, 2]]
    assert str(movielens.user_info()[1]) == "<UserInfo id(1), gender(F), age(1), job(10)>"
    train, test = take(movielens.train()), take(movielens.test())
    assert (len(train), len(test)) == (55, 5)
    assert train[0] == [5, 0, 2, 20, 1, [1, 2, 3], [3, 2], [-1.0]]
    assert [row[-1] for row in test] == [[-3.0], [1.0], [-3.0], [3.0], [3.0]]
    assert len(take(movielens.train(test_ratio=0.5, rand_seed=3))) == 26
    with pytest.raises(TypeError):
        movielens.train(seed=1)


def test_conll05(home):
    tiny_files.conll05(home)
    _, _, labels = conll05.get_dict()
    assert labels == {"B-A0": 0, "I-A0": 1, "B-A1": 2, "I-A1": 3, "B-V": 4, "I-V": 5, "O": 6}
    samples = take(conll05.test())
    assert samples[0] == (
        [3, 4, 0, 5, 6, 0, 0, 7],
        [3] * 8,
        [4] * 8,
        [0] * 8,
        [5] * 8,
        [6] * 8,
        [0] * 8,
        [1, 1, 1, 1, 1, 0, 0, 0],
        [0, 1, 4, 2, 3, 6, 6, 6],
    )
    assert samples[1][5] == [2] * 8 and samples[1][7] == [0, 0, 0, 0, 1, 1, 1, 1]
    last = ([9, 8], [1, 1], [9, 9], [8, 8], [2, 2], [2, 2], [2, 2], [1, 1], [0, 4])
    assert samples[2:] == [last]
    assert os.path.basename(conll05.get_embedding()) == "emb"


def test_sentiment(home, monkeypatch):
    tiny_files.sentiment(home)
    words = sentiment.get_word_dict()
    assert [w for w, _ in words[:8]] == ["film", "a", "bad", "good", "(", ")", ",", "it"]
    assert sentiment.sort_files()[:3] == ["neg/cv000_2.txt", "pos/cv000_1.txt", "neg/cv001_2.txt"]
    assert next(iter(sentiment.train())) == ([1, 2, 0, 4, 14, 5, 2, 0], 0)
    assert len(take(batch(sentiment.train, 3))) == 3 and list(sentiment.test()) == []
    monkeypatch.setattr(sentiment, "NUM_TRAINING_INSTANCES", 6)
    assert [label for _, label in sentiment.test()] == [0, 1]


def test_wmt14(home):
    tiny_files.wmt14(home)
    assert take(wmt14.train(6)) == [
        ([0, 3, 4, 2, 1], [0, 3, 4, 2], [3, 4, 2, 1]),
        ([0, 2, 5, 1], [0, 2, 5], [2, 5, 1]),
    ]
    assert take(wmt14.test(6)) == [([0, 3, 5, 1], [0, 3, 5], [3, 5, 1])]
    assert take(wmt14.gen(6)) == [([0, 2, 4, 1], [0, 2, 4], [2, 4, 1])]
    source, target = wmt14.get_dict(4)
    assert source == {0: "<s>", 1: "<e>", 2: "<unk>", 3: "le"} and target[3] == "the"
    assert wmt14.get_dict(60, reverse=False)[0]["un"] == 6


def test_wmt16(home):
    tiny_files.wmt16(home)
    assert take(wmt16.train(6, 7)) == [
        ([0, 3, 4, 5, 1], [0, 3, 4, 5], [3, 4, 5, 1]),
        ([0, 3, 2, 5, 1], [0, 6, 2, 5], [6, 2, 5, 1]),
        ([0, 3, 4, 1], [0, 3, 4], [3, 4, 1]),
    ]
    assert take(wmt16.test(6, 7, "de")) == [([0, 2, 2, 1], [0, 3, 6], [3, 6, 1])]
    assert take(wmt16.validation(6, 7)) == [([0, 3, 2, 5, 1], [0, 3, 2, 5], [3, 2, 5, 1])]
    assert wmt16.get_dict("en", 5) == {"<s>": 0, "<e>": 1, "<unk>": 2, "a": 3, "dog": 4}
    assert wmt16.get_dict("de", 4, reverse=True)[3] == "ein"
    with pytest.raises(ValueError):
        wmt16.get_dict("fr", 5)


def test_mq2007(home):
    tiny_files.mq2007(home)
    documents = mq2007.load_from_text("MQ2007/MQ2007/Fold1/train.txt")
    assert [[d.relevance_score for d in q] for q in documents] == [[2, 0, 1], [0, 0], [1, 2]]
    first = documents[0][0]
    assert first.query_id == 10 and first.description == "docid = GX010-0 inc = 1 prob = 0.5"
    assert [score for score, _ in mq2007.gen_point(documents[0])] == [2, 1, 0]
    assert len(list(mq2007.gen_pair(documents[0]))) == 3
    assert len(list(mq2007.gen_pair(documents[0], "neighbour"))) == 2
    assert len(mq2007.query_filter(documents)) == 2
    label, left, right = next(mq2007.test())
    assert label.tolist() == [1] and left.shape == right.shape == (46,)
    assert (left[0], right[0]) == (0.532229, 0.724397)
    scores, features = next(mq2007.train(format="listwise"))
    assert scores.ravel().tolist() == [2, 1, 0] and features.shape == (3, 46)
    assert len(list(mq2007.train(format="plain_txt"))) == 5
    with pytest.raises(ValueError):
        list(mq2007.train(format="bad"))
    path = home / "short.txt"
    path.write_text("1 qid:3 2:0.5 #x\n")
    short = mq2007.load_from_text(str(path), fill_missing=-7)[0][0]
    assert short.feature_vector[:3] == [-7, 0.5, -7]
    path.write_text("1 qid:3 47:0.5\n")
    with pytest.raises(FileFormatError, match="line 1"):
        mq2007.load_from_text(str(path))


def raw_picture(seed):
    pixels = np.random.RandomState(seed).randint(0, 256, size=(300, 260, 3)).astype("uint8")
    return pixels.tobytes()


def decode_raw(data, is_color=True):
    return np.frombuffer(data, "uint8").reshape(300, 260, 3)[:, :, ::-1]


def test_flowers(home, monkeypatch):
    tiny_files.flowers(home, raw_picture)
    monkeypatch.setattr(flowers, "load_image_bytes", decode_raw)
    test = take(flowers.test(use_xmap=False))
    assert [label for _, label in test] == [4, 2]
    assert test[0][0].shape == (3 * 224 * 224,) and test[0][0].dtype == np.float32
    # Fluid (OpenCV) on the same pixels.
    assert np.allclose(test[0][0][:3], [28.06, -93.94, -26.94], atol=1.01)
    assert abs(test[0][0].sum() - 1914937.529) < 1000
    assert [label for _, label in take(flowers.train(use_xmap=False))] == [2, 0, 8]
    assert take(flowers.valid())[0][1] == 101
    assert sorted(label for _, label in take(flowers.test())) == [2, 4]
    cycled = itertools.islice(flowers.test(lambda s: s[1], cycle=True)(), 8)
    assert len(list(cycled)) == 8


def test_voc2012(home, monkeypatch):
    tiny_files.voc2012(home, raw_picture, raw_picture)
    monkeypatch.setattr(voc2012, "decode", decode_raw)
    assert len(take(voc2012.train())) == 2 and len(take(voc2012.test())) == 1
    picture, label = take(voc2012.val())[0]
    np.testing.assert_array_equal(picture, label)
    np.testing.assert_array_equal(picture, decode_raw(raw_picture(1)))


def test_image_functions(tmp_path):
    im = np.random.RandomState(9).randint(0, 256, size=(300, 260, 3)).astype("uint8")
    # Sums recorded from OpenCV's cubic interpolation.
    for size, shape, total in ((256, (295, 256, 3), 28894863), (100, (115, 100, 3), 4394698)):
        got = image.resize_short(im, size)
        assert got.shape == shape and abs(int(got.sum()) - total) < 20
    assert image.resize_short(im[..., 0], 111).shape == (128, 111)
    assert int(image.center_crop(im, 100).sum()) == 3824801
    assert image.to_chw(im).shape == (3, 300, 260)
    np.testing.assert_array_equal(image.left_right_flip(im)[:, 0], im[:, -1])
    np.random.seed(1)
    assert int(image.random_crop(im, 100).sum()) == 3832114
    out = image.simple_transform(im, 256, 224, False, mean=[1.0, 2.0, 3.0])
    assert out.shape == (3, 224, 224) and out.dtype == np.float32
    assert abs(float(out.sum()) - 18901536) < 20
    assert image.simple_transform(im[..., 0], 256, 224, False, False).shape == (224, 224)
    with pytest.raises(AssertionError):
        image.to_chw(im[..., 0])


def test_batch_images_from_tar(home):
    from millstream.files.unpickle import read_pickle

    tiny_files.flowers(home, raw_picture)
    labels = {f"jpg/image_{i:05d}.jpg": i for i in (1, 2, 3)}
    archive = str(home / "flowers" / "102flowers.tgz")
    listing = image.batch_images_from_tar(archive, "mine", labels, 2)
    with open(listing) as stream:
        paths = stream.read().split()
    batches = []
    for path in paths:
        with open(path, "rb") as stream:
            batches.append(read_pickle(stream))
    assert [b["label"] for b in batches] == [[1, 2], [3]]
    assert batches[1]["data"] == [raw_picture(3)]


def test_mat5_damaged(tmp_path):
    path = tmp_path / "x.mat"
    path.write_bytes(b"\0" * 200)
    with pytest.raises(FileFormatError):
        mat5.load_mat(path)
    path.write_bytes(b" " * 126 + b"IM" + struct.pack("<II", 15, 4) + b"abcd")
    with pytest.raises(FileFormatError):
        mat5.load_mat(path)


def test_mat5_small_elements_and_order(tmp_path):
    scipy_io = pytest.importorskip("scipy.io")
    path = tmp_path / "x.mat"
    want = {"a": np.arange(6.0).reshape(2, 3), "b": np.array([[1, 2]], "uint8"), "t": "text"}
    for compress in (False, True):
        scipy_io.savemat(path, want, do_compression=compress)
        got = mat5.load_mat(path)
        assert sorted(got) == ["a", "b"]
        for name, value in got.items():
            np.testing.assert_array_equal(value, want[name])
            assert value.dtype == np.asarray(want[name]).dtype


def test_digits():
    pytest.importorskip("sklearn")
    train, test = take(digits.train()), take(digits.test())
    assert len(train) + len(test) == 1797 and 340 <= len(test) <= 360
    pixels, label = train[0]
    assert pixels.dtype == np.float32 and pixels.shape == (64,) and type(label) is int
    everything = np.array([x for x, _ in train + test])
    assert everything.min() == -1 and everything.max() == 1
    share = np.bincount([y for _, y in test]) / np.bincount([y for _, y in train + test])
    assert np.all(abs(share - 0.2) < 0.01)
    again = take(digits.train())
    assert all(np.array_equal(a[0], b[0]) for a, b in zip(train, again, strict=True))
    assert {label for _, label in train[:64]} == set(range(10))


def test_missing_file_says_where_to_put_it(tmp_path, monkeypatch):
    monkeypatch.setattr(common, "DATA_HOME", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(mnist, "TRAIN_IMAGE_URL", "http://127.0.0.1:1/train-images-idx3-ubyte.gz")
    with pytest.raises(DatasetError, match=r"train-images-idx3-ubyte\.gz") as caught:
        mnist.train()
    assert str(tmp_path / "mnist") in str(caught.value)
