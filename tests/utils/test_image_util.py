"""paddle.utils.image_util: figures of 1.8.5 where it runs on Python 3, else what the names say."""

import io

import numpy as np
import pytest

from millstream.utils import image_util

Image = pytest.importorskip("PIL.Image")
PIXELS = (np.arange(6 * 8 * 3) % 251).astype("uint8").reshape(6, 8, 3)
PICTURE = PIXELS.transpose(2, 0, 1).astype("float32")


def test_sizes():
    small = image_util.resize_image(Image.fromarray(PIXELS), 3)
    assert small.size == (4, 3) and abs(np.asarray(small).ravel()[:3].astype(int) - [14, 15, 16]).max() <= 1
    assert image_util.flip(PICTURE)[0, 0].tolist() == [21, 18, 15, 12, 9, 6, 3, 0]
    ten = image_util.oversample([PIXELS, PIXELS], (3, 4))
    assert ten.shape == (20, 3, 4, 3) and ten.dtype == np.float32
    assert (ten[4] == PIXELS[1:4, 2:6]).all() and (ten[9] == PIXELS[1:4, 2:6][:, ::-1]).all()


def test_crops():
    assert (image_util.crop_img(PICTURE, 4) == PICTURE[:, 1:5, 2:6]).all()
    padded = image_util.crop_img(PICTURE[0], 8, color=False)
    assert (padded[1:7] == PICTURE[0]).all() and not padded[[0, 7]].any()
    windows = [PICTURE[:, y : y + 4, x : x + 4] for y in range(3) for x in range(5)]
    for _ in range(20):
        crop = image_util.crop_img(PICTURE, 4, test=False)
        assert any((crop == w).all() or (crop == w[:, :, ::-1]).all() for w in windows)
    with pytest.raises(ValueError, match="a colour picture has 3 dims"):
        image_util.crop_img(PICTURE[0], 4)
    row = image_util.preprocess_img(PICTURE, np.ones(48), 4, is_train=False)
    assert row.shape == (48,) and (row == PICTURE[:, 1:5, 2:6].ravel() - 1).all()


def test_files(tmp_path):
    path = str(tmp_path / "a.png")
    Image.fromarray(PIXELS).save(path)
    assert (np.asarray(image_util.load_image(path)) == PIXELS).all()
    data = io.BytesIO()
    Image.fromarray(PIXELS).save(data, "PNG")
    assert (image_util.decode_jpeg(data.getvalue()) == PIXELS.transpose(2, 0, 1)).all()
    np.savez(tmp_path / "mean.npz", data_mean=np.arange(108.0))
    mean = image_util.load_meta(str(tmp_path / "mean.npz"), 6, 4)
    assert (mean == np.arange(108.0).reshape(3, 6, 6)[:, 1:5, 1:5]).all()
    with pytest.raises(ValueError, match="expected 1 x 6 x 6 numbers, got 108"):
        image_util.load_meta(str(tmp_path / "mean.npz"), 6, 4, color=False)


def test_transformer():
    done = image_util.ImageTransformer((2, 0, 1), (2, 1, 0), np.array([1.0, 2.0, 3.0])).transformer(PIXELS.astype("float32"))
    assert done.shape == (3, 6, 8) and done[0, 0].tolist() == [1, 4, 7, 10, 13, 16, 19, 22]
    whole = image_util.ImageTransformer(mean=PIXELS.astype("float32")).transformer(PIXELS.astype("float32"))
    assert not whole.any()
    for wrong in ({"transpose": (1, 0)}, {"mean": np.ones((4, 4))}):
        with pytest.raises(AssertionError, match="3 dim"):
            image_util.ImageTransformer(**wrong)
