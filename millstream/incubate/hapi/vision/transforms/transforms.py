"""Random changes of an image's colours.

An image is an array [height, width, 3] in the order blue, green, red, of uint8 or floats up to 255; results have the
image's dtype. Random numbers come from numpy's global generator, so ``np.random.seed`` repeats them.
"""

from __future__ import annotations

import random

import numpy as np

__all__ = ["BrightnessTransform", "ColorJitter", "ContrastTransform", "HueTransform", "SaturationTransform"]
_GRAY = np.array([0.114, 0.587, 0.299])  # of blue, green, red: ITU-R BT.601


def _as(values: np.ndarray, dtype: np.dtype) -> np.ndarray:
    return values.clip(0, 255).astype(dtype)


def _gray(image: np.ndarray) -> np.ndarray:
    return image.astype("float64") @ _GRAY


class _Factor:
    """A transform by a factor drawn from [1 - value, 1 + value], not below 0."""

    _name = ""

    def __init__(self, value: float) -> None:
        if value < 0:
            raise ValueError(f"{self._name} value should be non-negative, received {value}")
        self.value = value

    def _draw(self) -> float:
        return float(np.random.uniform(max(0, 1 - self.value), 1 + self.value))

    def _apply(self, image: np.ndarray, factor: float) -> np.ndarray:
        raise NotImplementedError

    def __call__(self, img: np.ndarray) -> np.ndarray:
        """The changed image; `img` itself when `value` is 0."""
        return img if self.value == 0 else _as(self._apply(img, self._draw()), img.dtype)


class BrightnessTransform(_Factor):
    """All colours times one factor.

    Args:
        value: the factor is drawn from [max(0, 1 - value), 1 + value]. ValueError: it is negative.
    """

    _name = "brightness"

    def _apply(self, image: np.ndarray, factor: float) -> np.ndarray:
        return image.astype("float32") * factor


class ContrastTransform(_Factor):
    """The distance from the image's mean gray times one factor.

    Args:
        value: the factor is drawn from [max(0, 1 - value), 1 + value]. ValueError: it is negative.
    """

    _name = "contrast"

    def _apply(self, image: np.ndarray, factor: float) -> np.ndarray:
        return image.astype("float32") * factor + _gray(image).mean() * (1 - factor)


class SaturationTransform(_Factor):
    """The distance from each pixel's gray times one factor.

    Args:
        value: the factor is drawn from [max(0, 1 - value), 1 + value]. ValueError: it is negative.
    """

    _name = "saturation"

    def _apply(self, image: np.ndarray, factor: float) -> np.ndarray:
        return image.astype("float32") * factor + _gray(image)[..., None] * (1 - factor)


class HueTransform:
    """The hue of all pixels turned by one angle.

    Args:
        value: the angle, in full turns, is drawn from [-value, value]. ValueError: it is not in [0, 0.5].
    """

    def __init__(self, value: float) -> None:
        if value < 0 or value > 0.5:
            raise ValueError(f"hue value should be in [0.0, 0.5], received {value}")
        self.value = value

    def __call__(self, img: np.ndarray) -> np.ndarray:
        """The changed image; `img` itself when `value` is 0."""
        if self.value == 0:
            return img
        hue, saturation, value = _to_hsv(img.astype("uint8"))
        steps = int(np.random.uniform(-self.value, self.value) * 255)
        return _from_hsv((hue + steps) % 256, saturation, value).astype(img.dtype)


def _to_hsv(image: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Hue and saturation and value in 0 .. 255 (hue 256 is the full turn)."""
    blue, green, red = (image[..., k].astype("float64") for k in range(3))
    top, span = image.max(-1).astype("float64"), np.ptp(image, -1).astype("float64")
    safe = np.where(span == 0, 1, span)
    sixth = np.where(
        top == red, (green - blue) / safe, np.where(top == green, 2 + (blue - red) / safe, 4 + (red - green) / safe)
    )
    hue = np.where(span == 0, 0, np.floor(sixth * 256 / 6 + 0.5)) % 256
    saturation = np.floor(255 * span / np.where(top == 0, 1, top) + 0.5)
    return hue, saturation, top


def _from_hsv(hue: np.ndarray, saturation: np.ndarray, value: np.ndarray) -> np.ndarray:
    sixth = hue * 6 / 255  # not the 256 of _to_hsv: so does OpenCV, whose numbers these are

    def channel(offset: int) -> np.ndarray:
        k = (offset + sixth) % 6
        return value - value * saturation / 255 * np.minimum(k, 4 - k).clip(0, 1)

    return np.floor(np.stack([channel(1), channel(3), channel(5)], -1) + 0.5).clip(0, 255)


class ColorJitter:
    """Brightness, contrast, saturation and hue in an order drawn once (by Python's generator).

    Args:
        brightness, contrast, saturation: see the transforms of these names; 0 leaves one out.
        hue: see HueTransform.
    """

    def __init__(self, brightness: float = 0, contrast: float = 0, saturation: float = 0, hue: float = 0) -> None:
        wanted = (
            (brightness, BrightnessTransform),
            (contrast, ContrastTransform),
            (saturation, SaturationTransform),
            (hue, HueTransform),
        )
        self.transforms = [kind(value) for value, kind in wanted if value != 0]
        random.shuffle(self.transforms)

    def __call__(self, img: np.ndarray) -> np.ndarray:
        """The changed image."""
        for transform in self.transforms:
            img = transform(img)
        return img
