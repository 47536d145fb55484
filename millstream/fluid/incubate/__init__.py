"""``fluid.incubate``."""
