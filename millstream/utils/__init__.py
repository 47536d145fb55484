"""``paddle.utils``."""

from millstream.utils import image_util
from millstream.utils.plot import Ploter

__all__ = ["Ploter", "image_util"]
