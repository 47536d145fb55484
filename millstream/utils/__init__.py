"""``paddle.utils``."""

from millstream.utils.plot import Ploter

__all__ = ["Ploter"]
