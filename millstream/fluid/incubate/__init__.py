"""``fluid.incubate``."""

from millstream.fluid.incubate import data_generator

__all__ = ["data_generator"]
