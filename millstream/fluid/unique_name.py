"""``fluid.unique_name``."""

from millstream.ir.names import UniqueNameGenerator, generate, guard, switch

__all__ = ["UniqueNameGenerator", "generate", "guard", "switch"]
