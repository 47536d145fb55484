"""``paddle.incubate.hapi.vision``."""

from millstream.incubate.hapi.vision import transforms
from millstream.incubate.hapi.vision.transforms import (
    BrightnessTransform,
    ColorJitter,
    ContrastTransform,
    HueTransform,
    SaturationTransform,
)

__all__ = [
    "BrightnessTransform",
    "ColorJitter",
    "ContrastTransform",
    "HueTransform",
    "SaturationTransform",
    "transforms",
]
