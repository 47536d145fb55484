"""``paddle.incubate.hapi``."""

from millstream.incubate.hapi import distributed, vision

__all__ = ["distributed", "vision"]
