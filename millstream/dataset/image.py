"""``paddle.dataset.image``: load, resize, crop and flip pictures.

Pictures are uint8 arrays [height, width, 3] with channels in the order blue, green, red
(OpenCV's, which Fluid's models expect), or [height, width] in grey. Decoding needs Pillow or
OpenCV; everything else is NumPy.
"""

from __future__ import annotations

import io
import os
import pickle
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..errors import FileFormatError, NotSupportedError
from .archives import iterate_members

_ANY = re.compile("")

__all__ = [
    "batch_images_from_tar",
    "center_crop",
    "decode",
    "left_right_flip",
    "load_and_transform",
    "load_image",
    "load_image_bytes",
    "random_crop",
    "resize_short",
    "simple_transform",
    "to_chw",
]


def decode(data: bytes) -> np.ndarray:
    """Pixels as the file stores them: RGB, grey, or palette indices. Needs Pillow."""
    try:
        from PIL import Image
    except ImportError as error:
        raise NotSupportedError(
            "reading this picture needs Pillow, which is not installed. Hint: pip install pillow"
        ) from error
    try:
        with Image.open(io.BytesIO(data)) as picture:
            return np.array(picture)
    except OSError as error:
        raise FileFormatError(f"not a picture in a known format: {error}") from error


def load_image_bytes(bytes: bytes, is_color: bool = True) -> np.ndarray:
    """Decode an encoded picture to [h, w, 3] BGR, or [h, w] grey. Needs Pillow or OpenCV."""
    try:
        from PIL import Image
    except ImportError:
        return _decode_opencv(bytes, is_color)
    try:
        with Image.open(io.BytesIO(bytes)) as picture:
            if not is_color:
                return np.array(picture.convert("L"))
            return np.ascontiguousarray(np.array(picture.convert("RGB"))[:, :, ::-1])
    except OSError as error:
        raise FileFormatError(f"not a picture in a known format: {error}") from error


def _decode_opencv(data: bytes, is_color: bool) -> np.ndarray:
    try:
        import cv2
    except ImportError as error:
        raise NotSupportedError(
            "decoding pictures needs Pillow or OpenCV, neither is installed. Hint: pip install pillow"
        ) from error
    picture = cv2.imdecode(np.frombuffer(data, np.uint8), 1 if is_color else 0)
    if picture is None:
        raise FileFormatError("not a picture in a known format")
    return picture


def load_image(file: str, is_color: bool = True) -> np.ndarray:
    """:func:`load_image_bytes` of a file."""
    with open(file, "rb") as stream:
        return load_image_bytes(stream.read(), is_color)


def _cubic_taps(old: int, new: int) -> tuple[np.ndarray, np.ndarray]:
    """Source indices and weights, each [new, 4], of cubic convolution (Keys, 1981; a = -0.75).

    Sample positions are pixel centres; positions outside the picture repeat its edge.
    """
    a = np.float32(-0.75)
    scale = old / new
    centre = ((np.arange(new) + 0.5) * scale - 0.5).astype(np.float32)
    base = np.floor(centre).astype(np.int64)
    x = (centre - base).astype(np.float32)
    w0 = ((a * (x + 1) - 5 * a) * (x + 1) + 8 * a) * (x + 1) - 4 * a
    w1 = ((a + 2) * x - (a + 3)) * x * x + 1
    y = 1 - x
    w2 = ((a + 2) * y - (a + 3)) * y * y + 1
    weights = np.stack([w0, w1, w2, 1 - w0 - w1 - w2], axis=1)
    indices = np.clip(base[:, None] + np.arange(-1, 3), 0, old - 1)
    return indices, weights


def _resize_cubic(im: np.ndarray, height: int, width: int) -> np.ndarray:
    rows, row_weights = _cubic_taps(im.shape[0], height)
    cols, col_weights = _cubic_taps(im.shape[1], width)
    if im.dtype == np.uint8:
        # 11-bit fixed point in each direction, as is usual for 8-bit pictures.
        row_weights = np.rint(row_weights * 2048).astype(np.int32)
        col_weights = np.rint(col_weights * 2048).astype(np.int32)
        source = im.astype(np.int32)
    else:
        source = im.astype(np.float32)
    trailing = (1,) * (im.ndim - 2)
    wide = sum(source[:, cols[:, tap]] * col_weights[:, tap].reshape(1, -1, *trailing) for tap in range(4))
    tall = sum(wide[rows[:, tap]] * row_weights[:, tap].reshape(-1, 1, *trailing) for tap in range(4))
    if im.dtype == np.uint8:
        return np.clip((tall + (1 << 21)) >> 22, 0, 255).astype(np.uint8)
    return tall.astype(im.dtype)


