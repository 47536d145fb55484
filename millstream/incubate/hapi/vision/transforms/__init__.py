"""``paddle.incubate.hapi.vision.transforms``."""

from millstream.incubate.hapi.vision.transforms.transforms import (
    BrightnessTransform,
    ColorJitter,
    ContrastTransform,
    HueTransform,
    SaturationTransform,
)

__all__ = ["BrightnessTransform", "ColorJitter", "ContrastTransform", "HueTransform", "SaturationTransform"]
