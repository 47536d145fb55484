"""``fluid.unique_name``."""

from millstream.ir import mode
from millstream.ir.names import UniqueNameGenerator, generate, guard, switch

__all__ = ["UniqueNameGenerator", "generate", "generate_with_ignorable_key", "guard", "switch"]


def generate_with_ignorable_key(key: str) -> str:
    """A new name ``key_N``; ``tmp_N`` in the eager mode."""
    return generate(key if mode.tracer() is None else "tmp")
