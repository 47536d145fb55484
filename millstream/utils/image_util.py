"""``paddle.utils.image_util``: pictures as arrays [channels, height, width], as the first PaddlePaddle took them.

:mod:`paddle.dataset.image` is the newer one. Reading and resizing need Pillow.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np

from millstream.errors import InvalidProgramError, NotSupportedError

__all__ = [
    "ImageTransformer",
    "crop_img",
    "decode_jpeg",
    "flip",
    "load_image",
    "load_meta",
    "oversample",
    "preprocess_img",
    "resize_image",
]


def _pillow() -> Any:
    try:
        from PIL import Image
    except ImportError as error:
        raise NotSupportedError("image_util reads pictures with Pillow, which is missing: pip install pillow") from error
    return Image


def resize_image(img: Any, target_size: int) -> Any:
    """A Pillow picture whose shorter side is `target_size`; the ratio of the sides stays."""
    ratio = target_size / float(min(img.size))
    return img.resize((round(img.size[0] * ratio), round(img.size[1] * ratio)), _pillow().LANCZOS)


def flip(im: np.ndarray) -> np.ndarray:
    """`im` [C, H, W] or [H, W] from left to right."""
    return im[..., ::-1]


def crop_img(im: np.ndarray, inner_size: int, color: bool = True, test: bool = True) -> np.ndarray:
    """`inner_size` x `inner_size` pixels of `im` ([C, H, W]; [H, W] unless `color`), float32.

    From the centre with `test`, else from anywhere and by even chance from left to right (numpy's global generator). A
    smaller picture is first put in the middle of zeros.
    """
    height, width = im.shape[-2:]
    tall, wide = max(inner_size, height), max(inner_size, width)
    if im.ndim != (3 if color else 2):
        kind, dims = ("colour", 3) if color else ("grey", 2)
        raise InvalidProgramError(f"crop_img: a {kind} picture has {dims} dims, got {im.shape}")
    padded = np.zeros((*im.shape[:-2], tall, wide), "float32")
    y, x = (tall - height) // 2, (wide - width) // 2
    padded[..., y : y + height, x : x + width] = im
    if test:
        y, x = (tall - inner_size) // 2, (wide - inner_size) // 2
    else:
        y, x = np.random.randint(0, tall - inner_size + 1), np.random.randint(0, wide - inner_size + 1)
    found = padded[..., y : y + inner_size, x : x + inner_size]
    return flip(found) if not test and np.random.randint(2) == 0 else found


def decode_jpeg(jpeg_string: bytes) -> np.ndarray:
    """The pixels of an encoded picture, [C, H, W] uint8 ([H, W] when it is grey)."""
    pixels = np.array(_pillow().open(io.BytesIO(jpeg_string)))
    return np.transpose(pixels, (2, 0, 1)) if pixels.ndim == 3 else pixels


def preprocess_img(im: np.ndarray, img_mean: Any, crop_size: int, is_train: bool, color: bool = True) -> np.ndarray:
    """:func:`crop_img` (random when `is_train`) minus `img_mean`, as one row float32."""
    picture = crop_img(im.astype("float32"), crop_size, color, test=not is_train)
    return (picture - np.asarray(img_mean, "float32").reshape(picture.shape)).ravel()


def load_meta(meta_path: str, mean_img_size: int, crop_size: int, color: bool = True) -> np.ndarray:
    """The centre of the mean picture in the archive `meta_path` (numpy's .npz with ``data_mean``), float32.

    [3, crop_size, crop_size], or one channel less unless `color`. InvalidProgramError: it has another size.
    """
    with np.load(meta_path) as archive:
        mean = archive["data_mean"]
    channels = 3 if color else 1
    if mean.size != channels * mean_img_size**2:
        wanted = f"{channels} x {mean_img_size} x {mean_img_size}"
        raise InvalidProgramError(f"load_meta: expected {wanted} numbers, got {mean.size}")
    border = (mean_img_size - crop_size) // 2
    picture = mean.reshape(channels, mean_img_size, mean_img_size)
    picture = picture[:, border : border + crop_size, border : border + crop_size].astype("float32")
    return picture if color else picture[0]


def load_image(img_path: str, is_color: bool = True) -> Any:
    """The Pillow picture in a file, loaded; `is_color` has no meaning, as in 1.8.5 the file decides."""
    img = _pillow().open(img_path)
    img.load()
    return img


def oversample(img: Sequence[np.ndarray], crop_dims: Sequence[int]) -> np.ndarray:
    """Ten crops [height, width] of each picture [H, W, C]: four corners, the centre, and these from left to right.

    Returns [10 * pictures, height, width, C] float32.
    """
    high, wide = (int(d) for d in crop_dims)
    crops = []
    for picture in img:
        h, w = picture.shape[:2]
        corners = [(y, x) for y in (0, h - high) for x in (0, w - wide)] + [((h - high) // 2, (w - wide) // 2)]
        five = [picture[y : y + high, x : x + wide] for y, x in corners]
        crops += five + [c[:, ::-1] for c in five]
    return np.array(crops, "float32")


class ImageTransformer:
    """Moves dimensions, swaps channels and subtracts a mean.

    Args:
        transpose: order of the three dimensions. channel_swap: order of the channels (first dimension by then).
        mean: a number a channel, or a whole picture. is_color: pictures have channels.

    Raises InvalidProgramError: an argument does not fit.
    """

    def __init__(self, transpose: Any = None, channel_swap: Any = None, mean: Any = None, is_color: bool = True) -> None:
        self.is_color = is_color
        self.set_transpose(transpose)
        self.set_channel_swap(channel_swap)
        self.set_mean(mean)

    def set_transpose(self, order: Any) -> None:
        """See the class."""
        self.transpose = self._three(order, "transpose")

    def set_channel_swap(self, order: Any) -> None:
        """See the class."""
        self.channel_swap = self._three(order, "channel_swap")

    def _three(self, order: Any, what: str) -> tuple[int, ...] | None:
        if order is not None and self.is_color and len(order) != 3:
            raise InvalidProgramError(f"ImageTransformer: {what} of a colour picture names 3 dimensions, received {order}")
        return None if order is None else tuple(order)

    def set_mean(self, mean: Any) -> None:
        """See the class."""
        if mean is not None:
            mean = np.asarray(mean)
            if mean.ndim == 1:
                mean = mean[:, None, None]
            elif self.is_color and mean.ndim != 3:
                raise InvalidProgramError(f"ImageTransformer: the mean of colour pictures has 3 dims, received {mean.shape}")
        self.mean = mean

    def transformer(self, data: np.ndarray) -> np.ndarray:
        """`data` with everything done that was asked for."""
        if self.transpose is not None:
            data = data.transpose(self.transpose)
        if self.channel_swap is not None:
            data = data[list(self.channel_swap)]
        return data if self.mean is None else (data - self.mean).astype(data.dtype)
