"""``paddle.incubate``."""

from millstream.incubate import hapi

__all__ = ["hapi"]