def resize_short(im: np.ndarray, size: int) -> np.ndarray:
    """Resize with cubic interpolation so that the shorter edge is `size`."""
    height, width = im.shape[:2]
    if height > width:
        return _resize_cubic(im, size * height // width, size)
    return _resize_cubic(im, size, size * width // height)


def to_chw(im: np.ndarray, order: tuple[int, ...] = (2, 0, 1)) -> np.ndarray:
    """Transpose [h, w, c] to [c, h, w]."""
    if im.ndim != len(order):
        raise AssertionError(f"to_chw: expected {len(order)} dimensions, got shape {im.shape}")
    return im.transpose(order)


def _crop(im: np.ndarray, top: int, left: int, size: int, is_color: bool) -> np.ndarray:
    if is_color and im.ndim != 3:
        raise ValueError(f"is_color=True needs a picture [h, w, c], got shape {im.shape}")
    return im[top : top + size, left : left + size]


def center_crop(im: np.ndarray, size: int, is_color: bool = True) -> np.ndarray:
    """The `size` x `size` square in the middle."""
    height, width = im.shape[:2]
    return _crop(im, (height - size) // 2, (width - size) // 2, size, is_color)


def random_crop(im: np.ndarray, size: int, is_color: bool = True) -> np.ndarray:
    """A `size` x `size` square at a place drawn from ``np.random``."""
    height, width = im.shape[:2]
    top = np.random.randint(0, height - size + 1)
    left = np.random.randint(0, width - size + 1)
    return _crop(im, top, left, size, is_color)


def left_right_flip(im: np.ndarray, is_color: bool = True) -> np.ndarray:
    """Mirror image."""
    return im[:, ::-1]


def simple_transform(
    im: np.ndarray,
    resize_size: int,
    crop_size: int,
    is_train: bool,
    is_color: bool = True,
    mean: Any = None,
) -> np.ndarray:
    """Resize, crop (random and perhaps mirrored when training), to float32 [c, h, w], - mean.

    `mean` is one value for each channel, or an array of the result's shape.
    """
    im = resize_short(im, resize_size)
    if is_train:
        im = random_crop(im, crop_size, is_color=is_color)
        if np.random.randint(2) == 0:
            im = left_right_flip(im, is_color)
    else:
        im = center_crop(im, crop_size, is_color=is_color)
    if im.ndim == 3:
        im = to_chw(im)
    im = im.astype("float32")
    if mean is not None:
        mean = np.array(mean, dtype=np.float32)
        im -= mean[:, None, None] if mean.ndim == 1 and is_color else mean
    return im


def load_and_transform(
    filename: str,
    resize_size: int,
    crop_size: int,
    is_train: bool,
    is_color: bool = True,
    mean: Any = None,
) -> np.ndarray:
    """:func:`load_image`, then :func:`simple_transform`."""
    im = load_image(filename, is_color)
    return simple_transform(im, resize_size, crop_size, is_train, is_color, mean)


def batch_images_from_tar(data_file: str, dataset_name: str, img2label: Mapping[str, int], num_per_batch: int = 1024) -> str:
    """Write the encoded pictures named in `img2label` as pickled batches beside the archive.

    Each batch is ``{"label": [...], "data": [bytes, ...]}``, readable with
    ``millstream.files.unpickle.read_pickle``. Returns the path of a text file that lists the batch files.
    """
    folder = f"{data_file}_batch"
    out = os.path.join(folder, dataset_name)
    listing = os.path.join(folder, f"{dataset_name}.txt")
    if os.path.exists(listing):
        return listing
    os.makedirs(out, exist_ok=True)
    labels: list[int] = []
    data: list[bytes] = []
    paths: list[str] = []

    def flush() -> None:
        path = os.path.join(out, f"batch_{len(paths)}")
        with open(path, "wb") as stream:
            pickle.dump({"label": list(labels), "data": list(data)}, stream, protocol=2)
        paths.append(os.path.abspath(path))
        labels.clear()
        data.clear()

    for name, contents in iterate_members(data_file, _ANY):
        if name in img2label:
            labels.append(int(img2label[name]))
            data.append(contents)
            if len(data) == num_per_batch:
                flush()
    if data:
        flush()
    # The listing is what marks the batches complete: it comes last and whole.
    with open(listing + ".part", "w") as text:
        text.writelines(path + "\n" for path in paths)
    os.replace(listing + ".part", listing)
    return listing
